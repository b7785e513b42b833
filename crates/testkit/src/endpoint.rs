//! Where a server is reached, over TCP or a unix socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

impl Endpoint {
    /// Connects; the limit holds for connecting and for every read and write.
    ///
    /// # Errors
    ///
    /// As the operating system has it; a full backlog of a unix socket is `WouldBlock`.
    pub fn connect(&self, limit: Duration) -> io::Result<Stream> {
        let stream = match self {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, limit)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                Stream::Tcp(stream)
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                Stream::Unix(stream)
            }
        };
        Ok(stream)
    }

    /// Reads `http://ADDRESS` or `unix:PATH` as it stands in a log.
    #[must_use]
    pub fn from_log(text: &str) -> Option<Endpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(Endpoint::Unix(PathBuf::from(path)));
        }
        text.strip_prefix("http://")?.parse().ok().map(Endpoint::Tcp)
    }

    /// The TCP address; panics for a unix socket.
    #[must_use]
    #[track_caller]
    pub fn tcp(&self) -> SocketAddr {
        match self {
            Endpoint::Tcp(address) => *address,
            Endpoint::Unix(path) => panic!("{} is not a TCP address", path.display()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "{address}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(address)
    }
}

impl From<&Path> for Endpoint {
    fn from(path: &Path) -> Endpoint {
        Endpoint::Unix(path.to_owned())
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Says that no more will be sent.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn finish_sending(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Tells, without waiting, whether the peer has closed or reset the connection, or has sent something unasked.
    #[must_use]
    pub fn has_news(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let fd = match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        };
        poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
