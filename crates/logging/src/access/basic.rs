//! The user's name in `Authorization: Basic …`.

/// The name before the colon; `None`: the field is of another kind, or broken.
pub(super) fn user(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = decode(rest.trim_ascii())?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    decoded.truncate(colon);
    (!decoded.is_empty()).then_some(decoded)
}

/// Base64 with the usual alphabet; padding may be missing.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded =
        text.iter().rposition(|&byte| byte != b'=').map_or(&text[..0], |end| &text[..=end]);
    let mut bytes = Vec::with_capacity(unpadded.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for &digit in unpadded {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if 8 <= count {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_stands_before_the_colon() {
        assert_eq!(user(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").as_deref(), Some(&b"Aladdin"[..]));
        assert_eq!(user(b"basic QWxhZGRpbjo").as_deref(), Some(&b"Aladdin"[..]));
        for other in [
            &b""[..],
            b"Basic",
            b"Bearer QWxhZGRpbjo=",
            b"Basic QWxhZGRpbg==",
            b"Basic *",
            b"Basic ====",
            b"Basic Og==",
        ] {
            assert_eq!(user(other), None, "{}", other.escape_ascii());
        }
    }
}
