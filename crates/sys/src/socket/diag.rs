//! The accept queue of a unix socket, which only `sock_diag` tells.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::Queue;

/// `SOCK_DIAG_BY_FAMILY`: the request and its answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `UDIAG_SHOW_RQLEN`: tell the queue.
const SHOW_QUEUE: u32 = 0x10;
/// `UNIX_DIAG_RQLEN`: the attribute with the queue.
const QUEUE: u16 = 4;
/// A netlink header.
const HEADER_BYTES: usize = 16;
/// A `unix_diag_msg`, which stands before the attributes.
const MESSAGE_BYTES: usize = 16;
/// Attributes, and parts of messages, begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Asks the kernel for the queue of a listening unix socket. `Ok(None)`: it does not tell (no such module).
pub(super) fn unix_queue(listener: &impl AsFd) -> io::Result<Option<Queue>> {
    let inode = nix::sys::stat::fstat(listener)?.st_ino as u32;
    let protocol = SockProtocol::NetlinkSockDiag;
    let netlink =
        match socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol) {
            Ok(netlink) => netlink,
            Err(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::EPERM | Errno::EACCES) => {
                return Ok(None);
            }
            Err(errno) => return Err(errno.into()),
        };
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &request(inode), &kernel, MsgFlags::empty())?;
    // The kernel answers before `sendto` returns.
    let mut answer = [0; 512];
    let length = match recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => length,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    Ok(queue_in(&answer[..length]))
}

/// A netlink header and a `unix_diag_req` for the socket with this inode.
fn request(inode: u32) -> Vec<u8> {
    let any_cookie = u32::MAX;
    let any_state = u32::MAX;
    let mut body = vec![libc::AF_UNIX as u8, 0, 0, 0];
    for word in [any_state, inode, SHOW_QUEUE, any_cookie, any_cookie] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // Sequence number and sender: one question, one answer.
    bytes.extend_from_slice(&body);
    bytes
}

/// Finds the queue among the attributes of an answer.
fn queue_in(answer: &[u8]) -> Option<Queue> {
    if half(answer, 4)? != BY_FAMILY {
        return None;
    }
    let mut attributes = answer.get(HEADER_BYTES + MESSAGE_BYTES..)?;
    loop {
        let length = usize::from(half(attributes, 0)?);
        if half(attributes, 2)? == QUEUE {
            return Some(Queue { length: word(attributes, 4)?, limit: word(attributes, 8)? });
        }
        // An attribute shorter than its own header would keep us here for ever.
        attributes = attributes.get(length.max(ALIGNMENT).next_multiple_of(ALIGNMENT)..)?;
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
