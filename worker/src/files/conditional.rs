//! Preconditions and ranges (RFC 9110 §13 and §14): what a request for a file is to be answered with.
//!
//! Pure: fields, what the file is now, and its length in; a verdict out. What is malformed is ignored, as the RFC has it.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http1::{Fields, Method};

use super::dates;

/// Age of a file from which on its date tells it from its former content: clocks of file systems and of HTTP are coarse.
const DATE_IS_STRONG_AFTER: Duration = Duration::from_secs(2);

/// What tells one content of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Validators {
    /// Strong, with its quotes: time of change, to the nanosecond, and length.
    pub(crate) etag: String,
    /// When it was changed, in whole seconds; `None` if the file system does not say, or not sensibly.
    pub(crate) modified: Option<SystemTime>,
    /// That was long enough ago.
    pub(crate) is_date_strong: bool,
}

impl Validators {
    pub(super) fn of(metadata: &Metadata, now: SystemTime) -> Validators {
        let changed = metadata.modified().ok();
        let since = changed.and_then(|changed| changed.duration_since(UNIX_EPOCH).ok());
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        // No later than the response's own date (§8.8.2.1).
        let modified = since
            .map(|since| UNIX_EPOCH + Duration::from_secs(since.as_secs()))
            .map(|modified| modified.min(now));
        let age = modified.and_then(|modified| now.duration_since(modified).ok());
        Validators {
            etag: format!("\"{nanoseconds:x}-{:x}\"", metadata.len()),
            modified,
            is_date_strong: age.is_some_and(|age| DATE_IS_STRONG_AFTER <= age),
        }
    }
}

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// 200.
    Whole,
    /// 206 with the bytes from `first` to `last`.
    Part { first: u64, last: u64 },
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    Unsatisfiable,
}

/// Judges a request at `now` for a file with these validators and this length, in the order of §13.2.2.
pub(crate) fn decide(
    method: Method<'_>,
    fields: Fields<'_>,
    validators: &Validators,
    len: u64,
    now: SystemTime,
) -> Verdict {
    let is_read = matches!(method, Method::Get | Method::Head);
    if fields.get("If-Match").is_some() {
        if !matches_any(fields, "If-Match", &validators.etag, Compare::Strong) {
            return Verdict::Failed;
        }
    } else if let (Some(since), Some(modified)) =
        (date(fields, "If-Unmodified-Since", now), validators.modified)
        && since < modified
    {
        return Verdict::Failed;
    }
    if fields.get("If-None-Match").is_some() {
        if matches_any(fields, "If-None-Match", &validators.etag, Compare::Weak) {
            return if is_read { Verdict::NotModified } else { Verdict::Failed };
        }
    } else if is_read
        && let (Some(since), Some(modified)) =
            (date(fields, "If-Modified-Since", now), validators.modified)
        && modified <= since
    {
        return Verdict::NotModified;
    }
    // Range is defined for GET alone (§14.2).
    match only(fields, "Range") {
        Some(range) if method == Method::Get && is_same(fields, validators, now) => {
            part(range, len)
        }
        _ => Verdict::Whole,
    }
}

/// Whether the client's part is one of this content: `If-Range`, or no such field.
fn is_same(fields: Fields<'_>, validators: &Validators, now: SystemTime) -> bool {
    let Some(value) = fields.get("If-Range") else { return true };
    if value.first() == Some(&b'"') {
        return value == validators.etag.as_bytes();
    }
    // A weak tag is no date, and so no match either.
    let known = date(fields, "If-Range", now);
    validators.is_date_strong && known.is_some() && known == validators.modified
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// Whether one of the tags listed in the fields called `name` is `etag`, or all are meant (`*`).
fn matches_any(fields: Fields<'_>, name: &str, etag: &str, compare: Compare) -> bool {
    fields.all(name).any(|list| {
        if list == b"*" {
            return true;
        }
        let mut rest = list;
        loop {
            while let [b' ' | b'\t' | b',', after @ ..] = rest {
                rest = after;
            }
            let is_weak = rest.starts_with(b"W/");
            let tag = if is_weak { &rest[2..] } else { rest };
            // A tag holds no quote inside; what is no tag ends the list.
            let [b'"', inside @ ..] = tag else { return false };
            let Some(end) = inside.iter().position(|&byte| byte == b'"') else { return false };
            let (tag, after) = tag.split_at(end + 2);
            if tag == etag.as_bytes() && (compare == Compare::Weak || !is_weak) {
                return true;
            }
            rest = after;
        }
    })
}

/// The value of the field called `name`, unless there are several.
fn only<'a>(fields: Fields<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = fields.all(name);
    values.next().filter(|_| values.next().is_none())
}

fn date(fields: Fields<'_>, name: &str, now: SystemTime) -> Option<SystemTime> {
    dates::parse(std::str::from_utf8(only(fields, name)?).ok()?, now)
}

/// Reads `bytes=first-last`, `bytes=first-` or `bytes=-count`; several ranges, other units and nonsense are the whole.
fn part(range: &[u8], len: u64) -> Verdict {
    let Some((unit, set)) = range.split_once_byte(b'=') else { return Verdict::Whole };
    let Some((first, last)) = set.trim_ascii().split_once_byte(b'-') else { return Verdict::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes") || set.contains(&b',') || len == 0 {
        return Verdict::Whole;
    }
    match (first, last) {
        (b"", count) => match number(count) {
            None => Verdict::Whole,
            Some(0) => Verdict::Unsatisfiable,
            Some(count) => Verdict::Part { first: len.saturating_sub(count), last: len - 1 },
        },
        (first, last) => {
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), last) {
                (Some(first), Some(last)) if last < first => Verdict::Whole,
                (Some(first), Some(_)) if len <= first => Verdict::Unsatisfiable,
                (Some(first), Some(last)) => Verdict::Part { first, last: last.min(len - 1) },
                _ => Verdict::Whole,
            }
        }
    }
}

/// A number; one that is too large for any file is the largest.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    Some(text.parse().unwrap_or(u64::MAX))
}

trait SplitOnce {
    fn split_once_byte(&self, byte: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnce for [u8] {
    fn split_once_byte(&self, byte: u8) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|&known| known == byte)?;
        Some((&self[..at], &self[at + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http1::{FieldStorage, Parsed, Progress, Rules, parse_head};

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LEN: u64 = 1000;

    fn judged(method: &str, fields: &str, is_date_strong: bool) -> Verdict {
        let validators = Validators {
            etag: "\"abc\"".to_owned(),
            modified: Some(httpdate::parse_http_date(MODIFIED).unwrap()),
            is_date_strong,
        };
        let raw = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let (rules, mut storage) = (Rules::default(), FieldStorage::new());
        let parsed =
            parse_head(raw.as_bytes(), &rules, &mut Progress::default(), &mut storage).unwrap();
        let Parsed::Complete(head) = parsed else { panic!("{raw}") };
        // The day before the first of 2027.
        let now = httpdate::parse_http_date("Thu, 31 Dec 2026 00:00:00 GMT").unwrap();
        decide(head.method(), head.fields(), &validators, LEN, now)
    }

    #[track_caller]
    fn check(fields: &str, want: Verdict) {
        assert_eq!(judged("GET", fields, true), want, "{fields}");
    }

    #[test]
    fn tags_are_compared_as_each_field_demands() {
        for tags in ["\"abc\"", "*", "W/\"abc\"", "\"x\", \"abc\"", "\"a,b\",W/\"abc\""] {
            check(&format!("If-None-Match: {tags}\r\n"), Verdict::NotModified);
        }
        for tags in ["\"x\"", "\"abc", "abc", "\"ABC\"", "\"x, \"abc\""] {
            check(&format!("If-None-Match: {tags}\r\n"), Verdict::Whole);
        }
        check("If-None-Match: \"x\"\r\nIf-None-Match: \"abc\"\r\n", Verdict::NotModified);
        check("If-Match: \"abc\"\r\n", Verdict::Whole);
        check("If-Match: *\r\n", Verdict::Whole);
        check("If-Match: W/\"abc\"\r\n", Verdict::Failed);
        check("If-Match: \"x\"\r\n", Verdict::Failed);
        assert_eq!(judged("PUT", "If-None-Match: *\r\n", true), Verdict::Failed);
    }

    #[test]
    fn dates_count_only_where_no_tag_does() {
        check(&format!("If-Modified-Since: {MODIFIED}\r\n"), Verdict::NotModified);
        check(&format!("If-Modified-Since: {BEFORE}\r\n"), Verdict::Whole);
        check("If-Modified-Since: yesterday\r\n", Verdict::Whole);
        check("If-Unmodified-Since: yesterday\r\n", Verdict::Whole);
        let twice = format!("If-Modified-Since: {MODIFIED}\r\n").repeat(2);
        check(&twice, Verdict::Whole);
        check(&format!("If-Unmodified-Since: {MODIFIED}\r\n"), Verdict::Whole);
        check(&format!("If-Unmodified-Since: {BEFORE}\r\n"), Verdict::Failed);
        check(
            &format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {MODIFIED}\r\n"),
            Verdict::Whole,
        );
        check(&format!("If-Match: *\r\nIf-Unmodified-Since: {BEFORE}\r\n"), Verdict::Whole);
        let posted = judged("POST", &format!("If-Modified-Since: {MODIFIED}\r\n"), true);
        assert_eq!(posted, Verdict::Whole);
    }

    #[test]
    fn dates_are_understood_in_all_three_formats() {
        for date in [MODIFIED, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            check(&format!("If-Modified-Since: {date}\r\n"), Verdict::NotModified);
        }
        for date in
            ["Sunday, 06-Nov-94 08:49:36 GMT", "Sun Nov  6 08:49:36 1994", "Sunday, 06-Nov-9 08"]
        {
            check(&format!("If-Modified-Since: {date}\r\n"), Verdict::Whole);
        }
    }

    #[test]
    fn single_ranges_are_parts_and_nonsense_is_the_whole() {
        let part = |first, last| Verdict::Part { first, last };
        for (range, want) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-499", part(0, 499)),
            ("BYTES=500-", part(500, 999)),
            ("bytes=-1", part(999, 999)),
            ("bytes=-5000", part(0, 999)),
            ("bytes=999-99999999999999999999999", part(999, 999)),
            ("bytes=1000-", Verdict::Unsatisfiable),
            ("bytes=99999999999999999999999-", Verdict::Unsatisfiable),
            ("bytes=-0", Verdict::Unsatisfiable),
            ("bytes=5-4", Verdict::Whole),
            ("bytes=0-1,5-6", Verdict::Whole),
            ("bytes=", Verdict::Whole),
            ("bytes=-", Verdict::Whole),
            ("bytes=a-b", Verdict::Whole),
            ("bytes=+1-2", Verdict::Whole),
            ("bytes=1-2-3", Verdict::Whole),
            ("items=0-1", Verdict::Whole),
            ("0-1", Verdict::Whole),
        ] {
            check(&format!("Range: {range}\r\n"), want);
        }
        check("Range: bytes=0-1\r\nRange: bytes=2-3\r\n", Verdict::Whole);
        assert_eq!(judged("HEAD", "Range: bytes=0-1\r\n", true), Verdict::Whole);
    }

    #[test]
    fn a_part_is_sent_only_of_the_content_the_client_has() {
        let range = "Range: bytes=0-1\r\n";
        let part = Verdict::Part { first: 0, last: 1 };
        for (condition, want) in [
            ("\"abc\"", part),
            ("\"x\"", Verdict::Whole),
            ("W/\"abc\"", Verdict::Whole),
            (MODIFIED, part),
            (BEFORE, Verdict::Whole),
            ("Sun, 06 Nov 1994 08:49:38 GMT", Verdict::Whole),
        ] {
            check(&format!("{range}If-Range: {condition}\r\n"), want);
        }
        let fresh = judged("GET", &format!("{range}If-Range: {MODIFIED}\r\n"), false);
        assert_eq!(fresh, Verdict::Whole, "its date does not tell contents apart yet");
    }
}
