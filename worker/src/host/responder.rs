//! How a host answers: head, pieces of the body, a file.
//!
//! - The head goes out with the first piece; until then nothing is decided.
//! - What was written is sent at once, as far as the client takes it; the rest waits, up to [`HELD_UP_BYTES`] and one piece.
//! - A body never exceeds the length its head announced; one that falls short closes the connection.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use http1::{BodyWriter, Encoder, Exchange, Finish, ResponseError};
use sys::Signal;
use sys::signal::has_arrived;

use crate::connection::{Connection, REQUEST_ID};
use crate::core::{Core, Tag};

/// Output that may wait for the client before the host is asked to pause, in bytes.
const HELD_UP_BYTES: usize = 1024 * 1024;
/// A host that has been at work for longer than this lets the loop turn between two pieces.
const LONG_NS: u64 = 20_000_000;
/// Longest wait of a host for a client that takes nothing, without a limit in the settings.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Longest part of it without a heartbeat.
const ROOM_WAIT: Duration = Duration::from_millis(250);

/// Why the host's answer cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The head is wrong.
    Head(ResponseError),
    /// The client is gone, or takes nothing.
    Gone,
}

impl From<ResponseError> for HostError {
    fn from(error: ResponseError) -> HostError {
        HostError::Head(error)
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Head(error) => error.fmt(out),
            HostError::Gone => out.write_str("the client is gone"),
        }
    }
}

impl std::error::Error for HostError {}

/// A part of a file that is to be sent.
#[derive(Debug)]
pub(crate) struct FilePart {
    pub(crate) file: File,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// What is known of a response that is not complete.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) exchange: Exchange,
    /// How its body is framed, once its head is written.
    pub(crate) writer: Option<BodyWriter>,
    pub(crate) status: u16,
    /// It cannot be completed: the connection ends where it stands.
    pub(crate) is_cut: bool,
    pub(crate) file: Option<FilePart>,
    /// Its end is written already.
    pub(crate) finish: Option<Finish>,
    /// `CLOCK_MONOTONIC` in nanoseconds when it was taken in hand.
    pub(crate) since: u64,
    pub(crate) tag: Tag,
    /// Bytes of the body that are in the output or were.
    pub(crate) sent: u64,
}

impl Reply {
    pub(crate) fn new(exchange: Exchange, tag: Tag, since: u64) -> Reply {
        Reply {
            exchange,
            writer: None,
            status: 500,
            is_cut: false,
            file: None,
            finish: None,
            since,
            tag,
            sent: 0,
        }
    }

    /// How far it has come: whether its head is written, and how much of its body.
    pub(crate) fn said(&self) -> (bool, u64) {
        (self.writer.is_some(), self.sent)
    }
}

/// Takes a response from a host.
pub struct Responder<'c> {
    pub(crate) connection: &'c mut Connection,
    pub(crate) core: &'c mut Core,
    pub(crate) reply: &'c mut Reply,
    /// Of the request.
    pub(crate) method: &'c [u8],
    pub(crate) path: &'c [u8],
    /// When this call of the host began, as [`Reply::since`].
    pub(crate) called: u64,
}

impl Responder<'_> {
    /// Writes the head. `fill` adds the fields; `length` is the body's length where it is known.
    ///
    /// A Content-Length among the fields goes before `length`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// What `fill` says, or what is wrong with the status; nothing is written then.
    pub fn head<E: From<ResponseError>>(
        &mut self,
        status: u16,
        reason: &[u8],
        length: Option<u64>,
        fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(self.reply.writer.is_none(), "a second head");
        let mut exchange = self.reply.exchange;
        exchange.keep_alive &= !self.core.drain.says_close();
        let id = self.connection.take_request_id();
        let stamp = self.core.date.stamp();
        let out = self.connection.output_memory();
        let before = out.len();
        let mut encoder = Encoder::with_reason(out, exchange, stamp, status, reason)?;
        fill(&mut encoder)?;
        if let Some(id) = &id
            && !encoder.has(REQUEST_ID)
        {
            encoder.field(REQUEST_ID, id.as_bytes())?;
        }
        let writer = match length {
            Some(length) => encoder.length(length),
            None => encoder.chunked(),
        };
        self.connection.body_begins(status, &writer);
        self.reply.writer = Some(writer);
        self.reply.status = status;
        self.connection.record_head(before, self.core);
        Ok(())
    }

    /// Method and path of the request, for a log line.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}", self.method.escape_ascii(), self.path.escape_ascii())
    }

    /// Our side of the connection; `None` for a unix socket. Costs a system call.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.connection.local_address()
    }

    /// Whether the head is written: nothing about it can be changed any more.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.reply.writer.is_some()
    }

    /// How many bytes of the body are on their way so far, a file's included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.reply.sent + self.reply.file.as_ref().map_or(0, |part| part.length)
    }

    /// Whether the request was HEAD.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.reply.exchange.is_head
    }

    /// How many bytes the body may still have; `None` where no length was announced.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.reply.writer.as_ref().and_then(BodyWriter::remaining)
    }

    /// Adds a piece of the body; it goes out with the next [`Responder::send`], or at the end.
    ///
    /// What exceeds the announced length is left out.
    pub fn append(&mut self, piece: &[u8]) {
        if let Some(writer) = &mut self.reply.writer
            && self.reply.finish.is_none()
        {
            let surplus = writer.write(self.connection.output_memory(), piece);
            if writer.sends_body() {
                self.reply.sent += (piece.len() - surplus) as u64;
                self.connection.body_goes_on(self.reply.sent);
            }
        }
    }

    /// Sends what there is, as far as the client takes it.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub fn send(&mut self) -> Result<(), HostError> {
        self.connection.flush(self.core);
        if self.connection.is_dead() { Err(HostError::Gone) } else { Ok(()) }
    }

    /// Whether nobody is there to take anything.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.connection.is_dead()
    }

    /// Whether the client has so much to take that the host should return [`Progress::More`](super::Progress::More).
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        HELD_UP_BYTES <= self.connection.output_left()
    }

    /// Whether the loop should turn before the host goes on.
    #[must_use]
    pub fn is_long(&self) -> bool {
        LONG_NS < sys::clock::monotonic().saturating_sub(self.called)
    }

    /// Waits until the client has room: for a host that cannot pause. `wait` sleeps until the socket is writable, or for
    /// as long as it is told, and says whether it is.
    ///
    /// # Errors
    ///
    /// The client is gone, or took nothing, or too little, for the write time limit.
    pub fn wait_for_room(
        &mut self,
        wait: impl Fn(BorrowedFd<'_>, Duration) -> bool,
    ) -> Result<(), HostError> {
        if !self.is_held_up() {
            return Ok(());
        }
        let mut waited = Duration::ZERO;
        // Nobody is to take this for the request's own time.
        self.core.let_go();
        while self.is_held_up() {
            // It is the client that is slow, not the worker.
            self.core.block.beat(sys::clock::monotonic());
            if self.connection.wait_for_room(ROOM_WAIT, &wait) {
                waited = Duration::ZERO;
                self.send()?;
                continue;
            }
            waited += ROOM_WAIT;
            let is_told_to_stop = [Signal::SIGQUIT, Signal::SIGINT].into_iter().any(has_arrived);
            let is_stalled = match self.core.limits.write {
                Some(_) => !self.connection.is_taken_from(self.core),
                None => ROOM_WAIT_MAX <= waited,
            };
            if is_stalled || is_told_to_stop {
                self.connection.abandon(self.core);
                return Err(HostError::Gone);
            }
        }
        self.core.tick = sys::clock::monotonic();
        self.core.hold(self.method, self.path, &self.connection.peer_text);
        Ok(())
    }

    /// Sends `length` bytes of a file from `offset` on, after what was written. It needs the host no longer.
    ///
    /// Only for a body whose length was announced: any other is cut, for its end could not be said.
    pub fn send_file(&mut self, file: File, offset: u64, length: u64) {
        if self.remaining().is_none() {
            return self.fail();
        }
        self.reply.file = Some(FilePart { file, offset, length });
    }

    /// Sends an interim response, such as 103 with Link fields; for HTTP/1.0 it is left out.
    ///
    /// # Errors
    ///
    /// A field is invalid, or the client is gone.
    pub fn interim(&mut self, status: u16, fields: &[(&str, &[u8])]) -> Result<(), HostError> {
        if self.reply.exchange.version == http1::Version::Http10 || self.has_begun() {
            return Ok(());
        }
        http1::interim(self.connection.output_memory(), status, fields)?;
        self.send()
    }

    /// Sends the end of the response, so that its client need not wait for what the host has still to do.
    pub fn finish(&mut self) {
        if let Some(writer) = self.reply.writer
            && self.reply.file.is_none()
            && self.reply.finish.is_none()
            && !self.reply.is_cut
        {
            self.reply.finish = Some(writer.finish(self.connection.output_memory()));
        }
        // A client that is gone needs no end.
        let _ = self.send();
    }

    /// The response cannot be completed: 500 if nothing was written, else the connection is cut.
    pub fn fail(&mut self) {
        self.reply.is_cut = true;
    }
}
