//! actix-web over tokio-postgres: actix's own accepting thread and workers, one pipelined PostgreSQL connection per worker.

use std::time::Duration;

use actix_web::http::KeepAlive;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use actix_web::web::{Data, get};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use peer_common::{Message, Options, Ready, count_in_path, count_in_query, json};
use peer_tokio_postgres::{Database, Error};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    actix_web::rt::System::new().block_on(serve(Options::from_args()))
}

async fn serve(options: Options) -> std::io::Result<()> {
    let (url, ready) = (options.database.clone(), Ready::after(options.workers));
    HttpServer::new(move || {
        let (url, ready) = (url.clone(), ready.clone());
        App::new()
            .data_factory(move || {
                let (url, ready) = (url.clone(), ready.clone());
                async move {
                    let database = Database::connect(&url).await?;
                    ready.one();
                    Ok::<_, Error>(database)
                }
            })
            .route("/json", get().to(hello))
            .route("/plaintext", get().to(plaintext))
            .route("/db", get().to(db))
            .route("/queries", get().to(queries))
            .route("/queries/{count}", get().to(queries_in_path))
            .route("/updates", get().to(updates))
            .route("/updates/{count}", get().to(updates_in_path))
            .route("/fortunes", get().to(fortunes))
    })
    .workers(options.workers)
    // As the published benchmark entries: no timers per connection, and small answers leave at once.
    .keep_alive(KeepAlive::Os)
    .client_request_timeout(Duration::ZERO)
    .tcp_nodelay(true)
    .bind(options.bind)?
    .run()
    .await
}

type Handle = Data<Database>;

async fn hello() -> HttpResponse {
    of_json(json(&Message { message: "Hello, World!" }, 32))
}

async fn plaintext() -> HttpResponse {
    let mut response = HttpResponse::Ok().body("Hello, World!");
    add_headers(&mut response, "text/plain");
    response
}

async fn db(database: Handle) -> HttpResponse {
    answer(database.world().await.map(|world| of_json(json(&world, 48))))
}

async fn queries(database: Handle, request: HttpRequest) -> HttpResponse {
    read(database, count_in_query(request.uri().query())).await
}

async fn queries_in_path(database: Handle, request: HttpRequest) -> HttpResponse {
    read(database, count_in_path(request.path())).await
}

async fn read(database: Handle, count: usize) -> HttpResponse {
    answer(database.worlds(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

async fn updates(database: Handle, request: HttpRequest) -> HttpResponse {
    update(database, count_in_query(request.uri().query())).await
}

async fn updates_in_path(database: Handle, request: HttpRequest) -> HttpResponse {
    update(database, count_in_path(request.path())).await
}

async fn update(database: Handle, count: usize) -> HttpResponse {
    answer(database.update(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

async fn fortunes(database: Handle) -> HttpResponse {
    answer(database.fortunes().await.map(|page| {
        let mut response = HttpResponse::Ok().body(page);
        add_headers(&mut response, "text/html; charset=utf-8");
        response
    }))
}

fn of_json(body: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::Ok().body(body);
    add_headers(&mut response, "application/json");
    response
}

fn add_headers(response: &mut HttpResponse, content_type: &'static str) {
    response.headers_mut().insert(SERVER, HeaderValue::from_static("actix"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
}

fn answer(result: Result<HttpResponse, Error>) -> HttpResponse {
    result.unwrap_or_else(|_| HttpResponse::InternalServerError().finish())
}
