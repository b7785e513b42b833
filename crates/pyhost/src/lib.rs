//! The Python host: the worker's loop on the main thread of the user's own interpreter, WSGI applications on the loop.
//!
//! - `python -m monoceros APP` is the program of a worker; `_monoceros.run` is its loop.
//! - One response at a time, to its end: an application keeps things per thread, so between its first byte and `close()`
//!   no other request enters it. Other clients' bytes do move meanwhile.
//! - With `threads` above 1 the loop gives the interpreter away, and that many threads call the application: `threads.rs`.
//! - All unsafe code is in `ffi.rs`.

mod body;
mod environ;
mod errors;
mod ffi;
mod forked;
mod host;
mod outbox;
mod seats;
mod signals;
mod sink;
mod start;
mod threads;
mod trace;

use pyo3::prelude::*;
use worker::{Host, HostBoot};

use crate::errors::ErrorStream;
use crate::host::{Helpers, Inline, Wsgi};
use crate::threads::{Threaded, Threads};

/// Runs a worker until its end; returns the exit code.
///
/// `build(settings, errors)` is called when settings and log are there, and returns the application. `start_threads` is
/// called where the settings ask for several.
#[pyfunction]
#[pyo3(signature = (build, file_wrapper, part_of, text_of, no_application, start_threads))]
fn run(
    py: Python<'_>,
    build: &Bound<'_, PyAny>,
    file_wrapper: Py<PyAny>,
    part_of: Py<PyAny>,
    text_of: Py<PyAny>,
    no_application: &Bound<'_, PyAny>,
    start_threads: &Bound<'_, PyAny>,
) -> i32 {
    ffi::interrupt_on_quick_stop();
    let code = worker::run_host(|boot| {
        let helpers = Helpers { file_wrapper, part_of, text_of: text_of.clone_ref(py) };
        let built = (|| -> PyResult<Box<dyn Host>> {
            let settings = serde_json::to_string(boot.settings()).unwrap_or_default();
            let errors = Py::new(py, ErrorStream::new(boot.log().clone()))?;
            let application = build.call1((settings, errors.clone_ref(py)));
            let application = forked::only_parent(py, application)?;
            let wsgi = Wsgi::new(py, application.unbind(), errors, helpers, boot)?;
            if 1 < boot.settings().threads {
                return Ok(Box::new(Threaded::new(py, &wsgi, start_threads, boot)?));
            }
            Ok(Box::new(Inline::new(wsgi)))
        })();
        match built {
            Ok(host) => Ok(host),
            Err(error) => {
                let is_no_application = error.matches(py, no_application).unwrap_or(false);
                let text = errors::text_of(py, &text_of, &error);
                // All workers fail alike: one tells the whole story.
                if boot.slot() == 0 || !boot.is_first() {
                    boot.log().application(&text);
                }
                let text = text.lines().next_back().unwrap_or_default().to_owned();
                Err(if is_no_application {
                    HostBoot::NoApplication(text.into())
                } else {
                    HostBoot::Failed(text.into())
                })
            }
        }
    });
    signals::last_code(py, code)
}

/// The extension module.
#[pymodule]
fn _monoceros(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ErrorStream>()?;
    module.add_class::<Threads>()?;
    module.add_function(wrap_pyfunction!(run, module)?)?;
    module.add_function(wrap_pyfunction!(signals::signal_arrived, module)?)?;
    module.add_function(wrap_pyfunction!(forked::is_forked, module)?)?;
    module.add_function(wrap_pyfunction!(trace::open_trace, module)?)
}
