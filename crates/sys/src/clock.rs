//! The clocks, read without allocation; every function here is async-signal-safe but [`local_time`].

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Last UTC offset seen by [`local_time`], in seconds, for code that may not ask the time zone database.
static UTC_OFFSET: AtomicI32 = AtomicI32::new(0);

/// Reads `CLOCK_MONOTONIC` in nanoseconds: the clock of heartbeats and deadlines; the same in every process.
#[must_use]
pub fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// As [`monotonic`], at the resolution of the kernel's tick (1 to 10 ms) and for a fraction of its price.
#[must_use]
pub fn monotonic_coarse() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

/// Reads `CLOCK_BOOTTIME` in nanoseconds: as [`monotonic`], but it goes on while the machine is suspended.
#[must_use]
pub fn boottime() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call and is the only memory the kernel writes; these clocks always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// A moment as a person at this machine would write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, with the century.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59; leap seconds do not exist in Unix time.
    pub second: u8,
    /// Seconds east of Greenwich.
    pub utc_offset: i32,
}

/// Breaks `time` down in the machine's time zone; UTC when the zone cannot be found.
///
/// Not async-signal-safe, and not cheap when the zone file must be read: callers keep the result for a second.
#[must_use]
pub fn local_time(time: SystemTime) -> LocalTime {
    let seconds = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    };
    let seconds_c = seconds as libc::time_t;
    // SAFETY: all-zero bytes are a valid `tm`: integers and a null pointer.
    let mut broken: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that outlive the call; `localtime_r` keeps neither.
    let result = unsafe { libc::localtime_r(&raw const seconds_c, &raw mut broken) };
    let offset = if result.is_null() { 0 } else { broken.tm_gmtoff as i32 };
    UTC_OFFSET.store(offset, Ordering::Relaxed);
    civil(seconds, offset)
}

/// Breaks the current time down with the offset that [`local_time`] saw last; async-signal-safe.
#[must_use]
pub fn local_time_cached() -> LocalTime {
    civil((read(libc::CLOCK_REALTIME) / 1_000_000_000) as i64, UTC_OFFSET.load(Ordering::Relaxed))
}

/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(unix_seconds: i64, utc_offset: i32) -> LocalTime {
    let local = unix_seconds.saturating_add(i64::from(utc_offset));
    let (days, second_of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    LocalTime {
        year: year as i32,
        month: month as u8,
        day: day as u8,
        hour: (second_of_day / 3_600) as u8,
        minute: (second_of_day / 60 % 60) as u8,
        second: (second_of_day % 60) as u8,
        utc_offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn civil_dates_are_right_at_the_edges() {
        let date = |seconds, offset| {
            let t = civil(seconds, offset);
            (t.year, t.month, t.day, t.hour, t.minute, t.second)
        };
        assert_eq!(date(0, 0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(date(951_782_399, 0), (2000, 2, 28, 23, 59, 59));
        assert_eq!(date(951_782_400, 0), (2000, 2, 29, 0, 0, 0));
        assert_eq!(date(1_767_225_599, 0), (2025, 12, 31, 23, 59, 59));
        assert_eq!(date(1_767_225_599, 3_600), (2026, 1, 1, 0, 59, 59));
        assert_eq!(date(-1, 0), (1969, 12, 31, 23, 59, 59));
    }

    #[test]
    fn local_time_agrees_with_the_cached_offset() {
        let now = local_time(SystemTime::now());
        let cached = local_time_cached();
        assert_eq!(now.utc_offset, cached.utc_offset);
        assert!((cached.year - now.year).abs() <= 1);
    }

    #[test]
    fn monotonic_clocks_run_together() {
        let (fine, coarse) = (monotonic(), monotonic_coarse());
        assert!(fine.abs_diff(coarse) < Duration::from_secs(1).as_nanos() as u64);
        assert!(boottime() >= fine - 1_000_000_000);
    }
}
