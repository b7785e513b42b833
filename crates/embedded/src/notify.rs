//! Tells the master that the database can be used.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1` to the socket that `NOTIFY_SOCKET` names: a path, or an abstract name after `@`.
///
/// A message that cannot be sent is no reason to stop: the master's own time limit for starting says so.
pub(crate) fn ready(socket: Option<&OsStr>) {
    let Some(name) = socket.map(OsStr::as_bytes) else { return };
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(OsStr::from_bytes(name)),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        // See above: the receiver is gone, and with it the lifeline.
        let _ = socket.send_to_addr(b"READY=1\n", &address);
    }
}
