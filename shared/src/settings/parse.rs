//! How the text of a value becomes the value. Each error says what was expected; the caller says where.

use std::path::PathBuf;
use std::time::Duration;

/// Longest time a setting can hold: a year. Longer is a slip of the keyboard, and would overflow sums of deadlines.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// Any text.
pub fn text(slot: &mut Option<String>, text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("text without NUL bytes".into());
    }
    *slot = Some(text.to_owned());
    Ok(())
}

/// A file or folder.
pub fn path(slot: &mut Option<PathBuf>, text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path".into());
    }
    *slot = Some(PathBuf::from(text));
    Ok(())
}

/// One more entry of a list.
pub fn entry(slot: &mut Vec<String>, text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('\0') {
        return Err("text that is not empty".into());
    }
    slot.push(text.to_owned());
    Ok(())
}

/// One or several addresses separated by commas, as gunicorn takes them.
pub fn addresses(slot: &mut Vec<String>, text: &str) -> Result<(), String> {
    text.split(',').try_for_each(|one| entry(slot, one.trim()))
}

/// True or false.
pub fn switch(slot: &mut bool, text: &str) -> Result<(), String> {
    *slot = match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "y" => true,
        "false" | "no" | "off" | "0" | "n" => false,
        _ => return Err("true or false".into()),
    };
    Ok(())
}

/// Seconds; 0 is allowed, and mostly means "no limit".
pub fn seconds(slot: &mut Duration, text: &str) -> Result<(), String> {
    match text.trim().parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => {
            *slot = Duration::from_secs_f64(seconds);
            Ok(())
        }
        _ => Err("seconds from 0 on, such as 30 or 0.5".into()),
    }
}

/// Seconds, or nothing at all.
pub fn maybe_seconds(slot: &mut Option<Duration>, text: &str) -> Result<(), String> {
    let mut value = Duration::ZERO;
    seconds(&mut value, text).map(|()| *slot = Some(value))
}

/// A whole number from `least` to `most`; `0x`, `0o` and `0b` are understood, as gunicorn does.
pub fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let text = text.trim();
    let parsed = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => u64::from_str_radix(&text[2..], 16),
        [b'0', b'o' | b'O', ..] => u64::from_str_radix(&text[2..], 8),
        [b'0', b'b' | b'B', ..] => u64::from_str_radix(&text[2..], 2),
        _ => text.parse(),
    };
    match parsed {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("a whole number from {least} to {most}")),
    }
}

/// A count from 0 on.
pub fn count(slot: &mut usize, text: &str) -> Result<(), String> {
    number(text, 0, COUNT_MAX).map(|value| *slot = usize::try_from(value).unwrap_or(usize::MAX))
}

/// A count from 1 on.
pub fn positive(slot: &mut usize, text: &str) -> Result<(), String> {
    number(text, 1, COUNT_MAX).map(|value| *slot = usize::try_from(value).unwrap_or(usize::MAX))
}

/// Largest count: more is a slip, and would overflow sums.
const COUNT_MAX: u64 = 1 << 31;

/// Bytes; `k`, `m` and `g` multiply by 1024 each.
pub fn bytes(slot: &mut u64, text: &str) -> Result<(), String> {
    let expected = || "a number of bytes, such as 8190, 64k or 1m".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match bare.as_bytes().last() {
        Some(b'k') => (&bare[..bare.len() - 1], 10),
        Some(b'm') => (&bare[..bare.len() - 1], 20),
        Some(b'g') => (&bare[..bare.len() - 1], 30),
        _ => (bare, 0),
    };
    let value: u64 = digits.trim().parse().map_err(|_| expected())?;
    *slot = value.checked_shl(shift).filter(|&v| v >> shift == value).ok_or_else(expected)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_a_fraction() {
        let mut slot = Duration::MAX;
        for (text, millis) in [("30", 30_000), ("0.25", 250), (" 0 ", 0)] {
            seconds(&mut slot, text).unwrap();
            assert_eq!(slot, Duration::from_millis(millis));
        }
        for text in ["", "-1", "1s", "nan", "inf", "1e30"] {
            assert!(seconds(&mut slot, text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_may_be_hexadecimal_and_are_bounded() {
        assert_eq!(number("0x10", 0, 100), Ok(16));
        assert_eq!(number("0o17", 0, 100), Ok(15));
        for text in ["", "0x", "101", "-1", "1.5", "٣"] {
            assert!(number(text, 0, 100).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_take_a_unit() {
        let mut slot = 0;
        for (text, want) in [("8190", 8190), ("64k", 65_536), ("1 MiB", 1 << 20), ("2GB", 2 << 30)]
        {
            bytes(&mut slot, text).unwrap();
            assert_eq!(slot, want, "{text}");
        }
        for text in ["", "k", "1t", "-1", "99999999999999999g"] {
            assert!(bytes(&mut slot, text).is_err(), "{text:?}");
        }
    }
}
