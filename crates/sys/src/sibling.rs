//! A copy of this process that becomes a child of its parent: a sibling.
//!
//! - Two forks of the C library's own, and the process between them ends: the kernel hands the copy to the nearest
//!   ancestor that adopts orphans ([`adopt_orphans`]), which must be our parent. One `clone` with `CLONE_PARENT` would do it
//!   too, but past the C library: locks that other threads hold would stay held in the copy for ever, and handlers
//!   of `pthread_atfork`, on which numerical libraries rely, would not run.
//! - The copy does nothing before it is let go, so whoever answers for it can be told of it first.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::unistd::pipe2;

use crate::{Pid, Signal};

/// Signals that end a copy until it says otherwise, whatever the original does with them.
const DEADLY: [Signal; 4] = [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT, Signal::SIGUSR1];

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Forked {
    /// The one that called.
    Original(Sibling),
    /// The copy, which was let go.
    Copy,
}

/// A copy that waits. Dropped, it ends.
#[derive(Debug)]
pub struct Sibling {
    /// Its process id.
    pub pid: Pid,
    /// Its pidfd; it is not our child, so only the parent can reap it.
    pub pidfd: OwnedFd,
    go: OwnedFd,
}

impl Sibling {
    /// Lets the copy go on.
    pub fn let_go(self) {
        // Nobody to be told of a failure: a copy that is dead is reported by the parent that adopted it.
        let _ = File::from(self.go).write_all(&[1]);
    }
}

/// Makes orphans among our descendants our children, or process 1's again. Those that are ours stay ours.
///
/// # Errors
///
/// None on any kernel since 3.4.
pub fn adopt_orphans(on: bool) -> io::Result<()> {
    Ok(prctl::set_child_subreaper(on)?)
}

/// Forks a copy whose parent is `parent`, who is ours and adopts orphans. It gets TERM when `parent` ends.
///
/// Of several threads only the calling one goes on in the copy, as after any fork; locks of the program's own (not the C
/// library's) that others hold stay held. Waits for two forks.
///
/// # Errors
///
/// `EAGAIN`, `ENOMEM`, `EMFILE`: there is no copy.
pub fn fork(parent: Pid) -> io::Result<Forked> {
    let (named, name) = pipe2(OFlag::O_CLOEXEC)?;
    let (hold, release) = pipe2(OFlag::O_CLOEXEC)?;
    let (start, go) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the C library's fork; the child calls it again and leaves by `_exit`, or becomes the copy (see there).
    let middle = crate::check(unsafe { libc::fork() })?;
    if middle == 0 {
        // With copies of these open, reads would not end.
        drop((named, release, go));
        // SAFETY: as above. This process has one thread.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            drop((name, hold));
            wait_until_let_go(start, parent);
            return Ok(Forked::Copy);
        }
        stand_between(copy, name, hold);
    }
    drop((name, hold, start));
    let mut said = [0; 4];
    let sibling = match File::from(named).read_exact(&mut said).map(|()| i32::from_ne_bytes(said)) {
        Ok(pid) if pid > 0 => {
            let pid = Pid::from_raw(pid);
            // Its parent waits for us, and does not reap: the number cannot have been given to another process.
            crate::pidfd::open(pid).map(|pidfd| Sibling { pid, pidfd, go })
        }
        Ok(errno) => Err(io::Error::from_raw_os_error(-errno)),
        Err(error) => Err(error),
    };
    drop(release);
    // At its end the copy has been adopted. ECHILD: the program reaps every child itself.
    // SAFETY: a null status pointer is allowed: nothing is written.
    let _ = crate::retry(|| unsafe { libc::waitpid(middle, std::ptr::null_mut(), 0) });
    sibling.map(Forked::Original)
}

/// The process between: names the copy, waits until its number was taken in, and ends.
fn stand_between(copy: libc::pid_t, name: OwnedFd, hold: OwnedFd) -> ! {
    let said = if copy > 0 {
        copy
    } else {
        -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN)
    };
    // A failure means that the original is gone: then the copy sees the end of its pipe.
    let _ = File::from(name).write_all(&said.to_ne_bytes());
    let _ = File::from(hold).read(&mut [0]);
    // SAFETY: `_exit` runs no destructor and flushes nothing of the original's.
    unsafe { libc::_exit(0) }
}

/// In the copy: waits for the original's word, and makes sure of its parent.
fn wait_until_let_go(start: OwnedFd, parent: Pid) {
    crate::signal::restore_defaults(&DEADLY);
    let is_let_go = matches!(File::from(start).read(&mut [0]), Ok(1));
    let follows = prctl::set_pdeathsig(Signal::SIGTERM).is_ok();
    // The parent may have died before the line above, or not have adopted us: then no signal will ever come.
    if !is_let_go || !follows || nix::unistd::getppid() != parent {
        // SAFETY: as above.
        unsafe { libc::_exit(0) }
    }
}
