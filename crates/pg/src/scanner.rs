//! Follows the messages in a stream of bytes that somebody else reads.

use crate::message;

/// Bytes of a message that are looked at: tag, length, and the first of the body.
const LOOK_BYTES: usize = 6;

/// Where in a message the stream is.
#[derive(Default)]
pub(crate) struct Scanner {
    look: [u8; LOOK_BYTES],
    seen: usize,
    skip: usize,
}

impl Scanner {
    /// Calls `found` with the tag and the first byte of the body (0 if it is empty) of each message that begins.
    pub fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(u8, u8)) {
        while let Some(&byte) = bytes.first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.look[self.seen] = byte;
            self.seen += 1;
            bytes = &bytes[1..];
            // A malformed length is the reader's to complain about.
            let length = message::length(&self.look[..self.seen]).unwrap_or(Some(LOOK_BYTES));
            if let Some(length) = length
                && (self.seen == LOOK_BYTES || self.seen == length)
            {
                found(self.look[0], if self.seen == LOOK_BYTES { self.look[5] } else { 0 });
                self.skip = length - self.seen;
                self.seen = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_message_at_every_split() {
        let bytes = b"S\0\0\0\x04D\0\0\0\x09ZZZZZZ\0\0\0\x05IC\0\0\0\x05xH\0\0\0\x04";
        let want = [(b'S', 0), (b'D', b'Z'), (b'Z', b'I'), (b'C', b'x'), (b'H', 0)];
        for cut in 0..=bytes.len() {
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            scanner.feed(&bytes[..cut], |tag, first| found.push((tag, first)));
            scanner.feed(&bytes[cut..], |tag, first| found.push((tag, first)));
            assert_eq!(found, want, "cut at {cut}");
        }
    }
}
