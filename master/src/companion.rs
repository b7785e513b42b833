//! This program as its own companion: `master embedded-postgres STATE_DIR GROUP PROGRAM`, with `-` for none.
//!
//! Started by the arbiter only, under the worker contract without listeners: settings, lifeline, notify socket.

use std::env;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use embedded::{Level, Options};
use shared::contract;
use shared::exit;
use shared::settings::Settings;

use crate::journal::Journal;
use crate::lookup::Addresses;

/// The hidden first argument that makes this program the companion.
pub const EMBEDDED_COMMAND: &str = "embedded-postgres";

/// Runs the embedded database until TERM or the end of the lifeline; returns the exit code.
#[must_use]
pub fn embedded_postgres(mut args: impl Iterator<Item = OsString>) -> i32 {
    let Some(state_dir) = args.next().map(PathBuf::from) else { return exit::USAGE };
    let mut given = || args.next().filter(|text| text != "-");
    let socket_group = given().and_then(|text| text.to_str()?.parse().ok());
    let create_tables = given().map(PathBuf::from);
    let settings: Settings = passed(contract::SETTINGS)
        .and_then(|fd| sys::shm::read_sealed(&fd).ok())
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default();
    let Ok(journal) = Journal::open(&settings, &Addresses::of_start(&settings)) else {
        return exit::RUNTIME;
    };
    sys::title::set("monoceros: embedded-postgres");
    embedded::run(Options {
        state_dir,
        create_tables,
        socket_group,
        lifeline: passed(contract::LIFELINE),
        notify_socket: env::var_os(contract::NOTIFY_SOCKET),
        log: Box::new(move |level, line| {
            // It takes no USR1 and says little: looking for a rotated file before each line is cheap.
            journal.reopen();
            match level {
                Level::Info => journal.info(line),
                Level::Warning => journal.warning(line),
                Level::Error => journal.error(line),
            }
        }),
    })
}

/// The descriptor whose number this variable holds.
fn passed(name: &str) -> Option<OwnedFd> {
    sys::fd::adopt(env::var(name).ok()?.parse().ok()?).ok()
}
