//! From pieces to lines.

use std::borrow::Cow;

use super::parse::{BOUNDED_VALUE_BYTES_MAX, is_free};
use super::{
    Atom, Clock, Format, Outcome, Piece, Segment, Style, Subject, What, Writer, basic, escape,
};

/// Longest value that a line repeats from a request, in bytes; the rest is cut.
const VALUE_BYTES_MAX: usize = 8190;

impl Format {
    /// Captures what lines show of a request, at the end of `out`.
    pub fn capture(&self, subject: &impl Subject, writer: &Writer, out: &mut Vec<u8>) {
        let start = out.len();
        self.capture_within(usize::MAX, subject, writer, out);
        if let Some(limit) = self.limit
            && limit.captured_bytes_max < out.len() - start
        {
            out.truncate(start);
            self.capture_within(limit.value_bytes_max, subject, writer, out);
        }
    }

    /// Captures at most `most` bytes of each value.
    fn capture_within(
        &self,
        most: usize,
        subject: &impl Subject,
        writer: &Writer,
        out: &mut Vec<u8>,
    ) {
        for segment in &self.segments {
            let Segment::Early(pieces) = segment else { continue };
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            for piece in pieces {
                put_early(piece, most, subject, writer, out);
            }
            let len = (out.len() - at - 4) as u32; // Bounded by the number of pieces and the longest value.
            out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    fn value_bytes_max(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit.value_bytes_max)
    }

    /// Whether lines show fields of the response.
    #[must_use]
    pub fn shows_response_fields(&self) -> bool {
        !self.response_fields.is_empty()
    }

    /// Captures what lines show of a response's fields, behind what [`Format::capture`] wrote.
    pub fn capture_response<'f>(
        &self,
        field: impl Fn(&str) -> Option<&'f [u8]>,
        out: &mut Vec<u8>,
    ) {
        for name in &self.response_fields {
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            put_within(self.value_bytes_max(), out, field(name).unwrap_or(b"-"), escape::text);
            let len = (out.len() - at - 4) as u32;
            out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    /// Appends a line without its end: what was captured, and what became of the request.
    pub fn finish(&self, captured: &[u8], outcome: &Outcome<'_>, clock: &Clock, out: &mut Vec<u8>) {
        let mut early = captured;
        // Response fields were captured behind everything else.
        let mut late = captured;
        if self.shows_response_fields() {
            for segment in &self.segments {
                if let Segment::Early(_) = segment {
                    let _ = take(&mut late);
                }
            }
        }
        let most = self.value_bytes_max();
        for segment in &self.segments {
            match segment {
                Segment::Early(_) => out.extend_from_slice(take(&mut early)),
                Segment::Late(pieces) => {
                    for piece in pieces {
                        put_late(piece, most, &mut late, outcome, clock, out);
                    }
                }
            }
        }
    }
}

fn put_early(
    piece: &Piece,
    most: usize,
    subject: &impl Subject,
    writer: &Writer,
    out: &mut Vec<u8>,
) {
    match piece {
        Piece::Literal(text) => out.extend_from_slice(text),
        Piece::Atom(atom, style) => {
            let at = out.len();
            let is_there = put_text(atom, most, subject, writer, out);
            // gunicorn: a unix peer has no address, a request no query.
            if !is_there && !matches!(atom, Atom::Subject(What::Peer | What::Query)) {
                out.push(b'-');
            }
            style.apply(out, at);
        }
        Piece::Member(key, atom) => {
            if let Some(value) = value(atom, subject) {
                out.extend_from_slice(key);
                put_within(share(atom, most), out, &value, escape::json);
                out.push(b'"');
            } else if is_of_writer(atom) {
                out.extend_from_slice(key);
                put_writer(atom, writer, out);
            }
        }
    }
}

impl Style {
    /// Sets what stands in `out` from `at` on.
    #[inline]
    fn apply(self, out: &mut Vec<u8>, at: usize) {
        if self != Style::default() {
            self.set(out, at);
        }
    }

    #[cold]
    fn set(self, out: &mut Vec<u8>, at: usize) {
        if let Some(most) = self.precision {
            let kept = escape::whole(&out[at..], usize::from(most));
            out.truncate(at + kept);
        }
        let missing = usize::from(self.width).saturating_sub(out.len() - at);
        let padding =
            std::iter::repeat_n(if self.is_zero && !self.is_left { b'0' } else { b' ' }, missing);
        if self.is_left {
            out.extend(padding);
        } else {
            out.splice(at..at, padding);
        }
    }
}

/// Takes the first captured piece off `rest`.
fn take<'c>(rest: &mut &'c [u8]) -> &'c [u8] {
    let Some((len, after)) = rest.split_first_chunk::<4>() else { return &[] };
    let len = (u32::from_le_bytes(*len) as usize).min(after.len());
    let (piece, after) = after.split_at(len);
    *rest = after;
    piece
}

/// How many bytes of a value a line has, where each that a client chose has `most`.
#[inline]
fn share(atom: &Atom, most: usize) -> usize {
    if most == usize::MAX || is_free(atom) { most } else { most.min(BOUNDED_VALUE_BYTES_MAX) }
}

/// Appends a value, escaped, and at most `most` bytes of it, in whole escapes.
#[inline]
fn put_within(most: usize, out: &mut Vec<u8>, value: &[u8], escape: impl Fn(&mut Vec<u8>, &[u8])) {
    let at = out.len();
    escape(out, cut(value));
    if most < out.len() - at {
        out.truncate(at + escape::whole(&out[at..], most));
    }
}

/// As much of a value as a line repeats, in whole characters where it is UTF-8.
fn cut(value: &[u8]) -> &[u8] {
    if value.len() <= VALUE_BYTES_MAX {
        return value;
    }
    let is_start = |&at: &usize| value[at] & 0xc0 != 0x80;
    let end = (VALUE_BYTES_MAX - 3..=VALUE_BYTES_MAX).rev().find(is_start);
    &value[..end.unwrap_or(VALUE_BYTES_MAX)]
}

/// A value that the request has.
fn value<'s>(atom: &Atom, subject: &'s impl Subject) -> Option<Cow<'s, [u8]>> {
    match atom {
        Atom::Subject(What::Path) => subject.part(What::Path).map(decoded),
        Atom::RawPath => subject.part(What::Path),
        Atom::Subject(what) => subject.part(*what),
        Atom::Version => subject.part(What::Protocol).map(|protocol| match protocol {
            Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix(b"HTTP/").unwrap_or(text)),
            owned => owned,
        }),
        Atom::User => subject.header("authorization").and_then(basic::user).map(Cow::Owned),
        Atom::Header(name) => subject.header(name).map(Cow::Borrowed),
        _ => None,
    }
}

/// Appends a value of the request or of the writer; `false`: there is none.
fn put_text(
    atom: &Atom,
    most: usize,
    subject: &impl Subject,
    writer: &Writer,
    out: &mut Vec<u8>,
) -> bool {
    if is_of_writer(atom) {
        put_writer(atom, writer, out);
        return true;
    }
    let found = match atom {
        Atom::RequestLine => match subject.part(What::Method) {
            Some(method) => {
                let bounded = most.min(BOUNDED_VALUE_BYTES_MAX);
                put_within(bounded, out, &method, escape::text);
                for (part, most) in [(What::Target, most), (What::Protocol, bounded)] {
                    if let Some(part) = subject.part(part) {
                        out.push(b' ');
                        put_within(most, out, &part, escape::text);
                    }
                }
                return true;
            }
            None => subject.part(What::RawLine),
        },
        atom => value(atom, subject),
    };
    match found {
        Some(value) => {
            put_within(share(atom, most), out, &value, escape::text);
            true
        }
        None => false,
    }
}

fn is_of_writer(atom: &Atom) -> bool {
    matches!(atom, Atom::Pid | Atom::PidInAngles | Atom::Worker | Atom::Generation)
}

fn put_writer(atom: &Atom, writer: &Writer, out: &mut Vec<u8>) {
    match atom {
        Atom::PidInAngles => {
            out.push(b'<');
            number(out, u64::from(writer.pid));
            out.push(b'>');
        }
        Atom::Worker => number(out, writer.worker as u64),
        Atom::Generation => number(out, writer.generation),
        _ => number(out, u64::from(writer.pid)),
    }
}

fn put_late(
    piece: &Piece,
    most: usize,
    captured: &mut &[u8],
    outcome: &Outcome<'_>,
    clock: &Clock,
    out: &mut Vec<u8>,
) {
    match piece {
        Piece::Literal(text) => out.extend_from_slice(text),
        Piece::Atom(atom, style) => {
            let at = out.len();
            match text_of(atom, outcome) {
                Some("") => out.push(b'-'),
                Some(text) => put_within(most, out, text.as_bytes(), escape::text),
                None => put_outcome(atom, captured, outcome, clock, out),
            }
            style.apply(out, at);
        }
        Piece::Member(key, atom) => match text_of(atom, outcome) {
            Some("") => (),
            Some(text) => {
                out.extend_from_slice(key);
                put_within(most, out, text.as_bytes(), escape::json);
                out.push(b'"');
            }
            None => {
                out.extend_from_slice(key);
                put_outcome(atom, captured, outcome, clock, out);
                if matches!(atom, Atom::Timestamp) {
                    out.push(b'"');
                }
            }
        },
    }
}

/// A text that may be empty, which is to have none.
fn text_of<'o>(atom: &Atom, outcome: &Outcome<'o>) -> Option<&'o str> {
    match atom {
        Atom::Route => Some(outcome.route),
        Atom::Reason => Some(outcome.reason),
        _ => None,
    }
}

/// Appends what there is of every request in the end.
fn put_outcome(
    atom: &Atom,
    captured: &mut &[u8],
    outcome: &Outcome<'_>,
    clock: &Clock,
    out: &mut Vec<u8>,
) {
    let nanoseconds = outcome.nanoseconds;
    match atom {
        Atom::ResponseField => out.extend_from_slice(take(captured)),
        Atom::Time => out.extend_from_slice(clock.local()),
        Atom::Timestamp => out.extend_from_slice(clock.universal()),
        Atom::Status => number(out, u64::from(outcome.status)),
        Atom::BytesSent => number(out, outcome.sent),
        Atom::BytesReceived => number(out, outcome.received),
        Atom::Seconds => number(out, nanoseconds / 1_000_000_000),
        Atom::Milliseconds => number(out, nanoseconds / 1_000_000),
        Atom::Microseconds => number(out, nanoseconds / 1000),
        Atom::Nanoseconds => number(out, nanoseconds),
        Atom::SecondsExact => {
            number(out, nanoseconds / 1_000_000_000);
            let mut micros = (nanoseconds % 1_000_000_000 / 1000) as u32;
            let mut fraction = *b".000000";
            for digit in fraction[1..].iter_mut().rev() {
                *digit = b'0' + (micros % 10) as u8;
                micros /= 10;
            }
            out.extend_from_slice(&fraction);
        }
        _ => out.push(b'-'),
    }
}

/// Appends a number.
fn number(out: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        return out.push(b'0' + value as u8);
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The path with `%NN` resolved, as gunicorn logs it.
fn decoded(path: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return path;
    }
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = &path[..];
    while let [byte, after @ ..] = rest {
        let hex = |at: usize| after.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    Cow::Owned(plain)
}
