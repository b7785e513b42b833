//! Text in a page.

/// Appends `text` so that a browser shows it as it is, in an element or in a quoted attribute.
pub fn escape(text: &str, page: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'&' => b"&amp;",
            b'"' => b"&quot;",
            b'\'' => b"&#39;",
            _ => continue,
        };
        page.extend_from_slice(&bytes[copied..at]);
        page.extend_from_slice(escaped);
        copied = at + 1;
    }
    page.extend_from_slice(&bytes[copied..]);
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
}
