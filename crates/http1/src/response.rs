//! Heads of responses, written straight into the connection's write buffer.
//!
//! - Framing is decided here, from the request and the status: nobody else writes Content-Length, Transfer-Encoding,
//!   Connection, Server or Date.
//! - Names and values are checked, so no application can inject a field or a second response.
//! - A failed response leaves the buffer as it was found.

use crate::body_writer::{BodyWriter, Finish, Framed};
use crate::chars::{self, VALUE};
use crate::error::ResponseError;
use crate::field_block::FieldBlock;
use crate::head::{Head, Method, Version};
use crate::stamp::{Stamp, status_line};

/// The interim response that asks for the body (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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

    /// As [`Exchange::UNKNOWN`], for a request that begins with `bytes`: of its method so much is known that HEAD gets no
    /// content (RFC 9110 §9.3.2).
    #[must_use]
    pub fn of_refused(bytes: &[u8]) -> Exchange {
        // As the parser does, empty lines in front are passed over.
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
        Exchange { is_head: bytes[start..].starts_with(b"HEAD "), ..Exchange::UNKNOWN }
    }

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
    if status == 200
        && exchange.connection_field().is_empty()
        && !exchange.is_head
        && !exchange.is_connect
    {
        stamp.begin_typed(out);
        out.extend_from_slice(content_type.as_bytes());
        out.extend_from_slice(b"\r\nContent-Length: ");
        append_length(out, body.len());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
        return;
    }
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

/// Appends a number; short ones without a call.
#[inline]
fn append_length(out: &mut Vec<u8>, length: usize) {
    let digit = |number: usize| b'0' + (number % 10) as u8;
    match length {
        0..10 => out.push(digit(length)),
        10..100 => out.extend_from_slice(&[digit(length / 10), digit(length)]),
        100..1000 => {
            out.extend_from_slice(&[digit(length / 100), digit(length / 10), digit(length)])
        }
        _ => out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes()),
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
    /// It names a protocol to change to.
    upgrades: bool,
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
        Ok(Encoder::begun(out, start, exchange, status))
    }

    /// Begins a response whose status line has a reason phrase of the application's.
    ///
    /// # Errors
    ///
    /// As [`Encoder::new`]; [`ResponseError::FieldValue`] for a control byte in `reason`.
    pub fn with_reason(
        out: &'o mut Vec<u8>,
        exchange: Exchange,
        stamp: &Stamp,
        status: u16,
        reason: &[u8],
    ) -> Result<Self, ResponseError> {
        if !(200..=999).contains(&status) {
            return Err(ResponseError::Status);
        }
        if !chars::all(reason, VALUE) {
            return Err(ResponseError::FieldValue);
        }
        let start = out.len();
        stamp.begin_with_reason(out, status, reason);
        Ok(Encoder::begun(out, start, exchange, status))
    }

    /// The status line stands in `out` from `start` on.
    #[inline]
    fn begun(out: &'o mut Vec<u8>, start: usize, exchange: Exchange, status: u16) -> Self {
        Encoder {
            out,
            start,
            exchange,
            status,
            declared: None,
            upgrades: false,
            is_finished: false,
        }
    }

    /// Whether a field called `name` was added.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        written_field(&self.out[self.start..], name).is_some()
    }

    /// Adds a field.
    ///
    /// Content-Length declares the length of the body. Fields that belong to the connection, Server and Date are
    /// left out: they are written here. `Connection: close` is heeded. Upgrade goes with 426, Proxy-Authenticate with 407.
    ///
    /// # Errors
    ///
    /// The name is no token, the value holds a control byte, or Content-Length is no number.
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<&mut Self, ResponseError> {
        let name = name.as_bytes();
        check_field(name, value)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = content_length(value)?;
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
        } else if belongs_to(name, self.status) {
            self.upgrades |= self.status == UPGRADE_REQUIRED;
            append_field(self.out, name, value);
        }
        Ok(self)
    }

    /// Adds fields that were checked before, all at once.
    pub fn block(&mut self, block: &FieldBlock) -> &mut Self {
        self.out.extend_from_slice(&block.bytes);
        self.declared = block.declared;
        self.exchange.keep_alive &= !block.closes;
        self.upgrades = block.upgrades;
        self
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
        self.end_head();
        if self.exchange.permits_body(self.status) && self.status != 205 {
            self.out.extend_from_slice(body);
        }
        self.is_finished = true;
        if self.exchange.keep_alive { Finish::KeepAlive } else { Finish::Close }
    }

    fn end_head(&mut self) {
        self.out.extend_from_slice(self.exchange.connection_field());
        if self.upgrades {
            // It is the connection's, so it must be named as such (RFC 9110 §7.8).
            self.out.extend_from_slice(b"Connection: upgrade\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn end(&mut self, framed: Framed) -> BodyWriter {
        self.end_head();
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

/// The value of the last field called `name` in a head that was written here, status line included.
#[must_use]
pub fn written_field<'h>(head: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let mut lines = head.split(|&byte| byte == b'\n');
    let mut found = None;
    lines.next()?;
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        if line[..colon].eq_ignore_ascii_case(name.as_bytes()) {
            found = Some(line[colon + 1..].trim_ascii());
        }
    }
    found
}

/// Appends a trailer.
pub(crate) fn append_trailer(
    out: &mut Vec<u8>,
    name: &str,
    value: &[u8],
) -> Result<(), ResponseError> {
    check_field(name.as_bytes(), value)?;
    if !is_ours(name.as_bytes()) {
        append_field(out, name.as_bytes(), value);
    }
    Ok(())
}

/// Reads the value of a Content-Length.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, ResponseError> {
    let value = chars::trim(value);
    let text = std::str::from_utf8(value).ok();
    text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or(ResponseError::ContentLength)
}

pub(crate) fn check_field(name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
    if !chars::is_token(name) {
        return Err(ResponseError::FieldName);
    }
    if !chars::all(value, VALUE) {
        return Err(ResponseError::FieldValue);
    }
    Ok(())
}

pub(crate) fn append_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(chars::trim(value));
    out.extend_from_slice(b"\r\n");
}

const UPGRADE_REQUIRED: u16 = 426;
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;

/// Fields of the connection that the application must send with a status (RFC 9110 §15.5.22, §15.5.8).
pub(crate) fn belongs_to(name: &[u8], status: u16) -> bool {
    match status {
        UPGRADE_REQUIRED => name.eq_ignore_ascii_case(b"upgrade"),
        PROXY_AUTHENTICATION_REQUIRED => name.eq_ignore_ascii_case(b"proxy-authenticate"),
        _ => false,
    }
}

/// Fields that the server writes itself or that belong to the connection, which is not the application's.
pub(crate) fn is_ours(name: &[u8]) -> bool {
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
