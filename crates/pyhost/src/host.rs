//! A request through a WSGI application: call, iterate, close, one at a time.
//!
//! [`Wsgi`] does that for one thread, whichever it is; [`Inline`] is the host that does it on the loop's thread.

use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use worker::{Boot, Host, HostError, HostRequest, Log, Progress, RequestId, Responder, Spooled};

use crate::body::Inputs;
use crate::environ::{Asked, Environs};
use crate::errors::{self, ErrorStream};
use crate::ffi::{self, Parked};
use crate::hooks::Hooks;
use crate::sink::Sink;
use crate::start::{StartResponse, early_hints, not_bytes};

/// Parts that are written in Python.
pub struct Helpers {
    /// The class of `wsgi.file_wrapper`.
    pub file_wrapper: Py<PyAny>,
    /// Descriptor, offset and length of what such an object wraps.
    pub part_of: Py<PyAny>,
    /// An exception as text.
    pub text_of: Py<PyAny>,
    /// Those of gunicorn's configuration file.
    pub hooks: Option<Hooks>,
}

impl Helpers {
    fn clone_ref(&self, py: Python<'_>) -> Helpers {
        Helpers {
            file_wrapper: self.file_wrapper.clone_ref(py),
            part_of: self.part_of.clone_ref(py),
            text_of: self.text_of.clone_ref(py),
            hooks: self.hooks.as_ref().map(|hooks| hooks.clone_ref(py)),
        }
    }
}

/// A response that is not complete.
struct InHand {
    start: Py<StartResponse>,
    result: Py<PyAny>,
    iterator: Py<PyAny>,
}

/// Why a response ends early.
pub enum Failure {
    /// The application raised.
    Python(PyErr),
    /// Nobody is there to take it.
    Gone,
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Failure {
        Failure::Python(error)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Failure {
        match error {
            HostError::Gone => Failure::Gone,
            HostError::Head(error) => Failure::Python(PyAssertionError::new_err(error.to_string())),
        }
    }
}

/// A WSGI application, as one thread calls it.
pub struct Wsgi {
    application: Py<PyAny>,
    environs: Environs,
    inputs: Inputs,
    helpers: Helpers,
    log: Log,
    in_hand: Option<InHand>,
}

impl Wsgi {
    pub fn new(
        py: Python<'_>,
        application: Py<PyAny>,
        errors: Py<ErrorStream>,
        helpers: Helpers,
        boot: &Boot,
    ) -> PyResult<Wsgi> {
        let constants = PyDict::new(py);
        constants.set_item("wsgi.version", (1, 0))?;
        constants.set_item("wsgi.errors", errors)?;
        constants.set_item("wsgi.multithread", 1 < boot.settings().threads)?;
        constants.set_item("wsgi.multiprocess", 1 < boot.settings().workers)?;
        constants.set_item("wsgi.run_once", false)?;
        constants.set_item("wsgi.url_scheme", "http")?;
        constants.set_item("wsgi.file_wrapper", &helpers.file_wrapper)?;
        constants.set_item("wsgi.input_terminated", true)?;
        constants.set_item("wsgi.early_hints", pyo3::wrap_pyfunction!(early_hints, py)?)?;
        constants.set_item("SERVER_SOFTWARE", "monoceros")?;
        if let Some(address) = boot.only_address() {
            constants.set_item("SERVER_NAME", address.ip().to_string())?;
            constants.set_item("SERVER_PORT", address.port().to_string())?;
        }
        Ok(Wsgi {
            application,
            environs: Environs::new(py, &constants)?,
            inputs: Inputs::new(py)?,
            helpers,
            log: boot.log().clone(),
            in_hand: None,
        })
    }

    /// Makes the same again, for another thread.
    pub fn twin(&self, py: Python<'_>) -> PyResult<Wsgi> {
        Ok(Wsgi {
            application: self.application.clone_ref(py),
            environs: self.environs.twin(py, Py::new(py, ErrorStream::new(self.log.clone()))?)?,
            inputs: Inputs::new(py)?,
            helpers: self.helpers.clone_ref(py),
            log: self.log.clone(),
            in_hand: None,
        })
    }

    /// Its hooks, for another thread.
    pub fn hooks(&self, py: Python<'_>) -> Option<Hooks> {
        self.helpers.hooks.as_ref().map(|hooks| hooks.clone_ref(py))
    }

    /// The environ of a request.
    pub fn environ<'py>(
        &mut self,
        py: Python<'py>,
        asked: &Asked<'_>,
        body: Option<Spooled>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.environs.make(py, asked)?;
        environ.set_item(intern!(py, "wsgi.input"), self.inputs.make(py, body)?)?;
        Ok(environ)
    }

    /// Answers a request, or begins to: what is left is in hand then, to [`Wsgi::resume`] or [`Wsgi::give_up`].
    pub fn answer<'py>(
        &mut self,
        py: Python<'py>,
        sink: &mut Sink<'_, '_>,
        environ: PyResult<Bound<'py, PyDict>>,
    ) -> Progress {
        let start = match Bound::new(py, StartResponse::default()) {
            Ok(start) => start,
            Err(error) => {
                self.report(py, &error);
                return Progress::Done;
            }
        };
        let begun = environ
            .map_err(Failure::from)
            .and_then(|environ| self.begin(py, environ, sink, &start));
        let outcome = begun.and_then(|()| self.go_on(py, sink));
        self.conclude(py, outcome, sink, Some(&start))
    }

    /// Goes on with the response in hand.
    fn resume(&mut self, py: Python<'_>, sink: &mut Sink<'_, '_>) -> Progress {
        let outcome = self.go_on(py, sink);
        self.conclude(py, outcome, sink, None)
    }

    /// Nobody wants the response in hand any more.
    pub fn give_up(&mut self, py: Python<'_>) {
        if let Err(error) = self.end(py, None, 0) {
            self.report(py, &error);
        }
    }

    /// Calls the application and answers as far as the client takes it; what is left is in hand then.
    fn begin(
        &mut self,
        py: Python<'_>,
        environ: Bound<'_, PyDict>,
        sink: &mut Sink<'_, '_>,
        start: &Bound<'_, StartResponse>,
    ) -> Result<(), Failure> {
        if let Some(hooks) = &self.helpers.hooks {
            start.borrow_mut().hooked = hooks.before(&environ)?;
        }
        let application = self.application.bind(py);
        let result = ffi::lend(sink, || application.call1((environ, start)))?;
        if let Ok(list) = result.cast_exact::<PyList>() {
            return whole(sink, start, list.len(), |at| list.get_item(at));
        }
        if let Ok(tuple) = result.cast_exact::<PyTuple>() {
            return whole(sink, start, tuple.len(), |at| tuple.get_item(at));
        }
        if result.get_type().is(&self.helpers.file_wrapper)
            && let Some(sent) = self.send_file(py, sink, start, &result)
        {
            return sent;
        }
        let iterator = match result.try_iter() {
            Ok(iterator) => iterator.into_any().unbind(),
            Err(error) => {
                close(py, &result)?;
                return Err(error.into());
            }
        };
        self.in_hand =
            Some(InHand { start: start.clone().unbind(), result: result.unbind(), iterator });
        Ok(())
    }

    /// Sends a wrapped file without its bytes passing through here; `None`: it is not that kind of file.
    fn send_file(
        &self,
        py: Python<'_>,
        sink: &mut Sink<'_, '_>,
        start: &Bound<'_, StartResponse>,
        result: &Bound<'_, PyAny>,
    ) -> Option<Result<(), Failure>> {
        if start.try_borrow().is_ok_and(|head| head.is_sent && head.declared().is_none()) {
            return None; // After `write` it is one more piece of a body without a length.
        }
        let part = self.helpers.part_of.bind(py).call1((result,)).ok()?;
        let (fd, offset, length) = part.extract::<(i32, u64, u64)>().ok()?;
        // The application may close its own at once.
        let file = std::fs::File::from(ffi::duplicate(fd, py).ok()?);
        let sent = (|| {
            let mut head = started(start)?;
            if !head.is_sent {
                head.send_head(sink, Some(length))?;
            }
            sink.send_file(file, offset, length);
            Ok(())
        })();
        let closed = close(py, result).map_err(Failure::from);
        Some(sent.and(closed))
    }

    /// Sends further pieces of the response in hand, until it ends or should pause.
    fn go_on(&mut self, py: Python<'_>, sink: &mut Sink<'_, '_>) -> Result<Progress, Failure> {
        let Some(in_hand) = &self.in_hand else { return Ok(Progress::Done) };
        let iterator = in_hand.iterator.bind(py);
        let start = in_hand.start.bind(py);
        loop {
            let next = ffi::lend(sink, || ffi::next(iterator))?;
            let Some(item) = next else { break };
            let piece = item.cast::<PyBytes>().map_err(|_| not_bytes(&item))?;
            let bytes = piece.as_bytes();
            {
                let mut head = started(start)?;
                if bytes.is_empty() {
                    continue;
                }
                if !head.is_sent {
                    head.send_head(sink, None)?;
                }
            }
            sink.append(bytes);
            sink.send(py)?;
            if sink.wants_pause() {
                return Ok(Progress::More);
            }
        }
        let mut head = started(start)?;
        if !head.is_sent {
            // Nothing but a head: for HEAD, the body it stands for is not known.
            let length = (!sink.is_head()).then_some(0);
            head.send_head(sink, length)?;
        }
        Ok(Progress::Done)
    }

    /// Ends the response in hand, if there is one: `close()` is always called. `sent` bytes of its body went out.
    fn end(
        &mut self,
        py: Python<'_>,
        start: Option<&Bound<'_, StartResponse>>,
        sent: u64,
    ) -> PyResult<()> {
        let in_hand = self.in_hand.take();
        let start = start.or(in_hand.as_ref().map(|in_hand| in_hand.start.bind(py)));
        if let Some(Ok(mut start)) = start.map(|start| start.try_borrow_mut()) {
            start.is_over = true;
        }
        let closed = match &in_hand {
            Some(in_hand) => close(py, in_hand.result.bind(py)),
            None => Ok(()),
        };
        if let (Some(hooks), Some(start)) = (&self.helpers.hooks, start) {
            hooks.after(start, sent)?;
        }
        closed
    }

    fn report(&self, py: Python<'_>, error: &PyErr) {
        let text = errors::text_of(py, &self.helpers.text_of, error);
        self.log.error(format_args!("Error handling request"));
        self.log.application(&text);
    }

    /// Ends what is over, and reports what went wrong.
    fn conclude(
        &mut self,
        py: Python<'_>,
        outcome: Result<Progress, Failure>,
        sink: &mut Sink<'_, '_>,
        start: Option<&Bound<'_, StartResponse>>,
    ) -> Progress {
        if let Ok(progress @ (Progress::More | Progress::Pending)) = outcome {
            return progress;
        }
        match outcome {
            Err(Failure::Python(error)) => {
                sink.fail();
                // What `write` raises when the client is gone, and what a thread is told at the end of the worker. The
                // application's own are reported.
                let is_ours = error.is_instance_of::<PyBrokenPipeError>(py)
                    || error.is_instance_of::<PySystemExit>(py);
                if !(is_ours && sink.is_gone()) {
                    self.report(py, &error);
                }
            }
            Err(Failure::Gone) => sink.fail(),
            Ok(_) => (),
        }
        // Its output may go out before `close()`, which can take its time.
        sink.finish();
        let sent = sink.sent();
        if let Err(error) = ffi::lend(sink, || self.end(py, start, sent)) {
            self.report(py, &error);
        }
        Progress::Done
    }
}

/// The host that calls the application on the loop's thread.
pub struct Inline {
    wsgi: Wsgi,
    /// Whose response is in hand.
    id: Option<RequestId>,
    parked: Parked,
}

impl Inline {
    pub fn new(wsgi: Wsgi) -> Inline {
        Inline { wsgi, id: None, parked: Parked::default() }
    }
}

impl Host for Inline {
    fn has_capacity(&self) -> bool {
        self.wsgi.in_hand.is_none()
    }

    fn call(&mut self, mut request: HostRequest<'_>, responder: &mut Responder<'_>) -> Progress {
        self.id = Some(request.id());
        Python::attach(|py| {
            let body = request.take_body();
            let asked = Asked {
                head: request.head(),
                peer: request.peer(),
                is_https: request.is_https(),
                local_address: &|| responder.local_address(),
            };
            let environ = self.wsgi.environ(py, &asked, body);
            self.wsgi.answer(py, &mut Sink::Loop(responder), environ)
        })
    }

    fn resume(&mut self, id: RequestId, responder: &mut Responder<'_>) -> Progress {
        if self.id != Some(id) {
            return Progress::Done;
        }
        Python::attach(|py| self.wsgi.resume(py, &mut Sink::Loop(responder)))
    }

    fn cancel(&mut self, id: RequestId) {
        if self.id == Some(id) {
            Python::attach(|py| self.wsgi.give_up(py));
        }
    }

    fn interrupted(&mut self) {
        Python::attach(|py| {
            if let Some(hooks) = &self.wsgi.helpers.hooks
                && let Err(error) = hooks.interrupted(py)
            {
                self.wsgi.report(py, &error);
            }
        });
    }

    fn before_park(&mut self) {
        self.parked.park();
    }

    fn after_park(&mut self) {
        self.parked.wake();
    }
}

/// A response of which all pieces are there.
fn whole<'py>(
    sink: &mut Sink<'_, '_>,
    start: &Bound<'py, StartResponse>,
    count: usize,
    item: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
) -> Result<(), Failure> {
    let mut length = 0;
    for at in 0..count {
        let item = item(at)?;
        length += item.cast::<PyBytes>().map_err(|_| not_bytes(&item))?.as_bytes().len() as u64;
    }
    let mut head = started(start)?;
    if !head.is_sent {
        // The application may have left out the body of an answer to HEAD: its length is not known then.
        let is_known = 0 < length || !sink.is_head();
        head.send_head(sink, is_known.then_some(length))?;
    }
    for at in 0..count {
        if let Ok(piece) = item(at)?.cast::<PyBytes>() {
            sink.append(piece.as_bytes());
        }
    }
    Ok(())
}

/// The head, which must have been given by now.
fn started<'py>(start: &Bound<'py, StartResponse>) -> PyResult<PyRefMut<'py, StartResponse>> {
    let head = start.try_borrow_mut()?;
    if head.is_started() {
        Ok(head)
    } else {
        Err(PyAssertionError::new_err(
            "start_response was not called before the first piece of the body",
        ))
    }
}

fn close(py: Python<'_>, result: &Bound<'_, PyAny>) -> PyResult<()> {
    match result.getattr_opt(intern!(py, "close"))? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}
