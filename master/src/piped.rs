//! Children whose output comes to us through a pipe from which reading never waits.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::sys::signal::killpg;
use nix::unistd::pipe2;
use sys::Signal;
use sys::spawn::{Child, Spawn};

/// Starts `spawn` in a session of its own, with nothing to read and its output in the pipe; what it prints on standard
/// error, too, if `with_errors`. It ends when we do.
///
/// # Errors
///
/// No process, memory or descriptors left. That the program cannot be executed is seen at its end.
pub fn start(spawn: Spawn<'_>, with_errors: bool) -> io::Result<(Child, File)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // The child's end waits, as programs expect of their standard output: the flag is each end's own.
    nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
    let nothing = File::open("/dev/null")?;
    let mut spawn = spawn;
    let errors = with_errors.then(|| (write.as_fd(), 2));
    spawn.fds = [(nothing.as_fd(), 0), (write.as_fd(), 1)].into_iter().chain(errors).collect();
    spawn.session = true;
    spawn.parent_death_signal = Some(Signal::SIGTERM);
    Ok((spawn.spawn()?, File::from(read)))
}

/// Kills a child that was not reaped yet, with all that it started in its process group.
pub fn kill(child: &Child) {
    // Not reaped yet, so the number is still its own. It may not have got as far as having a group.
    let _ = killpg(child.pid, Signal::SIGKILL);
    // Its end is about to be reported, or was.
    let _ = sys::pidfd::send_signal(&child.pidfd, Signal::SIGKILL);
}
