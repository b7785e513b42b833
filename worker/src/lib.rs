//! The library that applications are built on. An application is a program; each worker of a master is one.
//!
//! ```no_run
//! use serde::Serialize;
//! use worker::{App, Context, Request, Response, Result};
//!
//! #[derive(Serialize)]
//! struct Message {
//!     message: &'static str,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     worker::run(|boot| {
//!         let now = boot.database().statement("SELECT now()::text");
//!         Ok(App::with_state(now)
//!             // A plain handler never waits. It costs no allocation.
//!             .get("/json", |_, _| Response::json(&Message { message: "Hello, World!" }))
//!             // An asynchronous one reads the borrowed request first, then returns a future.
//!             .get_async("/now", |request, cx| {
//!                 let zone = request.query("zone").unwrap_or_default().into_owned();
//!                 let cx = cx.clone();
//!                 async move { now_in(zone, cx).await }
//!             })
//!             // A body is there whole when a plain handler is called.
//!             .post("/length", |request, _| format!("{}\n", request.bytes().len())))
//!     })
//! }
//!
//! async fn now_in(zone: String, cx: Context<worker::pg::Statement>) -> Result {
//!     let row = cx.database().query_one(cx.state(), &[]).await?; // Away: 503 with Retry-After.
//!     Ok(Response::text(format!("{} {zone}\n", row.str(0)?)))
//! }
//! ```
//!
//! `examples/notes.rs` is a longer one: JSON in and out, a database, an `async fn` that owns its request.
//!
//! # What the library sees to
//!
//! - One thread and one event loop ([`run`]): handlers share an object without locks ([`Context::state`]).
//! - HTTP/1.1 by the letter: framing, keep-alive, pipelining, HEAD, OPTIONS, `Date`, every refusal. A handler gives a
//!   status, fields and a body; it cannot inject a field, nor a second response.
//! - Bodies: gathered up to a limit for plain handlers (long ones in a file), piece by piece and with back-pressure for
//!   others ([`RequestBody::chunk`]).
//! - Responses that are long: made while they are sent ([`Response::stream`]), files by sendfile with conditional
//!   requests and ranges ([`Response::file`]), whole folders of them ([`App::files`]).
//! - Time limits on everything a client, a handler or the database can be slow at. A panic is a 500 and a log line.
//! - The worker's side of the contract with its master: readiness, heartbeat, drain, reopened logs. Started by hand,
//!   the same program serves alone.
//!
//! # What it never does
//!
//! It knows of no other worker; it never forks, and never kills.
//!
//! # Where to begin reading
//!
//! `event_loop.rs` (a turn), `connection.rs` (a client), `accept.rs` (the listeners), `run.rs` (from `main` to the loop).

#![forbid(unsafe_code)]

mod accept;
mod access;
mod app;
mod body;
mod buffer;
mod clock;
mod connection;
mod context;
mod contract;
mod core;
mod database;
mod drain;
mod error;
mod event_loop;
mod executor;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host;
mod log;
mod notices;
mod outgoing;
mod panics;
mod peer;
mod percent;
mod request;
mod response;
mod run;
mod service;
mod share;
mod slots;
mod spool;
mod stream;
mod trailers;
mod via;

pub use app::{App, owned};
pub use body::{BodyError, RequestBody};
pub use buffer::Buffer;
pub use context::{Boot, Context, Sleep};
pub use error::{Error, Result};
pub use files::Files;
pub use host::{
    AtWork, Detached, Host, HostBoot, HostError, HostRequest, Next, Preloader, Progress, RequestId,
    Responder, run_host,
};
pub use http1;
pub use http1::{Field, Fields, Method, ResponseError, Version};
pub use log::Log;
pub use net::Peer;
pub use outgoing::{BodySink, Closed};
pub use pg;
pub use request::{OwnedRequest, Request};
pub use response::{Body, IntoResponse, Response};
pub use run::{BootError, run};
pub use scoreboard::PATH_BYTES_MAX;
pub use spool::Spooled;
pub use trailers::Trailers;
pub use via::Trace;

// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
