//! Lines on their way to a sink: bounded, in order, and never half of one kept.

use std::io;

use crate::sink::{PIPE_BUF, Sink};

/// Whole lines that the sink has not taken yet.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes: Vec<u8>,
    /// How much of `bytes` is written; may stand within a line that a stream took half.
    written: usize,
    bytes_max: usize,
    /// Lines lost since the last time somebody was told.
    dropped: u64,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Queue {
        Queue { bytes: Vec::new(), written: 0, bytes_max, dropped: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Says that the loss was reported.
    pub(crate) fn forget_dropped(&mut self) {
        self.dropped = 0;
    }

    /// Appends what `write` produces; it must end with a line's end. Too much: it is dropped and counted.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() - self.written > self.bytes_max {
            self.bytes.truncate(before);
            self.dropped += 1;
        }
    }

    /// Writes until the sink takes no more. `false`: it never will.
    pub(crate) fn flush(&mut self, sink: &Sink) -> bool {
        let mut is_alive = true;
        while !self.is_empty() {
            let rest = &self.bytes[self.written..];
            let piece = if sink.is_stream() { whole_lines(rest) } else { rest };
            match sink.write(piece) {
                Ok(0) => break,
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // A full disk, or a reader that is gone for good. These lines can only be counted.
                    self.dropped += rest.iter().filter(|&&byte| byte == b'\n').count() as u64;
                    self.bytes.clear();
                    self.written = 0;
                    is_alive = false;
                }
            }
        }
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written > self.bytes_max {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        is_alive
    }
}

/// The longest beginning that fits a pipe and ends with a line; of a line too long, as much as fits.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let Some(head) = bytes.get(..PIPE_BUF) else { return bytes };
    match head.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => &head[..=end],
        None => head,
    }
}
