//! The bundled application: the TechEmpower tests.

use std::process::ExitCode;

use serde::Serialize;
use worker::{App, Context, Request, Response};

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

fn main() -> ExitCode {
    worker::run(|_| Ok(App::new().get("/json", json).get("/plaintext", plaintext)))
}

fn json(_: &Request<'_>, _: &Context) -> Response {
    Response::json(&Message { message: "Hello, World!" })
}

fn plaintext(_: &Request<'_>, _: &Context) -> Response {
    Response::static_bytes("text/plain", b"Hello, World!")
}
