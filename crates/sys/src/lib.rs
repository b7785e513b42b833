//! Every unsafe block of the project, behind safe functions: spawning, signals, pidfds, shared memory, sockets, clocks.
//!
//! - No policy: nothing here decides when to spawn, kill or log.
//! - A descriptor is an `OwnedFd` from the line after the call that made it, close-on-exec from birth.
//! - `EINTR` is retried inside; "not yet" is `Ok(None)` or an empty list, never an error.
//!
//! ```
//! use std::ffi::CString;
//! use sys::spawn::Spawn;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut spawn = Spawn::new(CString::new("/bin/true")?);
//! spawn.args = vec![CString::new("true")?];
//! let child = spawn.spawn()?;
//! let exit = loop {
//!     if let Some(exit) = sys::pidfd::reap(&child.pidfd)? {
//!         break exit;
//!     }
//!     sys::fd::wait_readable(&child.pidfd, Some(std::time::Duration::from_secs(10)))?;
//! };
//! assert_eq!(exit, sys::pidfd::Exit::Code(0));
//! # Ok(())
//! # }
//! ```

// The one crate in which unsafe code is allowed.
#![allow(unsafe_code)]
#![deny(clippy::multiple_unsafe_ops_per_block)]

pub mod clock;
pub mod epoll;
pub mod fd;
pub mod limits;
pub mod message;
pub mod pidfd;
pub mod shm;
pub mod sibling;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod title;

pub use nix::sys::signal::Signal;
pub use nix::unistd::Pid;

use std::io;

/// Turns libc's `-1` into the error in `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`check`], calling again for as long as a signal interrupted the call.
fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}
