//! From a host's `main` to the loop and back.

use shared::exit;

use super::{Host, NoRoutes};
use crate::context::Boot;
use crate::run::{BootError, Engine, run_engine};

/// Why there is no host.
pub enum HostBoot {
    /// It failed before the application could say what is wrong: exit code 3.
    Failed(BootError),
    /// What was named is no application: exit code 4.
    NoApplication(BootError),
}

/// Runs a host as a worker, until its master (or a signal) ends it; returns the exit code of the process.
///
/// `build` is called once, as for [`crate::run`].
pub fn run_host(build: impl FnOnce(&Boot) -> Result<Box<dyn Host>, HostBoot>) -> i32 {
    run_engine(|boot| engine(boot, build))
}

/// What `build` makes, for the loop.
pub(crate) fn engine(
    boot: &Boot,
    build: impl FnOnce(&Boot) -> Result<Box<dyn Host>, HostBoot>,
) -> Result<Engine, (i32, BootError)> {
    let host = build(boot).map_err(HostBoot::into_parts)?;
    let body_bytes_max = match boot.settings().limit_request_body {
        0 => u64::MAX,
        limit => limit,
    };
    Ok(Engine { service: Box::new(NoRoutes { body_bytes_max }), host: Some(host) })
}

impl HostBoot {
    /// The exit code, and the reason.
    pub(crate) fn into_parts(self) -> (i32, BootError) {
        match self {
            HostBoot::Failed(error) => (exit::WORKER_BOOT, error),
            HostBoot::NoApplication(error) => (exit::APP_LOAD, error),
        }
    }
}
