//! Takes the parameters that are ours out of a connection string; tokio-postgres reads the rest, and knows fewer.
//!
//! Where the string is malformed, what is left of it stays as it is: tokio-postgres then says so.

use percent_encoding::percent_decode_str;

/// A connection string without the parameters that were taken out, and those with their values, in order.
pub(crate) type Taken = (String, Vec<(&'static str, String)>);

/// Takes out those of `names`, from a URL or from `key=value` pairs.
pub(crate) fn take(text: &str, names: &[&'static str]) -> Taken {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if is_url { from_url(text, names) } else { from_pairs(text, names) }
}

fn known(key: &str, names: &[&'static str]) -> Option<&'static str> {
    names.iter().find(|name| **name == key).copied()
}

fn from_url(text: &str, names: &[&'static str]) -> Taken {
    // As tokio-postgres sees it: everything before the first @ is user and password.
    let after_login = text.find('@').map_or(0, |at| at + 1);
    let Some(query) = text[after_login..].find('?').map(|at| after_login + at) else {
        return (text.into(), Vec::new());
    };
    let (mut kept, mut taken) = (Vec::new(), Vec::new());
    for parameter in text[query + 1..].split('&') {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match known(&percent_decode_str(key).decode_utf8_lossy(), names) {
            Some(name) => {
                taken.push((name, percent_decode_str(value).decode_utf8_lossy().into_owned()));
            }
            None => kept.push(parameter),
        }
    }
    if taken.is_empty() {
        return (text.into(), taken);
    }
    let mark = if kept.is_empty() { "" } else { "?" };
    (format!("{}{mark}{}", &text[..query], kept.join("&")), taken)
}

fn from_pairs(text: &str, names: &[&'static str]) -> Taken {
    let (mut kept, mut taken) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some((key, value, after)) = pair(rest) {
        match known(key, names) {
            Some(name) => taken.push((name, value)),
            None => {
                kept.push_str(&rest[..rest.len() - after.len()]);
                kept.push(' ');
            }
        }
        rest = after;
    }
    kept.push_str(rest);
    (kept, taken)
}

/// The first pair, and what is behind it; `None` at the end, and where there is no pair.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start();
    let end = text.find(|next: char| next.is_whitespace() || next == '=')?;
    let (key, rest) = text.split_at(end);
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let (quoted, rest) = match rest.strip_prefix('\'') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let mut value = String::new();
    let mut letters = rest.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' if quoted => return Some((key, value, &rest[at + 1..])),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter if !quoted && letter.is_whitespace() => return Some((key, value, &rest[at..])),
            letter => value.push(letter),
        }
    }
    (!quoted).then_some((key, value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, rest: &str, want: &[(&'static str, &str)]) {
        let (left, taken) = take(text, &["sslmode", "sslkey"]);
        let taken: Vec<_> = taken.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(
            (left.split_whitespace().collect::<Vec<_>>().join(" ").as_str(), &*taken),
            (rest, want),
            "{text}"
        );
    }

    #[test]
    fn from_urls() {
        check("postgresql://u@h/d", "postgresql://u@h/d", &[]);
        check(
            "postgresql://u@h/d?sslmode=require",
            "postgresql://u@h/d",
            &[("sslmode", "require")],
        );
        check(
            "postgres://h/d?a=b&sslmode=x&sslkey=%2Fa%20b&c=d",
            "postgres://h/d?a=b&c=d",
            &[("sslmode", "x"), ("sslkey", "/a b")],
        );
        // Part of a password, as tokio-postgres reads it.
        let odd = "postgresql://u:a?sslmode=b@h/d";
        check(odd, odd, &[]);
        check("postgresql://u:a?b=c@h?ssl%6dode=", "postgresql://u:a?b=c@h", &[("sslmode", "")]);
        check("postgresql://h/d?odd&sslmode=a&", "postgresql://h/d?odd&", &[("sslmode", "a")]);
    }

    #[test]
    fn from_pairs() {
        check("host=h user=u", "host=h user=u", &[]);
        check("host=h sslmode=x user=u", "host=h user=u", &[("sslmode", "x")]);
        check(
            r"sslmode = 'a b' password='sslkey=\'' sslkey=\ x",
            r"password='sslkey=\''",
            &[("sslmode", "a b"), ("sslkey", " x")],
        );
        check("host=h sslmode", "host=h sslmode", &[]);
        check("host=h sslmode='open", "host=h sslmode='open", &[]);
        check("password=ü sslmode=é", "password=ü", &[("sslmode", "é")]);
        check("", "", &[]);
    }
}
