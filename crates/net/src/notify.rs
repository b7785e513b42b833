//! The notify protocol of systemd: datagrams of `KEY=value` lines, sent to a supervisor or received from workers.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, getsockname, setsockopt, socket, sockopt,
};
use sys::Pid;

/// The variable that names the socket.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Longest message received; what is longer is dropped whole. systemd's own limit.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Oversized messages skipped in one [`Receiver::receive`] before it says "none", so that nobody can keep it busy.
const SKIPPED_MAX: usize = 64;

/// Sends messages to the supervisor that started this process.
#[derive(Debug)]
pub struct Notifier {
    socket: OwnedFd,
    address: UnixAddr,
}

impl Notifier {
    /// The notifier for the socket named in the environment. `Ok(None)`: nobody asked to be told.
    ///
    /// # Errors
    ///
    /// The variable holds neither an absolute path nor `@NAME`.
    pub fn from_env() -> io::Result<Option<Notifier>> {
        match std::env::var_os(NOTIFY_SOCKET) {
            Some(name) if !name.is_empty() => Notifier::to(&name).map(Some),
            _ => Ok(None),
        }
    }

    /// The notifier for a socket by its name: an absolute path, or `@NAME` for an abstract one.
    ///
    /// # Errors
    ///
    /// The name is neither, or too long.
    pub fn to(name: &OsStr) -> io::Result<Notifier> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
            [b'/', ..] => UnixAddr::new(name)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither an absolute path nor an abstract name",
                ));
            }
        };
        Ok(Notifier { socket: datagram_socket()?, address })
    }

    /// Sends `message`, for example `READY=1`. Never blocks.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: the supervisor's queue is full. `NotFound`, `ConnectionRefused`: it is gone.
    pub fn send(&self, message: &str) -> io::Result<()> {
        self.send_with_fds(message, &[])
    }

    /// As [`Notifier::send`], with descriptors beside the message (`FDSTORE=1`).
    ///
    /// # Errors
    ///
    /// As [`Notifier::send`].
    pub fn send_with_fds(&self, message: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        sys::message::send(&self.socket, Some(&self.address), message.as_bytes(), fds)
    }
}

/// Receives messages, each with its sender's pid as the kernel knows it.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    name: OsString,
}

impl Receiver {
    /// Opens a socket under an abstract name that the kernel chooses: no file, no leftovers.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open() -> io::Result<Receiver> {
        let socket = datagram_socket()?;
        // Before the first message can come, or it would come without its sender.
        setsockopt(&socket, sockopt::PassCred, &true)?;
        bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
        let address: UnixAddr = getsockname(socket.as_raw_fd())?;
        let chosen = address.as_abstract().ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, "the kernel chose no name")
        })?;
        let name = OsString::from_vec([b"@", chosen].concat());
        Ok(Receiver { socket, name })
    }

    /// The value of [`NOTIFY_SOCKET`] for senders.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Takes the next message. `Ok(None)`: none is waiting.
    ///
    /// Anybody on this machine can send here: believe only senders you know. Oversized messages are skipped, bytes that
    /// are not UTF-8 replaced, descriptors closed.
    ///
    /// # Errors
    ///
    /// Only the kernel's lack of memory.
    pub fn receive(&self) -> io::Result<Option<(Pid, String)>> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        for _ in 0..SKIPPED_MAX {
            let Some(received) = sys::message::receive(&self.socket, &mut buffer)? else { break };
            if let (false, Some(sender)) = (received.truncated, received.sender) {
                let text = String::from_utf8_lossy(&buffer[..received.length]).into_owned();
                return Ok(Some((sender, text)));
            }
        }
        Ok(None)
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Finds the value of `key` in a message; the last one counts.
#[must_use]
pub fn value<'m>(message: &'m str, key: &str) -> Option<&'m str> {
    message.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

fn datagram_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::Datagram, flags, None)?)
}
