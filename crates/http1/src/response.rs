//! Responses, written straight into the connection's write buffer.
//!
//! - Framing is decided here, from the request and the status: nobody else writes Content-Length, Transfer-Encoding,
//!   Connection, Server or Date.
//! - Names and values are checked, so no application can inject a field or a second response.
//! - A failed response leaves the buffer as it was found.

use crate::chars::{self, VALUE};
use crate::error::ResponseError;
use crate::head::{Head, Method, Version};
use crate::status::reason_phrase;

/// The interim response that asks for the body (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const OK_LINE: &[u8; 17] = b"HTTP/1.1 200 OK\r\n";
const SERVER_AND_DATE: &[u8; 25] = b"Server: monoceros\r\nDate: ";
const STAMP_LEN: usize = 25 + 29 + 2;

/// What every response of one second begins with, kept ready: made anew when the date changes.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Status line for 200, Server, Date.
    bytes: [u8; OK_LINE.len() + STAMP_LEN],
}

impl Stamp {
    /// Makes the stamp for a date, which is an IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    #[must_use]
    pub fn new(date: &[u8; 29]) -> Stamp {
        let mut bytes = [0; OK_LINE.len() + STAMP_LEN];
        bytes[..17].copy_from_slice(OK_LINE);
        bytes[17..42].copy_from_slice(SERVER_AND_DATE);
        bytes[42..71].copy_from_slice(date);
        bytes[71..].copy_from_slice(b"\r\n");
        Stamp { bytes }
    }

    /// Returns `Server: …` and `Date: …` with their line ends.
    #[must_use]
    pub fn fields(&self) -> &[u8] {
        &self.bytes[17..]
    }

    /// Appends status line, Server and Date.
    #[inline]
    fn begin(&self, out: &mut Vec<u8>, status: u16) {
        if status == 200 {
            out.extend_from_slice(&self.bytes);
        } else {
            status_line(out, status);
            out.extend_from_slice(self.fields());
        }
    }
}

fn status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What a response has to know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The request's version: 1.0 knows no chunks.
    pub version: Version,
    /// The request was HEAD: the head of the response is as for GET, its body is left out.
    pub is_head: bool,
    /// The request was CONNECT: a 2xx has no body.
    pub is_connect: bool,
    /// Whether the connection is to be kept after the response. Set it to `false` to close.
    pub keep_alive: bool,
}

impl Exchange {
    /// What the response to a request that never parsed has to know: close.
    pub const UNKNOWN: Exchange =
        Exchange { version: Version::Http11, is_head: false, is_connect: false, keep_alive: false };

    /// Returns the exchange that `head` opens; it is kept alive if the client wants that.
    #[must_use]
    pub fn of(head: &Head<'_>) -> Exchange {
        Exchange {
            version: head.version(),
            is_head: head.method() == Method::Head,
            is_connect: head.method() == Method::Connect,
            keep_alive: head.keep_alive(),
        }
    }

    /// `Connection: …`, where the version's default does not say it already.
    #[inline]
    fn connection_field(&self) -> &'static [u8] {
        match (self.version, self.keep_alive) {
            (Version::Http11, true) | (Version::Http10, false) => b"",
            (Version::Http11, false) => b"Connection: close\r\n",
            (Version::Http10, true) => b"Connection: keep-alive\r\n",
        }
    }

    fn permits_body(&self, status: u16) -> bool {
        !self.is_head && !self.is_bodiless(status)
    }

    /// Whether a response with `status` has no body whatever the method (RFC 9112 §6.3).
    fn is_bodiless(&self, status: u16) -> bool {
        matches!(status, 100..=199 | 204 | 304) || self.is_connect && matches!(status, 200..=299)
    }
}

/// Appends a whole response with a body that is there: the short way for small answers.
///
/// `content_type` is a constant of the program and trusted to be a valid field value. The body is left out where the
/// request or the status forbids one.
#[inline]
pub fn respond(
    out: &mut Vec<u8>,
    exchange: &Exchange,
    stamp: &Stamp,
    status: u16,
    content_type: &'static str,
    body: &[u8],
) {
    debug_assert!(
        chars::all(content_type.as_bytes(), VALUE),
        "invalid content type {content_type:?}"
    );
    out.reserve(192 + content_type.len() + body.len());
    stamp.begin(out, status);
    out.extend_from_slice(exchange.connection_field());
    if !exchange.is_bodiless(status) {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(content_type.as_bytes());
        out.extend_from_slice(b"\r\nContent-Length: ");
        let length = if status == 205 { 0 } else { body.len() };
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if exchange.permits_body(status) && status != 205 {
        out.extend_from_slice(body);
    }
}

/// Writes the head of one final response, field by field, then says how its body is framed.
///
/// Dropped before [`Encoder::length`], [`Encoder::chunked`] or [`Encoder::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    exchange: Exchange,
    status: u16,
    declared: Option<u64>,
    is_finished: bool,
}

impl<'o> Encoder<'o> {
    /// Begins a response.
    ///
    /// # Errors
    ///
    /// [`ResponseError::Status`] unless `status` is between 200 and 999.
    #[inline]
    pub fn new(
        out: &'o mut Vec<u8>,
        exchange: Exchange,
        stamp: &Stamp,
        status: u16,
    ) -> Result<Self, ResponseError> {
        if !(200..=999).contains(&status) {
            return Err(ResponseError::Status);
        }
        let start = out.len();
        stamp.begin(out, status);
        Ok(Encoder { out, start, exchange, status, declared: None, is_finished: false })
    }

    /// Adds a field.
    ///
    /// Content-Length declares the length of the body. Fields that belong to the connection, Server and Date are
    /// left out: they are written here. `Connection: close` is heeded.
    ///
    /// # Errors
    ///
    /// The name is no token, the value holds a control byte, or Content-Length is no number.
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<&mut Self, ResponseError> {
        let name = name.as_bytes();
        check_field(name, value)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value)
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length =
                length.and_then(|text| text.parse().ok()).ok_or(ResponseError::ContentLength)?;
            if self.declared.is_some_and(|declared| declared != length) {
                return Err(ResponseError::ContentLength);
            }
            self.declared = Some(length);
        } else if name.eq_ignore_ascii_case(b"connection") {
            if chars::list(value).any(|option| option.eq_ignore_ascii_case(b"close")) {
                self.exchange.keep_alive = false;
            }
        } else if !is_ours(name) {
            append_field(self.out, name, value);
        }
        Ok(self)
    }

    /// Ends the head; the body has `length` bytes (the declared Content-Length, if there was one, goes before).
    pub fn length(mut self, length: u64) -> BodyWriter {
        let length = if self.status == 205 { 0 } else { self.declared.unwrap_or(length) };
        if self.exchange.is_bodiless(self.status) {
            return self.end(Framed::Nothing);
        }
        self.out.extend_from_slice(b"Content-Length: ");
        self.out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        self.out.extend_from_slice(b"\r\n");
        let framed = if self.exchange.is_head { Framed::Nothing } else { Framed::Length(length) };
        self.end(framed)
    }

    /// Ends the head of a body whose length is not known: by Content-Length if it was declared, else in chunks, or, for
    /// HTTP/1.0, up to the end of the connection.
    pub fn chunked(mut self) -> BodyWriter {
        if self.declared.is_some() || self.status == 205 || self.exchange.is_bodiless(self.status) {
            return self.length(0);
        }
        match self.exchange.version {
            Version::Http10 => {
                self.exchange.keep_alive = false;
                let framed =
                    if self.exchange.is_head { Framed::Nothing } else { Framed::UntilClose };
                self.end(framed)
            }
            Version::Http11 => {
                self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                let framed = if self.exchange.is_head { Framed::Nothing } else { Framed::Chunked };
                self.end(framed)
            }
        }
    }

    /// Ends the head and appends the whole body. A declared Content-Length counts only for HEAD, where the body may
    /// have been left out by the application.
    pub fn finish(mut self, body: &[u8]) -> Finish {
        let declared = if self.exchange.is_head { self.declared } else { None };
        let length = declared.unwrap_or(body.len() as u64);
        if !self.exchange.is_bodiless(self.status) {
            let length = if self.status == 205 { 0 } else { length };
            self.out.extend_from_slice(b"Content-Length: ");
            self.out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(self.exchange.connection_field());
        self.out.extend_from_slice(b"\r\n");
        if self.exchange.permits_body(self.status) && self.status != 205 {
            self.out.extend_from_slice(body);
        }
        self.is_finished = true;
        if self.exchange.keep_alive { Finish::KeepAlive } else { Finish::Close }
    }

    fn end(&mut self, framed: Framed) -> BodyWriter {
        self.out.extend_from_slice(self.exchange.connection_field());
        self.out.extend_from_slice(b"\r\n");
        self.is_finished = true;
        BodyWriter { framed, keep_alive: self.exchange.keep_alive }
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.out.truncate(self.start);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framed {
    /// There is no body: what is written is dropped.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    UntilClose,
}

/// Writes a body as its head announced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyWriter {
    framed: Framed,
    keep_alive: bool,
}

/// What a finished response means for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The next request may follow.
    KeepAlive,
    /// The connection closes, as the response said or its framing demands.
    Close,
    /// Fewer bytes were written than the head promised: the connection must be cut, for the client waits for more.
    Truncated {
        /// How many bytes are missing.
        missing: u64,
    },
}

impl BodyWriter {
    /// Appends a piece of the body. What exceeds the announced length is left out.
    ///
    /// Returns how many bytes of `data` were not sent for that reason; 0 is the rule.
    pub fn write(&mut self, out: &mut Vec<u8>, data: &[u8]) -> usize {
        match &mut self.framed {
            Framed::Nothing => 0,
            Framed::UntilClose => {
                out.extend_from_slice(data);
                0
            }
            Framed::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= taken as u64;
                out.extend_from_slice(&data[..taken]);
                data.len() - taken
            }
            // An empty chunk would end the body.
            Framed::Chunked if data.is_empty() => 0,
            Framed::Chunked => {
                let mut size = [0; 18];
                let size = hex_line(data.len() as u64, &mut size);
                out.reserve(size.len() + data.len() + 2);
                out.extend_from_slice(size);
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
                0
            }
        }
    }

    /// Takes note of `bytes` sent past the buffer (sendfile). Only for bodies with a length.
    pub fn sent(&mut self, bytes: u64) {
        if let Framed::Length(left) = &mut self.framed {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Returns how many bytes are still promised; `None` where no length was announced.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.framed {
            Framed::Nothing => Some(0),
            Framed::Length(left) => Some(left),
            Framed::Chunked | Framed::UntilClose => None,
        }
    }

    /// Whether what is written reaches the client at all: not for HEAD, 204, 304.
    #[must_use]
    pub fn sends_body(&self) -> bool {
        self.framed != Framed::Nothing
    }

    /// Ends the body.
    #[must_use]
    pub fn finish(self, out: &mut Vec<u8>) -> Finish {
        match self.framed {
            Framed::Length(missing) if missing != 0 => return Finish::Truncated { missing },
            Framed::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            _ => (),
        }
        if self.keep_alive { Finish::KeepAlive } else { Finish::Close }
    }
}

/// `number` in hexadecimal, followed by CRLF.
fn hex_line(number: u64, buffer: &mut [u8; 18]) -> &[u8] {
    buffer[16..].copy_from_slice(b"\r\n");
    let mut at = 16;
    let mut rest = number;
    loop {
        at -= 1;
        buffer[at] = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            return &buffer[at..];
        }
    }
}

/// Appends an interim response, such as 103 with Link fields. The caller sees to it that the request is HTTP/1.1.
///
/// # Errors
///
/// The status is not between 102 and 199, or a field is invalid; nothing is appended then.
pub fn interim(
    out: &mut Vec<u8>,
    status: u16,
    fields: &[(&str, &[u8])],
) -> Result<(), ResponseError> {
    if !(102..=199).contains(&status) {
        return Err(ResponseError::Status);
    }
    for (name, value) in fields {
        check_field(name.as_bytes(), value)?;
    }
    status_line(out, status);
    for (name, value) in fields {
        if !is_ours(name.as_bytes()) && !name.eq_ignore_ascii_case("content-length") {
            append_field(out, name.as_bytes(), value);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn check_field(name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
    if !chars::is_token(name) {
        return Err(ResponseError::FieldName);
    }
    if !chars::all(value, VALUE) {
        return Err(ResponseError::FieldValue);
    }
    Ok(())
}

fn append_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(chars::trim(value));
    out.extend_from_slice(b"\r\n");
}

/// Fields that the server writes itself or that belong to the connection, which is not the application's.
fn is_ours(name: &[u8]) -> bool {
    const OURS: [&[u8]; 10] = [
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"server",
        b"te",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    ];
    OURS.iter().any(|known| name.eq_ignore_ascii_case(known))
}
