//! Descriptors: taking over inherited ones, flags, waiting on one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

/// Takes ownership of a descriptor that this process was started with, and sets close-on-exec.
///
/// Only a descriptor that came through `exec` is without close-on-exec here: whatever the program opens itself has
/// the flag from birth. That is what tells the two apart, so a number from the environment that names one of our
/// own descriptors is refused, and so is a second adoption. Call it before threads exist.
///
/// # Errors
///
/// `EBADF`: not open. `InvalidInput`: 0, 1, 2, negative, adopted before, or opened by this program.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(invalid("standard streams and negative numbers are not passed descriptors"));
    }
    // SAFETY: `fcntl` with F_GETFD reads a number and touches no memory; a closed one is answered with EBADF.
    let flags = crate::check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(invalid("descriptor was not inherited, or was adopted before"));
    }
    // SAFETY: as above; it sets one flag of an open descriptor.
    crate::check(unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: the number is open, and nobody in this program owns it: it had come through `exec` (see above), and
    // from now on its flag makes every later adoption fail.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// Sets or clears close-on-exec.
///
/// # Errors
///
/// None that a descriptor which is open can cause.
pub fn set_close_on_exec(fd: &impl AsFd, on: bool) -> io::Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Makes reads and writes answer `WouldBlock` instead of waiting. The flag belongs to the open file: every process
/// that shares it sees the change, so never set it on an inherited standard stream.
///
/// # Errors
///
/// None that a descriptor which is open can cause.
pub fn set_nonblocking(fd: &impl AsFd, on: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Makes `fd` stand for the open file of `by`, under the number that it has.
///
/// # Errors
///
/// None that descriptors which are open can cause.
pub fn replace(fd: &mut OwnedFd, by: &impl AsFd) -> io::Result<()> {
    loop {
        match nix::unistd::dup3(by.as_fd(), fd, OFlag::O_CLOEXEC) {
            Err(nix::errno::Errno::EINTR) => (),
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Locks an open file against everybody else (`flock`), without waiting. The lock ends when its last copy is closed, in
/// whatever process; closing one of several changes nothing.
///
/// # Errors
///
/// `WouldBlock`: somebody else holds it.
pub fn try_lock(fd: &impl AsFd) -> io::Result<()> {
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is touched; the descriptor is open while borrowed.
    crate::retry(|| unsafe { libc::flock(number, libc::LOCK_EX | libc::LOCK_NB) })?;
    Ok(())
}

/// Tells whether `fd` is a socket on which `listen` was called.
#[must_use]
pub fn is_listening_socket(fd: &impl AsFd) -> bool {
    getsockopt(fd, sockopt::AcceptConn).unwrap_or(false)
}

/// Waits until `fd` is readable or hung up; `Ok(false)`: the time was over first. `None` waits for ever.
///
/// # Errors
///
/// Only the kernel's lack of memory.
pub fn wait_readable(fd: &impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    wait(fd.as_fd(), PollFlags::POLLIN, timeout)
}

/// Waits until a write would not block, or would fail at once; `Ok(false)`: the time was over first.
///
/// # Errors
///
/// Only the kernel's lack of memory.
pub fn wait_writable(fd: &impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    wait(fd.as_fd(), PollFlags::POLLOUT, timeout)
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = match deadline {
            None => PollTimeout::NONE,
            // Rounded up: a deadline half a millisecond away must not become a busy loop.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(std::time::Instant::now());
                PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000))
                    .unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(fd, flags)], left) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => (),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads the device and inode of an open file: two descriptors with the same pair are the same file.
///
/// # Errors
///
/// None that a descriptor which is open can cause.
pub fn identity(fd: &impl AsFd) -> io::Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Names `fd` for programs that are told a path or a number: the raw number, valid while the borrow lasts.
#[must_use]
pub fn number(fd: &impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_descriptors_and_standard_streams_cannot_be_adopted() {
        let file = std::fs::File::open("/dev/null").expect("the null device");
        let number = file.as_raw_fd();
        assert_eq!(adopt(number).map_err(|e| e.kind()).err(), Some(io::ErrorKind::InvalidInput));
        assert_eq!(adopt(2).map_err(|e| e.kind()).err(), Some(io::ErrorKind::InvalidInput));
        assert_eq!(adopt(-1).map_err(|e| e.kind()).err(), Some(io::ErrorKind::InvalidInput));
        let closed = adopt(900_000).expect_err("nothing is open there");
        assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
        // `file` is still ours.
        assert!(file.metadata().is_ok());
    }

    #[test]
    fn an_inherited_descriptor_is_adopted_once() {
        use std::os::fd::IntoRawFd;
        let file = std::fs::File::open("/dev/null").expect("the null device");
        set_close_on_exec(&file, false).expect("as if it had come through exec");
        let number = file.into_raw_fd();
        let adopted = adopt(number).expect("first adoption");
        assert!(adopt(number).is_err(), "a second owner would close it under the first");
        assert_eq!(adopted.as_raw_fd(), number);
    }

    #[test]
    fn a_replaced_descriptor_keeps_its_number_and_its_flag() {
        let null = std::fs::File::open("/dev/null").expect("the null device");
        let mut fd = OwnedFd::from(std::fs::File::open("/dev/zero").expect("the zero device"));
        let number = fd.as_raw_fd();
        replace(&mut fd, &null).expect("both are open");
        assert_eq!(fd.as_raw_fd(), number);
        assert_eq!(identity(&fd).expect("open"), identity(&null).expect("open"));
        let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFD).expect("open");
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn listening_sockets_are_told_from_others() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let client =
            std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        assert!(is_listening_socket(&listener));
        assert!(!is_listening_socket(&client));
        assert!(!is_listening_socket(&std::fs::File::open("/dev/null").expect("null")));
    }
}
