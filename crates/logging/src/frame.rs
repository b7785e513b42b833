//! What a line looks like: gunicorn's frame, or an object of JSON.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use crate::access::escape;
use crate::level::Level;
use crate::stamp::Stamp;

/// Longest text of one line in bytes; the rest is cut.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frame {
    /// `[2026-01-31 12:00:00 +0000] [4242] [INFO] text`
    #[default]
    Text,
    /// `{"time":"2026-01-31T12:00:00+00:00","severity":"INFO","pid":4242,"message":"text"}`
    Json,
}

/// Appends one line, its end included, of at most `most` bytes. `prefix`: with the `<n>` by which a journal knows the severity.
pub(crate) fn line(
    bytes: &mut Vec<u8>,
    stamp: &mut Stamp,
    frame: Frame,
    prefix: bool,
    most: usize,
    level: Level,
    text: fmt::Arguments<'_>,
) {
    let start = bytes.len();
    let stamp = stamp.at(SystemTime::now());
    let pid = std::process::id();
    if prefix {
        bytes.extend_from_slice(&[b'<', b'0' + level.severity(), b'>']);
    }
    // Only a broken `Display` fails, and then the line says as much as it could.
    match frame {
        Frame::Text => {
            // The end is one byte more.
            let left = most.saturating_sub(bytes.len() - start + 1);
            let line = Bounded { bytes, left: left.min(LINE_BYTES_MAX) };
            let _ = write!(OneLine(line), "[{stamp}] [{pid}] [{level}] {text}");
        }
        Frame::Json => {
            let (date, time, zone) = parts(stamp);
            let (hours, minutes) = zone.split_at_checked(3).unwrap_or((zone, ""));
            let _ = write!(
                OneLine::new(bytes),
                "{{\"time\":\"{date}T{time}{hours}:{minutes}\",\"severity\":\"{level}\",\"pid\":{pid},\"message\":\""
            );
            let mut message = Vec::new();
            let _ = write!(Bounded { bytes: &mut message, left: LINE_BYTES_MAX }, "{text}");
            let at = bytes.len();
            escape::json(bytes, &message);
            let left = most.saturating_sub(at - start + "\"}\n".len());
            bytes.truncate(at + escape::whole(&bytes[at..], left));
            bytes.extend_from_slice(b"\"}");
        }
    }
    bytes.push(b'\n');
}

/// Splits `2026-01-31 12:00:00 +0000`.
fn parts(stamp: &str) -> (&str, &str, &str) {
    let mut parts = stamp.splitn(3, ' ');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// Writes text as one line: control characters escaped, cut at the bound.
pub(crate) struct OneLine<'a>(Bounded<'a>);

impl<'a> OneLine<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> OneLine<'a> {
        OneLine(Bounded { bytes, left: LINE_BYTES_MAX })
    }
}

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\t' => self.0.write_char(c),
            c if c.is_control() => self.0.write_str(&c.escape_default().to_string()),
            c => self.0.write_char(c),
        })
    }
}

/// Takes text up to the bound, in whole characters.
struct Bounded<'a> {
    bytes: &'a mut Vec<u8>,
    left: usize,
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut fits = text.len().min(self.left);
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        self.bytes.extend_from_slice(&text.as_bytes()[..fits]);
        // What is cut is cut for good: a shorter piece that would fit must not follow.
        self.left = if fits < text.len() { 0 } else { self.left - fits };
        Ok(())
    }
}
