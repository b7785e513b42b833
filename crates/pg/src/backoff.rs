//! How long to wait before the next attempt to connect.

use std::time::{Duration, Instant};

/// The first wait.
const WAIT_MIN: Duration = Duration::from_millis(50);

/// The longest wait before jitter: with it, and the time to log in, the database is back in use within a second of
/// its return.
const WAIT_MAX: Duration = Duration::from_millis(700);

/// Waits differ by up to this part, so that the workers do not come back all at once.
const JITTER: f64 = 0.2;

/// A connection that lived this long was a good one: after it, connecting begins anew without a wait.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Doubles from 50 ms to 0.7 s.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An attempt failed: how long to wait.
    pub fn after_failure(&mut self) -> Duration {
        let wait = WAIT_MIN.saturating_mul(1 << self.failures.min(10)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
    }

    /// A connection that came up at `since` was lost.
    pub fn after_loss(&mut self, since: Instant, now: Instant) -> Duration {
        if now.saturating_duration_since(since) >= GOOD_AFTER {
            self.failures = 0;
            return Duration::ZERO;
        }
        self.after_failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_less_than_a_second_and_begin_anew_after_a_good_connection() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..20).map(|_| backoff.after_failure()).collect();
        assert!(waits[0] <= Duration::from_millis(60), "{waits:?}");
        assert!(waits.iter().all(|wait| (40..=840).contains(&wait.as_millis())), "{waits:?}");
        let now = Instant::now();
        assert!(backoff.after_loss(now, now) >= Duration::from_millis(500));
        assert_eq!(backoff.after_loss(now, now + GOOD_AFTER), Duration::ZERO);
        assert!(backoff.after_failure() <= Duration::from_millis(60));
    }
}
