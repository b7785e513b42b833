//! How long to wait before PostgreSQL is started again.

use std::time::Duration;

/// The first wait after PostgreSQL died.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);
/// PostgreSQL ran well if it ran for this long: the waits begin anew.
const RAN_WELL: Duration = Duration::from_secs(10);

/// Counts the failures in a row.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// Returns the wait after PostgreSQL ran for `ran` and died; it doubles with each failure in a row.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if RAN_WELL <= ran {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew_after_a_good_run() {
        let mut back_off = BackOff::default();
        let waits: Vec<u128> = (0..8).map(|_| back_off.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(back_off.after(Duration::from_secs(60)), FIRST);
        back_off.failures = u32::MAX;
        assert_eq!(back_off.after(Duration::ZERO), LONGEST);
    }
}
