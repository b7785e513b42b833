//! The one place where the companion waits: for a child, a signal, the master's end, or a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::Error;

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The companion was asked to stop, by this.
    Stop(&'static str),
    /// The child's process ended and can be reaped.
    Exited,
    /// The deadline came.
    Deadline,
}

/// What the companion listens to besides its child.
pub(crate) struct Watch {
    signals: SignalFd,
    lifeline: Option<OwnedFd>,
}

impl Watch {
    /// Blocks TERM, INT and QUIT in this thread: from here on they are read, not delivered.
    pub(crate) fn new(lifeline: Option<OwnedFd>) -> Result<Watch, Error> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
            set.add(signal);
        }
        let refused = |errno: Errno| Error::system("watch for signals")(errno.into());
        set.thread_block().map_err(refused)?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(refused)?;
        Ok(Watch { signals, lifeline })
    }

    /// Waits until `child` (a pidfd) ended, a stop was asked for, or `deadline` came. A stop wins over the rest.
    pub(crate) fn wait(
        &mut self,
        child: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> Result<Wake, Error> {
        loop {
            let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                // Rounded up, or the last millisecond would be spent in a busy loop.
                Some(left) => PollTimeout::try_from(left.as_millis().saturating_add(1))
                    .unwrap_or(PollTimeout::MAX),
                None => PollTimeout::NONE,
            };
            let never = self.signals.as_fd();
            let lifeline = self.lifeline.as_ref().map_or(never, AsFd::as_fd);
            let mut fds = [self.signals.as_fd(), lifeline, child.unwrap_or(never)]
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => (),
                Err(errno) => return Err(Error::system("wait")(errno.into())),
            }
            let ready = fds.map(|fd| fd.any().unwrap_or(true));
            if ready[0]
                && let Some(signal) = self.signal()?
            {
                // Ctrl-C reaches the whole terminal: the master, too, which stops us once the workers are gone.
                if signal == Signal::SIGTERM || self.lifeline.is_none() {
                    return Ok(Wake::Stop(signal.as_str()));
                }
            }
            if self.lifeline.is_some() && ready[1] && self.lifeline_ended() {
                return Ok(Wake::Stop("the end of the master"));
            }
            if child.is_some() && ready[2] {
                return Ok(Wake::Exited);
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(Wake::Deadline);
            }
        }
    }

    fn signal(&mut self) -> Result<Option<Signal>, Error> {
        let got = self
            .signals
            .read_signal()
            .map_err(|errno| Error::system("read a signal")(errno.into()))?;
        Ok(got.and_then(|info| Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()))
    }

    /// Reads what the master wrote: its orders to workers mean nothing here, only the end does.
    fn lifeline_ended(&mut self) -> bool {
        let mut orders = [0; 64];
        match self.lifeline.as_ref().map(|fd| nix::unistd::read(fd, &mut orders)) {
            Some(Ok(0)) | Some(Err(Errno::ECONNRESET)) => {
                self.lifeline = None;
                true
            }
            _ => false,
        }
    }
}
