//! ntex's HTTP service over tokio-postgres: ntex's own accepting thread and workers, one pipelined PostgreSQL connection
//! per worker. (Its own fork of the PostgreSQL client is not on the registry.)
//!
//! Routes by `match`, one level below `ntex::web`, which is the quicker way of the two.

use std::io;
use std::rc::Rc;

use ntex::SharedCfg;
use ntex::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use ntex::http::{
    HttpService, HttpServiceConfig, KeepAlive, Method, Request, Response, StatusCode,
};
use ntex::service::fn_service;
use ntex::time::Seconds;
use ntex::util::Bytes;
use peer_common::{Message, Options, Ready, count_in_path, count_in_query, json};
use peer_tokio_postgres::{Database, Error};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[ntex::main]
async fn main() -> io::Result<()> {
    let options = Options::from_args();
    let (url, ready) = (options.database.clone(), Ready::after(options.workers));
    // No timers per connection, as the other peers.
    let http =
        HttpServiceConfig::new().set_keepalive(KeepAlive::Os).set_client_timeout(Seconds::ZERO);
    ntex::server::build()
        .workers(options.workers)
        .bind("peer", options.bind, async move |_| {
            let database =
                Rc::new(Database::connect(&url).await.expect("a connection to PostgreSQL"));
            ready.one();
            HttpService::new(fn_service(move |request| serve(request, database.clone())))
        })?
        .config("peer", SharedCfg::new("peer").add(http))
        .run()
        .await
}

async fn serve(request: Request, database: Rc<Database>) -> Result<Response, io::Error> {
    if request.method() != Method::GET {
        return Ok(Response::new(StatusCode::METHOD_NOT_ALLOWED));
    }
    Ok(match request.path() {
        "/json" => of_json(json(&Message { message: "Hello, World!" }, 32)),
        "/plaintext" => ok("text/plain", Bytes::from_static(b"Hello, World!")),
        "/db" => answer(database.world().await.map(|world| of_json(json(&world, 48)))),
        "/queries" => read(&database, count_in_query(request.uri().query())).await,
        "/updates" => update(&database, count_in_query(request.uri().query())).await,
        "/fortunes" => answer(
            database.fortunes().await.map(|page| ok("text/html; charset=utf-8", page.into())),
        ),
        path if path.starts_with("/queries/") => read(&database, count_in_path(path)).await,
        path if path.starts_with("/updates/") => update(&database, count_in_path(path)).await,
        _ => Response::new(StatusCode::NOT_FOUND),
    })
}

async fn read(database: &Database, count: usize) -> Response {
    answer(database.worlds(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

async fn update(database: &Database, count: usize) -> Response {
    answer(database.update(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

fn of_json(body: Vec<u8>) -> Response {
    ok("application/json", body.into())
}

fn ok(content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::with_body(StatusCode::OK, body.into());
    response.headers_mut().append(SERVER, HeaderValue::from_static("ntex"));
    response.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn answer(result: Result<Response, Error>) -> Response {
    result.unwrap_or_else(|_| Response::new(StatusCode::INTERNAL_SERVER_ERROR))
}
