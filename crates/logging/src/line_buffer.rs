//! The access log: many lines, one write per turn of the loop.

use std::io;
use std::os::fd::OwnedFd;

use crate::queue::Queue;
use crate::sink::{Sink, Target};

/// Most bytes that wait for a reader; further lines are dropped and counted.
pub const ACCESS_QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Collects lines and writes them together. For one thread.
#[derive(Debug)]
pub struct LineBuffer {
    target: Option<Target>,
    sink: Sink,
    queue: Queue,
    owner: Option<(u32, u32)>,
}

impl LineBuffer {
    /// Opens the target for appending.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the stream is closed.
    pub fn open(target: Target) -> io::Result<LineBuffer> {
        let sink = Sink::open(&target)?;
        Ok(LineBuffer::new(Some(target), sink))
    }

    /// Writes to an open descriptor; [`LineBuffer::reopen`] does nothing then.
    ///
    /// # Errors
    ///
    /// None that a descriptor which is open can cause.
    pub fn to_fd(fd: OwnedFd) -> io::Result<LineBuffer> {
        Ok(LineBuffer::new(None, Sink::from_fd(fd)?))
    }

    fn new(target: Option<Target>, sink: Sink) -> LineBuffer {
        LineBuffer { target, sink, queue: Queue::new(ACCESS_QUEUE_BYTES_MAX), owner: None }
    }

    /// Appends one line: what `write` produces, which must hold no line's end, and a line's end.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue.push(|bytes| {
            write(bytes);
            bytes.push(b'\n');
        });
    }

    /// Writes what was collected, as far as there is room. Never waits.
    pub fn flush(&mut self) {
        if !self.queue.is_empty() {
            self.queue.flush(&self.sink);
        }
    }

    /// Longest line, its end included, into which no other process's can come: what a pipe takes at once. `None`: files
    /// take any.
    #[must_use]
    pub fn line_bytes_max(&self) -> Option<usize> {
        self.sink.line_bytes_max()
    }

    /// How many bytes wait for room.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.queue.pending_bytes()
    }

    /// Returns how many lines were lost since the last call, for the error log to tell.
    #[must_use]
    pub fn take_dropped(&mut self) -> u64 {
        let dropped = self.queue.dropped();
        self.queue.forget_dropped();
        dropped
    }

    /// Opens the file again, by its name. Streams stay as they are.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; lines go on into the old one.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.flush();
        if let Some(target @ Target::File(_)) = &self.target {
            let sink = Sink::open(target)?;
            if let Some((uid, gid)) = self.owner {
                sink.set_owner(uid, gid)?;
            }
            self.sink = sink;
            self.queue.change_sink();
        }
        Ok(())
    }

    /// Gives the file, now and whenever it is reopened, to the user who workers run as.
    ///
    /// # Errors
    ///
    /// `EPERM`: only root gives files away.
    pub fn set_owner(&mut self, uid: u32, gid: u32) -> io::Result<()> {
        self.owner = Some((uid, gid));
        self.sink.set_owner(uid, gid)
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}
