//! gunicorn's hooks of a worker, as far as the loop calls them. They are written in Python: `_hooks.py`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::start::{Hooked, StartResponse};

/// The hooks of a worker's configuration file.
pub struct Hooks {
    object: Py<PyAny>,
    /// Whether there is one for requests: without it a request costs nothing more.
    per_request: bool,
}

impl Hooks {
    /// Those of `object`, after it has read the file.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Hooks> {
        let per_request = object.call_method0("is_per_request")?.extract()?;
        Ok(Hooks { object: object.clone().unbind(), per_request })
    }

    /// The same, for another thread.
    pub fn clone_ref(&self, py: Python<'_>) -> Hooks {
        Hooks { object: self.object.clone_ref(py), per_request: self.per_request }
    }

    /// The application is about to be called; returns what [`Hooks::after`] wants to know again.
    pub fn before(&self, environ: &Bound<'_, PyDict>) -> PyResult<Option<Hooked>> {
        if !self.per_request {
            return Ok(None);
        }
        let py = environ.py();
        let request = self.object.call_method1(py, intern!(py, "before"), (environ,))?;
        Ok(Some(Hooked { request, status: None, headers: None }))
    }

    /// A response is over, of which `sent` bytes of the body went out.
    pub fn after(&self, start: &Bound<'_, StartResponse>, sent: u64) -> PyResult<()> {
        // Once: a late call finds nothing.
        let Some(Hooked { request, status, headers }) = start.borrow_mut().hooked.take() else {
            return Ok(());
        };
        let py = start.py();
        let name = intern!(py, "after");
        self.object.call_method1(py, name, (request, status, headers, sent)).map(drop)
    }

    /// A quick stop was asked for.
    pub fn interrupted(&self, py: Python<'_>) -> PyResult<()> {
        self.object.call_method0(py, intern!(py, "interrupted")).map(drop)
    }
}
