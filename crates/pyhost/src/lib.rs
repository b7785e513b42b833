//! The Python host: the worker's loop on the main thread of the user's own interpreter, WSGI applications on the loop.
//!
//! - `python -m monoceros APP` is the program of a worker; `_monoceros.run` is its loop.
//! - One response at a time, to its end: an application keeps things per thread, so between its first byte and `close()`
//!   no other request enters it. Other clients' bytes do move meanwhile.
//! - All unsafe code is in `ffi.rs`.

mod body;
mod environ;
mod errors;
mod ffi;
mod hooks;
mod host;
mod start;

use pyo3::prelude::*;
use worker::{Host, HostBoot};

use crate::errors::ErrorStream;
use crate::hooks::Hooks;
use crate::host::{Helpers, Wsgi};

/// Runs a worker until its end; returns the exit code.
///
/// `build(settings, errors)` is called when settings and log are there, and returns the application. `hooks` are those of
/// gunicorn's configuration file, if it has any.
#[pyfunction]
#[pyo3(signature = (build, file_wrapper, part_of, text_of, no_application, hooks = None))]
fn run(
    py: Python<'_>,
    build: &Bound<'_, PyAny>,
    file_wrapper: Py<PyAny>,
    part_of: Py<PyAny>,
    text_of: Py<PyAny>,
    no_application: &Bound<'_, PyAny>,
    hooks: Option<&Bound<'_, PyAny>>,
) -> i32 {
    worker::run_host(|boot| {
        let built = (|| {
            let settings = serde_json::to_string(boot.settings()).unwrap_or_default();
            let errors = Py::new(py, ErrorStream::new(boot.log().clone()))?;
            let application = build.call1((settings, errors.clone_ref(py)))?;
            let hooks = hooks.map(Hooks::new).transpose()?;
            let text_of = text_of.clone_ref(py);
            let helpers = Helpers { file_wrapper, part_of, text_of, hooks };
            Wsgi::new(py, application.unbind(), errors, helpers, boot)
        })();
        match built {
            Ok(host) => Ok(Box::new(host) as Box<dyn Host>),
            Err(error) => {
                let is_no_application = error.matches(py, no_application).unwrap_or(false);
                let text = errors::text_of(py, &text_of, &error);
                // All workers fail alike: one tells the whole story.
                if boot.slot() == 0 || 0 < boot.generation() {
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
    })
}

/// The extension module.
#[pymodule]
fn _monoceros(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ErrorStream>()?;
    module.add_function(wrap_pyfunction!(run, module)?)
}
