//! The command line, the same for every peer: `--bind ADDRESS:PORT --workers N --database URL`.

use std::net::SocketAddr;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the command line says.
#[derive(Clone)]
pub struct Options {
    /// Where to listen.
    pub bind: SocketAddr,
    /// How many serving threads; each has one connection to PostgreSQL.
    pub workers: usize,
    /// `postgres://user:password@host/database`; the host may be a percent-encoded folder with a unix socket.
    pub database: String,
}

impl Options {
    /// Reads the command line; a mistake ends the program with status 2.
    pub fn from_args() -> Options {
        let (mut bind, mut workers, mut database) = (None, Some(1), None);
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let Some(value) = args.next() else { usage(&format!("{name} needs a value")) };
            match name.as_str() {
                "--bind" => bind = value.parse().ok(),
                "--workers" => workers = value.parse().ok().filter(|&number| number > 0),
                "--database" => database = Some(value),
                _ => usage(&format!("unknown option {name}")),
            }
        }
        match (bind, workers, database) {
            (Some(bind), Some(workers), Some(database)) => Options { bind, workers, database },
            _ => usage("an option is missing or not understood"),
        }
    }
}

fn usage(complaint: &str) -> ! {
    eprintln!(
        "{complaint}\nusage: PROGRAM --bind 127.0.0.1:PORT --workers N --database postgres://…"
    );
    exit(2)
}

/// Prints `ready` when the last worker is connected to PostgreSQL and the sockets listen.
#[derive(Clone)]
pub struct Ready(Arc<AtomicUsize>);

impl Ready {
    /// Waits for so many calls of [`Ready::one`].
    pub fn after(workers: usize) -> Ready {
        Ready(Arc::new(AtomicUsize::new(workers)))
    }

    /// One worker is ready.
    pub fn one(&self) {
        if self.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            println!("ready");
        }
    }
}
