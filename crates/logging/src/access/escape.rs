//! What a client sent, in a line that it cannot forge.

/// Appends `value` with everything but visible ASCII and spaces as `\xNN`, and quotes and backslashes as `\"` and `\\`.
#[inline]
pub(super) fn text(out: &mut Vec<u8>, value: &[u8]) {
    if is_all_plain(value) {
        out.extend_from_slice(value);
    } else {
        escaped_text(out, value);
    }
}

/// Whether a byte stands for itself in both kinds of line.
#[inline]
fn is_plain(byte: u8) -> bool {
    (byte.wrapping_sub(b' ') < 0x5f) & (byte != b'"') & (byte != b'\\')
}

/// As [`is_plain`] for each byte, eight at a time.
#[inline]
fn is_all_plain(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let all = words.iter().fold(true, |plain, word| plain & are_plain(u64::from_le_bytes(*word)));
    // The last bytes of a longer value are looked at together with some that were seen already.
    match (value.last_chunk::<8>(), value.first_chunk::<4>(), value.last_chunk::<4>()) {
        (Some(last), ..) => all & (rest.is_empty() || are_plain(u64::from_le_bytes(*last))),
        (None, Some(first), Some(last)) => {
            let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
            are_plain(u64::from(first) | u64::from(last) << 32)
        }
        _ => value.iter().all(|&byte| is_plain(byte)),
    }
}

/// Whether each byte of a word is plain. Source: S. E. Anderson, Bit Twiddling Hacks, "Determine if a word has a byte less
/// than n"; a borrow from one byte can only accuse the next when that one is guilty itself.
#[inline]
fn are_plain(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    // With its sign bit, or with it once DEL is one more.
    let beyond_tilde = word | word.wrapping_add(ONES);
    let marks = zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5c));
    (below_space | beyond_tilde | marks) & (ONES * 0x80) == 0
}

#[cold]
fn escaped_text(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            byte if is_plain(byte) => out.push(byte),
            byte => out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]),
        }
    }
}

/// How much of what [`text`] or [`json`] wrote fits into `most` bytes, in whole escapes and characters: a `\` at the end would
/// quote what follows.
pub(crate) fn whole(written: &[u8], most: usize) -> usize {
    let mut end = 0;
    while end < written.len() {
        let len = match written[end..] {
            [b'\\', b'u', ..] => 6,
            [b'\\', b'x', ..] => 4,
            [b'\\', ..] | [0xc0..0xe0, ..] => 2,
            [0xe0..0xf0, ..] => 3,
            [0xf0..=0xff, ..] => 4,
            _ => 1,
        };
        if most < end + len {
            break;
        }
        end += len;
    }
    end.min(written.len())
}

/// Appends `value` as the inside of a JSON string, which no program takes for more than one line. Bytes that are no UTF-8
/// are taken for Latin-1.
#[inline]
pub(crate) fn json(out: &mut Vec<u8>, value: &[u8]) {
    if is_all_plain(value) {
        out.extend_from_slice(value);
    } else {
        escaped_json(out, value);
    }
}

#[cold]
fn escaped_json(out: &mut Vec<u8>, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(text) => text.chars().for_each(|c| escaped_char(out, c)),
        Err(_) => value.iter().for_each(|&byte| match char::from(byte) {
            c if c.is_ascii() => escaped_char(out, c),
            c => put_code(out, c),
        }),
    }
}

fn escaped_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        // Terminals obey the controls beyond ASCII too, and some programs end a line at the separators.
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => put_code(out, c),
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends a character of the basic plane as `\uNNNN`.
fn put_code(out: &mut Vec<u8>, c: char) {
    let code = u32::from(c);
    out.extend_from_slice(b"\\u");
    out.extend([12, 8, 4, 0].map(|shift| digit((code >> shift) as u8)));
}

fn digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 15)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_ends_a_line_or_a_quotation() {
        let every: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        text(&mut out, &every);
        assert!(out.iter().all(|&byte| (b' '..=b'~').contains(&byte)));
        assert!(String::from_utf8(out).unwrap().contains("!\\\"#$%&"));
        let mut out = b"\"".to_vec();
        json(&mut out, &every);
        out.push(b'"');
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.contains(r"\u0000") && out.contains(r"\u000a") && out.contains(r"\u00ff"),
            "{out}"
        );
        assert!(!out[1..out.len() - 1].replace(r#"\""#, "").contains('"'));
    }

    #[test]
    fn an_odd_byte_is_seen_wherever_it_stands() {
        for len in 0..=25 {
            assert!(is_all_plain(&vec![b'a'; len]));
            for at in 0..len {
                for byte in 0..=255 {
                    for others in [b' ', b'!', b'#', b'[', b']', b'~'] {
                        let mut value = vec![others; len];
                        value[at] = byte;
                        assert_eq!(
                            is_all_plain(&value),
                            is_plain(byte),
                            "{}",
                            value.escape_ascii()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn json_keeps_what_is_text() {
        let mut out = Vec::new();
        json(&mut out, "grüße \"\n".as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), "grüße \\\"\\u000a");
        // Except where a line might end, or a terminal obey.
        let mut out = Vec::new();
        json(&mut out, "a\u{2028}b\u{2029}c\u{85}d\u{9b}2J\x7f\u{a0}".as_bytes());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a\\u2028b\\u2029c\\u0085d\\u009b2J\\u007f\u{a0}"
        );
    }
}
