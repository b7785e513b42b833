//! The body of a request, as an asynchronous handler reads it.
//!
//! - Bytes flow from the connection into a bounded channel; when that is full the client is not read from, so
//!   a slow handler slows its client down and nobody else.
//! - A handler that never asks gets nothing: the rest is skipped, or the connection closed, after its answer.
//! - `100 Continue` is sent when the handler first waits for bytes that have not come.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde::de::DeserializeOwned;

use crate::buffer::Buffer;
use crate::context::Context as Services;
use crate::error::Error;
use crate::executor::{ReadyQueue, TaskKey};
use crate::spool::{SpoolRules, Spooled};
use crate::trailers::Trailers;

/// Bytes of a body that may wait for its handler; above that the client is not read from.
pub(crate) const CHANNEL_BYTES_MAX: usize = 64 * 1024;

/// Largest body that is gathered, in bytes, where neither the application nor a setting says otherwise.
pub(crate) const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// Why a request's body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// It is larger than allowed.
    TooLarge,
    /// Its framing broke the rules.
    Malformed,
    /// The client went away, or said it was done too early.
    Cut,
    /// The client sent nothing, or too little, for too long.
    TimedOut,
    /// It was to be kept in a file, and the disk is full or broken.
    NotStored,
}

impl BodyError {
    /// The status that tells the client.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            BodyError::TooLarge => 413,
            BodyError::Malformed | BodyError::Cut => 400,
            BodyError::TimedOut => 408,
            BodyError::NotStored => 507,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            BodyError::TooLarge => "the request's body is too large",
            BodyError::Malformed => "the request's body is malformed",
            BodyError::Cut => "the request's body was cut off",
            BodyError::TimedOut => "the request's body did not arrive in time",
            BodyError::NotStored => "the request's body cannot be stored",
        })
    }
}

impl std::error::Error for BodyError {}

/// The loop's end and the handler's end of one body.
pub(crate) struct Channel {
    bytes: Buffer,
    trailers: Trailers,
    end: Option<Result<(), BodyError>>,
    reader: Option<Waker>,
    is_wanted: bool,
    is_throttled: bool,
    queue: Arc<ReadyQueue>,
    key: TaskKey,
}

pub(crate) type SharedChannel = Rc<RefCell<Channel>>;

impl Channel {
    pub(crate) fn new(queue: &Arc<ReadyQueue>, key: TaskKey) -> SharedChannel {
        Rc::new(RefCell::new(Channel {
            bytes: Buffer::none(),
            trailers: Trailers::NONE,
            end: None,
            reader: None,
            is_wanted: false,
            is_throttled: false,
            queue: Arc::clone(queue),
            key,
        }))
    }

    /// How many bytes the loop may still put in; 0 makes it wait until the handler took some.
    pub(crate) fn room(&mut self) -> usize {
        let room = CHANNEL_BYTES_MAX.saturating_sub(self.bytes.len());
        self.is_throttled = room == 0;
        room
    }

    /// Hands bytes to the handler.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.obtain().extend_from_slice(bytes);
        self.wake();
    }

    /// Says that no more will come, and why.
    pub(crate) fn finish(&mut self, end: Result<(), BodyError>) {
        self.end = Some(end);
        self.wake();
    }

    /// Says that the body is complete.
    pub(crate) fn complete(&mut self, trailers: Trailers) {
        self.trailers = trailers;
        self.finish(Ok(()));
    }

    /// The handler has asked for bytes.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// The handler waits for bytes that have not come.
    pub(crate) fn is_awaited(&self) -> bool {
        self.reader.is_some()
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_chunk(&mut self, task: &Context<'_>) -> Poll<Result<Option<Buffer>, BodyError>> {
        if !self.bytes.is_empty() {
            if self.is_throttled {
                self.is_throttled = false;
                self.queue.push(self.key); // There is room again: the loop may read on.
            }
            return Poll::Ready(Ok(Some(std::mem::replace(&mut self.bytes, Buffer::none()))));
        }
        match self.end {
            Some(Ok(())) => Poll::Ready(Ok(None)),
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => {
                if !self.is_wanted {
                    self.is_wanted = true;
                    self.queue.push(self.key); // The client may be waiting for `100 Continue`.
                }
                self.reader = Some(task.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The body of a request, to be read in an asynchronous handler.
///
/// It may be kept past the borrowed request: take it before the `async` block, read it inside.
pub struct RequestBody {
    channel: Option<SharedChannel>,
    bytes_max: u64,
}

impl RequestBody {
    pub(crate) fn none() -> RequestBody {
        RequestBody { channel: None, bytes_max: 0 }
    }

    pub(crate) fn of(channel: &SharedChannel, bytes_max: u64) -> RequestBody {
        RequestBody { channel: Some(Rc::clone(channel)), bytes_max }
    }

    /// The next bytes, as they arrive; `None` at the end. At most 64 KiB at a time.
    ///
    /// While the handler does not ask, the client is not read from: memory stays bounded whatever it sends.
    ///
    /// # Errors
    ///
    /// The framing was wrong, or the client went away or fell silent.
    pub async fn chunk(&mut self) -> Result<Option<Buffer>, BodyError> {
        match &self.channel {
            None => Ok(None),
            Some(channel) => poll_fn(|task| channel.borrow_mut().poll_chunk(task)).await,
        }
    }

    /// The fields after the body, once all of it was read; none before.
    #[must_use]
    pub fn trailers(&self) -> Trailers {
        match &self.channel {
            Some(channel) if channel.borrow().bytes.is_empty() => channel.borrow().trailers.clone(),
            _ => Trailers::NONE,
        }
    }

    /// The whole body, in memory if it is short and in a file if it is not: see the settings `body_memory_max` and
    /// `tmp_upload_dir`.
    ///
    /// ```
    /// use worker::{App, Context, OwnedRequest, Response, Result, owned};
    ///
    /// async fn upload(request: OwnedRequest, cx: Context) -> Result {
    ///     let mut body = request.into_body().spool(&cx).await?;
    ///     let bytes = std::io::copy(&mut body, &mut std::io::sink())?; // It reads like any file.
    ///     Ok(Response::text(format!("{bytes} bytes\n")))
    /// }
    ///
    /// let app = App::new().post_async("/upload", owned(upload));
    /// # let _ = app;
    /// ```
    ///
    /// # Errors
    ///
    /// As [`RequestBody::chunk`], and [`BodyError::NotStored`] (507 by `?`; why is logged).
    pub async fn spool<S>(mut self, cx: &Services<S>) -> Result<Spooled, BodyError> {
        let rules = SpoolRules::of(cx.settings());
        let log = cx.log();
        let not_stored = |error: std::io::Error| {
            log.error(format_args!("Cannot store a request body: {error}"));
            BodyError::NotStored
        };
        let mut whole = Spooled::new();
        while let Some(chunk) = self.chunk().await? {
            whole.put(&chunk, &rules).map_err(not_stored)?;
        }
        whole.end(self.trailers()).map_err(not_stored)?;
        Ok(whole)
    }

    /// The whole body, gathered in memory up to the application's limit.
    ///
    /// # Errors
    ///
    /// As [`RequestBody::chunk`], and [`BodyError::TooLarge`] (413 by `?`).
    pub async fn bytes(mut self) -> Result<Buffer, BodyError> {
        let mut whole = Buffer::none();
        while let Some(chunk) = self.chunk().await? {
            if self.bytes_max < (whole.len() + chunk.len()) as u64 {
                return Err(BodyError::TooLarge);
            }
            if whole.is_empty() {
                whole = chunk;
            } else {
                whole.extend_from_slice(&chunk);
            }
        }
        Ok(whole)
    }

    /// The whole body, read as JSON; a body that is not what was asked for is 400 by `?`.
    ///
    /// # Errors
    ///
    /// As [`RequestBody::bytes`], and a refusal (400) for malformed JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|_| Error::status(400))
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RequestBody")
            .field("has_body", &self.channel.is_some())
            .finish_non_exhaustive()
    }
}
