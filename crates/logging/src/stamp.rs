//! The time in a log line, computed once a second.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-01-31 12:00:00 +0000`, kept until the second changes.
#[derive(Debug, Default)]
pub(crate) struct Stamp {
    second: u64,
    text: String,
}

impl Stamp {
    pub(crate) fn at(&mut self, now: SystemTime) -> &str {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.text.is_empty() || second != self.second {
            let t = sys::clock::local_time(now);
            let sign = if t.utc_offset < 0 { '-' } else { '+' };
            let offset = t.utc_offset.unsigned_abs() / 60;
            self.second = second;
            self.text.clear();
            // Writing to a `String` cannot fail.
            let _ = write!(
                self.text,
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02} {sign}{:02}{:02}",
                t.year,
                t.month,
                t.day,
                t.hour,
                t.minute,
                t.second,
                offset / 60,
                offset % 60
            );
        }
        &self.text
    }
}
