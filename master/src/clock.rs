//! The arbiter's clock: real time without the pauses of the master itself.
//!
//! When the master was stopped (SIGSTOP), starved, or its virtual machine paused, deadlines that passed meanwhile say
//! nothing about the workers. The clock stands still for such a gap, so every deadline moves by it.

use std::time::{Duration, Instant};

/// A turn that comes later than planned by more than this was a pause. Below it, it was only a busy machine.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The clock. All deadlines of the arbiter are by it.
#[derive(Debug)]
pub struct Clock {
    /// The sum of all pauses.
    paused: Duration,
    /// When the arbiter has to be heard of again at the latest, in real time: awake or asleep, it is never gone for long.
    due: Option<Instant>,
}

impl Clock {
    /// A clock that shows real time, so far.
    #[must_use]
    pub fn new() -> Clock {
        Clock { paused: Duration::ZERO, due: None }
    }

    /// The time by this clock when it is `real`.
    #[must_use]
    pub fn at(&self, real: Instant) -> Instant {
        real.checked_sub(self.paused).unwrap_or(real)
    }

    /// Announces that the arbiter sleeps for `wait` at most, from `real` on; returns the length of a pause before.
    pub fn sleeps(&mut self, real: Instant, wait: Duration) -> Option<Duration> {
        let pause = self.pause_until(real);
        self.due = real.checked_add(wait);
        pause
    }

    /// Tells that the arbiter is awake; returns the length of a pause, if there was one.
    pub fn wakes(&mut self, real: Instant) -> Option<Duration> {
        let pause = self.pause_until(real);
        self.due = Some(real);
        pause
    }

    fn pause_until(&mut self, real: Instant) -> Option<Duration> {
        let late = real.saturating_duration_since(self.due?);
        if late <= PAUSE_MIN {
            return None;
        }
        self.paused += late;
        Some(late)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_moves_every_deadline() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut clock = Clock::new();
        clock.sleeps(start, second);
        assert_eq!(clock.wakes(start + second * 2), None, "late, but no pause");
        assert_eq!(clock.at(start + second * 2), start + second * 2);
        clock.sleeps(start + second * 2, second);
        assert_eq!(clock.wakes(start + second * 63), Some(second * 60));
        assert_eq!(clock.at(start + second * 63), start + second * 3);
        assert_eq!(
            clock.sleeps(start + second * 73, second),
            Some(second * 10),
            "paused while awake"
        );
        assert_eq!(clock.at(start + second * 73), start + second * 3);
    }
}
