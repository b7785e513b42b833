//! Datagrams on unix sockets with descriptors and the sender's pid beside the bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, sendmsg,
};

use crate::Pid;

/// Descriptors sent or received with one message; the kernel's own limit (`SCM_MAX_FD`).
pub const MESSAGE_FDS_MAX: usize = 253;

/// One received datagram.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the caller's buffer.
    pub length: usize,
    /// The datagram was longer than the buffer and the rest is lost.
    pub truncated: bool,
    /// Who sent it, as the kernel knows; `None`: the socket does not ask (`SO_PASSCRED`).
    pub sender: Option<Pid>,
    /// Descriptors that came with it, close-on-exec. Dropping them closes them.
    pub fds: Vec<OwnedFd>,
}

/// Sends one datagram with `fds` beside it, to `to` or to the connected peer.
///
/// # Errors
///
/// `WouldBlock`: the receiver's queue is full and `socket` does not block. `ECONNREFUSED`, `ENOENT`: nobody is there.
pub fn send(
    socket: &impl AsFd,
    to: Option<&UnixAddr>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let parts = [io::IoSlice::new(bytes)];
    loop {
        match sendmsg(socket.as_fd().as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, to) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => (),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one datagram into `buffer`. `Ok(None)`: nothing waits (on a socket that does not block).
///
/// # Errors
///
/// Only the kernel's lack of memory or of descriptors.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut control = cmsg_space!(UnixCredentials, [RawFd; MESSAGE_FDS_MAX]);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = loop {
        match recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags)
        {
            Ok(message) => break message,
            Err(nix::errno::Errno::EINTR) => (),
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut received = Received {
        length: message.bytes,
        truncated: message.flags.contains(MsgFlags::MSG_TRUNC),
        sender: None,
        fds: Vec::new(),
    };
    // An error means a truncated list: what the kernel could not fit, it has closed.
    for item in message.cmsgs().into_iter().flatten() {
        match item {
            ControlMessageOwned::ScmRights(numbers) => {
                for number in numbers {
                    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
                    received.fds.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            ControlMessageOwned::ScmCredentials(who) => {
                received.sender = Some(Pid::from_raw(who.pid()));
            }
            _ => (),
        }
    }
    Ok(Some(received))
}
