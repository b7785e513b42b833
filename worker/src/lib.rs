//! The library that applications are built on, and the bundled application.

#![forbid(unsafe_code)]

mod accept;
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
mod log;
mod panics;
mod peer;
mod percent;
mod request;
mod response;
mod run;
mod service;
mod slots;
mod stream;

pub use app::{App, owned};
pub use body::{BodyError, RequestBody};
pub use buffer::Buffer;
pub use context::{Boot, Context, Sleep};
pub use error::{Error, Result};
pub use http1::{Field, Fields, Method, Version};
pub use log::Log;
pub use net::Peer;
pub use pg;
pub use request::{OwnedRequest, Request};
pub use response::{Body, IntoResponse, Response};
pub use run::{BootError, run};

// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
