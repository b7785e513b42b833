//! Dates of requests (RFC 9110 §5.6.7): today's format, and the two that must still be understood.

use std::time::SystemTime;

/// How many years ahead of now a year of two digits may lie.
const YEARS_AHEAD_MAX: u32 = 50;

/// Reads a date in any of the three formats; `None`: it is none.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
    match with_whole_year(text, now) {
        Some(text) => httpdate::parse_http_date(&text).ok(),
        None => httpdate::parse_http_date(text).ok(),
    }
}

/// `Sunday, 06-Nov-94 08:49:37 GMT` in today's format; `None` for the other two.
///
/// The year is the latest with these two digits that is not too far ahead.
fn with_whole_year(text: &str, now: SystemTime) -> Option<String> {
    let (weekday, rest) = text.split_once(", ")?;
    let mut parts = rest.splitn(3, '-');
    let (day, month, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (digits, time) = rest.split_at_checked(2)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: u32 = digits.parse().ok()?;
    let latest = httpdate::fmt_http_date(now).get(12..16)?.parse::<u32>().ok()? + YEARS_AHEAD_MAX;
    let year = latest - (latest % 100 + 100 - digits) % 100;
    Some(format!("{}, {day} {month} {year}{time}", weekday.get(..3)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_in_any_of_the_three_formats_is_the_same() {
        let now = SystemTime::now();
        let date = parse("Sun, 06 Nov 1994 08:49:37 GMT", now);
        assert!(date.is_some());
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT", now), date);
        assert_eq!(parse("Sun Nov  6 08:49:37 1994", now), date);
        for text in [
            "Sunday, 06-Nov-9",
            "Sunday, 06-Nov-+4 08:49:37 GMT",
            "So, 06-Nov-94",
            ", --",
            "",
            "1994-11-06",
        ] {
            assert_eq!(parse(text, now), None, "{text}");
        }
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        let year = |digits: &str, now: &str| {
            let now = httpdate::parse_http_date(now).unwrap();
            let text = with_whole_year(&format!("Sunday, 06-Nov-{digits} 08:49:37 GMT"), now)?;
            text.strip_prefix("Sun, 06 Nov ")?.strip_suffix(" 08:49:37 GMT")?.parse::<u32>().ok()
        };
        for (now, cases) in [
            (
                "Thu, 31 Dec 2026 00:00:00 GMT",
                [("94", 1994), ("26", 2026), ("76", 2076), ("77", 1977), ("00", 2000)],
            ),
            (
                "Thu, 31 Dec 2099 00:00:00 GMT",
                [("99", 2099), ("01", 2101), ("49", 2149), ("50", 2050), ("00", 2100)],
            ),
        ] {
            for (digits, want) in cases {
                assert_eq!(year(digits, now), Some(want), "{digits}, {now}");
            }
        }
    }
}
