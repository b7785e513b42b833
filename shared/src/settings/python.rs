//! Settings from gunicorn's configuration file, which is a Python program.
//!
//! - `python -m monoceros.config` executes it and says what it defines; here that becomes settings, as a TOML file does.
//! - The file is a program with names of its own, so a name that means nothing is passed over; one that is nearly a
//!   setting is warned about. What gunicorn has and we have not is answered as everywhere, unless its value is empty.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file::OUTSIDE_ONLY;
use super::{
    Assignment, Fate, Found, Kind, Place, Problem, RETIRED, Retired, SETTINGS, Section, Setting,
    nearest,
};

/// Hooks that a worker calls itself, so that they need no command.
pub const WORKER_HOOKS: [&str; 7] = [
    "post_fork",
    "post_worker_init",
    "worker_int",
    "worker_abort",
    "pre_request",
    "post_request",
    "worker_exit",
];

/// Settings that a name in a Python file never means: gunicorn has none of this name, and files in use have such variables.
const NAMES_OF_ITS_OWN: [&str; 3] = ["app", "command", "python"];

/// What a Python file defines.
#[derive(Debug, Default)]
pub struct PythonFound {
    /// Its settings.
    pub found: Found,
    /// The hooks that are functions, with their places.
    pub hooks: Vec<(String, Place)>,
}

/// A Python file that cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonError {
    /// The line of the file at which it ended, where that is known.
    pub line: Option<usize>,
    /// What the interpreter said of it, its last line being the reason.
    pub traceback: String,
}

impl fmt::Display for PythonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.traceback.lines().next_back().unwrap_or("it says nothing").trim();
        match self.line {
            Some(line) => write!(f, "line {line}: {reason}"),
            None => f.write_str(reason),
        }
    }
}

impl Error for PythonError {}

/// What the interpreter says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    /// The traceback, if the file could not be executed.
    error: Option<String>,
    /// Where in the file that was.
    error_line: Option<usize>,
    /// The file, where only a module was named.
    file: Option<PathBuf>,
    names: Vec<Name>,
    hooks: Vec<(String, usize, usize)>,
    problems: Vec<(String, usize, usize)>,
}

/// One name and its value.
#[derive(Debug, Deserialize)]
struct Name {
    name: String,
    /// The name of the value's type.
    kind: String,
    /// The value as one would write it on a command line; `None`: it cannot be written.
    texts: Option<Vec<String>>,
    /// Whether Python takes it for false.
    is_empty: bool,
    /// Line of its value, from 1; 0: it is not in the file itself.
    line: usize,
    column: usize,
}

/// Takes what the interpreter `said` about the file that was named `name`.
///
/// # Errors
///
/// The file cannot be executed, or `said` is not what it should be.
pub fn assignments(name: &str, said: &str) -> Result<PythonFound, PythonError> {
    let said: Said = serde_json::from_str(said).map_err(|error| PythonError {
        line: None,
        traceback: format!("the interpreter's answer is not understood: {error}"),
    })?;
    if let Some(traceback) = said.error {
        return Err(PythonError { line: said.error_line, traceback });
    }
    let path = said.file.unwrap_or_else(|| Path::new(name).to_owned());
    let place = |line: usize, column: usize| Place::File {
        path: path.clone(),
        line: line.max(1),
        column: column.max(1),
    };
    let mut into = PythonFound::default();
    for name in &said.names {
        take(name, place(name.line, name.column), &mut into.found);
    }
    for (message, line, column) in said.problems {
        into.found.problems.push(Problem { place: place(line, column), message });
    }
    for (name, line, column) in said.hooks {
        let place = place(line, column);
        match Retired::find(&name) {
            Some(retired) if !WORKER_HOOKS.contains(&name.as_str()) => {
                // The feature that it is a part of is refused by its own setting, if it is wanted.
                let message = format!("{name} is never called: {}", retired.why);
                into.found.warnings.push(Problem { place, message }.to_string());
            }
            _ => into.hooks.push((name, place)),
        }
    }
    Ok(into)
}

fn take(name: &Name, place: Place, found: &mut Found) {
    if OUTSIDE_ONLY.contains(&name.name.as_str()) || NAMES_OF_ITS_OWN.contains(&name.name.as_str())
    {
        return;
    }
    if let Some(setting) = Setting::find(&name.name) {
        return match texts(setting, name) {
            Ok(texts) => found.assignments.extend(texts.into_iter().map(|text| Assignment {
                setting,
                text,
                place: place.clone(),
            })),
            Err(expected) => {
                let message = format!("{} is a {}, expected {expected}", name.name, name.kind);
                found.problems.push(Problem { place, message });
            }
        };
    }
    if let Some(retired) = Retired::find(&name.name) {
        let judged = match &name.texts {
            Some(texts) => retired.with(&texts.join(",")),
            None => Some(*retired),
        };
        let Some(retired) = judged else { return };
        let message = retired.sentence();
        match retired.fate {
            // Nothing was asked for.
            _ if name.is_empty => (),
            Fate::Ignored => found.warnings.push(Problem { place, message }.to_string()),
            Fate::Refused => found.problems.push(Problem { place, message }),
        }
        return;
    }
    let known = SETTINGS
        .iter()
        .map(|setting| setting.name)
        .filter(|known| !OUTSIDE_ONLY.contains(known) && !NAMES_OF_ITS_OWN.contains(known))
        .chain(RETIRED.iter().map(|retired| retired.name));
    // Without a line it comes from elsewhere, as a whole module's names do, and classes are no values of settings.
    if name.line == 0 || name.kind == "type" {
        return;
    }
    if let Some(meant) = nearest(&name.name, known) {
        let message = format!("unknown name {:?}, ignored; did you mean {meant:?}?", name.name);
        found.warnings.push(Problem { place, message }.to_string());
    }
}

/// The value as one would write it on the command line, if its type fits; none for `None`.
fn texts(setting: &Setting, name: &Name) -> Result<Vec<String>, &'static str> {
    let (fits, expected): (&[&str], _) = match setting.kind {
        Kind::Switch => (&["bool", "str"], "True or False"),
        Kind::List => (&["list", "tuple", "set", "dict", "str"], "a list of strings"),
        // gunicorn took truth values for it before it knew versions.
        Kind::Text if setting.name == "proxy_protocol" => (&["str", "bool"], "a string"),
        Kind::Text if setting.section == Section::Hooks => (&["str"], "a function"),
        Kind::Text => (&["str", "int"], "a string"),
        Kind::Number => (&["int", "str"], "a whole number"),
        Kind::Seconds => (&["int", "float", "str"], "a number of seconds"),
        Kind::Bytes => (&["int", "str"], "a number of bytes, or a string such as \"1m\""),
        Kind::Mode => (&["int", "str"], "file permissions, such as \"0022\" or 0o22"),
    };
    match (name.kind.as_str(), &name.texts) {
        ("NoneType", _) => Ok(Vec::new()),
        (kind, Some(texts)) if fits.contains(&kind) => Ok(texts.clone()),
        _ => Err(expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Problems, resolve};

    /// A line of the interpreter's answer.
    fn name(name: &str, kind: &str, texts: &[&str], is_empty: bool, line: usize) -> String {
        let texts = serde_json::to_string(texts).unwrap();
        format!(
            r#"{{"name": "{name}", "kind": "{kind}", "texts": {texts}, "is_empty": {is_empty}, "line": {line}, "column": 1}}"#
        )
    }

    fn read(names: &[String], rest: &str) -> PythonFound {
        let said = format!(r#"{{"names": [{}] {rest}}}"#, names.join(", "));
        assignments("g.conf.py", &said).unwrap()
    }

    #[test]
    fn values_of_every_kind_are_taken() {
        let PythonFound { found, .. } = read(
            &[
                name("workers", "int", &["3"], false, 1),
                name("timeout", "float", &["2.5"], false, 2),
                name("bind", "list", &["127.0.0.1:1", "unix:/a"], false, 3),
                name("secure_scheme_headers", "dict", &["X-S=https"], false, 4),
                name("reuse_port", "bool", &["false"], true, 5),
                name("proxy_protocol", "bool", &["true"], false, 6),
                name("user", "int", &["1000"], false, 7),
                name("accesslog", "NoneType", &[], true, 8),
                name("command", "str", &["/usr/bin/gunicorn"], false, 9),
                name("certfile", "NoneType", &[], true, 10),
                name("spew", "bool", &["false"], true, 11),
            ],
            "",
        );
        assert_eq!((&found.problems[..], &found.warnings[..]), (&[][..], &[][..]));
        let resolved = resolve(&found.assignments).unwrap();
        let settings = &resolved.settings;
        assert_eq!((settings.workers, settings.timeout.as_millis()), (3, 2500));
        assert_eq!(settings.bind, ["127.0.0.1:1", "unix:/a"]);
        assert_eq!(settings.secure_scheme_headers, ["X-S=https"]);
        assert_eq!((settings.reuse_port, settings.user.as_deref()), (false, Some("1000")));
        assert_eq!((settings.accesslog.as_deref(), &settings.command[..]), (None, &[][..]));
        assert_eq!(resolved.value("bind").unwrap().place.to_string(), "g.conf.py:3:1");
    }

    #[test]
    fn mistakes_are_placed_and_strangers_are_passed_over() {
        let PythonFound { found, hooks } = read(
            &[
                name("workers", "list", &["3"], false, 1),
                name("certfile", "str", &["a"], false, 2),
                name("timout", "int", &["3"], false, 3),
                name("database_host", "str", &["h"], false, 4),
                name("worker_tmp_dir", "str", &["/dev/shm"], false, 5),
            ],
            r#", "hooks": [["on_exit", 6, 1], ["pre_request", 7, 1], ["ssl_context", 8, 1]],
               "problems": [["post_fork takes 1 argument, expected 2", 9, 1]]"#,
        );
        assert_eq!(
            Problems(found.problems).to_string(),
            "g.conf.py:1:1: workers is a list, expected a whole number\n\
             g.conf.py:2:1: certfile is not offered: there is no TLS yet, let a proxy end it\n\
             g.conf.py:9:1: post_fork takes 1 argument, expected 2"
        );
        assert_eq!(
            found.warnings,
            [
                "g.conf.py:3:1: unknown name \"timout\", ignored; did you mean \"timeout\"?",
                "g.conf.py:5:1: worker_tmp_dir has no effect: heartbeats are in shared memory, no file is used",
                "g.conf.py:8:1: ssl_context is never called: there is no TLS yet, let a proxy end it",
            ]
        );
        let hooks: Vec<&str> = hooks.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(hooks, ["on_exit", "pre_request"]);
    }

    #[test]
    fn a_file_that_raises_is_an_error() {
        let said = r#"{"error": "Traceback:\n  x\nZeroDivisionError: no", "error_line": 3}"#;
        let error = assignments("g.conf.py", said).unwrap_err();
        assert_eq!(error.to_string(), "line 3: ZeroDivisionError: no");
        let error = assignments("g.conf.py", "x").unwrap_err().to_string();
        assert!(error.starts_with("the interpreter's answer is not understood: "), "{error}");
    }

    #[test]
    fn the_lists_name_what_there_is() {
        for name in WORKER_HOOKS {
            assert!(Setting::find(name).is_some() || Retired::find(name).is_some(), "{name}");
        }
        for name in NAMES_OF_ITS_OWN {
            assert!(Setting::find(name).is_some(), "{name}");
        }
    }
}
