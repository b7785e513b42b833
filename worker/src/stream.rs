//! A client's socket, TCP or unix, as the loop uses it.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use mio::event::Source;
use mio::{Interest, Registry, Token, net};

/// A client's socket; non-blocking.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(net::TcpStream),
    Unix(net::UnixStream),
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

    /// Registers for both directions, edge-triggered: once in a connection's life.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interest),
            Stream::Unix(stream) => stream.register(registry, token, interest),
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

    /// Tells the client that no more will come, while it may still send.
    pub(crate) fn half_close(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
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
