//! The program `admin`: shows what the server does, from the scoreboard alone.
//!
//! - A process of its own beside the workers, started by the master: it answers when workers hang, and no client byte
//!   reaches the master. A worker like any other in its own contract, but for the listeners' names and the scoreboard.
//! - Reads, never writes: a mistake here harms nobody. Text is made when somebody asks for it.

#![forbid(unsafe_code)]

mod apache;
mod health;
mod json;
mod observer;
mod page;
mod proc;
mod prometheus;
mod statsd;

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use scoreboard::Scoreboard;
use shared::contract;
use worker::{App, Boot, BootError, Context, Response};

use observer::Observer;
use statsd::Exporter;

/// Time between two signs of life for the master.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Time between two looks at what is to be sent to StatsD.
const STATSD_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let exporter: Rc<RefCell<Option<Exporter>>> = Rc::default();
    let started = Rc::clone(&exporter);
    let code = worker::run(move |boot| build(boot, &started));
    // What happened since the last look, the workers' last requests among it.
    if let Some(exporter) = &mut *exporter.borrow_mut() {
        exporter.send();
    }
    code
}

fn build(
    boot: &Boot,
    exporter: &Rc<RefCell<Option<Exporter>>>,
) -> Result<App<Observer>, BootError> {
    let board = observed()?.leak();
    // Here, because the library has just called it a worker.
    sys::title::set("monoceros: admin");
    if let Some(master) = net::notify::Notifier::from_env()? {
        // A master that is gone is noticed by the worker library.
        boot.every(BEAT_EVERY, move || drop(master.send("WATCHDOG=1")));
    }
    if let Some(new) = Exporter::from_settings(boot.settings(), board)? {
        *exporter.borrow_mut() = Some(new);
        let exporter = Rc::clone(exporter);
        boot.every(STATSD_EVERY, move || {
            if let Some(exporter) = &mut *exporter.borrow_mut() {
                exporter.send();
            }
        });
    }
    Ok(App::with_state(Observer::new(board))
        .get("/metrics", |_, cx: &Context<Observer>| {
            text("text/plain; version=0.0.4; charset=utf-8", prometheus::page(&cx.state().look()))
        })
        .get("/livez", |_, cx: &Context<Observer>| answer(health::live(&cx.state().look())))
        .get("/readyz", |_, cx: &Context<Observer>| answer(health::ready(&cx.state().look())))
        .get("/status.json", |_, cx: &Context<Observer>| {
            text("application/json", json::page(&cx.state().look()))
        })
        .get("/status", |request, cx: &Context<Observer>| {
            let view = cx.state().look();
            if request.query_string() == Some("auto") {
                text("text/plain; charset=utf-8", apache::page(&view))
            } else {
                text("text/html; charset=utf-8", page::page(&view))
            }
        })
        .get("/", |_, _| text("text/html; charset=utf-8", page::INDEX.to_owned())))
}

/// The scoreboard, as the master passed it.
fn observed() -> Result<Scoreboard, BootError> {
    let missing =
        || format!("{} is not set: this program is started by the master", contract::OBSERVED);
    let number = std::env::var(contract::OBSERVED).map_err(|_| missing())?;
    let number = number.parse().map_err(|_| missing())?;
    Ok(Scoreboard::open(sys::fd::adopt(number)?)?)
}

/// Every answer ends its connection: an idle one would delay the end of the server.
fn text(content_type: &'static str, body: String) -> Response {
    Response::bytes(content_type, body).header("Cache-Control", "no-store").and_close()
}

fn answer(health: health::Health) -> Response {
    let (status, word) = health;
    text("application/json", format!("{{\"status\":\"{word}\"}}\n")).with_status(status)
}
