//! Percent-encoding: path segments and query strings as text.

use std::borrow::Cow;

/// Decodes `%XX`, and `+` as a space if asked (in queries). What is not UTF-8 becomes U+FFFD.
///
/// A `%` that no two hexadecimal digits follow stands for itself, as browsers have it. Borrows when nothing changes.
pub(crate) fn decode(bytes: &[u8], is_query: bool) -> Cow<'_, str> {
    let is_plain = !bytes.iter().any(|&byte| byte == b'%' || (is_query && byte == b'+'));
    if is_plain {
        return String::from_utf8_lossy(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => match tail {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    decoded.push(digit(*high) << 4 | digit(*low));
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            b'+' if is_query => decoded.push(b' '),
            &byte => decoded.push(byte),
        }
    }
    match String::from_utf8(decoded) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The value of one hexadecimal digit.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

/// The pairs of a query string, still encoded. A part without `=` has an empty value; empty parts are left out.
pub(crate) fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|&byte| byte == b'&').filter(|part| !part.is_empty()).map(|part| {
        match memchr::memchr(b'=', part) {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &[][..]),
        }
    })
}

/// The decoded value of the first pair of this name.
pub(crate) fn find<'q>(query: &'q [u8], name: &str) -> Option<Cow<'q, str>> {
    pairs(query)
        .find(|(key, _)| *key == name.as_bytes() || decode(key, true) == name)
        .map(|(_, value)| decode(value, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_is_encoded_and_leaves_the_rest() {
        assert_eq!(decode(b"caf%C3%A9+au%20lait", true), "caf\u{e9} au lait");
        assert_eq!(decode(b"a+b", false), "a+b");
        assert_eq!(decode(b"100%", true), "100%");
        assert_eq!(decode(b"%zz%4", true), "%zz%4");
        assert_eq!(decode(b"%ff", true), "\u{fffd}");
        assert!(matches!(decode(b"plain", true), Cow::Borrowed("plain")));
    }

    #[test]
    fn the_first_pair_of_a_name_counts() {
        let query = b"&a=1&queries=20&queries=5&flag&%6e=%31";
        assert_eq!(find(query, "queries").as_deref(), Some("20"));
        assert_eq!(find(query, "flag").as_deref(), Some(""));
        assert_eq!(find(query, "n").as_deref(), Some("1"));
        assert_eq!(find(query, "none"), None);
    }
}
