//! Signals, as far as Python code has to do with them.
//!
//! - The loop's own handlers come first, whatever the interpreter is at. Python's table holds `arrived` of `_signals.py` for
//!   the same signals: an application that puts a handler of its own there finds what it may pass on to.
//! - INT and QUIT interrupt Python code at work; they and every other handler's SystemExit end the worker.
//! - While the loop sleeps nothing runs handlers: it asks after each sleep, which is never longer than a heartbeat's interval.

use std::sync::atomic::{AtomicI32, Ordering};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use sys::Signal;
use sys::signal::{arrive, has_arrived};
use worker::Log;

use crate::errors;

/// In the place of an exit code: nobody asked for one.
const NONE: i32 = -1;

/// What the application wants to be the exit code.
static EXIT_CODE: AtomicI32 = AtomicI32::new(NONE);

/// A handler of Python's was called for a signal that the loop acts on.
#[pyfunction]
pub fn signal_arrived(number: i32) {
    if let Ok(signal) = Signal::try_from(number) {
        arrive(signal);
    }
}

/// Whether the worker was told to stop at once, and the loop does not know yet.
pub fn is_quitting() -> bool {
    has_arrived(Signal::SIGQUIT) || has_arrived(Signal::SIGINT)
}

/// Takes `error` for a wish to leave if it is SystemExit: the worker finishes what it has and ends with its code.
pub fn take_leave(py: Python<'_>, error: &PyErr) -> bool {
    if !error.is_instance_of::<PySystemExit>(py) {
        return false;
    }
    if !is_quitting() {
        EXIT_CODE.store(code_of(py, error), Ordering::Relaxed);
        arrive(Signal::SIGTERM);
    }
    true
}

/// The exit code that SystemExit stands for: an interpreter ends with it.
pub fn code_of(py: Python<'_>, error: &PyErr) -> i32 {
    let code = error.value(py).getattr("code");
    match code {
        Ok(code) if code.is_none() => 0,
        // The low eight bits are what a process can say.
        Ok(code) => code.extract::<i64>().map_or(1, |code| (code & 0xff) as i32),
        Err(_) => 1,
    }
}

/// Runs the handlers of signals that have come.
pub fn run_handlers(py: Python<'_>, log: &Log, text_of: &Py<PyAny>) {
    if let Err(error) = py.check_signals()
        && !take_leave(py, &error)
    {
        log.error(format_args!("Exception in a signal handler"));
        log.application(&errors::text_of(py, text_of, &error));
    }
}

/// The worker has ended with `code`: what the process ends with. A handler that was not run yet must not disturb its end.
pub fn last_code(py: Python<'_>, code: i32) -> i32 {
    let _ = py.check_signals();
    match EXIT_CODE.load(Ordering::Relaxed) {
        wanted if wanted != NONE && code == 0 => wanted,
        _ => code,
    }
}
