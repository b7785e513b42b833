//! What was read and not yet taken: one buffer per connection, used again and again.

/// Its usual size in bytes: what one system call may bring.
const INBOX_BYTES: usize = 64 * 1024;

/// Bytes from the socket. Grows only for a message larger than itself, up to what the reader accepts.
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub fn new(unread: Vec<u8>) -> Inbox {
        let mut inbox = Inbox { end: unread.len(), buffer: unread, start: 0 };
        inbox.buffer.resize(INBOX_BYTES.max(inbox.end), 0);
        inbox
    }

    /// What was not taken yet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Room for more: never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > INBOX_BYTES {
                self.buffer.truncate(INBOX_BYTES);
                self.buffer.shrink_to_fit();
            }
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start.., 0);
            self.end -= self.start;
            self.start = 0;
            // Less than half would be free: a message as large as the buffer is on its way.
            if self.end > self.buffer.len() / 2 {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    pub fn filled(&mut self, count: usize) {
        self.end += count;
    }

    pub fn took(&mut self, count: usize) {
        self.start += count;
    }
}
