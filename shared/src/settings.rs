//! The settings: one table, from which flags, file keys, variables, `--print-config` and the reference page are made.
//!
//! - [`SETTINGS`] and [`Settings`] come from one list, in `table.rs`: a further setting is one row there.
//! - Stage one stores what was written. Names are resolved and files opened later, so `--help` always works.
//! - Later sources win: default, environment, file, [`crate::contract::GUNICORN_CMD_ARGS`],
//!   [`crate::contract::CMD_ARGS`], command line. [`resolve`] lays them.
//! - A value is checked where it was written, even when a later source overrides it: the mistake is still a mistake.

mod edge;
mod environment;
mod file;
mod parse;
mod print;
mod python;
mod reference;
mod resolve;
mod retired;
mod split;
mod suggest;
mod table;

pub use edge::{HeaderMap, ProxyProtocol, RealIp, SYSLOG_FACILITIES, SyslogPlan};
pub use environment::assignments as environment;
pub use file::{Found, assignments as file};
pub use python::{PythonError, PythonFound, WORKER_HOOKS, assignments as python_file};
pub use reference::page as reference_page;
pub use resolve::{Assignment, Place, Problem, Problems, Resolved, Value, resolve};
pub use retired::{Fate, RETIRED, Retired, Takes};
pub use split::{quote, split};
pub use suggest::nearest;
pub use table::{
    LogFormat, LogLevel, PrepareManner, SETTINGS, Settings, UpgradeManner, WORKERS_MAX,
};

/// Settings that are called otherwise in gunicorn's files, with our names.
const RENAMED: &[(&str, &str)] = &[("control_socket_disable", "no_control_socket")];

/// One setting: everything the program, its help and its manual know about it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key in the file; with `-` for `_` its flag, in capitals after `MONOCEROS_` its variable.
    pub name: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// Heading it stands under.
    pub section: Section,
    /// What stands for the value in help texts; empty for a switch.
    pub meta: &'static str,
    /// The value when nobody says anything, as one would write it; empty means unset.
    pub default: &'static str,
    /// The flag, without `--`, where it is not made from the name; `-` means that there is none.
    pub flag: &'static str,
    /// Other spellings of the flag.
    pub aliases: &'static [&'static str],
    /// The flag's one-letter form.
    pub short: Option<char>,
    /// Variables besides the one made from the name, and weaker than it.
    pub env: &'static [Variable],
    /// What a reload makes of a changed value.
    pub on_reload: OnReload,
    /// Whether the value may hold a password, which is never printed.
    pub secret: bool,
    /// One sentence, an empty line, then the rest: plain text, one entry a line.
    pub doc: &'static [&'static str],
    /// Stores a value, or says what was expected. The caller knows whether it was a flag, a key or a variable.
    pub set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// A variable with a name of its own that sets a setting.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Put in front of its value: gunicorn's `PORT` means `0.0.0.0:$PORT`.
    pub prefix: &'static str,
}

/// How a value is written in the file, and what its flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A whole number.
    Number,
    /// Seconds, with a fraction where wanted.
    Seconds,
    /// A number of bytes; `k`, `m` and `g` after it multiply by 1024 each.
    Bytes,
    /// File permissions: a whole number, or a string with a leading zero for octal.
    Mode,
    /// True or false; the flag takes no value, and `--no-FLAG` says false.
    Switch,
    /// Several strings: an array in the file, a flag that may be repeated.
    List,
}

/// Heading of a setting in help and manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What is run, and where settings come from.
    Config,
    /// Addresses and listeners.
    Sockets,
    /// Workers and their supervision.
    Workers,
    /// Limits on requests and connections.
    Http,
    /// Whom to believe about clients.
    Proxies,
    /// PostgreSQL.
    Database,
    /// Logs.
    Logging,
    /// Metrics and health checks.
    Metrics,
    /// The process: pidfile, directory, name.
    Process,
    /// Commands run at certain moments.
    Hooks,
}

/// What a reload (HUP) makes of a changed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReload {
    /// The new workers have it; the old ones finish with theirs.
    NewWorkers,
    /// The master takes it over at once.
    AtOnce,
    /// Only a restart or an upgrade changes it; a reload logs a warning.
    Restart,
}

impl Setting {
    /// What a row need not say.
    const PLAIN: Setting = Setting {
        name: "",
        kind: Kind::Text,
        section: Section::Config,
        meta: "",
        default: "",
        flag: "",
        aliases: &[],
        short: None,
        env: &[],
        on_reload: OnReload::NewWorkers,
        secret: false,
        doc: &[],
        set: |_, _| Ok(()),
    };

    /// The setting of this name, or of gunicorn's name for it.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Setting> {
        let renamed = RENAMED.iter().find(|(gunicorns, _)| *gunicorns == name);
        let name = renamed.map_or(name, |(_, ours)| ours);
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The long flag without its dashes; `None`: this setting has none.
    #[must_use]
    pub fn long_flag(&self) -> Option<String> {
        match self.flag {
            "-" => None,
            "" => Some(self.name.replace('_', "-")),
            flag => Some(flag.to_owned()),
        }
    }

    /// The variable made from the name.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{}{}", crate::contract::SETTING_PREFIX, self.name.to_ascii_uppercase())
    }

    /// The first line of the description.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.doc.first().map_or("", |line| line.trim())
    }
}

impl Section {
    /// All sections, in reading order.
    pub const ALL: [Section; 10] = [
        Section::Config,
        Section::Sockets,
        Section::Workers,
        Section::Http,
        Section::Proxies,
        Section::Database,
        Section::Logging,
        Section::Metrics,
        Section::Process,
        Section::Hooks,
    ];

    /// The heading as printed.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Section::Config => "Application and configuration",
            Section::Sockets => "Sockets",
            Section::Workers => "Workers",
            Section::Http => "HTTP",
            Section::Proxies => "Proxies",
            Section::Database => "Database",
            Section::Logging => "Logging",
            Section::Metrics => "Metrics",
            Section::Process => "Process",
            Section::Hooks => "Hooks",
        }
    }
}

impl OnReload {
    /// The sentence in the manual.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            OnReload::NewWorkers => "A reload gives it to the new workers.",
            OnReload::AtOnce => "A reload takes it over at once.",
            OnReload::Restart => "Only a restart changes it; a reload says so and goes on.",
        }
    }
}

impl Default for Settings {
    /// Every setting at its default.
    fn default() -> Settings {
        let mut settings = Settings::blank();
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            // A test proves that each default passes its own `set`.
            let stored = (setting.set)(&mut settings, setting.default);
            debug_assert!(stored.is_ok(), "default of {}: {stored:?}", setting.name);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_is_well_formed() {
        let (mut names, mut flags, mut shorts, mut variables) =
            (HashSet::new(), HashSet::new(), HashSet::new(), HashSet::new());
        for setting in SETTINGS {
            let name = setting.name;
            assert!(names.insert(name), "{name} twice");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            for flag in
                setting.long_flag().into_iter().chain(setting.aliases.iter().map(|&a| a.to_owned()))
            {
                if setting.kind == Kind::Switch {
                    assert!(flags.insert(format!("no-{flag}")), "--no-{flag} twice");
                }
                assert!(flags.insert(flag.clone()), "--{flag} twice");
            }
            assert!(
                setting.short.is_none_or(|short| shorts.insert(short)),
                "{name}: short flag twice"
            );
            for variable in
                setting.env.iter().map(|v| v.name.to_owned()).chain([setting.variable()])
            {
                assert!(
                    !crate::contract::RESERVED.contains(&variable.as_str()),
                    "{variable} is the contract's"
                );
                assert!(variables.insert(variable.clone()), "{variable} twice");
            }
            assert_eq!(
                setting.meta.is_empty(),
                setting.kind == Kind::Switch,
                "{name}: meta and kind disagree"
            );
            assert!(
                setting.summary().ends_with('.'),
                "{name}: the description begins with one sentence"
            );
            assert!(
                setting.doc.get(1).is_none_or(|line| line.trim().is_empty()),
                "{name}: then an empty line"
            );
            let mut settings = Settings::blank();
            if !setting.default.is_empty() {
                assert_eq!(
                    (setting.set)(&mut settings, setting.default),
                    Ok(()),
                    "default of {name}"
                );
            }
        }
    }

    #[test]
    fn settings_survive_the_way_to_a_worker() {
        let settings =
            Settings { database: Some("postgres://u:p@h/d".into()), ..Settings::default() };
        let json = serde_json::to_vec(&settings).unwrap();
        assert_eq!(serde_json::from_slice::<Settings>(&json).unwrap(), settings);
        // A worker of another build reads what it knows and takes its own defaults for the rest.
        let other = br#"{"workers": 3, "of_the_future": [1]}"#;
        let read: Settings = serde_json::from_slice(other).unwrap();
        assert_eq!((read.workers, read.backlog), (3, Settings::default().backlog));
    }
}
