//! What the fields of a complete head mean: host, framing, persistence, expectation.
//!
//! Runs once per request, when every byte of the head has been checked: the target, then the fields in their order, then
//! what is missing or contradicts itself.

use crate::chars;
use crate::error::HeadError;
use crate::head::{FieldStorage, Fields, Framing, Head, Method, Version};
use crate::parse::Parsed;
use crate::rules::{HeaderMap, Policy};
use crate::scan::RequestLine;
use crate::target::{self, Target};

/// What is gathered from the fields that concern the protocol.
#[derive(Default)]
pub(crate) struct Gathered<'a> {
    pub(crate) host: Option<&'a [u8]>,
    length: Option<u64>,
    codings: Option<Codings>,
    connection: Connection,
    upgrade: Option<&'a [u8]>,
    has_content_type: bool,
    expects_continue: bool,
    expects_other: bool,
}

#[derive(Clone, Copy, Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

/// The codings of every Transfer-Encoding field so far.
#[derive(Clone, Copy)]
enum Codings {
    /// No element yet, or the last one is a coding other than `chunked` that HTTP knows.
    NotChunked { any: bool },
    /// `chunked` came last; `alone`: nothing came before it.
    Chunked { alone: bool },
}

/// Makes a [`Head`] of the lines of a complete head.
#[inline]
pub(crate) fn interpret<'a>(
    buf: &'a [u8],
    len: usize,
    line: RequestLine,
    policy: &Policy,
    storage: &'a mut FieldStorage,
) -> Result<Parsed<Head<'a>>, HeadError> {
    // The request line first: the scanner has judged it before any field, so it must be first here too.
    let method = Method::from_token(line.method.of(buf));
    let target = line.target.of(buf);
    let parts = target::split(method, target)?;

    let mut gathered = Gathered::default();
    for span in &storage.spans {
        gathered.take(span.name.of(buf), span.value.of(buf))?;
    }
    // One search of the whole head is cheaper than one of every name, and most heads have none.
    if memchr::memchr(b'_', buf.get(..len).unwrap_or_default()).is_some() {
        apply_header_map(buf, policy, storage)?;
    }

    gathered.conclude(buf, len, (method, target, line.version), parts, policy, storage)
}

impl<'a> Gathered<'a> {
    /// Says what all fields together mean, or what is missing.
    #[inline(always)]
    pub(crate) fn conclude(
        self,
        buf: &'a [u8],
        len: usize,
        (method, target, version): (Method<'a>, &'a [u8], Version),
        parts: Target<'a>,
        policy: &Policy,
        storage: &'a FieldStorage,
    ) -> Result<Parsed<Head<'a>>, HeadError> {
        let is_current = version == Version::Http11;
        let host = match self.host {
            None if is_current => return Err(HeadError::HostMissing),
            host => parts.authority.or(host),
        };
        let framing = self.framing(version)?;
        if is_current && self.expects_other {
            return Err(HeadError::Expectation);
        }
        if parts.is_https && !policy.permit_https_target {
            return Err(HeadError::HttpsTarget);
        }
        let connection = self.connection;
        Ok(Parsed::Complete(Head {
            method,
            target,
            path: parts.path,
            query: parts.query,
            host,
            upgrade: if is_current && connection.upgrade { self.upgrade } else { None },
            fields: Fields { buf, spans: &storage.spans },
            len,
            framing,
            version,
            keep_alive: !connection.close
                && (is_current || connection.keep_alive)
                && method != Method::Connect,
            expect_continue: is_current && self.expects_continue && !framing.is_empty(),
            is_https: parts.is_https,
        }))
    }

    /// Takes note of one field, whose name is a token.
    #[inline]
    pub(crate) fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), HeadError> {
        // The length first: most names are told apart by it alone.
        match name.len() {
            4 if chars::is_text(name, b"host") => {
                if self.host.is_some() {
                    return Err(HeadError::HostRepeated);
                }
                if !target::is_valid_host(value) {
                    return Err(HeadError::HostInvalid);
                }
                self.host = Some(value);
            }
            6 if chars::is_text(name, b"expect") => self.take_expect(value),
            7 if chars::is_text(name, b"upgrade") => self.upgrade = self.upgrade.or(Some(value)),
            10 if chars::is_text(name, b"connection") => self.connection.take(value),
            12 if chars::is_text(name, b"content-type") => {
                if self.has_content_type {
                    return Err(HeadError::ContentTypeRepeated);
                }
                self.has_content_type = true;
            }
            14 if chars::is_text(name, b"content-length") => {
                if self.length.is_some() {
                    return Err(HeadError::ContentLengthRepeated);
                }
                self.length = Some(parse_length(value).ok_or(HeadError::ContentLength)?);
            }
            17 if chars::is_text(name, b"transfer-encoding") => {
                self.codings = Some(take_codings(self.codings, value)?);
            }
            _ => (),
        }
        Ok(())
    }

    fn take_expect(&mut self, value: &[u8]) {
        for expectation in chars::list(value) {
            if expectation.eq_ignore_ascii_case(b"100-continue") {
                self.expects_continue = true;
            } else {
                self.expects_other = true;
            }
        }
    }

    #[inline]
    fn framing(&self, version: Version) -> Result<Framing, HeadError> {
        match (self.codings, self.length) {
            (None, None) => Ok(Framing::None),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), _) if version == Version::Http10 => Err(HeadError::CodingInOldVersion),
            (Some(_), Some(_)) => Err(HeadError::LengthAndCoding),
            (Some(Codings::Chunked { alone: true }), None) => Ok(Framing::Chunked),
            // Codings under `chunked` are known, but not decoded here.
            (Some(Codings::Chunked { alone: false }), None) => Err(HeadError::UnknownCoding),
            (Some(Codings::NotChunked { .. }), None) => Err(HeadError::Coding),
        }
    }
}

impl Connection {
    #[inline]
    fn take(&mut self, value: &[u8]) {
        if chars::is_text(value, b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        for option in chars::list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

/// `1*DIGIT` below 2^64: no sign, no list, no white space inside.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn take_codings(so_far: Option<Codings>, value: &[u8]) -> Result<Codings, HeadError> {
    const KNOWN: [&[u8]; 6] =
        [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"identity"];
    let mut codings = so_far.unwrap_or(Codings::NotChunked { any: false });
    for coding in chars::list(value) {
        codings = match codings {
            // Nothing may follow `chunked`, itself least of all.
            Codings::Chunked { .. } => return Err(HeadError::Coding),
            _ if !chars::is_token(coding) => return Err(HeadError::Coding),
            Codings::NotChunked { any } if coding.eq_ignore_ascii_case(b"chunked") => {
                Codings::Chunked { alone: !any }
            }
            _ if KNOWN.iter().any(|known| coding.eq_ignore_ascii_case(known)) => {
                Codings::NotChunked { any: true }
            }
            _ => return Err(HeadError::UnknownCoding),
        };
    }
    Ok(codings)
}

/// Takes out, or refuses, the names with an underscore that the policy does not keep.
#[inline(never)]
fn apply_header_map(
    buf: &[u8],
    policy: &Policy,
    storage: &mut FieldStorage,
) -> Result<(), HeadError> {
    let is_kept = |name: &[u8]| !name.contains(&b'_') || policy.is_forwarder_header(name);
    match policy.header_map {
        HeaderMap::Dangerous => Ok(()),
        HeaderMap::Drop => {
            storage.spans.retain(|span| is_kept(span.name.of(buf)));
            Ok(())
        }
        HeaderMap::Refuse if storage.spans.iter().all(|span| is_kept(span.name.of(buf))) => Ok(()),
        HeaderMap::Refuse => Err(HeadError::UnderscoreInName),
    }
}
