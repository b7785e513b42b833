//! A parsed request head: borrowed from the read buffer, nothing copied.
//!
//! - Fields keep wire order, case and repetitions; only the white space around values is gone.
//! - Places in the buffer are kept as offsets ([`FieldStorage`]), so that one storage serves every request of a worker.

use std::fmt;

/// A request method. Methods are case-sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method<'a> {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Any other token.
    Other(&'a str),
}

impl<'a> Method<'a> {
    /// Reads a method that is known to be a token.
    pub(crate) fn from_token(token: &'a [u8]) -> Method<'a> {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            other => Method::Other(std::str::from_utf8(other).unwrap_or_default()),
        }
    }

    /// Returns the method as it was sent.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other(name) => name,
        }
    }
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The protocol version of a request. A minor version above 1 is served as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl Version {
    /// Returns `HTTP/1.0` or `HTTP/1.1`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

/// How the end of a request body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// There is no body: neither Content-Length nor Transfer-Encoding was sent.
    None,
    /// So many bytes follow the head.
    Length(u64),
    /// Chunks follow the head.
    Chunked,
}

impl Framing {
    /// Whether nothing follows the head.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }
}

/// A place in the buffer that holds the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Heads are at most [`Limits::head_bytes_max`](crate::Limits::head_bytes_max) long, which fits.
    pub(crate) fn new(start: usize, len: usize) -> Span {
        Span { start: start as u32, len: len as u32 }
    }

    pub(crate) fn end(self) -> usize {
        (self.start + self.len) as usize
    }

    #[inline]
    pub(crate) fn of(self, buf: &[u8]) -> &[u8] {
        let start = self.start as usize;
        buf.get(start..start + self.len as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldSpan {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// Where the fields of one head stand in its buffer. Reused from request to request; it grows, once, to the most
/// fields seen, at most to the limit.
#[derive(Clone, Debug, Default)]
pub struct FieldStorage {
    pub(crate) spans: Vec<FieldSpan>,
}

/// Fields that a new storage has room for: ordinary requests never make it grow.
const FIELDS_EXPECTED: usize = 64;

impl FieldStorage {
    /// Creates a storage with room for an ordinary head.
    #[must_use]
    pub fn new() -> Self {
        FieldStorage { spans: Vec::with_capacity(FIELDS_EXPECTED) }
    }
}

/// One header field. `name` is a token in the sender's case; `value` has no white space around it and no control
/// bytes but HTAB in it, and may hold bytes above 0x7f.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as sent.
    pub name: &'a [u8],
    /// The value without the white space around it.
    pub value: &'a [u8],
}

/// The fields of a head in wire order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    pub(crate) buf: &'a [u8],
    pub(crate) spans: &'a [FieldSpan],
}

impl<'a> Fields<'a> {
    /// Returns how many there are, repetitions counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Iterates over the fields in wire order.
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = Field<'a>> + DoubleEndedIterator + Clone + use<'a> {
        let buf = self.buf;
        self.spans
            .iter()
            .map(move |span| Field { name: span.name.of(buf), value: span.value.of(buf) })
    }

    /// Returns the value of the first field called `name`, compared without case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Iterates over the values of every field called `name`, compared without case, in wire order.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }
}

/// A request head. Made by [`parse_head`](crate::parse_head), so everything in it has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub(crate) method: Method<'a>,
    pub(crate) target: &'a [u8],
    pub(crate) path: &'a [u8],
    pub(crate) query: Option<&'a [u8]>,
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) upgrade: Option<&'a [u8]>,
    pub(crate) fields: Fields<'a>,
    pub(crate) len: usize,
    pub(crate) framing: Framing,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) expect_continue: bool,
    pub(crate) is_https: bool,
}

impl<'a> Head<'a> {
    /// Returns the method.
    #[must_use]
    pub fn method(&self) -> Method<'a> {
        self.method
    }

    /// Returns the request target as sent.
    #[must_use]
    pub fn target(&self) -> &'a [u8] {
        self.target
    }

    /// Returns the path, not decoded: what stands before `?`, without scheme and authority. Begins with `/`, but is
    /// `*` for `OPTIONS *` and empty for CONNECT.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// Returns what stands after the first `?`, not decoded; `None` without a `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a [u8]> {
        self.query
    }

    /// Returns the host and port that were asked for: the target's own if it has one (RFC 9112 §3.2.2), else Host.
    /// `None` only in HTTP/1.0; may be empty.
    #[must_use]
    pub fn host(&self) -> Option<&'a [u8]> {
        self.host
    }

    /// Returns the protocol version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns how the end of the body is found.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client wants to use the connection again.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client may wait for `100 Continue` before it sends the body. Never true without a body or in
    /// HTTP/1.0.
    #[must_use]
    pub fn expect_continue(&self) -> bool {
        self.expect_continue
    }

    /// Whether the target names `https`; only possible where the policy permits it.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Returns the protocols the client offers to change to: Upgrade, where Connection names it. Never in HTTP/1.0.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        self.upgrade
    }

    /// Returns the header fields.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        self.fields
    }

    /// Returns the value of the first field called `name`, compared without case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.get(name)
    }

    /// Returns how many bytes of the buffer the head takes; the body begins after them. Never 0.
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
}
