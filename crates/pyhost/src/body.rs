//! `wsgi.input`: what was gathered of a request's body, as a file object of the standard library.

use std::os::fd::IntoRawFd;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use worker::Spooled;

/// Makes file objects.
pub struct Inputs {
    bytes_io: Py<PyAny>,
    open: Py<PyAny>,
}

impl Inputs {
    pub fn new(py: Python<'_>) -> PyResult<Inputs> {
        let io = py.import("io")?;
        Ok(Inputs { bytes_io: io.getattr("BytesIO")?.unbind(), open: io.getattr("open")?.unbind() })
    }

    /// The body as `wsgi.input`. A large one is read from its file, which is closed with the object.
    pub fn make<'py>(&self, py: Python<'py>, body: Option<Spooled>) -> PyResult<Bound<'py, PyAny>> {
        let Some(body) = body else { return self.bytes_io.bind(py).call0() };
        if let Some(file) = body.file() {
            // The duplicate shares the position, which is the beginning.
            let fd = file.try_clone()?.into_raw_fd();
            return self.open.bind(py).call1((fd, "rb"));
        }
        // `BytesIO` shares the bytes object until somebody writes to it.
        let bytes = PyBytes::new(py, body.in_memory().unwrap_or_default());
        self.bytes_io.bind(py).call1((bytes,))
    }
}
