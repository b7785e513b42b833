//! Exit codes of the master and of workers: gunicorn's numbers where it has one, `sysexits.h` for the rest.
//!
//! A master that ended by a second INT or QUIT exits 130 or 131, as a shell reports such an end.

/// A clean stop.
pub const OK: i32 = 0;
/// Something failed while running.
pub const RUNTIME: i32 = 1;
/// The command line could not be understood. The same command fails again: do not restart.
pub const USAGE: i32 = 2;
/// A worker could not boot; from the master: no worker ever became ready.
pub const WORKER_BOOT: i32 = 3;
/// The application could not be loaded; from the master: and no worker ever became ready.
pub const APP_LOAD: i32 = 4;
/// An address could not be bound (`EX_UNAVAILABLE`).
pub const CANNOT_BIND: i32 = 69;
/// The settings are wrong (`EX_CONFIG`). Another start fails again: do not restart.
pub const CONFIG: i32 = 78;
