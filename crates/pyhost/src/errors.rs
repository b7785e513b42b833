//! What goes to the error log: `wsgi.errors`, and exceptions of the application.

use pyo3::prelude::*;
use worker::Log;

/// Longest line kept until its end comes, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// `wsgi.errors`: text for the error log, line by line.
#[pyclass]
pub struct ErrorStream {
    log: SharedLog,
    line: String,
}

/// The log is behind a lock of its own.
struct SharedLog(Log);

impl ErrorStream {
    pub fn new(log: Log) -> ErrorStream {
        ErrorStream { log: SharedLog(log), line: String::new() }
    }
}

#[pymethods]
impl ErrorStream {
    fn write(&mut self, text: &str) -> usize {
        self.line.push_str(text);
        if let Some(end) = self.line.rfind('\n') {
            self.log.0.application(&self.line[..end]);
            self.line.drain(..=end);
        }
        if LINE_BYTES_MAX < self.line.len() {
            self.flush();
        }
        text.chars().count()
    }

    fn writelines(slf: &Bound<'_, Self>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            // What makes the lines may write here itself.
            slf.try_borrow_mut()?.write(line?.extract::<&str>()?);
        }
        Ok(())
    }

    /// Writes text for the error log at a level of Python's `logging`.
    fn log(&self, level: u32, text: &str) {
        self.log.0.application_at(level, text);
    }

    fn flush(&mut self) {
        if !self.line.is_empty() {
            self.log.0.application(&self.line);
            self.line.clear();
        }
    }

    fn isatty(&self) -> bool {
        false
    }

    fn writable(&self) -> bool {
        true
    }
}

/// An exception as it is logged, traceback and all.
pub fn text_of(py: Python<'_>, text_of: &Py<PyAny>, error: &PyErr) -> String {
    text_of
        // The value that carries its traceback.
        .call1(py, (error.clone_ref(py).into_value(py),))
        .and_then(|text| text.extract::<String>(py))
        .unwrap_or_else(|_| error.to_string())
}
