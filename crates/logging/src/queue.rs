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
    /// The sink's last line has no end: a full disk took half of it, and the rest is lost.
    is_cut: bool,
    /// Lines lost since the last time somebody was told.
    dropped: u64,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Queue {
        Queue { bytes: Vec::new(), written: 0, bytes_max, is_cut: false, dropped: 0 }
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

    /// Says that there is another sink from now on.
    pub(crate) fn change_sink(&mut self) {
        self.is_cut = false;
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
            if self.is_cut {
                // The next line must not go on in the half one.
                self.bytes.push(b'\n');
            }
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
                Ok(count) => {
                    self.written += count;
                    self.is_cut = self.bytes[self.written - 1] != b'\n';
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // A full disk, or a reader that is gone for good. These lines can only be counted.
                    self.dropped += lines(rest);
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

/// How many lines `rest` holds; one of which nothing is left but its end was not lost.
fn lines(rest: &[u8]) -> u64 {
    let rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    rest.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// The longest beginning that fits a pipe and ends with a line; of a line too long, as much as fits.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let Some(head) = bytes.get(..PIPE_BUF) else { return bytes };
    match head.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => &head[..=end],
        None => head,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom};

    #[test]
    fn a_line_that_a_full_disk_cut_is_ended_before_the_next() {
        // A file that may not grow stands for the disk.
        let mut disk = File::from(memfd_create(c"disk", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        let end = 8192;
        disk.set_len(end).unwrap();
        fcntl(&disk, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
        let sink = Sink::from_fd(disk.try_clone().unwrap().into()).unwrap();
        let mut queue = Queue::new(1024);
        disk.seek(SeekFrom::Start(end - 15)).unwrap();
        for _ in 0..3 {
            queue.push(|bytes| bytes.extend_from_slice(b"123456789\n"));
        }
        assert!(!queue.flush(&sink));
        assert_eq!(queue.dropped(), 2);
        queue.push(|bytes| bytes.extend_from_slice(b"lost\n"));
        assert!(!queue.flush(&sink));
        assert_eq!(queue.dropped(), 3);
        // There is room again.
        disk.seek(SeekFrom::Start(0)).unwrap();
        for text in [b"one\n", b"two\n"] {
            queue.push(|bytes| bytes.extend_from_slice(text));
            assert!(queue.flush(&sink));
        }
        let mut text = [0; 10];
        disk.seek(SeekFrom::Start(0)).unwrap();
        disk.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"\none\ntwo\n\0");
        assert_eq!(queue.dropped(), 3);
    }
}
