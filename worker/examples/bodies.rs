//! Bodies of every kind, in and out: echo, uploads, streams, files, and a record of what was received.
//!
//! `cargo run -p worker --example bodies`, then `curl -T FILE http://127.0.0.1:8000/upload`. The tests drive it, and so
//! do the stories of the master: a route that takes POST.

use std::cell::RefCell;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use worker::{
    App, Context, Error, Files, Method, OwnedRequest, Request, Response, Result, Spooled, owned,
};

/// Requests that are remembered for `/received`.
const RECEIVED_MAX: usize = 10_000;

/// What the handlers of a worker share: a line for each request that was recorded.
type Received = RefCell<Vec<String>>;

fn main() -> ExitCode {
    worker::run(|_| {
        let mut app = App::with_state(Received::default())
            .get("/json", |_, _| Response::json(&["fine"]))
            .post("/echo", |request, _| {
                Response::bytes("application/octet-stream", request.bytes().to_vec())
            })
            .post("/where", store)
            .post_async("/upload", owned(upload))
            .route_async(Method::Put, "/upload", owned(upload))
            .post("/trailers", |request, _| fields(request.trailers().iter()))
            .post_async("/trailers/later", |request, _| {
                let mut body = request.body();
                async move {
                    while body.chunk().await?.is_some() {}
                    Ok::<_, Error>(fields(body.trailers().iter()))
                }
            })
            .post_async("/echo/stream", |request, _| {
                let mut body = request.body();
                async move {
                    Response::stream("application/octet-stream", |mut sink| async move {
                        while let Some(piece) = body.chunk().await? {
                            sink.write(&piece).await?;
                        }
                        Ok(())
                    })
                }
            })
            .get("/stream/{bytes}", stream)
            .get("/stream/{bytes}/of/{declared}", |request, cx| {
                let declared = number::<u64>(request, "declared").to_string();
                stream(request, cx).header("Content-Length", declared)
            })
            .get("/ticks/{count}", ticks)
            .get("/fail/after/{bytes}", |request, _| {
                let bytes: usize = number(request, "bytes");
                Response::stream("text/plain", move |mut sink| async move {
                    sink.write(vec![b'x'; bytes]).await?;
                    Err(Error::internal("the source dried up"))
                })
            })
            .get("/stuck", |_, cx| {
                let cx = cx.clone();
                Response::stream("text/plain", |mut sink| async move {
                    sink.write("first").await?;
                    cx.sleep(Duration::from_secs(3600)).await;
                    Ok(())
                })
            })
            .get("/sum", |_, _| {
                Response::stream("text/plain", |mut sink| async move {
                    sink.write("counted").await?;
                    sink.trailer("X-Sum", "7");
                    sink.trailer("Content-Length", "9");
                    sink.trailer("X-Bad", "a\r\nX-Injected: 1");
                    Ok(())
                })
            })
            .get("/inject", |_, _| {
                Response::stream("text/plain", |_| async { Ok(()) })
                    .header("X-Bad", "a\r\nX-Injected: 1")
            })
            .get_async("/hints", |_, cx| {
                let cx = cx.clone();
                async move {
                    cx.early_hints(&[("Link", "</style.css>; rel=preload; as=style")])?;
                    cx.sleep(Duration::from_millis(20)).await;
                    Ok::<_, Error>(Response::html("<link rel=stylesheet href=/style.css>"))
                }
            })
            .get("/received", |_, cx| Response::json(&*cx.state().borrow()))
            .route(Method::Delete, "/received", |_, cx| {
                cx.state().borrow_mut().clear();
                Response::status(204)
            });
        for method in [Method::Get, Method::Post, Method::Put] {
            app = app.route(method, "/seen/{*rest}", seen);
        }
        if let Some(folder) = std::env::var_os("BODIES_FILES") {
            let files = Files::of(PathBuf::from(folder));
            app = app.files("/static", files.clone().cache_control("max-age=60"));
            app = app.files("/bare", files.index(None));
        }
        Ok(app)
    })
}

fn number<S>(request: &Request<'_>, name: &str) -> S
where
    S: std::str::FromStr + Default,
{
    request.param(name).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Says where a gathered body is, how long it is, and its sum.
fn store(request: &Request<'_>, _: &Context<Received>) -> Response {
    let place = match request.spooled() {
        Some(body) if body.file().is_some() => "file",
        Some(_) => "memory",
        None => "nowhere",
    };
    let bytes = request.bytes();
    let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
    Response::text(format!("{place} {} {sum}\n", bytes.len()))
}

/// The same for an asynchronous handler, which lets the library gather.
async fn upload(request: OwnedRequest, cx: Context<Received>) -> Result {
    let mut body: Spooled = request.into_body().spool(&cx).await?;
    let place = if body.file().is_some() { "file" } else { "memory" };
    let (mut sum, mut bytes) = (0, 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = body.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        bytes += count;
        sum += buffer[..count].iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }
    Ok(Response::text(format!("{place} {bytes} {sum}\n")))
}

fn fields<'f>(fields: impl Iterator<Item = (&'f [u8], &'f [u8])>) -> Response {
    let mut text = String::new();
    for (name, value) in fields {
        text += &format!("{}={}\n", name.escape_ascii(), value.escape_ascii());
    }
    Response::text(text)
}

/// So many bytes, made in pieces.
fn stream(request: &Request<'_>, _: &Context<Received>) -> Response {
    let mut left: usize = number(request, "bytes");
    Response::stream("application/octet-stream", move |mut sink| async move {
        let piece = [b's'; 10_000];
        while left != 0 {
            let count = left.min(piece.len());
            sink.write(&piece[..count]).await?;
            left -= count;
        }
        Ok(())
    })
}

/// A line every few milliseconds.
fn ticks(request: &Request<'_>, cx: &Context<Received>) -> Response {
    let (count, cx) = (number::<u32>(request, "count"), cx.clone());
    Response::stream("text/plain; charset=utf-8", move |mut sink| async move {
        for tick in 0..count {
            sink.write(format!("{tick}\n")).await?;
            sink.flush().await?;
            cx.sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
}

/// Remembers what was received: method, target, length and sum of the body.
fn seen(request: &Request<'_>, cx: &Context<Received>) -> Response {
    let body = request.bytes();
    let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
    let line = format!("{} {} {} {sum}", request.method(), request.target(), body.len());
    let mut received = cx.state().borrow_mut();
    if received.len() < RECEIVED_MAX {
        received.push(line.clone());
    }
    Response::text(line + "\n")
}
