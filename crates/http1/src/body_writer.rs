//! Response bodies: clamped to the length that was announced, or cut into chunks.

use crate::{body, response};

/// How the end of a body is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
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
    pub(crate) framed: Framed,
    pub(crate) keep_alive: bool,
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

    /// Whether it is the end of the connection that ends the body: one that is cut looks like the whole.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        self.framed == Framed::UntilClose
    }

    /// Ends the body.
    #[must_use]
    pub fn finish(self, out: &mut Vec<u8>) -> Finish {
        self.finish_with(out, &[])
    }

    /// Ends the body with these trailers, where there is room for any: in chunks. What is no valid field, or may not stand
    /// in a trailer, is left out.
    #[must_use]
    pub fn finish_with(self, out: &mut Vec<u8>, trailers: &[(&str, &[u8])]) -> Finish {
        match self.framed {
            Framed::Length(missing) if missing != 0 => return Finish::Truncated { missing },
            Framed::Chunked => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    if !body::is_forbidden(name.as_bytes()) {
                        // An invalid one appends nothing.
                        let _ = response::append_trailer(out, name, value);
                    }
                }
                out.extend_from_slice(b"\r\n");
            }
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
