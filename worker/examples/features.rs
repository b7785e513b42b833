//! Every feature of the library on one page, a route each. The tests drive it.
//!
//! `cargo run -p worker --example features`, then `curl -i http://127.0.0.1:8000/hello/you`.

use std::process::ExitCode;
use std::time::Duration;

use worker::{App, Context, Error, Method, OwnedRequest, Request, Response, Result, owned};

fn main() -> ExitCode {
    worker::run(|boot| {
        if std::env::var_os("FEATURES_BROKEN").is_some() {
            return Err("the variable FEATURES_BROKEN is set".into());
        }
        boot.log().debug(format_args!("Building the application slot={}", boot.slot()));
        Ok(App::new()
            .get("/hello/{name}", hello)
            .post("/echo", |request, _| {
                Response::bytes("application/octet-stream", request.bytes().to_vec())
            })
            .post_async("/count", owned(count))
            .post_async("/ignore", |_, _| async { "not read\n" })
            .route(Method::Delete, "/echo", |_, _| Response::status(204))
            .get_async("/sleep/{ms}", sleep)
            .get("/block/{ms}", |request, _| {
                std::thread::sleep(Duration::from_millis(number(request, "ms")));
                "blocked\n"
            })
            .get("/big/{bytes}", |request, _| {
                Response::text(vec![b'x'; number(request, "bytes") as usize])
            })
            .post_async("/big/{bytes}", |request, _| {
                let bytes = number(request, "bytes") as usize;
                async move { Response::text(vec![b'x'; bytes]) }
            })
            .get("/panic", |_, _| -> Response { panic!("a plain handler's mistake") })
            .get_async("/panic/later", |_, cx| {
                let wait = cx.sleep(Duration::from_millis(1));
                async move {
                    wait.await;
                    assert!(std::hint::black_box(false), "an asynchronous handler's mistake");
                    "never"
                }
            })
            .get_async("/panic/at/the/end", |_, cx| {
                let wait = cx.sleep(Duration::from_secs(3600));
                let bad = BadEnd;
                async move {
                    let _bad = bad;
                    wait.await;
                    "never"
                }
            })
            .get("/panic/at/the/end/of/stream/{bytes}", |request, cx| {
                let bytes = number(request, "bytes") as usize;
                let wait = cx.sleep(Duration::from_secs(3600));
                let bad = BadEnd;
                Response::stream("text/plain", move |mut body| async move {
                    let _bad = bad;
                    body.write(vec![b'x'; bytes]).await?;
                    wait.await;
                    Ok(())
                })
                .header("Content-Length", "10")
            })
            .get("/panic/at/the/end/of/a/task", |_, cx| {
                let wait = cx.sleep(Duration::from_secs(3600));
                let bad = BadEnd;
                cx.spawn(async move {
                    let _bad = bad;
                    wait.await;
                });
                "spawned\n"
            })
            .get("/hints/of/a/task", |_, cx| {
                let kept = cx.clone();
                cx.spawn(async move {
                    let _ = kept.early_hints(&[("Link", "</nobody.css>; rel=preload")]);
                });
                "spawned\n"
            })
            .get("/typed/twice", |_, _| {
                Response::text("{}").header("content-type", "application/problem+json")
            })
            .get("/upgrade", |_, _| {
                Response::text("speak another protocol\n")
                    .with_status(426)
                    .header("Upgrade", "chat/2")
                    .header("Proxy-Authenticate", "Basic")
            })
            .get("/fail", |_, _| -> Result {
                Ok(Response::text(std::fs::read("/nonexistent/file")?))
            })
            .get_async("/database/sleep/{ms}", |request, cx| {
                let (seconds, cx) = (number(request, "ms") as f64 / 1000.0, cx.clone());
                async move {
                    let sleep = cx.database().statement("SELECT pg_sleep($1)");
                    cx.database().query(&sleep, &[&seconds]).await?;
                    Ok::<_, Error>("slept\n")
                }
            })
            .get_async("/database/prepared", |_, cx| {
                let cx = cx.clone();
                async move {
                    let count = "SELECT count(*)::text FROM pg_prepared_statements";
                    let count = cx.database().statement(count);
                    let row = cx.database().query_one(&count, &[]).await?;
                    Ok::<_, Error>(row.str(0)?.to_owned())
                }
            })
            .get_async("/database/transaction/{ms}", |request, cx| {
                let (seconds, cx) = (number(request, "ms") as f64 / 1000.0, cx.clone());
                async move {
                    let transaction = cx.database().transaction().await?;
                    transaction.query("SELECT pg_sleep($1)", &[&seconds]).await?;
                    transaction.commit().await?;
                    Ok::<_, Error>("committed\n")
                }
            })
            .get_async("/database/hold/{ms}", |request, cx| {
                let (wait, cx) = (Duration::from_millis(number(request, "ms")), cx.clone());
                async move {
                    let transaction = cx.database().transaction().await?;
                    cx.sleep(wait).await;
                    transaction.commit().await?;
                    Ok::<_, Error>("held\n")
                }
            })
            .get_async("/database/error", |_, cx| {
                let cx = cx.clone();
                async move {
                    let transaction = cx.database().transaction().await?;
                    transaction.batch_execute("SELECT 1/0").await?;
                    Ok::<_, Error>("never\n")
                }
            })
            .get("/refuse", |_, _| -> Result { Err(Error::status(403)) })
            .get("/inject", |_, _| {
                Response::text("x").header("X-Name", "a\r\nSet-Cookie: stolen=1")
            })
            .get("/close", |_, _| Response::text("last\n").and_close())
            .get("/thread", |_, cx| thread(cx))
            .get("/via", |request, _| {
                let client = request.client_addr().map(|address| address.to_string());
                let trace = request.trace().map_or("-", |trace| trace.trace_id());
                let id = request.request_id().unwrap_or("-");
                Response::text(format!(
                    "{} {} {id} {trace}\n",
                    request.scheme(),
                    client.as_deref().unwrap_or("-")
                ))
            })
            .get_async("/via/later", owned(via))
            .body_bytes_max(64 * 1024))
    })
}

/// What must not be done: a panic while it is dropped.
struct BadEnd;

impl Drop for BadEnd {
    fn drop(&mut self) {
        assert!(std::hint::black_box(false), "a bad end");
    }
}

async fn via(request: OwnedRequest, _: Context) -> Response {
    let id = request.request_id().unwrap_or("-");
    Response::text(format!("{} {:?} {id}\n", request.scheme(), request.client_addr()))
}

fn number(request: &Request<'_>, name: &str) -> u64 {
    request.param(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn hello(request: &Request<'_>, _: &Context) -> Response {
    let name = request.param("name").unwrap_or_default();
    let greeting = request.query("greeting").unwrap_or("Hello".into());
    Response::text(format!("{greeting}, {name}!\n"))
        .header("X-Method", request.method().as_str().to_owned())
}

/// Reads a body of any length piece by piece, without keeping it.
async fn count(mut request: OwnedRequest, _: Context) -> Result {
    let mut bytes = 0;
    while let Some(chunk) = request.body_mut().chunk().await? {
        bytes += chunk.len();
    }
    Ok(Response::text(format!("{bytes}\n")))
}

fn sleep(request: &Request<'_>, cx: &Context) -> impl Future<Output = &'static str> + use<> {
    let wait = cx.sleep(Duration::from_millis(number(request, "ms")));
    async {
        wait.await;
        "slept\n"
    }
}

/// Work on another thread wakes the loop through the task's waker, as any future may.
fn thread(cx: &Context) -> Response {
    cx.spawn(async {
        let mut is_started = false;
        std::future::poll_fn(move |task| {
            if is_started {
                return std::task::Poll::Ready(());
            }
            is_started = true;
            let waker = task.waker().clone();
            std::thread::spawn(move || waker.wake());
            std::task::Poll::Pending
        })
        .await;
    });
    Response::text("spawned\n")
}
