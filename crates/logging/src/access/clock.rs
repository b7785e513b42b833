//! The time as access logs write it, computed once a second.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time of the lines that are being written.
#[derive(Debug, Default)]
pub struct Clock {
    second: Option<u64>,
    /// `[22/Nov/2026:10:43:42 +0000]`
    local: String,
    /// `2026-11-22T10:43:42.123Z`
    universal: Vec<u8>,
}

impl Clock {
    /// Sets the time.
    pub fn set(&mut self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.render(now, since.as_secs());
        }
        // The second's text ends with the milliseconds, which are three digits, and a letter.
        let ms = since.subsec_millis();
        if let Some([hundreds, tens, ones, _]) = self.universal.last_chunk_mut() {
            let digit = |number: u32| b'0' + (number % 10) as u8;
            (*hundreds, *tens, *ones) = (digit(ms / 100), digit(ms / 10), digit(ms));
        }
    }

    fn render(&mut self, now: SystemTime, second: u64) {
        let t = sys::clock::local_time(now);
        let sign = if t.utc_offset < 0 { '-' } else { '+' };
        let offset = t.utc_offset.unsigned_abs() / 60;
        let month = MONTHS[usize::from(t.month.clamp(1, 12)) - 1];
        self.local.clear();
        self.universal.clear();
        // Writing to memory cannot fail.
        let _ = write!(
            self.local,
            "[{:02}/{month}/{:04}:{:02}:{:02}:{:02} {sign}{:02}{:02}]",
            t.day,
            t.year,
            t.hour,
            t.minute,
            t.second,
            offset / 60,
            offset % 60
        );
        let (year, month, day) = civil(second / 86_400);
        let of_day = second % 86_400;
        let _ = write!(
            self.universal,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.000Z",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60
        );
    }

    pub(super) fn local(&self) -> &[u8] {
        self.local.as_bytes()
    }

    pub(super) fn universal(&self) -> &[u8] {
        &self.universal
    }
}

/// Year, month and day of the `days`th day after 1 January 1970. Source: H. Hinnant, `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_forms_are_right() {
        let mut clock = Clock::default();
        for (millis, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (1_795_344_222_123, "2026-11-22T10:43:42.123Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            clock.set(UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(std::str::from_utf8(clock.universal()).unwrap(), want);
        }
        // The zone is the machine's.
        assert_eq!(clock.local().len(), "[22/Nov/2026:10:43:42 +0000]".len());
    }
}
