//! Text in a page.

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 16;

/// Appends `text` so that a browser shows it as it is, in an element or in a quoted attribute.
pub fn escape(text: &str, page: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        page.extend_from_slice(plain);
        let Some((&byte, behind)) = special.split_first() else { return };
        page.extend_from_slice(match byte {
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'&' => b"&amp;",
            b'"' => b"&quot;",
            _ => b"&#39;",
        });
        rest = behind;
    }
}

/// How many bytes there are before the first that means something to a browser.
fn plain_len(bytes: &[u8]) -> usize {
    // Not by `matches!`: in this form the compiler compares a whole block at once.
    let is_special = |byte: u8| {
        (byte == b'<') | (byte == b'>') | (byte == b'&') | (byte == b'"') | (byte == b'\'')
    };
    let is_plain =
        |block: &[u8; BLOCK_BYTES]| !block.iter().fold(false, |any, &byte| any | is_special(byte));
    let mut len = 0;
    while bytes[len..].first_chunk().is_some_and(is_plain) {
        len += BLOCK_BYTES;
    }
    let special = bytes[len..].iter().position(|&byte| is_special(byte));
    special.map_or(bytes.len(), |at| len + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_a_browser_is_escaped_and_the_rest_is_not() {
        let mut page = Vec::new();
        escape("a < b > c & \"d\" 'e' \u{2014} \u{30d5}", &mut page);
        assert_eq!(
            std::str::from_utf8(&page).unwrap(),
            "a &lt; b &gt; c &amp; &quot;d&quot; &#39;e&#39; \u{2014} \u{30d5}"
        );
    }

    #[test]
    fn it_is_found_in_every_place() {
        for before in 0..40 {
            for after in 0..40 {
                let mut page = Vec::new();
                escape(&format!("{}<{}", "a".repeat(before), "b".repeat(after)), &mut page);
                let want = format!("{}&lt;{}", "a".repeat(before), "b".repeat(after));
                assert_eq!(std::str::from_utf8(&page).unwrap(), want);
            }
        }
    }
}
