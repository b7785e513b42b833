//! Signals as events: a descriptor to poll for the master, caught bits and a descriptor to poll for a worker.

mod abort;
mod caught;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, sigaction, sigprocmask,
};
use nix::sys::signalfd::{SfdFlags, SignalFd as NixSignalFd};

pub use abort::{AbortReport, report_on_abort};
pub use caught::{Caught, SignalSet, be_deaf, restore_defaults};

use crate::{Pid, Signal};

/// Signals taken in one [`SignalFd::read`]; equal ones that are pending merge, so this is more than can wait.
const READ_MAX: usize = 64;

/// Signals delivered as readable events. They are blocked; children get an empty mask from [`crate::spawn`].
#[derive(Debug)]
pub struct SignalFd {
    inner: NixSignalFd,
}

impl SignalFd {
    /// Blocks `signals` in the calling thread and opens a descriptor that reports them.
    ///
    /// Call it before any other thread exists: one that does not block them would take them. Inherited "ignored"
    /// (nohup, a shell's background job) is undone, because the kernel drops ignored signals even when blocked.
    /// CHLD too, or the kernel would reap our children itself.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new(signals: &[Signal]) -> io::Result<SignalFd> {
        let mask: SigSet = signals.iter().copied().collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        for &signal in signals.iter().chain([&Signal::SIGCHLD]) {
            set_default(signal)?;
        }
        let inner = NixSignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(SignalFd { inner })
    }

    /// Takes what is pending, with each sender's pid (0: the kernel, or a sender outside our namespace).
    #[must_use]
    pub fn read(&self) -> Vec<(Signal, Pid)> {
        let mut taken = Vec::new();
        while taken.len() < READ_MAX {
            match self.inner.read_signal() {
                Ok(Some(info)) => {
                    if let Ok(signal) = Signal::try_from(info.ssi_signo as i32) {
                        taken.push((signal, Pid::from_raw(info.ssi_pid as i32)));
                    }
                }
                Err(nix::errno::Errno::EINTR) => (),
                Ok(None) | Err(_) => break,
            }
        }
        taken
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

fn set_default(signal: Signal) -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
