//! The access log's format: gunicorn's grammar, compiled once into pieces, so that a line costs little.
//!
//! - What a request says is captured when it arrives, for its bytes are gone when it is answered; the rest is added
//!   when its line is written. Both are plain copies into a buffer.
//! - What a client sent cannot forge a line: quotes, backslashes, control and foreign bytes are escaped.
//! - Knows nothing of HTTP's syntax: a [`Subject`] is asked for parts by name.

mod basic;
mod clock;
pub(crate) mod escape;
mod parse;
mod write;

use std::borrow::Cow;

pub use clock::Clock;

/// A format, ready to write lines.
#[derive(Clone, Debug)]
pub struct Format {
    segments: Vec<Segment>,
    /// Names of response fields that lines show, in their order.
    response_fields: Vec<Box<str>>,
    limit: Option<Limit>,
}

/// How long lines may become.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// Bytes that may be captured of a request without a second look.
    captured_bytes_max: usize,
    /// Bytes of each value, escapes included, where that was too much.
    value_bytes_max: usize,
}

/// A part of a line that is known at one time.
#[derive(Clone, Debug)]
enum Segment {
    /// Known when the request is there.
    Early(Vec<Piece>),
    /// Known when it is answered.
    Late(Vec<Piece>),
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(Box<[u8]>),
    Atom(Atom, Style),
    /// A member of a JSON object; left out when there is no value. The text is `,"name":`, and the quotation mark of the
    /// value if it has one.
    Member(Box<[u8]>, Atom),
}

/// How a value is set: Python's width and precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    width: u16,
    is_left: bool,
    is_zero: bool,
    /// Most bytes of the value.
    precision: Option<u16>,
}

/// What a line can show.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    Subject(What),
    /// Method, target and protocol.
    RequestLine,
    /// The path as sent, where [`What::Path`] alone means the decoded one.
    RawPath,
    /// `HTTP/1.1` as `1.1`.
    Version,
    /// The user of Basic authorization.
    User,
    Header(Box<str>),
    /// One of CGI's variables that is no header.
    Missing,
    Pid,
    /// `<4242>`, as gunicorn has it.
    PidInAngles,
    Worker,
    Generation,
    // From here on: known when the request is answered.
    ResponseField,
    /// `[22/Nov/2026:10:43:42 +0000]`
    Time,
    /// `2026-11-22T10:43:42.123Z`
    Timestamp,
    Status,
    BytesSent,
    BytesReceived,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    /// Seconds with six decimals.
    SecondsExact,
    Route,
    Reason,
}

/// A part of a request that a [`Subject`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Address of the peer, or what a PROXY header said.
    Peer,
    /// Port of the peer.
    PeerPort,
    /// Address of the client, as trusted proxies name it.
    Client,
    /// The method.
    Method,
    /// The request target as sent.
    Target,
    /// The path as sent.
    Path,
    /// What stands after `?`.
    Query,
    /// `HTTP/1.1`.
    Protocol,
    /// `http` or `https`.
    Scheme,
    /// The host asked for.
    Host,
    /// The request's id.
    RequestId,
    /// The trace the request belongs to, as hexadecimal digits.
    TraceId,
    /// Our part of that trace.
    SpanId,
    /// The first line as sent, of a request that was not understood.
    RawLine,
}

/// A request, as far as a log wants to know it.
pub trait Subject {
    /// Returns a part, if there is one.
    fn part(&self, what: What) -> Option<Cow<'_, [u8]>>;

    /// Returns the last header field of this name, compared without case.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The status that was sent; where none was, the one that describes what happened.
    pub status: u16,
    /// Bytes of the response's body.
    pub sent: u64,
    /// Bytes of the request's body.
    pub received: u64,
    /// Time it took, in nanoseconds.
    pub nanoseconds: u64,
    /// Why it did not go as it should, in one word; empty if it did.
    pub reason: &'static str,
    /// The pattern of the route that took it; empty if none did.
    pub route: &'a str,
}

/// Who writes the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    /// Process id.
    pub pid: u32,
    /// Slot of the worker.
    pub worker: usize,
    /// Generation of the worker.
    pub generation: u64,
}
