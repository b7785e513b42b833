//! The loop's time: read once per wake-up, and the `Date` made from it once per second.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

use http1::Stamp;

/// The time of this turn.
#[derive(Debug)]
pub(crate) struct Clock {
    now: Cell<Instant>,
    /// One moment on both scales.
    origin: (Instant, u64),
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let now = Instant::now();
        Clock { now: Cell::new(now), origin: (now, sys::clock::monotonic()) }
    }

    /// `time` in nanoseconds of `CLOCK_MONOTONIC`, which is the scoreboard's scale.
    pub(crate) fn nanoseconds(&self, time: Instant) -> u64 {
        let (origin, nanoseconds) = self.origin;
        // Nobody's process lives for 584 years.
        nanoseconds + time.saturating_duration_since(origin).as_nanos() as u64
    }

    /// Reads the time. Once per wake-up.
    pub(crate) fn update(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// The time of this turn.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }
}

/// What every response of this second begins with.
#[derive(Debug)]
pub(crate) struct Date {
    stamp: Stamp,
    until: Instant,
}

impl Date {
    pub(crate) fn new(now: Instant) -> Date {
        let (stamp, until) = render(SystemTime::now(), now);
        Date { stamp, until }
    }

    /// Renders it again if its second is over.
    pub(crate) fn update(&mut self, now: Instant) {
        if self.until <= now {
            *self = Date::new(now);
        }
    }

    pub(crate) fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// The stamp for `wall`, and when it is no longer right.
fn render(wall: SystemTime, now: Instant) -> (Stamp, Instant) {
    let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since_epoch);
    // Always 29 bytes up to the year 9999.
    let date = <[u8; 29]>::try_from(text.as_bytes()).unwrap_or(*b"Thu, 01 Jan 1970 00:00:00 GMT");
    // To the end of this second. The wall clock may be set meanwhile: it is looked at again then.
    let left = Duration::from_nanos(u64::from(1_000_000_000 - since_epoch.subsec_nanos()));
    (Stamp::new(&date), now + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_right_to_the_end_of_its_second() {
        let now = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let (stamp, until) = render(wall, now);
        assert!(stamp.fields().ends_with(b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        assert_eq!(until - now, Duration::from_millis(750));
    }
}
