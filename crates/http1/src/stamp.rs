//! How every response begins: status line, Server, Date.

use crate::status::reason_phrase;

const OK_LINE: &[u8; 17] = b"HTTP/1.1 200 OK\r\n";
const SERVER_AND_DATE: &[u8; 25] = b"Server: monoceros\r\nDate: ";
const STAMP_LEN: usize = 25 + 29 + 2;
const CONTENT_TYPE: &[u8; 14] = b"Content-Type: ";
const END: usize = OK_LINE.len() + STAMP_LEN;

/// What every response of one second begins with, kept ready: made anew when the date changes.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Status line for 200, Server, Date, and the name of the field that comes next nearly always.
    bytes: [u8; END + CONTENT_TYPE.len()],
}

impl Stamp {
    /// Makes the stamp for a date, which is an IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    #[must_use]
    pub fn new(date: &[u8; 29]) -> Stamp {
        let mut bytes = [0; END + CONTENT_TYPE.len()];
        bytes[..17].copy_from_slice(OK_LINE);
        bytes[17..42].copy_from_slice(SERVER_AND_DATE);
        bytes[42..71].copy_from_slice(date);
        bytes[71..END].copy_from_slice(b"\r\n");
        bytes[END..].copy_from_slice(CONTENT_TYPE);
        Stamp { bytes }
    }

    /// Returns `Server: …` and `Date: …` with their line ends.
    #[must_use]
    pub fn fields(&self) -> &[u8] {
        &self.bytes[17..END]
    }

    /// Appends status line, Server and Date.
    #[inline]
    pub(crate) fn begin(&self, out: &mut Vec<u8>, status: u16) {
        if status == 200 {
            out.extend_from_slice(&self.bytes[..END]);
        } else {
            status_line(out, status);
            out.extend_from_slice(self.fields());
        }
    }

    /// As [`Stamp::begin`], with a reason phrase that is not the registered one.
    pub(crate) fn begin_with_reason(&self, out: &mut Vec<u8>, status: u16, reason: &[u8]) {
        if status == 200 && reason == b"OK" {
            out.extend_from_slice(&self.bytes[..END]);
        } else {
            status_line_with(out, status, reason);
            out.extend_from_slice(self.fields());
        }
    }

    /// As [`Stamp::begin`] for 200, and goes on with `Content-Type: `.
    #[inline]
    pub(crate) fn begin_typed(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

pub(crate) fn status_line(out: &mut Vec<u8>, status: u16) {
    status_line_with(out, status, reason_phrase(status).as_bytes());
}

fn status_line_with(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}
