//! `start_response` and the `write` that it returns.

use pyo3::exceptions::{PyAssertionError, PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use worker::HostError;
use worker::http1::{FieldBlock, ResponseError};

use crate::ffi;
use crate::sink::Sink;

/// What one application call said about the head of its response. Callable: it is `start_response`.
#[pyclass]
#[derive(Default)]
pub struct StartResponse {
    status: u16,
    reason: Vec<u8>,
    fields: FieldBlock,
    is_started: bool,
    /// The head is written: it cannot be replaced.
    pub is_sent: bool,
    /// The response is over; a late call has no effect on another.
    pub is_over: bool,
    /// What hooks are told at the end, if there are any.
    pub hooked: Option<Hooked>,
}

/// What hooks are told of a request and its response.
pub struct Hooked {
    /// What they made of the request.
    pub request: Py<PyAny>,
    /// The status as the application gave it, if it did.
    pub status: Option<Py<PyAny>>,
    /// The list of headers, likewise.
    pub headers: Option<Py<PyAny>>,
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info = None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        {
            let mut start = slf.try_borrow_mut()?;
            if start.is_over {
                return Err(PyAssertionError::new_err("The response is over"));
            }
            let exc_info = exc_info.filter(|info| !info.is_none());
            match exc_info {
                Some(info) if start.is_sent => {
                    // It carries its own traceback.
                    return Err(PyErr::from_value(info.get_item(1)?));
                }
                None if start.is_started => {
                    return Err(PyAssertionError::new_err("Response headers already set!"));
                }
                _ => (),
            }
            start.is_started = false;
            start.take_status(status)?;
            start.take_headers(headers)?;
            start.is_started = true;
            if let Some(hooked) = &mut start.hooked {
                hooked.status = Some(status.clone().unbind());
                hooked.headers = Some(headers.clone().unbind());
            }
        }
        slf.getattr(pyo3::intern!(slf.py(), "write"))
    }

    /// Sends a piece of the body at once; returns when the client has taken it, or most of it.
    fn write(&mut self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = data.cast::<PyBytes>().map_err(|_| not_bytes(data))?;
        let py = data.py();
        let written = ffi::with_current(|sink| {
            if self.is_over {
                return Err(PyAssertionError::new_err("The response is over"));
            }
            if !self.is_sent {
                self.send_head(sink, None).map_err(|why| failure(&why))?;
            }
            sink.append(data.as_bytes());
            sink.send(py).map_err(|why| failure(&why))?;
            sink.wait_for_room(py).map_err(|why| failure(&why))
        });
        written.unwrap_or_else(|| Err(PyAssertionError::new_err("The response is over")))
    }
}

impl StartResponse {
    pub fn is_started(&self) -> bool {
        self.is_started
    }

    /// The Content-Length of the application.
    pub fn declared(&self) -> Option<u64> {
        self.fields.declared()
    }

    /// Writes the head; `length` is that of the body, where it is known.
    pub fn send_head(
        &mut self,
        sink: &mut Sink<'_, '_>,
        length: Option<u64>,
    ) -> Result<(), HostError> {
        sink.head(self.status, &self.reason, length, &self.fields)?;
        self.is_sent = true;
        Ok(())
    }

    fn take_status(&mut self, status: &Bound<'_, PyAny>) -> PyResult<()> {
        let text = status
            .cast::<PyString>()
            .map_err(|_| PyTypeError::new_err(format!("{status:?} is not a str: the status")))?;
        self.reason.clear();
        let bad = || PyValueError::new_err(format!("Invalid status: {status:?}"));
        with_latin1(text, |bytes| {
            let (code, reason) = match bytes.iter().position(|&byte| byte == b' ') {
                Some(at) => (&bytes[..at], &bytes[at + 1..]),
                None => (bytes, &b""[..]),
            };
            let [a @ b'2'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = code else {
                return Err(bad());
            };
            if reason.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
                return Err(bad());
            }
            self.status =
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
            self.reason.extend_from_slice(reason);
            Ok(())
        })?
    }

    fn take_headers(&mut self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        self.fields.clear();
        if let Ok(list) = headers.cast_exact::<PyList>() {
            for pair in list.iter() {
                self.take_pair(&pair)?;
            }
            return Ok(());
        }
        headers.try_iter()?.try_for_each(|pair| self.take_pair(&pair?))
    }

    fn take_pair(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        let pair = pair.cast::<PyTuple>().map_err(|_| {
            PyTypeError::new_err(format!("{pair:?} is not a tuple of a header's name and value"))
        })?;
        if pair.len() != 2 {
            return Err(PyValueError::new_err(format!(
                "{pair:?} is not a header's name and value"
            )));
        }
        let (name, value) = (pair.get_item(0)?, pair.get_item(1)?);
        let text = |part: &Bound<'_, PyAny>| -> PyResult<()> {
            Err(PyTypeError::new_err(format!("{part:?} is not a str")))
        };
        let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) else {
            return text(if name.is_instance_of::<PyString>() { &value } else { &name });
        };
        with_latin1(name, |name| with_latin1(value, |value| self.fields.field(name, value)))??
            .map_err(|error| {
                PyValueError::new_err(match error {
                    ResponseError::FieldName => format!("Invalid header name {name:?}"),
                    ResponseError::ContentLength => format!("Invalid Content-Length {value:?}"),
                    _ => format!("Invalid header value {name:?}: {value:?}"),
                })
            })
    }
}

/// `wsgi.early_hints`: sends 103 with these fields; HTTP/1.0 knows no such thing, and nothing is sent.
#[pyfunction]
pub fn early_hints(headers: &Bound<'_, PyAny>) -> PyResult<()> {
    let pairs: Vec<(String, String)> = headers.extract()?;
    let bytes: Vec<Vec<u8>> = pairs
        .iter()
        .map(|(_, value)| with_latin1(&PyString::new(headers.py(), value), <[u8]>::to_vec))
        .collect::<PyResult<_>>()?;
    let fields: Vec<(&str, &[u8])> =
        pairs.iter().zip(&bytes).map(|((name, _), value)| (name.as_str(), &value[..])).collect();
    let sent = ffi::with_current(|sink| sink.interim(headers.py(), 103, &fields));
    match sent {
        Some(Err(HostError::Head(error))) => Err(PyValueError::new_err(error.to_string())),
        Some(Err(why @ HostError::Gone)) => Err(failure(&why)),
        Some(Ok(())) | None => Ok(()),
    }
}

/// Calls `act` with the characters of a string as bytes; an error if one does not fit.
fn with_latin1<R>(text: &Bound<'_, PyString>, act: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
    let utf8 = text.to_str()?;
    if utf8.is_ascii() {
        return Ok(act(utf8.as_bytes()));
    }
    let bytes: Option<Vec<u8>> =
        utf8.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect();
    match bytes {
        Some(bytes) => Ok(act(&bytes)),
        None => Err(PyValueError::new_err(format!("{text:?} does not fit into latin-1"))),
    }
}

/// An item of a response that is no bytes object.
pub fn not_bytes(item: &Bound<'_, PyAny>) -> PyErr {
    let kind = item.get_type().name().map(|name| name.to_string()).unwrap_or_default();
    PyTypeError::new_err(format!("{kind} is not a byte string: a piece of the response"))
}

fn failure(why: &HostError) -> PyErr {
    match why {
        HostError::Gone => {
            PyErr::new::<pyo3::exceptions::PyBrokenPipeError, _>("the client is gone")
        }
        HostError::Head(error) => PyOSError::new_err(error.to_string()),
    }
}
