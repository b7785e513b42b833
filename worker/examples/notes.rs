//! A small application: a greeting, and notes kept in PostgreSQL.
//!
//! ```sh
//! export DATABASE_URL=postgresql://user@localhost/notes
//! cargo run -p worker --example notes             # alone, on http://127.0.0.1:8000
//! master --workers 4 target/debug/examples/notes  # under a master: reload, upgrade and stop without losing a request
//!
//! curl http://127.0.0.1:8000/hello/you
//! curl http://127.0.0.1:8000/notes -d '{"text": "buy milk"}'
//! curl http://127.0.0.1:8000/notes
//! ```

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use worker::{
    App, Boot, BootError, Context, Error, OwnedRequest, Request, Response, Result, owned,
};

/// What all handlers of one worker share.
struct State {
    insert: pg::Statement,
    list: pg::Statement,
}

#[derive(Serialize)]
struct Note {
    id: i32,
    text: String,
}

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

fn main() -> ExitCode {
    worker::run(build)
}

/// Called once in each worker, before it serves.
fn build(boot: &Boot) -> std::result::Result<App<State>, BootError> {
    let database = boot.database();
    let state = State {
        insert: database.statement("INSERT INTO notes (text) VALUES ($1) RETURNING id"),
        list: database.statement("SELECT id, text FROM notes ORDER BY id"),
    };
    Ok(App::with_state(state)
        .get("/hello/{name}", hello)
        .get_async("/notes", list)
        .post_async("/notes", owned(create)))
}

/// A plain handler: it never waits, so it answers at once.
fn hello(request: &Request<'_>, _: &Context<State>) -> Response {
    let name = request.param("name").unwrap_or_default();
    Response::text(format!("Hello, {name}!\n"))
}

/// An asynchronous handler: takes what it needs of the borrowed request, and returns a future.
fn list(request: &Request<'_>, cx: &Context<State>) -> impl Future<Output = Result> + use<> {
    let limit = request.query("limit").and_then(|text| text.parse().ok()).unwrap_or(100);
    let cx = cx.clone();
    async move {
        // While the database is away, `?` answers 503 with Retry-After.
        let rows = cx.database().query(&cx.state().list, &[]).await?;
        let mut notes = Vec::new();
        for row in rows.iter().take(limit) {
            notes.push(Note { id: row.get(0)?, text: row.get(1)? });
        }
        Ok(Response::json(&notes))
    }
}

/// The same as an `async fn`: the request is its own copy.
async fn create(request: OwnedRequest, cx: Context<State>) -> Result {
    let note: NewNote = request.into_body().json().await?;
    if note.text.is_empty() {
        return Err(Error::status(422));
    }
    let row = cx.database().query_one(&cx.state().insert, &[&note.text]).await?;
    let note = Note { id: row.get(0)?, text: note.text };
    Ok(Response::json(&note).with_status(201).header("Location", format!("/notes/{}", note.id)))
}
