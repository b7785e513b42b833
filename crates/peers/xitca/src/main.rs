//! xitca-web over xitca-postgres, on epoll: the io_uring of both needs a nightly compiler. The framework's own workers,
//! one pipelined PostgreSQL connection per worker.

mod database;

use peer_common::{Message, Options, Ready, count_in_path, count_in_query, json};
use xitca_web::App;
use xitca_web::body::ResponseBody;
use xitca_web::handler::handler_service;
use xitca_web::handler::state::StateRef;
use xitca_web::handler::uri::UriRef;
use xitca_web::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use xitca_web::http::{StatusCode, WebResponse};
use xitca_web::route::get;

use database::{Database, Error};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    let options = Options::from_args();
    let (url, ready) = (options.database.clone(), Ready::after(options.workers));
    App::new()
        .with_async_state(move || {
            let (url, ready) = (url.clone(), ready.clone());
            async move {
                let database = Database::connect(url).await?;
                ready.one();
                Ok::<_, Error>(database)
            }
        })
        .at("/json", get(handler_service(hello)))
        .at("/plaintext", get(handler_service(plaintext)))
        .at("/db", get(handler_service(db)))
        .at("/queries", get(handler_service(queries)))
        .at("/queries/{count}", get(handler_service(queries_in_path)))
        .at("/updates", get(handler_service(updates)))
        .at("/updates/{count}", get(handler_service(updates_in_path)))
        .at("/fortunes", get(handler_service(fortunes)))
        .serve()
        .worker_threads(options.workers)
        .bind(options.bind)?
        .run()
        .wait()
}

type Handle<'a> = StateRef<'a, Database>;

async fn hello() -> WebResponse {
    of_json(json(&Message { message: "Hello, World!" }, 32))
}

async fn plaintext() -> WebResponse {
    with_type("text/plain", "Hello, World!")
}

async fn db(StateRef(database): Handle<'_>) -> WebResponse {
    answer(database.world().await.map(|world| of_json(json(&world, 48))))
}

async fn queries(StateRef(database): Handle<'_>, uri: UriRef<'_>) -> WebResponse {
    read(database, count_in_query(uri.query())).await
}

async fn queries_in_path(StateRef(database): Handle<'_>, uri: UriRef<'_>) -> WebResponse {
    read(database, count_in_path(uri.path())).await
}

async fn read(database: &Database, count: usize) -> WebResponse {
    answer(database.worlds(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

async fn updates(StateRef(database): Handle<'_>, uri: UriRef<'_>) -> WebResponse {
    update(database, count_in_query(uri.query())).await
}

async fn updates_in_path(StateRef(database): Handle<'_>, uri: UriRef<'_>) -> WebResponse {
    update(database, count_in_path(uri.path())).await
}

async fn update(database: &Database, count: usize) -> WebResponse {
    answer(database.update(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

async fn fortunes(StateRef(database): Handle<'_>) -> WebResponse {
    answer(database.fortunes().await.map(|page| with_type("text/html; charset=utf-8", page)))
}

fn of_json(body: Vec<u8>) -> WebResponse {
    with_type("application/json", body)
}

fn with_type(content_type: &'static str, body: impl Into<ResponseBody>) -> WebResponse {
    let mut response = WebResponse::new(body.into());
    response.headers_mut().append(SERVER, HeaderValue::from_static("xitca"));
    response.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn answer(result: Result<WebResponse, Error>) -> WebResponse {
    result.unwrap_or_else(|_| {
        let mut response = WebResponse::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}
