//! Response bodies that are made while they are sent.
//!
//! - A producer writes into a bounded pipe; while the client takes nothing the producer waits, so memory stays bounded.
//! - The body ends when the producer's future does. If that fails, the connection is cut, which no client takes for an end.
//! - When the client goes away the future is dropped where it waits.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::buffer::Buffer;
use crate::error::Error;

/// Bytes of a body that may wait in its pipe; above that the producer waits. A piece with its framing fits a pooled buffer.
pub(crate) const PIPE_BYTES_MAX: usize = 32 * 1024;

/// Most trailers of one response; further ones are left out.
const TRAILERS_MAX: usize = 64;

/// What writes a response's body.
pub(crate) type Producer = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A body to be made while it is sent.
pub struct StreamBody {
    pub(crate) producer: Producer,
    pub(crate) pipe: SharedPipe,
}

impl StreamBody {
    pub(crate) fn new<F>(produce: impl FnOnce(BodySink) -> F) -> StreamBody
    where
        F: Future<Output = Result<(), Error>> + 'static,
    {
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        let producer = Box::pin(produce(BodySink { pipe: Rc::clone(&pipe) }));
        StreamBody { producer, pipe }
    }
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StreamBody").finish_non_exhaustive()
    }
}

pub(crate) type SharedPipe = Rc<RefCell<Pipe>>;

/// What lies between a producer and the connection.
#[derive(Default)]
pub(crate) struct Pipe {
    bytes: Buffer,
    /// Nobody takes anything any more.
    is_closed: bool,
    /// Waits for room, or for the pipe to be empty.
    writer: Option<Waker>,
    /// Wakes the connection; set while the producer is not being polled.
    reader: Option<Waker>,
    trailers: Vec<(String, String)>,
}

impl Pipe {
    /// Takes what is there, and lets the producer go on.
    pub(crate) fn take(&mut self) -> Buffer {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        std::mem::replace(&mut self.bytes, Buffer::none())
    }

    /// Who is to be woken when bytes come; `None` while they are looked for anyway.
    pub(crate) fn set_reader(&mut self, reader: Option<Waker>) {
        self.reader = reader;
    }

    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        drop(self.take());
    }

    pub(crate) fn trailers(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.trailers)
    }

    fn poll_write(&mut self, rest: &mut &[u8], task: &Context<'_>) -> Poll<Result<(), Closed>> {
        if self.is_closed {
            return Poll::Ready(Err(Closed(())));
        }
        let (now, later) = rest.split_at(rest.len().min(PIPE_BYTES_MAX - self.bytes.len()));
        *rest = later;
        if !now.is_empty() {
            self.bytes.obtain().extend_from_slice(now);
            if let Some(reader) = &self.reader {
                reader.wake_by_ref();
            }
        }
        if later.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.writer = Some(task.waker().clone());
        Poll::Pending
    }

    fn poll_flush(&mut self, task: &Context<'_>) -> Poll<Result<(), Closed>> {
        if self.is_closed {
            return Poll::Ready(Err(Closed(())));
        }
        if self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.writer = Some(task.waker().clone());
        Poll::Pending
    }
}

/// Where the body of a streamed response goes; see [`Response::stream`](crate::Response::stream).
pub struct BodySink {
    pipe: SharedPipe,
}

impl BodySink {
    /// Appends `bytes` to the body; waits while the client is slower than the handler.
    ///
    /// Small pieces that are written in one go leave together. What exceeds a declared `Content-Length` is not sent.
    ///
    /// # Errors
    ///
    /// The response is over: the client went away, or the body is complete.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Closed> {
        let mut rest = bytes.as_ref();
        poll_fn(|task| self.pipe.borrow_mut().poll_write(&mut rest, task)).await
    }

    /// Waits until everything written was taken from the pipe: it is at the socket, or waits for the client's turn.
    ///
    /// # Errors
    ///
    /// As [`BodySink::write`].
    pub async fn flush(&mut self) -> Result<(), Closed> {
        poll_fn(|task| self.pipe.borrow_mut().poll_flush(task)).await
    }

    /// Adds a field after the body, where the response is in chunks; elsewhere it is left out.
    ///
    /// Proxies mostly drop trailers. At most 64 of them are sent, and none that is not a valid field.
    pub fn trailer(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.trailers.len() < TRAILERS_MAX {
            pipe.trailers.push((name.into(), value.into()));
        }
    }
}

impl fmt::Debug for BodySink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BodySink").finish_non_exhaustive()
    }
}

/// The response that was written to is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed(());

impl fmt::Display for Closed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the response is over")
    }
}

impl std::error::Error for Closed {}
