//! Laying the sources over each other, and saying where each value and each mistake comes from.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use super::{Kind, SETTINGS, Setting, Settings};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the default.
    Default,
    /// In this variable.
    Variable(String),
    /// In the settings file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In this variable that holds a command line: [`crate::contract::CMD_ARGS`] or
    /// [`crate::contract::GUNICORN_CMD_ARGS`].
    CmdArgs(&'static str),
    /// On the command line.
    CommandLine,
}

/// One value as it was written.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// What it is for.
    pub setting: &'static Setting,
    /// The value.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// One mistake in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What is wrong, in one line without a full stop.
    pub message: String,
}

/// Everything that is wrong with the settings, in the order in which it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// What a setting came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The setting.
    pub name: &'static str,
    /// As written; several for a list, none when unset.
    pub texts: Vec<String>,
    /// Where it was written.
    pub place: Place,
}

/// The settings, and where each one comes from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The settings.
    pub settings: Settings,
    /// One entry per row of [`SETTINGS`], in the same order.
    pub values: Vec<Value>,
}

/// Lays `assignments` over the defaults; they come in rising priority.
///
/// A list is taken whole from the strongest source that names it, not gathered from all. Every value is checked, also
/// one that another overrides.
///
/// # Errors
///
/// Every value that its setting refuses.
pub fn resolve(assignments: &[Assignment]) -> Result<Resolved, Problems> {
    let mut settings = Settings::blank();
    let mut problems = Vec::new();
    let mut values = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let mut value = Value {
            name: setting.name,
            texts: if setting.default.is_empty() {
                vec![]
            } else {
                vec![setting.default.to_owned()]
            },
            place: Place::Default,
        };
        for written in assignments.iter().filter(|written| written.setting.name == setting.name) {
            // Checked apart, so that a list does not grow by what is overridden.
            if let Err(expected) = (setting.set)(&mut Settings::blank(), &written.text) {
                let message = format!(
                    "{} is {}, expected {expected}",
                    setting.name,
                    shown(setting, &written.text)
                );
                problems.push(Problem { place: written.place.clone(), message });
                continue;
            }
            if setting.kind != Kind::List || !value.place.same_source(&written.place) {
                value.texts.clear();
            }
            value.texts.push(written.text.clone());
            value.place = written.place.clone();
        }
        for text in &value.texts {
            // Cannot fail: it was tried above, and a test tries every default.
            let stored = (setting.set)(&mut settings, text);
            debug_assert!(stored.is_ok(), "{}: {stored:?}", setting.name);
        }
        values.push(value);
    }
    if problems.is_empty() { Ok(Resolved { settings, values }) } else { Err(Problems(problems)) }
}

/// The value for an error message; a secret stays one.
fn shown(setting: &Setting, text: &str) -> String {
    /// Longest piece of a wrong value that is repeated in the error.
    const SHOWN_CHARS_MAX: usize = 60;
    if setting.secret {
        return "not valid".into();
    }
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

impl Resolved {
    /// What a setting came to be.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|value| value.name == name)
    }
}

impl Place {
    /// Whether both are the same file, the same variable, or the same command line.
    fn same_source(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::File { path: one, .. }, Place::File { path: two, .. }) => one == two,
            (one, two) => one == two,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::Variable(name) => write!(f, "environment {name}"),
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Place::CmdArgs(name) => write!(f, "environment {name}"),
            Place::CommandLine => f.write_str("command line"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if 0 < index {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Problems {}
