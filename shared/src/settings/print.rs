//! `--print-config`: every setting with its source, written as a settings file.

use std::fmt::{self, Write as _};

use super::file::OUTSIDE_ONLY;
use super::{Kind, Place, Resolved, Section, Setting, Value};

impl Resolved {
    /// A settings file that says the same, each line with its source as a comment. Passwords are left out.
    #[must_use]
    pub fn print(&self) -> String {
        let mut page = String::new();
        for section in Section::ALL {
            // Writing to a String cannot fail.
            let _ =
                writeln!(page, "{}# {}", if page.is_empty() { "" } else { "\n" }, section.title());
            for value in &self.values {
                match Setting::find(value.name) {
                    Some(setting) if setting.section == section => {
                        let _ = writeln!(page, "{}", Line { setting, value });
                    }
                    _ => (),
                }
            }
        }
        page
    }
}

struct Line<'a> {
    setting: &'a Setting,
    value: &'a Value,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { setting, value } = *self;
        if value.texts.is_empty() || OUTSIDE_ONLY.contains(&setting.name) {
            f.write_str("# ")?;
        }
        write!(f, "{} = ", setting.name)?;
        match (setting.kind, value.texts.as_slice()) {
            (_, []) => f.write_str("(unset)")?,
            (Kind::List, texts) => {
                let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "[{}]", quoted.join(", "))?;
            }
            (Kind::Text, [text, ..]) if setting.secret => {
                f.write_str(&quoted(&without_password(text)))?
            }
            (Kind::Text | Kind::Bytes | Kind::Mode, [text, ..]) => f.write_str(&quoted(text))?,
            (Kind::Number | Kind::Seconds | Kind::Switch, [text, ..]) => {
                f.write_str(&bare(text))?
            }
        }
        match &value.place {
            Place::Default => f.write_str("  # default"),
            place => write!(f, "  # {place}"),
        }
    }
}

impl Value {
    /// The value for people, without passwords; `setting` is the one that it belongs to.
    #[must_use]
    pub fn shown(&self, setting: &Setting) -> Option<String> {
        match self.texts.as_slice() {
            [] => None,
            texts if setting.secret => {
                let shown: Vec<String> = texts.iter().map(|text| without_password(text)).collect();
                Some(shown.join(", "))
            }
            texts => Some(texts.join(", ")),
        }
    }
}

/// A number or truth value as TOML has it.
fn bare(text: &str) -> String {
    let mut flag = false;
    match super::parse::switch(&mut flag, text) {
        Ok(()) if !text.bytes().all(|byte| byte.is_ascii_digit()) => flag.to_string(),
        _ => text.trim().trim_start_matches('+').to_ascii_lowercase(),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A database URL without its password; of what is no URL, only that it is set.
pub(crate) fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return if text == "embedded" { text.to_owned() } else { "***".to_owned() };
    };
    let rest = match rest.find(['/', '?']).map_or(rest, |end| &rest[..end]).rfind('@') {
        Some(at) => {
            let user = rest[..at].split(':').next().unwrap_or_default();
            if user.len() == at { rest.to_owned() } else { format!("{user}:***{}", &rest[at..]) }
        }
        None => rest.to_owned(),
    };
    let rest = match rest.split_once('?') {
        Some((path, query)) => {
            let kept: Vec<&str> = query
                .split('&')
                .map(|pair| {
                    if pair.to_ascii_lowercase().contains("password") {
                        "password=***"
                    } else {
                        pair
                    }
                })
                .collect();
            format!("{path}?{}", kept.join("&"))
        }
        None => rest,
    };
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::{Assignment, Found, file, resolve};

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let Found { assignments: first, problems, .. } = file(
            Path::new("m.toml"),
            "workers = 3\nbind = [':1', 'unix:/a\"b']\nlimit_request_body = '2m'\nreuse_port = false\nchdir = '/tmp'\n\
             command = ['a', 'b c']\ndatabase = 'embedded'\nkeepalive = 0.5",
        );
        assert_eq!(problems, []);
        let resolved = resolve(&first).unwrap();
        let Found { assignments: again, problems, .. } =
            file(Path::new("again.toml"), &resolved.print());
        assert_eq!(problems, [], "{}", resolved.print());
        assert_eq!(resolve(&again).unwrap().settings, resolved.settings);
    }

    #[test]
    fn each_line_names_its_source() {
        let workers = Setting::find("workers").unwrap();
        let place = Place::Variable("WEB_CONCURRENCY".into());
        let page =
            resolve(&[Assignment { setting: workers, text: "4".into(), place }]).unwrap().print();
        assert!(page.contains("\nworkers = 4  # environment WEB_CONCURRENCY\n"), "{page}");
        assert!(page.contains("\ntimeout = 30  # default\n"), "{page}");
        assert!(page.contains("\n# pidfile = (unset)  # default\n"), "{page}");
    }

    #[test]
    fn passwords_are_not_printed() {
        for (url, want) in [
            ("postgres://u:p@s@h/d", "postgres://u:***@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres:///d?host=/run&password=x", "postgres:///d?host=/run&password=***"),
            ("host=h password=x", "***"),
            ("embedded", "embedded"),
        ] {
            assert_eq!(without_password(url), want);
        }
    }
}
