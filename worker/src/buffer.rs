//! Pooled byte buffers: what responses are written into, and what partial requests wait in.
//!
//! - A buffer goes back to its thread's pool when dropped, so a busy worker allocates none per request.
//! - The pool is bounded in number and in the size of what it keeps: one huge response does not stay in memory.
//! - A thread that takes none keeps none: what the loop hands to another thread is freed there.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};

/// Buffers kept by one thread for reuse.
const POOL_BUFFERS_MAX: usize = 128;
/// Capacity above which a buffer is freed instead of kept, in bytes.
const POOLED_BYTES_MAX: usize = 64 * 1024;
/// Capacity of a fresh buffer, in bytes.
const FRESH_BYTES: usize = 1024;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A growable byte buffer from the thread's pool; goes back to it when dropped.
///
/// Write into it as into a `Vec<u8>`, or through [`io::Write`] (which never fails).
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Takes an empty buffer from the pool, with room for a small response.
    #[must_use]
    pub fn new() -> Buffer {
        // `try_with`: during the thread's end the pool may be gone.
        let pooled = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.capacity() == 0 {
                pool.reserve_exact(POOL_BUFFERS_MAX);
            }
            pool.pop()
        });
        let pooled = pooled.ok().flatten();
        Buffer(pooled.unwrap_or_else(|| Vec::with_capacity(FRESH_BYTES)))
    }

    /// A buffer without memory of its own: what an idle connection holds.
    #[must_use]
    pub const fn none() -> Buffer {
        Buffer(Vec::new())
    }

    /// Makes sure that there is memory behind the buffer: pooled memory, if it has none yet.
    pub(crate) fn obtain(&mut self) -> &mut Vec<u8> {
        if self.0.capacity() == 0 {
            *self = Buffer::new();
        }
        &mut self.0
    }

    /// Empties the buffer and gives its memory back to the pool.
    pub(crate) fn release(&mut self) {
        *self = Buffer::none();
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() == 0 || POOLED_BYTES_MAX < self.0.capacity() {
            return;
        }
        let mut memory = std::mem::take(&mut self.0);
        memory.clear();
        // The pool is gone during the thread's end: the memory is freed then.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < pool.capacity() {
                pool.push(memory);
            }
        });
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        Buffer(bytes)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_and_is_empty() {
        let mut first = Buffer::new();
        first.extend_from_slice(b"something");
        let place = first.as_ptr();
        drop(first);
        let second = Buffer::new();
        assert_eq!(second.as_ptr(), place);
        assert!(second.is_empty());
    }

    #[test]
    fn a_huge_buffer_is_not_kept() {
        let mut huge = Buffer::new();
        huge.reserve(POOLED_BYTES_MAX + 1);
        drop(huge);
        assert!(Buffer::new().capacity() <= POOLED_BYTES_MAX);
    }

    #[test]
    fn a_thread_that_takes_none_keeps_none() {
        let handed_over = Buffer::new();
        let kept = std::thread::spawn(move || {
            drop(handed_over);
            POOL.with_borrow(Vec::len)
        });
        assert_eq!(kept.join().unwrap(), 0);
    }
}
