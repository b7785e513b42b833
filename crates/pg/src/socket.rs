//! The socket to the server: opening it without waiting, its options, and reading and writing until it would block,
//! with TLS or without.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::{fmt, mem};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;
use socket2::{SockRef, TcpKeepalive};

use crate::secure::Secure;

/// Where one server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A socket that the loop watches, edge-triggered.
///
/// Writability is watched only while a write waits: a unix socket would report it whenever the server has read.
pub(crate) struct Socket {
    stream: Stream,
    token: Token,
    registry: Rc<Registry>,
    waits_to_write: bool,
    /// Bytes that must be there before the loop is woken; 1 is the kernel's own rule.
    low_water: u32,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Secure>),
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
            Stream::Tls(secure) => &mut secure.stream,
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            Stream::Unix(_) => None,
            Stream::Tls(secure) => Some(&secure.stream),
        }
    }
}

impl Socket {
    /// Begins to connect.
    pub fn connect(address: &Address, token: Token, registry: &Rc<Registry>) -> io::Result<Socket> {
        let stream = match address {
            Address::Tcp(address) => Stream::Tcp(TcpStream::connect(*address)?),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let mut socket = Socket {
            stream,
            token,
            registry: Rc::clone(registry),
            waits_to_write: true,
            low_water: 1,
        };
        registry.register(
            socket.stream.source(),
            token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(socket)
    }

    /// Whether it is connected by now.
    pub fn is_connected(&self) -> io::Result<bool> {
        let (error, peer) = match &self.stream {
            Stream::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Stream::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Stream::Tls(_) => return Ok(true),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(error)) => Err(error),
        }
    }

    /// Sets what the configuration asks for; TCP sockets send without delay.
    pub fn configure(&self, config: &tokio_postgres::Config) -> io::Result<()> {
        let Some(stream) = self.stream.tcp() else { return Ok(()) };
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if let Some(limit) = config.get_tcp_user_timeout() {
            socket.set_tcp_user_timeout(Some(*limit))?;
        }
        if config.get_keepalives() {
            let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Ok(())
    }

    /// Has the loop woken only once so many bytes are there, where the kernel can do that: on TCP.
    pub fn set_low_water(&mut self, bytes: u32) -> io::Result<()> {
        match self.stream.tcp() {
            Some(stream) if self.low_water != bytes => {
                self.low_water = bytes;
                sys::socket::set_receive_low_water(stream, bytes)
            }
            _ => Ok(()),
        }
    }

    /// What was last set by [`Socket::set_low_water`].
    pub fn low_water(&self) -> u32 {
        self.low_water
    }

    /// Whether [`Socket::set_low_water`] does anything.
    pub fn has_low_water(&self) -> bool {
        self.stream.tcp().is_some()
    }

    /// The same with TLS on it, if it is TCP; [`Socket::shake`] is to be called before anything is read or written.
    pub fn encrypt(self, connection: ClientConnection) -> Socket {
        let stream = match self.stream {
            Stream::Tcp(stream) => Stream::Tls(Box::new(Secure::new(stream, connection))),
            other => other,
        };
        Socket { stream, ..self }
    }

    /// Goes on with the TLS handshake; whether it is over.
    pub fn shake(&mut self) -> io::Result<bool> {
        let Stream::Tls(secure) = &mut self.stream else { return Ok(true) };
        let is_over = match secure.shake() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(error),
        };
        let waits = secure.wants_write();
        self.wait_to_write(waits)?;
        Ok(is_over)
    }

    /// The session of TLS, where there is one.
    pub fn secure(&self) -> Option<&Secure> {
        match &self.stream {
            Stream::Tls(secure) => Some(secure),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Reads once; `None`: nothing there yet. 0: the server has closed.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let result = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(buffer),
                Stream::Unix(stream) => stream.read(buffer),
                Stream::Tls(secure) => secure.read(buffer),
            };
            match result {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes as much as the socket takes; asks to be told when it takes more. What it did not take is to come first
    /// the next time.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            let result = match &mut self.stream {
                Stream::Tcp(stream) => stream.write(&bytes[written..]),
                Stream::Unix(stream) => stream.write(&bytes[written..]),
                Stream::Tls(secure) => secure.write(&bytes[written..]),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        self.wait_to_write(written < bytes.len())?;
        Ok(written)
    }

    fn wait_to_write(&mut self, wait: bool) -> io::Result<()> {
        if mem::replace(&mut self.waits_to_write, wait) == wait {
            return Ok(());
        }
        let interest =
            if wait { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.registry.reregister(self.stream.source(), self.token, interest)
    }
}
