//! One listening socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};

use crate::addr::LocalAddr;

/// A listening socket that does not block.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: LocalAddr,
}

/// What kind of connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// A unix stream socket.
    Unix,
}

/// A fresh connection: non-blocking, close-on-exec, without Nagle's delay.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub fd: OwnedFd,
    /// Its kind.
    pub kind: Kind,
}

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP; an IPv4 client of an IPv6 socket has its IPv4 address.
    Ip(SocketAddr),
    /// Over a unix socket: clients have no name there.
    Unix,
}

impl Listener {
    /// Takes a socket on which `listen` was called, whoever called it.
    ///
    /// It is made non-blocking, and accepted connections inherit "no delay" from it.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: not a listening socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Listener> {
        if !sys::fd::is_listening_socket(&fd) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening socket"));
        }
        sys::fd::set_nonblocking(&fd, true)?;
        let address = LocalAddr::of(&fd)?;
        if address.ip().is_some() {
            setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        }
        Ok(Listener { fd, address })
    }

    /// Takes the next connection. `Ok(None)`: none is waiting.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`: no room, and the connection keeps waiting (the listener stays readable).
    pub fn accept(&self) -> io::Result<Option<(Accepted, Peer)>> {
        let Some((fd, address)) = sys::socket::accept(&self.fd)? else { return Ok(None) };
        Ok(Some(match address {
            Some(address) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                (Accepted { fd, kind: Kind::Tcp }, Peer::Ip(address))
            }
            None => (Accepted { fd, kind: Kind::Unix }, Peer::Unix),
        }))
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> &LocalAddr {
        &self.address
    }

    /// Refuses new connections while those queued or in handshake can still be accepted.
    ///
    /// For the last stop only, when nobody else holds the socket: this changes the socket, not our copy of it.
    ///
    /// # Errors
    ///
    /// A container that forbids socket filters: then a few clients may see a reset.
    pub fn refuse_new(&self) -> io::Result<()> {
        if self.address.ip().is_some() {
            sys::socket::drop_syns(&self.fd)
        } else {
            use nix::sys::socket::{Shutdown, shutdown};
            use std::os::fd::AsRawFd;
            Ok(shutdown(self.fd.as_raw_fd(), Shutdown::Read)?)
        }
    }

    /// Takes back [`Listener::refuse_new`], which only TCP can; a unix socket has to be bound anew.
    ///
    /// # Errors
    ///
    /// `Unsupported`: a unix socket. `ENOENT`: nothing was refused.
    pub fn accept_new(&self) -> io::Result<()> {
        match self.address.ip() {
            Some(_) => sys::socket::answer_syns(&self.fd),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Copies the descriptor: both stand for the same socket and queue.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Listener> {
        Ok(Listener { fd: self.fd.try_clone()?, address: self.address.clone() })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.fd
    }
}
