//! `--check-config` of a Python application: the interpreter loads it, as a worker would, and says what is wrong.
//!
//! Nothing of a program is executed: what it needs is seen only when it runs.

use std::ffi::CString;
use std::os::fd::AsFd;

use shared::contract;
use shared::settings::Settings;
use sys::pidfd::{self, Exit};
use sys::spawn::Spawn;

use crate::config::Loaded;
use crate::generation::Generation;
use crate::piped;
use crate::process::Environment;

/// Loads the application of `loaded`, if it is one in Python; returns the exit code. Waits for `boot_timeout` at most.
///
/// # Errors
///
/// It cannot be tried, or takes too long.
pub fn run(loaded: Loaded) -> Result<i32, String> {
    if !loaded.app.is_python {
        return Ok(shared::exit::OK);
    }
    let limit = Settings::limit(loaded.settings().boot_timeout);
    let name = loaded.app.args.last().cloned().unwrap_or_default();
    // What a worker would be given.
    let generation = Generation::new(0, loaded, Vec::new()).map_err(|error| error.explained())?;
    let missing = |error: std::ffi::NulError| error.to_string();
    let mut spawn = Spawn::new(generation.app().c_program().ok_or("there is no interpreter")?);
    let python = generation.app().program.to_string_lossy().into_owned();
    spawn.args = [&python, "-m", "monoceros", "--check", &name]
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(missing)?;
    let mut environment = Environment::of_this_process().with_all(&generation.settings().raw_env);
    if let Some(url) = &generation.database_url {
        environment = environment.with("DATABASE_URL", url);
    }
    let number = spawn.pass(generation.sealed()).to_string();
    spawn.env = environment.with(contract::SETTINGS, &number).variables();
    let directory = generation.loaded.directory.to_string_lossy().into_owned();
    spawn.dir = Some(CString::new(directory).map_err(missing)?);
    // With what it starts it ends when its time is over, or we do.
    spawn.session = true;
    spawn.parent_death_signal = Some(sys::Signal::SIGTERM);
    let child = spawn.spawn().map_err(|error| format!("cannot start {python}: {error}"))?;
    match sys::fd::wait_readable(&child.pidfd.as_fd(), limit) {
        Ok(true) => (),
        Ok(false) => {
            piped::kill(&child);
            return Err(format!("{name} was not loaded within boot_timeout"));
        }
        Err(error) => return Err(format!("cannot wait for {python}: {error}")),
    }
    match (child.exec_failure(), pidfd::reap(&child.pidfd)) {
        (None, Ok(Some(Exit::Code(code)))) => Ok(code),
        (Some((step, error)), _) => Err(format!("{python}: {step}: {error}")),
        (None, Ok(Some(exit))) => {
            Err(format!("{name} cannot be loaded: {python} ended with {exit}"))
        }
        (None, _) => Err(format!("{python} ended unseen")),
    }
}
