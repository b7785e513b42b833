//! The quickest pass: one walk over the head that nearly every client sends, which divides and judges it at once.
//!
//! It knows the frequent methods, targets that are a path, and fields of plain form. It only ever says yes, and only
//! where the line scanner would: anything else, be it wrong or merely rare, is `None` and goes the longer way.

use crate::chars::{self, TARGET};
use crate::head::{FieldSpan, FieldStorage, Method, Span, Version};
use crate::interpret::Gathered;
use crate::rules::Limits;
use crate::run::{Kind, run};
use crate::target::{self, Target};

/// A head as this pass divides it; its fields are in the storage.
pub(crate) struct Divided<'a> {
    pub(crate) len: usize,
    pub(crate) method: Method<'a>,
    pub(crate) target: &'a [u8],
    pub(crate) parts: Target<'a>,
    pub(crate) version: Version,
    pub(crate) gathered: Gathered<'a>,
}

/// Divides the head at the beginning of `buf`, if it is there whole and of the plain kind.
#[inline(always)]
pub(crate) fn divide<'a>(
    buf: &'a [u8],
    limits: &Limits,
    fields: &mut FieldStorage,
) -> Option<Divided<'a>> {
    let (method, rest) = method(buf)?;
    let target = rest;
    if rest.first() != Some(&b'/') {
        return None;
    }
    let path_len = run(rest, Kind::Path)?;
    let (path, mut rest) = rest.split_at(path_len);
    let mut query = None;
    if let [b'?', behind @ ..] = rest {
        let query_len = behind.iter().position(|&byte| !chars::is(byte, TARGET))?;
        let (found, behind) = behind.split_at(query_len);
        (query, rest) = (Some(found), behind);
    }
    let target = &target[..target.len() - rest.len()];
    let (line_end, mut rest) = rest.split_first_chunk::<11>()?;
    let version = match line_end {
        b" HTTP/1.1\r\n" => Version::Http11,
        b" HTTP/1.0\r\n" => Version::Http10,
        _ => return None,
    };
    if limits.request_line() < buf.len() - rest.len() - 2 {
        return None;
    }

    let (fields_max, field_line_max) = (limits.fields(), limits.field_line());
    let mut gathered = Gathered::default();
    fields.spans.clear();
    let rest = loop {
        let line = rest;
        if let [b'\r', b'\n', behind @ ..] = line {
            break behind;
        }
        let name_len = run(line, Kind::Name)?;
        let (name, behind) = line.split_at(name_len);
        let mut raw = match behind {
            [b':', b' ', raw @ ..] | [b':', raw @ ..] => raw,
            _ => return None,
        };
        while let [b' ' | b'\t', behind @ ..] = raw {
            raw = behind;
        }
        let (content, behind) = raw.split_at(value_len(raw)?);
        let [b'\r', b'\n', behind @ ..] = behind else { return None };
        let line_len = line.len() - behind.len();
        if name.is_empty() || field_line_max < line_len || fields_max <= fields.spans.len() {
            return None;
        }
        let value = chars::trim_end(content);
        if chars::is_text(name, b"host") {
            if gathered.host.is_some() || !is_plain_host(value, raw) {
                return None;
            }
            gathered.host = Some(value);
        } else {
            gathered.take(name, value).ok()?;
        }
        let start = buf.len() - line.len();
        fields.spans.push(FieldSpan {
            name: Span::new(start, name_len),
            value: Span::new(start + line.len() - raw.len(), value.len()),
        });
        rest = behind;
    };
    let parts = Target { authority: None, path, query, is_https: false };
    Some(Divided { len: buf.len() - rest.len(), method, target, parts, version, gathered })
}

/// The method, and what stands behind it.
#[inline(always)]
fn method(buf: &[u8]) -> Option<(Method<'static>, &[u8])> {
    Some(match buf {
        [b'G', b'E', b'T', b' ', rest @ ..] => (Method::Get, rest),
        [b'P', b'O', b'S', b'T', b' ', rest @ ..] => (Method::Post, rest),
        [b'H', b'E', b'A', b'D', b' ', rest @ ..] => (Method::Head, rest),
        [b'P', b'U', b'T', b' ', rest @ ..] => (Method::Put, rest),
        [b'D', b'E', b'L', b'E', b'T', b'E', b' ', rest @ ..] => (Method::Delete, rest),
        _ => return None,
    })
}

/// How many bytes of a field value there are before the first that cannot be in one; `None` if none follows.
#[inline(always)]
fn value_len(bytes: &[u8]) -> Option<usize> {
    let mut len = run(bytes, Kind::Value)?;
    while bytes[len] == b'\t' {
        len += 1;
        len += run(&bytes[len..], Kind::Value)?;
    }
    Some(len)
}

/// Whether `host` is a plain name or address, with or without a port. `bytes` begins with it and goes on.
#[inline(always)]
fn is_plain_host(host: &[u8], bytes: &[u8]) -> bool {
    match run(bytes, Kind::Host) {
        Some(len) if len == host.len() => true,
        Some(len) if len < host.len() => match &host[len..] {
            [b':', port @ ..] => target::is_port(port),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_head_is_taken_and_others_are_left_to_the_scanner() {
        let mut fields = FieldStorage::new();
        let limits = Limits::default();
        let mut is_taken = |head: &[u8]| divide(head, &limits, &mut fields).map(|it| it.len);
        let plain = b"GET /a?b HTTP/1.1\r\nHost: a:80\r\nX:\r\nY: \t z \t\r\n\r\nGET";
        assert_eq!(is_taken(plain), Some(plain.len() - 3));
        for (at, _) in plain[..plain.len() - 4].iter().enumerate() {
            assert_eq!(is_taken(&plain[..at]), None, "cut at {at}");
        }
        for other in [
            &b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n",
        ] {
            assert_eq!(is_taken(other), None, "{}", other.escape_ascii());
        }
    }
}
