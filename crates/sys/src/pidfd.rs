//! Children by pidfd: a signal or a reap can never hit a process that was given a recycled pid.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::{Pid, Signal};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called `exit` with this code, 0 to 255.
    Code(i32),
    /// This signal ended it; `true`: and it dumped core.
    Signal(i32, bool),
}

impl Exit {
    /// Tells whether it ended with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Exit::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "code={code}"),
            Exit::Signal(number, dumped) => {
                match Signal::try_from(number) {
                    Ok(signal) => write!(f, "signal={signal}")?,
                    Err(_) => write!(f, "signal={number}")?,
                }
                if dumped { f.write_str(" core_dumped=true") } else { Ok(()) }
            }
        }
    }
}

/// Opens a pidfd for `pid`. Free of races only while the caller has not reaped it: a child of its own.
///
/// # Errors
///
/// `ESRCH`: no such process.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let number = crate::check(result as RawFd)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec by definition) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sends `signal` to the process behind `pidfd`.
///
/// # Errors
///
/// `ESRCH`: it has been reaped. `EPERM`: it runs as another user.
pub fn send_signal(pidfd: &impl AsFd, signal: Signal) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open while borrowed, and a null `siginfo` asks for the same one as `kill` sends.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal as libc::c_int,
            no_info,
            0,
        )
    };
    crate::check(result as libc::c_int)?;
    Ok(())
}

/// Collects the child behind `pidfd`, without blocking. `Ok(None)`: it lives.
///
/// # Errors
///
/// `ECHILD`: not a child of this process, or reaped before.
pub fn reap(pidfd: &impl AsFd) -> io::Result<Option<Exit>> {
    let number = pidfd.as_fd().as_raw_fd() as libc::id_t;
    Ok(wait(libc::P_PIDFD, number, libc::WEXITED | libc::WNOHANG)?.map(|(_, exit)| exit))
}

/// Reads which process is behind `pidfd`, for a descriptor that somebody else opened. `None`: it was reaped.
#[must_use]
pub fn pid(pidfd: &impl AsFd) -> Option<Pid> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let info = std::fs::read_to_string(path).ok()?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    // -1: it is gone; 0: it is of another namespace.
    (0 < number).then(|| Pid::from_raw(number))
}

/// Tells whether the process behind `pidfd` is a child of ours that was not reaped.
#[must_use]
pub fn is_child(pidfd: &impl AsFd) -> bool {
    let number = pidfd.as_fd().as_raw_fd() as libc::id_t;
    wait(libc::P_PIDFD, number, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).is_ok()
}

/// Collects one dead child that is not `known`: as PID 1 or as a subreaper one inherits the orphans of others.
///
/// Known children are left to their pidfds. One that is dead hides the orphans behind it until it is reaped, so:
/// reap the known first, then call this until it says `None`.
///
/// # Errors
///
/// None but a lack of kernel memory; having no children at all is `Ok(None)`.
pub fn reap_orphan(known: &dyn Fn(Pid) -> bool) -> io::Result<Option<(Pid, Exit)>> {
    let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    match wait(libc::P_ALL, 0, peek) {
        Ok(Some((pid, _))) if !known(pid) => {
            wait(libc::P_PID, pid.as_raw() as libc::id_t, libc::WEXITED | libc::WNOHANG)
        }
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

fn wait(
    kind: libc::idtype_t,
    id: libc::id_t,
    options: libc::c_int,
) -> io::Result<Option<(Pid, Exit)>> {
    // SAFETY: all-zero bytes are a valid `siginfo_t`: it is a union of integers and pointers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call and is the only memory the kernel writes.
    crate::retry(|| unsafe { libc::waitid(kind, id, &raw mut info, options) })?;
    // SAFETY: `waitid` fills the child's fields, or leaves the zeroes that were there.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above: a child was found, so its status was written.
    let status = unsafe { info.si_status() };
    let exit = match info.si_code {
        libc::CLD_EXITED => Exit::Code(status),
        code => Exit::Signal(status, code == libc::CLD_DUMPED),
    };
    Ok(Some((Pid::from_raw(pid), exit)))
}
