//! The bundled application: the TechEmpower tests, written with the library's public interface alone.
//!
//! `worker` serves; `worker --create-tables` makes and fills the tables in the database of `DATABASE_URL`, and exits.

mod cached;
mod count;
mod fortunes;
mod html;
mod tables;
mod world;

use std::process::ExitCode;

use serde::Serialize;
use worker::{App, Boot, BootError, Context, Request, Response, pg};

use crate::cached::CachedWorlds;

/// What the handlers of one worker share.
struct State {
    world: pg::Statement,
    update: pg::Statement,
    fortunes: pg::Statement,
    cached: CachedWorlds,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => worker::run(application),
        (Some(argument), None) if argument == "--create-tables" => tables::create(),
        _ => tables::usage(),
    }
}

fn application(boot: &Boot) -> Result<App<State>, BootError> {
    let database = boot.database();
    let state = State {
        world: database.statement(world::SELECT),
        update: database.statement(world::UPDATE),
        fortunes: database.statement(fortunes::SELECT),
        cached: CachedWorlds::new(),
    };
    Ok(App::with_state(state)
        .get("/json", json)
        .get("/plaintext", plaintext)
        .get_async("/db", world::one)
        .get_async("/queries", world::several)
        .get_async("/queries/{count}", world::several)
        .get_async("/updates", world::update)
        .get_async("/updates/{count}", world::update)
        .get_async("/fortunes", fortunes::page)
        .get_async("/cached-queries", cached::several)
        .get_async("/cached-queries/{count}", cached::several))
}

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

fn json(_: &Request<'_>, _: &Context<State>) -> Response {
    Response::json(&Message { message: "Hello, World!" })
}

fn plaintext(_: &Request<'_>, _: &Context<State>) -> Response {
    Response::static_bytes("text/plain", b"Hello, World!")
}
