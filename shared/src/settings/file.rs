//! Settings from a TOML file. Every mistake is reported at once, each with file:line:column.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Assignment, Fate, Kind, Place, Problem, Retired, SETTINGS, Section, Setting, nearest};

/// Settings that make no sense inside the file.
pub(super) const OUTSIDE_ONLY: [&str; 3] = ["config", "check_config", "print_config"];

/// The table that hooks may stand in.
const HOOKS: &str = "hooks";

/// What a settings file holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Its settings, in the order of its lines.
    pub assignments: Vec<Assignment>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// What has no effect.
    pub warnings: Vec<String>,
}

/// Reads the content `text` of the file `path`.
///
/// Values are checked by [`super::resolve`]; here it is syntax, names and types.
#[must_use]
pub fn assignments(path: &Path, text: &str) -> Found {
    let place = |span: Range<usize>| {
        let (line, column) = position(text, span.start);
        Place::File { path: path.to_owned(), line, column }
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<(usize, Problem)> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            let message = error.message().replace('\n', ", ");
            (span.start, Problem { place: place(span), message })
        })
        .collect();
    let mut found: Vec<(usize, Assignment)> = Vec::new();
    let mut warnings = Vec::new();
    let mut entries = Vec::new();
    for (key, value) in document.get_ref() {
        match value.get_ref() {
            DeValue::Table(hooks) if key.get_ref() == HOOKS => {
                entries.extend(hooks.iter().map(|entry| (entry, true)));
            }
            _ => entries.push(((key, value), false)),
        }
    }
    for ((key, value), is_hook) in entries {
        let at = key.span();
        let retired = Retired::find(key.get_ref());
        let judged = retired.map(|retired| retired.with(&plain_text(value.get_ref())));
        let setting = Setting::find(key.get_ref())
            .filter(|setting| !is_hook || setting.section == Section::Hooks);
        let Some(setting) = setting else {
            match judged.map(|judged| judged.map(|it| (it.fate, it.sentence()))) {
                Some(None) => (),
                Some(Some((Fate::Ignored, message))) => {
                    warnings.push((at.start, Problem { place: place(at), message }.to_string()));
                }
                Some(Some((Fate::Refused, message))) => {
                    problems.push((at.start, Problem { place: place(at), message }));
                }
                None => {
                    let message = unknown(key.get_ref(), is_hook);
                    problems.push((at.start, Problem { place: place(at), message }));
                }
            }
            continue;
        };
        if OUTSIDE_ONLY.contains(&setting.name) {
            let message =
                format!("{} cannot be set in the file, only on the command line", setting.name);
            problems.push((at.start, Problem { place: place(at), message }));
            continue;
        }
        let at = value.span();
        match texts(setting.kind, value.get_ref()) {
            Ok(texts) => found.extend(
                texts
                    .into_iter()
                    .map(|text| (at.start, Assignment { setting, text, place: place(at.clone()) })),
            ),
            Err(expected) => {
                let message = format!(
                    "{} is {}, expected {expected}",
                    setting.name,
                    kind_of(value.get_ref())
                );
                problems.push((at.start, Problem { place: place(at), message }));
            }
        }
    }
    found.sort_by_key(|&(at, _)| at);
    problems.sort_by_key(|&(at, _)| at);
    warnings.sort_by_key(|&(at, _)| at);
    Found {
        assignments: found.into_iter().map(|(_, assignment)| assignment).collect(),
        problems: problems.into_iter().map(|(_, problem)| problem).collect(),
        warnings: warnings.into_iter().map(|(_, warning)| warning).collect(),
    }
}

fn unknown(key: &str, is_hook: bool) -> String {
    let what = if is_hook { "hook" } else { "setting" };
    let known = SETTINGS.iter().filter(|setting| !is_hook || setting.section == Section::Hooks);
    match nearest(key, known.map(|setting| setting.name)) {
        Some(meant) => format!("unknown {what} {key:?}, did you mean {meant:?}?"),
        None => format!("unknown {what} {key:?}"),
    }
}

/// The value as one would write it on the command line, if its type fits.
fn texts(kind: Kind, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(value)) => Ok(vec![value.to_string()]),
        (Kind::Switch, _) => Err("true or false"),
        (Kind::List, DeValue::Array(entries)) => entries
            .iter()
            .map(|entry| match entry.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                _ => Err("an array of strings"),
            })
            .collect(),
        (Kind::List, DeValue::String(text)) => Ok(vec![text.to_string()]),
        (Kind::List, _) => Err("an array of strings"),
        (Kind::Text, DeValue::String(text)) => Ok(vec![text.to_string()]),
        (Kind::Text, _) => Err("a string"),
        (Kind::Mode, DeValue::String(text)) => Ok(vec![text.to_string()]),
        (Kind::Number | Kind::Bytes | Kind::Seconds | Kind::Mode, DeValue::Integer(number)) => {
            Ok(vec![number.to_string()])
        }
        (Kind::Seconds, DeValue::Float(number)) => Ok(vec![number.as_str().to_owned()]),
        (Kind::Bytes, DeValue::String(text)) => Ok(vec![text.to_string()]),
        (Kind::Number, _) => Err("a whole number"),
        (Kind::Mode, _) => Err("file permissions, such as \"0022\" or 0o22"),
        (Kind::Seconds, _) => Err("a number of seconds"),
        (Kind::Bytes, _) => Err("a number of bytes, or a string such as \"1m\""),
    }
}

/// A value of any kind as one would write it on the command line; what cannot be written there is empty.
fn plain_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Array(entries) => {
            let texts: Vec<String> = entries.iter().map(|e| plain_text(e.get_ref())).collect();
            texts.join(",")
        }
        _ => String::new(),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Line and column of byte `at`, both from 1; columns count characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Problems, resolve};

    #[track_caller]
    fn read(text: &str) -> Result<crate::settings::Resolved, String> {
        let Found { assignments, mut problems, .. } = assignments(Path::new("m.toml"), text);
        let resolved = resolve(&assignments);
        if let Err(Problems(more)) = &resolved {
            problems.extend(more.iter().cloned());
        }
        if problems.is_empty() {
            resolved.map_err(|e| e.to_string())
        } else {
            Err(Problems(problems).to_string())
        }
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let resolved = read(
            "workers = 0x4\ntimeout = 2.5\nbind = [\":1\", 'unix:/a']\nlimit_request_body = \"2m\"\n\
             reuse_port = false\nproc_name = \"x\"",
        )
        .unwrap();
        let settings = &resolved.settings;
        assert_eq!(
            (settings.workers, settings.limit_request_body, settings.reuse_port),
            (4, 2 << 20, false)
        );
        assert_eq!(settings.timeout.as_millis(), 2500);
        assert_eq!(settings.bind, [":1", "unix:/a"]);
        assert_eq!(settings.proc_name.as_deref(), Some("x"));
        let place = &resolved.value("bind").unwrap().place;
        assert_eq!(place.to_string(), "m.toml:3:8");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let errors =
            read("timout = 3\n\nworkers = \"four\"\nzzz = 1\nconfig = \"a\"\n  timeout = -1\n")
                .unwrap_err();
        assert_eq!(
            errors,
            "m.toml:1:1: unknown setting \"timout\", did you mean \"timeout\"?\n\
             m.toml:3:11: workers is a string, expected a whole number\n\
             m.toml:4:1: unknown setting \"zzz\"\n\
             m.toml:5:1: config cannot be set in the file, only on the command line\n\
             m.toml:6:13: timeout is \"-1\", expected seconds from 0 on, such as 30 or 0.5"
        );
    }

    #[test]
    fn hooks_stand_in_a_table_of_their_own() {
        let resolved = read("workers = 2\n[hooks]\nwhen_ready = 'echo \"a b\"'").unwrap();
        assert_eq!(resolved.settings.when_ready.as_deref(), Some("echo \"a b\""));
        assert_eq!(
            read("[hooks]\nwhen_redy = 'a'\nworkers = 3\nchild_exit = \"'\"").unwrap_err(),
            "m.toml:2:1: unknown hook \"when_redy\", did you mean \"when_ready\"?\n\
             m.toml:3:1: unknown hook \"workers\"\n\
             m.toml:4:14: child_exit is \"'\", expected a program and its arguments"
        );
    }

    #[test]
    fn gunicorns_defaults_and_its_own_names_are_no_mistake() {
        let text = "protocol = 'http'\nhttp_protocols = ['h1']\ncert_reqs = 0\n\
                    http2_cleartext = 'off'\ncontrol_socket_disable = true";
        let found = assignments(Path::new("m.toml"), text);
        assert!(found.problems.is_empty() && found.warnings.is_empty(), "{found:?}");
        assert!(read(text).unwrap().settings.no_control_socket);
    }

    #[test]
    fn gunicorns_settings_are_answered_by_name() {
        let found = assignments(
            Path::new("m.toml"),
            "worker_class = 'gthread'\n\ncertfile = 'a'\n[hooks]\npre_request = 'a'",
        );
        assert_eq!(
            found.warnings,
            ["m.toml:1:1: worker_class has no effect: there is one kind of worker, an event loop"]
        );
        assert_eq!(
            Problems(found.problems).to_string(),
            "m.toml:3:1: certfile is not offered: there is no TLS yet, let a proxy end it\n\
             m.toml:5:1: pre_request is not offered: no command is run per request; in gunicorn's Python \
             configuration file it is a function"
        );
        assert!(found.assignments.is_empty());
    }

    #[test]
    fn broken_syntax_is_placed_and_never_panics() {
        for text in [
            "workers = ",
            "[",
            "a = 'ä",
            "= 3",
            "workers = 1\nworkers = 2",
            "x.y = 1",
            "\u{feff}workers=1",
            "\0",
        ] {
            let outcome = read(text);
            assert!(outcome.is_err() || text.starts_with('\u{feff}'), "{text:?}");
        }
        assert!(read("workers = 1\nbind = [\n").unwrap_err().starts_with("m.toml:"), "placed");
    }
}
