//! The character classes of RFC 9110 and RFC 3986, as one table of bits.

/// `tchar`: what tokens are made of: methods, field names, codings.
pub(crate) const TOKEN: u8 = 1;
/// What a field value may hold: HTAB, SP, VCHAR, obs-text.
pub(crate) const VALUE: u8 = 1 << 1;
/// What a request target may hold: visible ASCII but `#`, for a fragment is never sent.
pub(crate) const TARGET: u8 = 1 << 2;
/// What a registered name may hold: unreserved and sub-delims. `%` is checked apart.
pub(crate) const REG_NAME: u8 = 1 << 3;
/// What a conventional method may hold: a token without lower case and `#`.
pub(crate) const METHOD: u8 = 1 << 4;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let mark = matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if byte.is_ascii_alphanumeric() || mark {
            table[index] |= TOKEN;
            if !byte.is_ascii_lowercase() && byte != b'#' {
                table[index] |= METHOD;
            }
        }
        if byte == b'\t' || 0x20 <= byte && byte != 0x7f {
            table[index] |= VALUE;
        }
        if byte.is_ascii_graphic() && byte != b'#' {
            table[index] |= TARGET;
        }
        let sub_delim = matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || sub_delim {
            table[index] |= REG_NAME;
        }
        index += 1;
    }
    table
}

/// Whether `byte` is of `class`.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether every byte is of `class`; true for no bytes.
#[inline]
pub(crate) fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|&byte| is(byte, class))
}

/// Whether `bytes` is a token: at least one `tchar` and nothing else.
#[inline]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Removes optional white space (SP, HTAB) from both ends.
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    trim_end(bytes)
}

/// Removes optional white space from the end.
#[inline]
pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether `text` is `lower`, but for the case of letters. `text` holds no control bytes but HTAB, `lower` no upper-case
/// letters and nothing of its own kind that such a byte could be taken for: letters, digits and hyphens.
#[inline]
pub(crate) fn is_text<const N: usize>(text: &[u8], lower: &[u8; N]) -> bool {
    // Without leaving early: some ten bytes are compared at once.
    <&[u8; N]>::try_from(text).is_ok_and(|text| {
        text.iter().zip(lower).fold(0, |found, (&one, &other)| found | ((one | 0x20) ^ other)) == 0
    })
}

/// Iterates over the elements of a comma-separated list, trimmed; empty ones are left out (RFC 9110 §5.6.1).
/// Not for fields whose elements may hold quoted commas.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}
