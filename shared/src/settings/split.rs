//! Splitting a line into words, as a shell would: blanks separate, quotes and backslashes protect. Nothing is expanded.

/// Splits `line` into words.
///
/// # Errors
///
/// A quote that is never closed, or a backslash with nothing after it; the text says which.
pub fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a ' is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a \" is not closed"),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a \" is not closed"),
                    }
                }
            }
            '\\' => {
                word.get_or_insert_default().push(chars.next().ok_or("nothing after the last \\")?)
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Quotes `word`, so that [`split`] gives it back as one word.
#[must_use]
pub fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        for (line, want) in [
            ("", &[][..]),
            ("  -w 4\t-b :80 ", &["-w", "4", "-b", ":80"]),
            (
                r#"-n 'my app' "a \"b\" \n" c\ d '' x"y"'z'"#,
                &["-n", "my app", r#"a "b" \n"#, "c d", "", "xyz"],
            ),
        ] {
            assert_eq!(split(line).unwrap(), want, "{line}");
        }
        for word in ["", "a", "/a b/python", "it's", "$x\\"] {
            assert_eq!(split(&format!("x {} y", quote(word))).unwrap(), ["x", word, "y"]);
        }
        for line in ["'a", "\"a", "\"a\\", "a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
