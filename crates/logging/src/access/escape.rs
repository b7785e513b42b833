//! What a client sent, in a line that it cannot forge.

/// Appends `value` with everything but visible ASCII and spaces as `\xNN`, and quotes and backslashes as `\"` and `\\`.
#[inline]
pub(super) fn text(out: &mut Vec<u8>, value: &[u8]) {
    if value.iter().fold(true, |plain, &byte| plain & is_plain(byte)) {
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

/// Appends `value` as the inside of a JSON string. Bytes that are no UTF-8 are taken for Latin-1.
#[inline]
pub(crate) fn json(out: &mut Vec<u8>, value: &[u8]) {
    if value.iter().fold(true, |plain, &byte| plain & is_plain(byte)) {
        out.extend_from_slice(value);
    } else {
        escaped_json(out, value);
    }
}

#[cold]
fn escaped_json(out: &mut Vec<u8>, value: &[u8]) {
    let is_utf8 = std::str::from_utf8(value).is_ok();
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            byte if is_plain(byte) || is_utf8 && 0x80 <= byte => out.push(byte),
            byte => {
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)])
            }
        }
    }
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
    fn json_keeps_what_is_text() {
        let mut out = Vec::new();
        json(&mut out, "grüße \"\n".as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), "grüße \\\"\\u000a");
    }
}
