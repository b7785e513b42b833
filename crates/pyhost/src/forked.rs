//! Processes that the application forks: one that comes back from the application has no business in the loop.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

static IS_FORKED: AtomicBool = AtomicBool::new(false);

/// Called in each process that the application forks.
#[pyfunction]
pub fn is_forked() {
    IS_FORKED.store(true, Ordering::Relaxed);
}

/// This process was forked to be a worker. The loop's own handlers of signals are to follow.
pub fn make_worker(py: Python<'_>) -> PyResult<()> {
    IS_FORKED.store(false, Ordering::Relaxed);
    py.import("monoceros._signals")?.call_method0("install").map(drop)
}

/// Whether this process was forked by the application: connections and listeners are its parent's.
pub fn is_guest() -> bool {
    IS_FORKED.load(Ordering::Relaxed)
}

/// Passes on what the application said, in the process that asked it; ends any other as a program ends that has run to its
/// end, or into this error.
pub fn only_parent<T>(py: Python<'_>, outcome: PyResult<T>) -> PyResult<T> {
    if is_guest() {
        let error = outcome.err().map(|error| error.into_value(py));
        // It does not return.
        let _ = py
            .import("monoceros._forked")
            .and_then(|module| module.call_method1("leave", (error,)));
        std::process::abort();
    }
    outcome
}
