//! axum over hyper and tokio-postgres: one single-threaded runtime, one listening socket and one pipelined
//! PostgreSQL connection per worker thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, SERVER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use peer_common::{Message, Options, Ready, count_in_path, count_in_query, json};
use peer_tokio_postgres::{Database, Error};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest queue of connections not yet accepted, per socket.
const BACKLOG: i32 = 4096;

fn main() {
    let options = Options::from_args();
    let ready = Ready::after(options.workers);
    let threads: Vec<_> = (0..options.workers)
        .map(|_| {
            let (options, ready) = (options.clone(), ready.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(serve(options, ready)).expect("to serve");
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
}

async fn serve(options: Options, ready: Ready) -> io::Result<()> {
    let database = Database::connect(&options.database).await.expect("a connection to PostgreSQL");
    let app = Router::new()
        .route("/json", get(hello))
        .route("/plaintext", get(plaintext))
        .route("/db", get(db))
        .route("/queries", get(queries))
        .route("/queries/{count}", get(queries_in_path))
        .route("/updates", get(updates))
        .route("/updates/{count}", get(updates_in_path))
        .route("/fortunes", get(fortunes))
        .with_state(Arc::new(database));
    let listener = listen(options.bind)?;
    ready.one();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let _ = http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A socket of this thread's own; the kernel deals connections among them.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

type Handle = State<Arc<Database>>;

async fn hello() -> Response {
    of_json(json(&Message { message: "Hello, World!" }, 32))
}

async fn plaintext() -> Response {
    with_type("text/plain", "Hello, World!".into())
}

async fn db(State(database): Handle) -> Response {
    answer(database.world().await.map(|world| of_json(json(&world, 48))))
}

async fn queries(database: Handle, RawQuery(query): RawQuery) -> Response {
    read(database, count_in_query(query.as_deref())).await
}

async fn queries_in_path(database: Handle, uri: Uri) -> Response {
    read(database, count_in_path(uri.path())).await
}

async fn read(State(database): Handle, count: usize) -> Response {
    answer(database.worlds(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

async fn updates(database: Handle, RawQuery(query): RawQuery) -> Response {
    update(database, count_in_query(query.as_deref())).await
}

async fn updates_in_path(database: Handle, uri: Uri) -> Response {
    update(database, count_in_path(uri.path())).await
}

async fn update(State(database): Handle, count: usize) -> Response {
    answer(database.update(count).await.map(|worlds| of_json(json(&worlds, 48 * count))))
}

async fn fortunes(State(database): Handle) -> Response {
    answer(database.fortunes().await.map(|page| with_type("text/html; charset=utf-8", page.into())))
}

fn of_json(body: Vec<u8>) -> Response {
    with_type("application/json", body.into())
}

fn with_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(SERVER, HeaderValue::from_static("axum"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn answer(result: Result<Response, Error>) -> Response {
    result.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
