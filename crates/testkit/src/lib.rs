//! What the tests share: running servers, PostgreSQL, Nginx, and load clients that count failures exactly.
//!
//! - Panics are how it reports: each names what was awaited, for how long, and shows the log.
//! - Every wait has a condition and a bound; ports are chosen by the kernel; directories are its own.
//! - It ends only what it started, and at drop all of that.

#![forbid(unsafe_code)]
#![allow(clippy::expect_used)] // A test may panic; see above.

mod certificates;
mod dir;
mod endpoint;
mod haproxy;
pub mod http;
pub mod load;
mod nginx;
mod postgres;
mod process;
mod server;

pub use certificates::{Authority, Identity};
pub use dir::TempDir;
pub use endpoint::{Endpoint, Stream};
pub use haproxy::Haproxy;
pub use load::{Load, Mode, Report, Running};
pub use nginx::Nginx;
pub use postgres::{Postgres, Shutdown};
pub use process::{children_of, find_program, free_port, is_alive, process_state, wait_until};
pub use server::{Server, ServerBuilder, ensure_worker};

/// Signals, for [`Server::signal`].
pub use nix::sys::signal::Signal;
