//! A stream in memory: what tokio-postgres reads and writes instead of a socket.
//!
//! No reactor stands behind it: whoever moves its bytes polls the reader and the writer again.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes kept in either direction before the other side is made to wait.
pub(crate) const WIRE_BYTES_MAX: usize = 256 * 1024;

/// One end is tokio-postgres', through the traits; the other is ours. Clones are the same stream.
#[derive(Clone, Default)]
pub(crate) struct Wire(pub Rc<RefCell<Buffers>>);

#[derive(Default)]
pub(crate) struct Buffers {
    /// From the server.
    pub inbound: BytesMut,
    /// For the server.
    pub outbound: BytesMut,
    /// Nothing more will come.
    pub ended: bool,
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = self.0.borrow_mut();
        let count = buffers.inbound.len().min(buf.remaining());
        if count == 0 && !buffers.ended {
            return Poll::Pending;
        }
        buf.put_slice(&buffers.inbound[..count]);
        buffers.inbound.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffers = self.0.borrow_mut();
        if buffers.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(WIRE_BYTES_MAX.saturating_sub(buffers.outbound.len()));
        if count == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        buffers.outbound.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A waker that notes that it was woken: whoever polls by hand looks at it once a turn.
#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    /// Whether it was woken since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}
