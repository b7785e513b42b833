//! The floor that benchmarks measure against: `floor --bind ADDRESS --workers N [--postgres SOCKET] [--close]`.
//!
//! A bare epoll responder and a hand-written PostgreSQL pipeline, in N processes. It answers what the load client
//! asks and nothing else: no router, no limits, no timeouts, no refusals, no reconnecting. What it costs is the
//! price of the kernel and of PostgreSQL; whatever a real server costs more is its own.
//!
//! - It is honest: responses are composed for each request, every query has its own Sync, nothing is cached.
//! - It trusts its input completely. Never let anything but a load client of your own near it.

#![forbid(unsafe_code)]

mod pages;
mod postgres;
mod serve;

use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;

use nix::sys::signal::Signal;
use sys::spawn::{Child, Spawn};

struct Options {
    bind: SocketAddr,
    workers: usize,
    /// Path of PostgreSQL's socket, or `HOST:PORT`.
    postgres: Option<String>,
    /// Each connection has one answer, whatever its request says.
    close: bool,
    /// We are one of the workers.
    is_worker: bool,
}

fn main() -> io::Result<()> {
    let options = options().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "usage: floor --bind ADDRESS --workers N [--postgres SOCKET] [--close]",
        )
    })?;
    if options.is_worker {
        let database = options.postgres.as_deref().map(postgres::Pipeline::connect).transpose()?;
        return serve::serve(options.bind, database, options.close);
    }
    let workers = (0..options.workers).map(|_| spawn_worker()).collect::<io::Result<Vec<_>>>()?;
    // Workers end with us, and we end by a signal.
    for worker in workers {
        nix::sys::wait::waitpid(worker.pid, None)?;
    }
    Ok(())
}

fn options() -> Option<Options> {
    let mut options = Options {
        bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
        workers: 1,
        postgres: None,
        close: false,
        is_worker: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        match name.as_str() {
            "--bind" => options.bind = args.next()?.parse().ok()?,
            "--workers" => options.workers = args.next()?.parse().ok()?,
            "--postgres" => options.postgres = Some(args.next()?),
            "--close" => options.close = true,
            "--worker" => options.is_worker = true,
            _ => return None,
        }
    }
    Some(options)
}

/// Runs this program again, with `--worker`: each process lays out its memory afresh, as a real server's would.
fn spawn_worker() -> io::Result<Child> {
    let text = |arg: std::ffi::OsString| CString::new(arg.into_vec()).map_err(io::Error::other);
    let mut spawn = Spawn::new(text(std::env::current_exe()?.into())?);
    spawn.args = std::env::args_os().map(text).collect::<io::Result<_>>()?;
    spawn.args.push(text("--worker".into())?);
    spawn.parent_death_signal = Some(Signal::SIGKILL);
    spawn.spawn()
}
