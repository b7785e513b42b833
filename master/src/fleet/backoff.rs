//! How long a slot waits before its next attempt.

use std::time::Duration;

/// The wait after the second failure in a row.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait, before jitter.
const LONGEST: Duration = Duration::from_secs(30);

/// The wait after `failures` earlier failures in a row: none the first time, then doubling from 0.1 s up to 30 s.
///
/// `jitter` is from 0 to 1 and spreads the wait by half to either side, so that slots do not fail in step.
#[must_use]
pub fn delay(failures: u32, jitter: f64) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let plain = FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST);
    plain.mul_f64(0.5 + jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_free_and_the_rest_double_up_to_a_limit() {
        let waits: Vec<f64> = (0..6).map(|failures| delay(failures, 0.5).as_secs_f64()).collect();
        assert_eq!(waits, [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]);
        for failures in [9, 12, 33, 34, u32::MAX] {
            assert!(delay(failures, 0.5) <= LONGEST);
        }
        assert_eq!(delay(u32::MAX, 0.5), LONGEST);
        assert_eq!((delay(1, 0.0), delay(1, 1.0)), (FIRST / 2, FIRST * 3 / 2));
    }
}
