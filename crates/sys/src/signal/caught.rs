//! A worker's signals: real handlers that set a bit and write an eventfd.
//!
//! Handlers, not a mask: a mask and "ignored" survive `exec`, so programs that the application starts would inherit
//! them and be deaf. Handlers do not survive it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, sigaction, sigprocmask,
};

use crate::Signal;

/// What a worker acts on.
const CAUGHT: [Signal; 4] = [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT, Signal::SIGUSR1];

/// What is meant for the master, and reaches workers when an operator signals the whole process group.
const UNHEARD: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGWINCH, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGUSR2];

static INSTALLED: AtomicBool = AtomicBool::new(false);
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// The installed handlers. One exists per process; dropping it restores the default actions.
#[derive(Debug)]
pub struct Caught {
    wake: EventFd,
}

/// Which of the caught signals arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u32);

impl SignalSet {
    /// Tells whether nothing arrived.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Tells whether `signal` arrived at least once.
    #[must_use]
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & bit(signal as i32) != 0
    }
}

impl Caught {
    /// Catches TERM, QUIT, INT and USR1; makes HUP, WINCH, TTIN, TTOU, USR2, PIPE and XFSZ harmless.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`: one is installed. Otherwise `EMFILE`, `ENFILE`.
    pub fn install() -> io::Result<Caught> {
        if INSTALLED.swap(true, Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "signals are caught already"));
        }
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .inspect_err(|_| INSTALLED.store(false, Ordering::SeqCst))?;
        ARRIVED.store(0, Ordering::SeqCst);
        WAKE.store(wake.as_fd().as_raw_fd(), Ordering::SeqCst);
        let caught = Caught { wake };
        for signal in CAUGHT {
            set(signal, SigHandler::Handler(record))?;
        }
        for signal in UNHEARD {
            set(signal, SigHandler::Handler(ignore))?;
        }
        set(Signal::SIGPIPE, SigHandler::SigIgn)?;
        // A file that may grow no further is an error of its write, not the end of the worker. A handler, as above.
        set(Signal::SIGXFSZ, SigHandler::Handler(ignore))?;
        let all: SigSet = CAUGHT.into_iter().chain(UNHEARD).collect();
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&all), None)?;
        Ok(caught)
    }

    /// Returns what arrived since the last call, and makes the descriptor unreadable until more comes.
    #[must_use]
    pub fn take(&self) -> SignalSet {
        // In this order: a signal between the two lines leaves the descriptor readable, never the bit unseen.
        let _ = self.wake.read();
        SignalSet(ARRIVED.swap(0, Ordering::SeqCst))
    }
}

/// Readable when [`Caught::take`] has something.
impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// From then on the signals are ignored: who lets go of them is leaving, and a signal that comes late must not turn a clean
/// end into a death.
impl Drop for Caught {
    fn drop(&mut self) {
        for signal in CAUGHT.into_iter().chain(UNHEARD) {
            // Nothing better can be done about a failure while going away.
            let _ = set(signal, SigHandler::SigIgn);
        }
        WAKE.store(-1, Ordering::SeqCst);
        INSTALLED.store(false, Ordering::SeqCst);
    }
}

/// Makes what may be sent to a whole process group harmless, for a process that only waits: all that [`Caught`] knows but
/// TERM, which ends it.
///
/// # Errors
///
/// None: the kernel refuses none of these.
pub fn be_deaf() -> io::Result<()> {
    for signal in CAUGHT.into_iter().chain(UNHEARD) {
        let handler = match signal {
            Signal::SIGTERM => SigHandler::SigDfl,
            _ => SigHandler::Handler(ignore),
        };
        set(signal, handler)?;
    }
    Ok(())
}

/// Gives `signals` their default actions.
pub fn restore_defaults(signals: &[Signal]) {
    for signal in signals {
        // Only KILL and STOP are refused, and have no other action.
        let _ = set(*signal, SigHandler::SigDfl);
    }
}

fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    // SA_RESTART: application code in a slow system call need not know of our signals. `epoll_wait` returns anyway.
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: both handlers touch atomics and `write` only, so they are async-signal-safe.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

extern "C" fn record(number: libc::c_int) {
    // SAFETY: returns the address of this thread's `errno`, which always exists.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the address is valid for this thread's life.
    let before = unsafe { *errno };
    ARRIVED.fetch_or(bit(number), Ordering::SeqCst);
    let one = 1_u64.to_ne_bytes();
    // SAFETY: eight readable bytes; should the descriptor be gone the write fails and changes nothing.
    unsafe { libc::write(WAKE.load(Ordering::SeqCst), one.as_ptr().cast(), one.len()) };
    // SAFETY: as above; the interrupted code must find its own `errno` again.
    unsafe { *errno = before };
}

extern "C" fn ignore(_: libc::c_int) {}

const fn bit(number: i32) -> u32 {
    if number > 0 && number < 32 { 1 << number } else { 0 }
}
