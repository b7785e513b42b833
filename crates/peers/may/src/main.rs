//! may_minihttp, one coroutine per connection, with one pipelined PostgreSQL connection per worker thread.
//!
//! The framework's own PostgreSQL client is not on the registry. `link` does what that client does, on the same
//! coroutines and over `postgres-protocol`: all requests of a worker share one connection, every query has its own Sync,
//! and whatever is asked for meanwhile leaves in one write.

mod connect;
mod database;
mod link;

use std::io;
use std::sync::Arc;

use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};
use peer_common::{Message, Options, count_in_path, count_in_query, json};

use database::Database;
use link::Link;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<()> {
    let options = Options::from_args();
    may::config().set_workers(options.workers);
    // The load generator and PostgreSQL share the cores.
    may::config().set_worker_pin(false);
    let links = (0..options.workers)
        .map(|worker| connect::open(&options.database, worker))
        .collect::<io::Result<_>>()?;
    let server = Factory { links }.start(options.bind)?;
    println!("ready");
    server.join().map_err(|_| io::Error::other("the accepting coroutine has panicked"))
}

struct Factory {
    links: Vec<Arc<Link>>,
}

impl HttpServiceFactory for Factory {
    type Service = Service;

    /// The framework runs a connection's coroutine on worker `id % workers`; that worker's link is on the same thread.
    fn new_service(&self, id: usize) -> Service {
        Service { database: Database::new(self.links[id % self.links.len()].clone()) }
    }
}

struct Service {
    database: Database,
}

impl HttpService for Service {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        if request.method() != "GET" {
            response.status_code(405, "Method Not Allowed");
            return Ok(());
        }
        let (path, query) = match request.path().split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.path(), None),
        };
        match path {
            "/json" => of_json(response, json(&Message { message: "Hello, World!" }, 32)),
            "/plaintext" => {
                response.header("Content-Type: text/plain").body("Hello, World!");
            }
            "/db" => of_json(response, json(&self.database.world()?, 48)),
            "/queries" => self.queries(count_in_query(query), response)?,
            "/updates" => self.updates(count_in_query(query), response)?,
            "/fortunes" => {
                let page = self.database.fortunes()?;
                response
                    .header("Content-Type: text/html; charset=utf-8")
                    .body_vec(page.into_bytes());
            }
            path if path.starts_with("/queries/") => self.queries(count_in_path(path), response)?,
            path if path.starts_with("/updates/") => self.updates(count_in_path(path), response)?,
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

impl Service {
    fn queries(&mut self, count: usize, response: &mut Response) -> io::Result<()> {
        of_json(response, json(&self.database.worlds(count)?, 48 * count));
        Ok(())
    }

    fn updates(&mut self, count: usize, response: &mut Response) -> io::Result<()> {
        of_json(response, json(&self.database.update(count)?, 48 * count));
        Ok(())
    }
}

fn of_json(response: &mut Response, body: Vec<u8>) {
    response.header("Content-Type: application/json").body_vec(body);
}
