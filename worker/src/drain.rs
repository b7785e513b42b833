//! How a worker comes to its end: what each order and signal changes.
//!
//! - Pure: hears of signals, orders and the time, and says what is to be done.
//! - Draining: nothing new is accepted; what is read or in hand is answered; the next request on a connection
//!   that was kept alive is answered with `Connection: close`. Closing such a connection instead would make a proxy
//!   answer 502 to a POST that crosses the close.

use std::time::{Duration, Instant};

/// How long idle connections wait for their last request when the whole server stops.
///
/// No other worker will answer: a client gains little by waiting, an operator's stop would take longer.
const FINAL_IDLE_WAIT: Duration = Duration::from_secs(2);
/// How long before the master's KILL idle connections are closed.
const BEFORE_THE_END: Duration = Duration::from_millis(500);

/// Where the worker stands on the way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All goes on.
    Serving,
    /// All goes on, and every response says `Connection: close`: a stop is near, or no connection is to be kept.
    SayingClose,
    /// Nothing is accepted; what was accepted is finished.
    Draining {
        /// When idle connections wait no longer.
        idle_until: Instant,
        /// When whatever is left is cut.
        until: Instant,
    },
    /// Stop now.
    Quitting,
}

/// What the loop has to do about a TERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Nothing: the drain was begun before.
    None,
    /// Close the own copies of the listeners at once: others serve them. Retired ones apart, which are emptied first.
    CloseListeners,
    /// Accept all that waits, then close: nobody else serves them.
    AcceptAllThenClose,
}

/// The way to the end, and what is known of it.
#[derive(Debug)]
pub(crate) struct Drain {
    phase: Phase,
    /// The listeners have no other holder.
    is_final: bool,
    graceful_timeout: Duration,
}

impl Drain {
    /// `keep_alive` is how long a connection is kept between requests; zero: not at all.
    pub(crate) fn new(graceful_timeout: Duration, keep_alive: Duration) -> Drain {
        let phase = if keep_alive.is_zero() { Phase::SayingClose } else { Phase::Serving };
        Drain { phase, is_final: false, graceful_timeout }
    }

    #[cfg(test)]
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether responses must say `Connection: close`.
    pub(crate) fn says_close(&self) -> bool {
        self.phase != Phase::Serving
    }

    /// Whether nothing is accepted any more.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Quitting)
    }

    /// A stop is near.
    pub(crate) fn say_close(&mut self) {
        if self.phase == Phase::Serving {
            self.phase = Phase::SayingClose;
        }
    }

    /// Nobody else holds the listeners.
    pub(crate) fn set_final(&mut self) {
        self.is_final = true;
    }

    /// TERM, or the master is gone.
    pub(crate) fn begin(&mut self, now: Instant) -> Farewell {
        if self.is_draining() {
            return Farewell::None;
        }
        let until = now + self.graceful_timeout;
        let idle_until = if self.is_final {
            now + FINAL_IDLE_WAIT.min(self.graceful_timeout)
        } else {
            now + self.graceful_timeout.saturating_sub(BEFORE_THE_END)
        };
        self.phase = Phase::Draining { idle_until, until };
        if self.is_final { Farewell::AcceptAllThenClose } else { Farewell::CloseListeners }
    }

    /// QUIT or INT: connections are cut.
    pub(crate) fn quit(&mut self) {
        self.phase = Phase::Quitting;
    }

    /// Whether it was told to stop at once.
    pub(crate) fn is_quitting(&self) -> bool {
        self.phase == Phase::Quitting
    }

    /// The latest time for an idle connection to be closed, given its own.
    pub(crate) fn idle_deadline(&self, own: Instant) -> Instant {
        match self.phase {
            Phase::Draining { idle_until, .. } => own.min(idle_until),
            _ => own,
        }
    }

    /// Whether the worker may leave.
    pub(crate) fn is_over(&self, connections: usize, now: Instant) -> bool {
        match self.phase {
            Phase::Serving | Phase::SayingClose => false,
            Phase::Draining { until, .. } => connections == 0 || until <= now,
            Phase::Quitting => true,
        }
    }

    /// When [`Drain::is_over`] may change by time alone.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { until, .. } => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(2);

    #[test]
    fn a_reload_lets_idle_connections_wait_and_a_stop_does_not() {
        let now = Instant::now();
        let long = now + Duration::from_secs(75);
        let mut reload = Drain::new(Duration::from_secs(30), KEEP_ALIVE);
        assert_eq!(reload.begin(now), Farewell::CloseListeners);
        assert_eq!(reload.idle_deadline(long), now + Duration::from_millis(29_500));
        let mut stop = Drain::new(Duration::from_secs(30), KEEP_ALIVE);
        stop.set_final();
        assert_eq!(stop.begin(now), Farewell::AcceptAllThenClose);
        assert_eq!(stop.idle_deadline(long), now + FINAL_IDLE_WAIT);
    }

    #[test]
    fn a_second_term_changes_nothing_and_quit_ends_it() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::from_secs(30), KEEP_ALIVE);
        drain.begin(now);
        let phase = drain.phase();
        assert_eq!(drain.begin(now + Duration::from_secs(5)), Farewell::None);
        assert_eq!(drain.phase(), phase);
        assert!(!drain.is_over(1, now));
        assert!(drain.is_over(0, now));
        assert!(drain.is_over(1, now + Duration::from_secs(30)));
        drain.quit();
        assert!(drain.is_over(1, now));
    }

    #[test]
    fn saying_close_is_not_draining() {
        let mut drain = Drain::new(Duration::from_secs(30), KEEP_ALIVE);
        drain.say_close();
        assert!(drain.says_close() && !drain.is_draining());
        assert!(!drain.is_over(0, Instant::now()));
    }

    #[test]
    fn without_keep_alive_close_is_always_said() {
        let mut drain = Drain::new(Duration::from_secs(30), Duration::ZERO);
        assert!(drain.says_close() && !drain.is_draining());
        assert_eq!(drain.begin(Instant::now()), Farewell::CloseListeners);
    }
}
