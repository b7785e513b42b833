//! The preloader: the application is loaded here once, and every worker is a copy of this process.

use pyo3::prelude::*;
use sys::sibling::Forked;
use worker::{HostBoot, Next, Preloader};

use crate::{Parts, ffi};

/// Loads the application and makes workers until the master wants no more; returns the exit code, in a copy that of the
/// worker.
pub fn run(
    py: Python<'_>,
    mut preloader: Preloader,
    parts: Parts<'_>,
    settle: &Bound<'_, PyAny>,
) -> i32 {
    let settings = serde_json::to_string(preloader.settings()).unwrap_or_default();
    let application = match parts.load(py, &settings, (0, 0), preloader.log(), true) {
        Ok(application) => application,
        Err(why) => return preloader.fail(why),
    };
    match settle.call0().and_then(|threads| threads.extract::<Vec<String>>()) {
        Ok(threads) if !threads.is_empty() => preloader.log().warning(format_args!(
            "Threads that were started while the application was imported do not run in the workers names={}",
            threads.join(",")
        )),
        Ok(_) => (),
        Err(error) => return preloader.fail(HostBoot::Failed(error.to_string().into())),
    }
    preloader.say_ready();
    loop {
        // Threads of the application run meanwhile.
        py.detach(|| preloader.wait());
        match preloader.turn() {
            Next::Wait => (),
            // The interpreter is not taken down: what the application does at its end is for those who serve.
            Next::End => std::process::exit(0),
            Next::Worker => match ffi::fork_sibling(py, preloader.parent()) {
                Ok(Forked::Copy) => {
                    return preloader.work(|boot| parts.serve(py, application, &settings, boot));
                }
                Ok(Forked::Original(copy)) => preloader.answer(Ok(copy)),
                Err(error) => preloader.answer(Err(error)),
            },
        }
    }
}
