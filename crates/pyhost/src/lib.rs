//! The Python host: the worker's loop on the main thread of the user's own interpreter, WSGI applications on the loop.
//!
//! - `python -m monoceros APP` is the program of a worker; `_monoceros.run` is its loop. It is a preloader's too.
//! - One response at a time, to its end: an application keeps things per thread, so between its first byte and `close()`
//!   no other request enters it. Other clients' bytes do move meanwhile.
//! - With `threads` above 1 the loop gives the interpreter away, and that many threads call the application: `threads.rs`.
//! - All unsafe code is in `ffi.rs`.

mod body;
mod environ;
mod errors;
mod ffi;
mod hooks;
mod host;
mod outbox;
mod preload;
mod seats;
mod sink;
mod start;
mod threads;

use pyo3::prelude::*;
use worker::{Boot, Host, HostBoot, Log, Preloader};

use crate::errors::ErrorStream;
use crate::hooks::Hooks;
use crate::host::{Helpers, Inline, Wsgi};
use crate::threads::{Threaded, Threads};

/// What the worker is written in Python of.
struct Parts<'py> {
    /// `build(settings, slot, generation, errors)`: loads the application.
    build: &'py Bound<'py, PyAny>,
    /// `begin(settings, slot, generation, errors)`: this process is a worker from now on.
    begin: &'py Bound<'py, PyAny>,
    /// `start_threads(threads, count)`.
    start_threads: &'py Bound<'py, PyAny>,
    helpers: Helpers,
    no_application: &'py Bound<'py, PyAny>,
    /// The hooks of gunicorn's configuration file, if it has any for workers. They have read it when `begin` returns.
    hooks: Option<&'py Bound<'py, PyAny>>,
}

/// Runs a worker until its end; returns the exit code.
///
/// `build(settings, slot, generation, errors)` is called when settings and log are there, and returns the application;
/// `begin`, with the same arguments, follows it. `settle()` is called between the two where workers are forked after the
/// application was loaded, and returns the names of threads that they will not have. `start_threads` is called where the
/// settings ask for several. `hooks` are those of gunicorn's configuration file, if it has any.
#[pyfunction]
#[pyo3(signature = (build, settle, begin, start_threads, file_wrapper, part_of, text_of, no_application, hooks = None))]
#[allow(clippy::too_many_arguments)] // One by one, they are the module's own functions.
fn run(
    py: Python<'_>,
    build: &Bound<'_, PyAny>,
    settle: &Bound<'_, PyAny>,
    begin: &Bound<'_, PyAny>,
    start_threads: &Bound<'_, PyAny>,
    file_wrapper: Py<PyAny>,
    part_of: Py<PyAny>,
    text_of: Py<PyAny>,
    no_application: &Bound<'_, PyAny>,
    hooks: Option<&Bound<'_, PyAny>>,
) -> i32 {
    let parts = Parts {
        build,
        begin,
        start_threads,
        helpers: Helpers { file_wrapper, part_of, text_of, hooks: None },
        no_application,
        hooks,
    };
    match Preloader::take() {
        Ok(None) => worker::run_host(|boot| {
            let settings = serde_json::to_string(boot.settings()).unwrap_or_default();
            let is_told = boot.slot() == 0 || 0 < boot.generation();
            let place = (boot.slot(), boot.generation());
            let application = parts.load(py, &settings, place, boot.log(), is_told)?;
            parts.serve(py, application, &settings, boot)
        }),
        Ok(Some(preloader)) => preload::run(py, preloader, parts, settle),
        Err(code) => code,
    }
}

impl Parts<'_> {
    /// Loads the application. All workers fail alike: one of them, which `is_told`, writes down the whole story.
    fn load(
        &self,
        py: Python<'_>,
        settings: &str,
        (slot, generation): (usize, u64),
        log: &Log,
        is_told: bool,
    ) -> Result<Py<PyAny>, HostBoot> {
        let built = Py::new(py, ErrorStream::new(log.clone()))
            .and_then(|errors| self.build.call1((settings, slot, generation, errors)));
        built.map(Bound::unbind).map_err(|error| {
            let text = errors::text_of(py, &self.helpers.text_of, &error);
            if is_told {
                log.application(&text);
            }
            let line = last_line(&text).into();
            if error.matches(py, self.no_application).unwrap_or(false) {
                HostBoot::NoApplication(line)
            } else {
                HostBoot::Failed(line)
            }
        })
    }

    /// The host of an application that was loaded, in the process that is to serve it.
    fn serve(
        self,
        py: Python<'_>,
        application: Py<PyAny>,
        settings: &str,
        boot: &Boot,
    ) -> Result<Box<dyn Host>, HostBoot> {
        let Parts { begin, start_threads, mut helpers, hooks, .. } = self;
        let text_of = helpers.text_of.clone_ref(py);
        let made = (|| -> PyResult<Box<dyn Host>> {
            let errors = Py::new(py, ErrorStream::new(boot.log().clone()))?;
            begin.call1((settings, boot.slot(), boot.generation(), errors.clone_ref(py)))?;
            helpers.hooks = hooks.map(Hooks::new).transpose()?;
            let wsgi = Wsgi::new(py, application, errors, helpers, boot)?;
            if 1 < boot.settings().threads {
                return Ok(Box::new(Threaded::new(py, &wsgi, start_threads, boot)?));
            }
            Ok(Box::new(Inline::new(wsgi)))
        })();
        match made {
            Ok(host) => Ok(host),
            Err(error) => {
                let text = errors::text_of(py, &text_of, &error);
                boot.log().application(&text);
                Err(HostBoot::Failed(last_line(&text).into()))
            }
        }
    }
}

/// Of a traceback, what went wrong.
fn last_line(text: &str) -> String {
    text.lines().next_back().unwrap_or_default().to_owned()
}

/// The extension module.
#[pymodule]
fn _monoceros(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ErrorStream>()?;
    module.add_class::<Threads>()?;
    module.add_function(wrap_pyfunction!(run, module)?)
}
