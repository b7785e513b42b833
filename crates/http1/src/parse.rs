//! `parse_head`: a quick pass for plain heads that are there whole, a fast one over httparse for the rest of those in
//! order, the line scanner for all others.
//!
//! The first two only ever say yes. Whatever they do not take goes to the scanner, whose word alone refuses, so that
//! what is said of a head does not depend on how its bytes came. Where several take a head they agree: tests and a
//! fuzz target hold them against each other.

use std::mem::MaybeUninit;

use crate::chars::{self, METHOD, TARGET};
use crate::error::HeadError;
use crate::head::{FieldSpan, FieldStorage, Head, Method, Span, Version};
use crate::interpret::interpret;
use crate::quick;
use crate::rules::Rules;
use crate::scan::{self, RequestLine};

pub use crate::scan::Progress;

/// Heads with more fields than this are left to the scanner.
const FAST_FIELDS_MAX: usize = 64;

/// What the bytes so far amount to. That more are needed is no error.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<T> {
    /// Everything is there.
    Complete(T),
    /// Nothing wrong so far; call again with more bytes.
    Partial,
}

/// Parses the request head at the beginning of `buf`.
///
/// `progress` belongs to the connection and is what makes a head that arrives in many pieces cheap: hand in the same
/// one with the longer buffer, and a new one (`Progress::default()`) after bytes were taken from the buffer's front,
/// the head's own included. `fields` may be shared by all connections. An empty line before the request line counts as
/// part of the head. Limits are enforced as bytes arrive, so `buf` never needs to be longer than
/// [`Limits::head_bytes_max`](crate::Limits::head_bytes_max).
///
/// # Errors
///
/// The first certain fault, which no further byte could mend: at once, though the head may not have ended.
pub fn parse_head<'a>(
    buf: &'a [u8],
    rules: &Rules,
    progress: &mut Progress,
    fields: &'a mut FieldStorage,
) -> Result<Parsed<Head<'a>>, HeadError> {
    let is_fresh = *progress == Progress::default();
    if is_fresh && let Some(divided) = quick::divide(buf, &rules.limits, fields) {
        let quick::Divided { len, method, target, parts, version, gathered } = divided;
        let line = (method, target, version);
        return gathered.conclude(buf, len, line, parts, &rules.policy, fields);
    }
    parse_other(buf, rules, progress, fields)
}

/// As [`parse_head`], for what the quick pass has left.
#[inline(never)]
fn parse_other<'a>(
    buf: &'a [u8],
    rules: &Rules,
    progress: &mut Progress,
    fields: &'a mut FieldStorage,
) -> Result<Parsed<Head<'a>>, HeadError> {
    let is_fresh = *progress == Progress::default();
    let (len, line) = match if is_fresh { divide_fast(buf, rules, fields) } else { None } {
        Some(divided) => divided,
        None => match scan::scan(buf, rules, progress)? {
            Some(len) => (len, divide(&buf[..len], rules, fields)?),
            None => return Ok(Parsed::Partial),
        },
    };
    interpret(buf, len, line, &rules.policy, fields)
}

/// Divides a head that the scanner has found to be complete: its lines so far may have been judged long ago.
fn divide(head: &[u8], rules: &Rules, fields: &mut FieldStorage) -> Result<RequestLine, HeadError> {
    fields.spans.clear();
    let mut line = None;
    let mut again = Progress::default();
    scan::visit(
        head,
        rules,
        &mut again,
        |found| line = Some(found),
        |span| fields.spans.push(span),
    )?;
    line.ok_or(HeadError::Method)
}

/// Divides a complete head by httparse, and makes up for what that leaves unchecked: LF alone as a line end, limits,
/// and the bytes of method and target. `None`: let the scanner say.
#[inline]
fn divide_fast(
    buf: &[u8],
    rules: &Rules,
    fields: &mut FieldStorage,
) -> Option<(usize, RequestLine)> {
    // httparse skips any number of empty lines.
    if matches!(buf, [] | [b'\r' | b'\n', ..]) {
        return None;
    }
    let mut headers = [const { MaybeUninit::uninit() }; FAST_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(len)) = request.parse_with_uninit_headers(buf, &mut headers)
    else {
        return None;
    };
    let (method, target) = (request.method?.as_bytes(), request.path?.as_bytes());
    let version = match request.version? {
        0 => Version::Http10,
        _ => Version::Http11,
    };

    let limits = &rules.limits;
    let line_len = method.len() + 1 + target.len() + 1 + "HTTP/d.d".len();
    if limits.request_line() < line_len || limits.fields() < request.headers.len() {
        return None;
    }
    // A line ends in CRLF, and not in LF alone, if a CR stands there: contents hold none.
    let is_cr = |at: usize| buf.get(at) == Some(&b'\r');
    let end = len.checked_sub(2)?;
    if !is_cr(line_len) || !is_cr(end) {
        return None;
    }
    let field_line_max = limits.field_line();
    let is_field_line =
        |start: usize, next: usize| is_cr(next.wrapping_sub(2)) && next - start <= field_line_max;
    let base = buf.as_ptr() as usize;
    let offset_of = |part: &[u8]| (part.as_ptr() as usize).wrapping_sub(base);

    fields.spans.clear();
    let mut previous = None;
    for header in request.headers.iter() {
        let name = header.name.as_bytes();
        let start = offset_of(name);
        if previous.is_some_and(|previous| !is_field_line(previous, start)) {
            return None;
        }
        previous = Some(start);
        // An empty value may stand anywhere.
        let value_start =
            if header.value.is_empty() { start + name.len() } else { offset_of(header.value) };
        fields.spans.push(FieldSpan {
            name: Span::new(start, name.len()),
            value: Span::new(value_start, header.value.len()),
        });
    }
    if previous.is_some_and(|previous| !is_field_line(previous, end)) {
        return None;
    }

    let is_conventional = || chars::all(method, METHOD) && (3..=20).contains(&method.len());
    let is_known = !matches!(Method::from_token(method), Method::Other(_));
    if !(is_known || rules.policy.permit_unconventional_http_method || is_conventional()) {
        return None;
    }
    if !chars::all(target, TARGET) {
        return None;
    }
    let method = Span::new(0, method.len());
    let target = Span::new(method.end() + 1, target.len());
    Some((len, RequestLine { method, target, version }))
}
