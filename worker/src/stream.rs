//! A client's socket, TCP or unix, as the loop uses it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::{Interest, Registry, Token, net};
use nix::sys::socket::sockopt::Linger;

/// Bytes of a long response that wait in the kernel before it takes more. The kernel alone would take megabytes, of every
/// client that does not read.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// A client's socket; non-blocking.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(net::TcpStream),
    Unix(net::UnixStream),
}

/// What a connection is woken for: writing is of interest only while something waits to be written. A unix socket would
/// report each read of its client.
fn interest(waits_to_write: bool) -> Interest {
    if waits_to_write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}

impl Stream {
    /// Takes over an accepted socket, which is non-blocking already.
    pub(crate) fn tcp(fd: OwnedFd) -> Stream {
        Stream::Tcp(net::TcpStream::from_std(fd.into()))
    }

    /// As [`Stream::tcp`], for the unix family.
    pub(crate) fn unix(fd: OwnedFd) -> Stream {
        Stream::Unix(net::UnixStream::from_std(fd.into()))
    }

    /// Registers, edge-triggered.
    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        waits_to_write: bool,
    ) -> io::Result<()> {
        self.source().register(registry, token, interest(waits_to_write))
    }

    /// Changes what it is registered for. What is there already is reported anew.
    pub(crate) fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        waits_to_write: bool,
    ) -> io::Result<()> {
        self.source().reregister(registry, token, interest(waits_to_write))
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    /// Reads once, and again after an interruption.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Stream::Tcp(stream) => stream.read(into),
            Stream::Unix(stream) => stream.read(into),
        })
    }

    /// Writes once, and again after an interruption.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        })
    }

    /// Sends up to `count` bytes of `file` from `at` on, past the worker's memory, and moves `at`; 0: the file has ended.
    ///
    /// It may wait for the disk, never for the client.
    pub(crate) fn send_file(&self, file: &File, at: &mut u64, count: usize) -> io::Result<usize> {
        let mut offset = i64::try_from(*at).map_err(|_| io::ErrorKind::InvalidInput)?;
        let sent = retry(|| {
            let offset = Some(&mut offset);
            let sent = match self {
                Stream::Tcp(stream) => nix::sys::sendfile::sendfile64(stream, file, offset, count),
                Stream::Unix(stream) => nix::sys::sendfile::sendfile64(stream, file, offset, count),
            };
            sent.map_err(io::Error::from)
        })?;
        *at += sent as u64;
        Ok(sent)
    }

    /// Bounds what the kernel holds for a client that does not read, to be called before a long response.
    pub(crate) fn bound_unsent(&self) {
        if let Stream::Tcp(stream) = self {
            // Without it the kernel's own bound holds.
            let _ = sys::socket::set_unsent_max(stream, UNSENT_BYTES_MAX);
        }
    }

    /// What the kernel holds that the client has not taken, as [`sys::socket::unsent`] counts it; `None` if it does not say.
    pub(crate) fn unsent(&self) -> Option<u64> {
        sys::socket::unsent(self).ok()
    }

    /// Makes the coming close a reset: the client must not take what it has for the whole.
    pub(crate) fn reset_on_close(&self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        // Refused only by sockets that have no such option; they close as ever.
        let _ = match self {
            Stream::Tcp(stream) => nix::sys::socket::setsockopt(stream, Linger, &at_once),
            Stream::Unix(stream) => nix::sys::socket::setsockopt(stream, Linger, &at_once),
        };
    }

    /// Our side of the connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// Tells the client that no more will come, while it may still send.
    pub(crate) fn half_close(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            other => return other,
        }
    }
}
