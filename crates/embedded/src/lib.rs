//! A private PostgreSQL cluster for development: found, made, started and stopped.
//!
//! [`run`] is the whole life of the companion process that `--database embedded` asks for. It looks for
//! PostgreSQL's programs on this machine, makes a cluster of its own in the user's state directory on first use,
//! runs `postgres` on a unix socket only, has the application's tables made, says `READY=1`, starts `postgres`
//! again when it dies, and stops it on TERM or when the master is gone. [`url`] names the database for the workers.
//!
//! - It is an ordinary blocking program in a process of its own: nothing here runs inside the master's loop.
//! - Only directory permissions guard the cluster, so it never listens on a network address.
//! - Everything lies in `STATE_DIR/postgresql`: `data`, `run` (the socket), `log` and `lock`.

#![forbid(unsafe_code)]

mod account;
mod back_off;
mod cluster;
mod companion;
mod error;
mod layout;
mod leftover;
mod notify;
mod process;
mod programs;
mod server;
mod wait;

use std::error::Error as _;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use wait::Watch;

pub use layout::{state_dir, url};

/// How much a line that [`Options::log`] is handed matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The life cycle: made, started, stopped.
    Info,
    /// Something went wrong and was dealt with.
    Warning,
    /// Someone must act.
    Error,
}

/// Takes one log line.
pub type Log = Box<dyn FnMut(Level, &str)>;

/// What the companion is told by the master.
pub struct Options {
    /// Where the cluster lives: see [`state_dir`]. Made when it is missing.
    pub state_dir: PathBuf,
    /// The program that makes the application's tables: it is run as `PROGRAM --create-tables` with `DATABASE_URL`.
    pub create_tables: Option<PathBuf>,
    /// A group that may reach the socket besides the owner: workers that run as another user need it.
    pub socket_group: Option<u32>,
    /// Ends when the master is gone.
    pub lifeline: Option<OwnedFd>,
    /// Where to say `READY=1`: the value of `NOTIFY_SOCKET`.
    pub notify_socket: Option<OsString>,
    /// Where log lines go: the master writes them in its own format.
    pub log: Log,
}

/// Runs the cluster until TERM, INT or QUIT arrives or the lifeline ends; returns the process's exit code.
///
/// To be called before any other thread exists: it blocks those signals for the whole process.
#[must_use]
pub fn run(mut options: Options) -> i32 {
    let ended = Watch::new(options.lifeline.take())
        .and_then(|mut watch| companion::live(&mut options, &mut watch));
    match ended {
        Ok(asked) => {
            (options.log)(Level::Info, &format!("Embedded PostgreSQL stopped on {asked}"));
            0
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(reason) = source {
                text.push_str(&format!(": {reason}"));
                source = reason.source();
            }
            (options.log)(Level::Error, &text);
            1
        }
    }
}
