//! How much of a turn one connection may have for its pipelined requests.
//!
//! - The time of a share is looked at between two requests, never during one: a first request is always begun.
//! - A look at the clock is a part of what a quick request costs, so the more have begun the more rarely it is looked at.

use std::time::Duration;

/// Time for the requests of one connection before the others, and the heartbeat, have theirs.
const SHARE: Duration = Duration::from_millis(20);
/// Most requests that begin between two looks at the clock.
const UNWATCHED_MAX: u32 = 16;
/// The first looks come when one request has begun, then so many times as many, and so on.
const STEP_FACTOR: u32 = 4;

/// The share of the connection that is being attended to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// `CLOCK_MONOTONIC` in nanoseconds when it began.
    began: u64,
    /// Requests that may begin before the clock is looked at.
    unwatched: u32,
    /// How many may after that.
    step: u32,
    is_over: bool,
}

impl Share {
    /// A share that begins at `tick`.
    #[inline]
    pub(crate) fn new(tick: u64) -> Share {
        Share { began: tick, unwatched: 1, step: STEP_FACTOR - 1, is_over: false }
    }

    /// Whether a request had to be left for the next share.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether a further request may begin without a look at the clock; else [`Share::look`] says.
    #[inline]
    pub(crate) fn begin(&mut self) -> bool {
        let may = self.unwatched != 0;
        self.unwatched -= u32::from(may);
        may
    }

    /// Whether a further request may begin at `now`.
    pub(crate) fn look(&mut self, now: u64) -> bool {
        self.is_over = SHARE.as_nanos() as u64 <= now.saturating_sub(self.began);
        if !self.is_over {
            self.unwatched = self.step - 1;
            self.step = (self.step * STEP_FACTOR).min(UNWATCHED_MAX);
        }
        !self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// How many requests of `each` nanoseconds are begun, and how often the clock is looked at.
    fn begun(each: u64, most: u32) -> (u32, u32) {
        let (mut share, mut now, mut looks) = (Share::new(0), 0, 0);
        for number in 0..most {
            if !share.begin() {
                looks += 1;
                if !share.look(now) {
                    return (number, looks);
                }
            }
            now += each;
        }
        (most, looks)
    }

    #[test]
    fn slow_requests_are_few_and_quick_ones_are_rarely_timed() {
        assert_eq!(begun(100 * MS, 100), (1, 1));
        assert_eq!(begun(15 * MS, 100), (4, 2));
        assert_eq!(begun(MS, 100), (32, 4));
        assert_eq!(begun(1000, 16), (16, 2));
        assert_eq!(begun(1000, 160), (160, 11));
    }

    #[test]
    fn a_share_begins_at_least_one_request_and_none_after_its_time() {
        let mut share = Share::new(5 * MS);
        assert!(share.begin() && !share.is_over());
        for _ in 0..2 {
            assert!(!share.begin() && !share.look(25 * MS) && share.is_over());
        }
        let mut next = Share::new(25 * MS);
        assert!(!next.is_over() && next.begin());
    }
}
