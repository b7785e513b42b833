//! The lines of a head, one by one: the parser that finds the first certain fault, and stops and goes on anywhere.
//!
//! - It judges bytes in their order, so what it says of a prefix it says of everything that begins with it.
//! - Finished lines are never looked at again; an unfinished one is at most as long as its limit.
//! - What only the whole head can tell (framing, Host, …) is left to `interpret`.

use memchr::memchr;

use crate::chars::{self, METHOD, TARGET, TOKEN, VALUE};
use crate::error::HeadError;
use crate::head::{FieldSpan, Method, Span, Version};
use crate::rules::Rules;

/// Empty lines allowed before a request line (RFC 9112 §2.2 asks for at least one).
const LEADING_EMPTY_LINES_MAX: u8 = 1;
/// Shortest and longest conventional method.
const METHOD_BYTES_CONVENTIONAL: std::ops::RangeInclusive<usize> = 3..=20;

/// How far the head in a buffer has been looked at, so that more bytes do not mean starting again.
///
/// Belongs to the buffer: set it back to its default when bytes are taken from the front of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where the first unfinished line begins.
    line: usize,
    /// Bytes of the buffer that hold no LF after `line`.
    searched: usize,
    /// Field lines finished.
    fields: usize,
    empty_lines: u8,
    has_request_line: bool,
}

/// The three parts of a request line whose bytes have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) version: Version,
}

/// Goes on from `progress` and returns the length of the head if its end is there.
pub(crate) fn scan(
    buf: &[u8],
    rules: &Rules,
    progress: &mut Progress,
) -> Result<Option<usize>, HeadError> {
    visit(buf, rules, progress, |_| (), |_| ())
}

/// As [`scan`], and hands over what it finds.
pub(crate) fn visit(
    buf: &[u8],
    rules: &Rules,
    progress: &mut Progress,
    mut on_request_line: impl FnMut(RequestLine),
    mut on_field: impl FnMut(FieldSpan),
) -> Result<Option<usize>, HeadError> {
    let limits = &rules.limits;
    loop {
        let unfinished = buf.get(progress.line..).unwrap_or_default();
        let is_field =
            progress.has_request_line && !matches!(unfinished, [] | [b'\r', ..] | [b'\n', ..]);
        if is_field && limits.fields() <= progress.fields {
            return Err(HeadError::TooManyFields);
        }
        let content_max = if progress.has_request_line {
            limits.field_line().saturating_sub(2)
        } else {
            limits.request_line()
        };
        let too_long = if progress.has_request_line {
            HeadError::FieldTooLong
        } else {
            HeadError::RequestLineTooLong
        };

        let searched = progress.searched.max(progress.line);
        let Some(found) = memchr(b'\n', buf.get(searched..).unwrap_or_default()) else {
            let content = unfinished.strip_suffix(b"\r").unwrap_or(unfinished);
            check_prefix(content, content_max, too_long, rules, progress)?;
            progress.searched = buf.len();
            return Ok(None);
        };
        let next = searched + found + 1;
        let line = &buf[progress.line..next - 1];
        let content = line.strip_suffix(b"\r").unwrap_or(line);
        check_prefix(content, content_max, too_long, rules, progress)?;
        if content.len() == line.len() {
            return Err(HeadError::BareLf);
        }

        if progress.has_request_line {
            if content.is_empty() {
                return Ok(Some(next));
            }
            on_field(field(content, progress.line)?);
            progress.fields += 1;
        } else if content.is_empty() {
            if progress.empty_lines == LEADING_EMPTY_LINES_MAX {
                return Err(HeadError::Method);
            }
            progress.empty_lines += 1;
        } else {
            on_request_line(request_line(content, progress.line)?);
            progress.has_request_line = true;
        }
        progress.line = next;
        progress.searched = next;
    }
}

/// Judges what is there of a line, finished or not. `content` has no CRLF.
fn check_prefix(
    content: &[u8],
    content_max: usize,
    too_long: HeadError,
    rules: &Rules,
    progress: &Progress,
) -> Result<(), HeadError> {
    let visible = &content[..content.len().min(content_max)];
    if progress.has_request_line {
        check_field_prefix(visible)?;
    } else {
        check_request_line_prefix(visible, rules.policy.permit_unconventional_http_method)?;
    }
    if visible.len() < content.len() { Err(too_long) } else { Ok(()) }
}

fn check_request_line_prefix(line: &[u8], permit_unconventional: bool) -> Result<(), HeadError> {
    if line.first() == Some(&0x16) {
        return Err(HeadError::TlsHandshake);
    }
    let end = memchr(b' ', line);
    check_method(&line[..end.unwrap_or(line.len())], end.is_some(), permit_unconventional)?;
    let Some(end) = end else { return Ok(()) };

    let rest = &line[end + 1..];
    let end = memchr(b' ', rest);
    let target = &rest[..end.unwrap_or(rest.len())];
    if let Some(&byte) = target.iter().find(|&&byte| !chars::is(byte, TARGET)) {
        return Err(if byte == b'\r' { HeadError::BareCr } else { HeadError::Target });
    }
    let Some(end) = end else { return Ok(()) };
    if target.is_empty() {
        return Err(HeadError::Target);
    }

    let version = &rest[end + 1..];
    for (at, &byte) in version.iter().enumerate() {
        let fits = match b"HTTP/d.d".get(at) {
            Some(b'd') => byte.is_ascii_digit(),
            Some(&letter) => byte == letter,
            None => false,
        };
        if !fits {
            return Err(if byte == b'\r' { HeadError::BareCr } else { HeadError::Version });
        }
    }
    Ok(())
}

fn check_method(
    method: &[u8],
    is_whole: bool,
    permit_unconventional: bool,
) -> Result<(), HeadError> {
    let class = if permit_unconventional { TOKEN } else { METHOD };
    let longest = if permit_unconventional { usize::MAX } else { *METHOD_BYTES_CONVENTIONAL.end() };
    let shortest = if permit_unconventional { 1 } else { *METHOD_BYTES_CONVENTIONAL.start() };
    let visible = &method[..method.len().min(longest)];
    if let Some(&byte) = visible.iter().find(|&&byte| !chars::is(byte, class)) {
        return Err(if byte == b'\r' { HeadError::BareCr } else { HeadError::Method });
    }
    if visible.len() < method.len() || is_whole && method.len() < shortest {
        Err(HeadError::Method)
    } else {
        Ok(())
    }
}

/// Judges a whole request line whose bytes passed [`check_request_line_prefix`].
fn request_line(line: &[u8], start: usize) -> Result<RequestLine, HeadError> {
    let method_end = memchr(b' ', line).ok_or(HeadError::Method)?;
    let target_start = method_end + 1;
    let target_len = memchr(b' ', &line[target_start..]).ok_or(HeadError::Version)?;
    let version = &line[target_start + target_len + 1..];
    if line == b"PRI * HTTP/2.0" {
        return Err(HeadError::Http2Preface);
    }
    let version = match version {
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _] => Version::Http11,
        [_, _, _, _, _, _, _, _] => return Err(HeadError::UnsupportedVersion),
        _ => return Err(HeadError::Version),
    };
    let target = &line[target_start..target_start + target_len];
    crate::target::split(Method::from_token(&line[..method_end]), target)?;
    Ok(RequestLine {
        method: Span::new(start, method_end),
        target: Span::new(start + target_start, target_len),
        version,
    })
}

/// Judges what is there of a field line.
fn check_field_prefix(line: &[u8]) -> Result<(), HeadError> {
    if let Some(b' ' | b'\t') = line.first() {
        return Err(HeadError::FoldedLine);
    }
    let name_len = line.iter().position(|&byte| !chars::is(byte, TOKEN)).unwrap_or(line.len());
    match line.get(name_len) {
        None => return Ok(()),
        Some(b':') if name_len != 0 => (),
        Some(b'\r') => return Err(HeadError::BareCr),
        Some(b' ' | b'\t') => return Err(HeadError::SpaceBeforeColon),
        Some(_) => return Err(HeadError::FieldName),
    }
    match line[name_len..].iter().find(|&&byte| !chars::is(byte, VALUE)) {
        None => Ok(()),
        Some(b'\r') => Err(HeadError::BareCr),
        Some(_) => Err(HeadError::FieldValue),
    }
}

/// Divides a whole field line, of a header or a trailer, whose bytes have been checked. `start` is its place in the buffer.
pub(crate) fn field(line: &[u8], start: usize) -> Result<FieldSpan, HeadError> {
    let colon = memchr(b':', line).ok_or(HeadError::FieldName)?;
    let raw = &line[colon + 1..];
    let leading = raw.iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
    let value = chars::trim(&raw[leading..]);
    Ok(FieldSpan {
        name: Span::new(start, colon),
        value: Span::new(start + colon + 1 + leading, value.len()),
    })
}
