//! The command line, made from the settings table: a further setting needs no line here.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use shared::settings::{Assignment, Kind, Place, RETIRED, Retired, SETTINGS, Setting, Takes};

/// Builds the command line: every setting that has a flag, then APP, then `--` and COMMAND.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("master")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Monoceros: a pre-fork HTTP server. Binds, starts workers, keeps them alive, reloads without losing a request.")
        .after_help(AFTER_HELP)
        .args_override_self(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("version")
                .short('V')
                .short_alias('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Print the version"),
        )
        .arg(Arg::new("app").value_name("APP").index(1).help(help_of("app")))
        .arg(
            Arg::new("command")
                .index(2)
                .value_name("COMMAND")
                .num_args(0..)
                .last(true)
                .help(help_of("command")),
        );
    for setting in SETTINGS {
        let Some(flag) = setting.long_flag() else { continue };
        command = command.arg(argument(setting, &flag));
        if setting.kind == Kind::Switch {
            let no = format!("no-{flag}");
            command = command.arg(
                Arg::new(no.clone())
                    .long(no)
                    .action(ArgAction::SetTrue)
                    .overrides_with(setting.name)
                    .hide(setting.default == "false")
                    .help(format!("The opposite of --{flag}"))
                    .help_heading(setting.section.title()),
            );
        }
    }
    RETIRED
        .iter()
        .filter(|retired| !retired.flags.is_empty())
        .fold(command, |command, retired| command.arg(retired_argument(retired)))
}

/// A flag of gunicorn that is not offered: understood, so that the answer can say why.
fn retired_argument(retired: &'static Retired) -> Arg {
    let mut arg = Arg::new(retired.name).hide(true).action(match retired.takes {
        Takes::Value => ArgAction::Append,
        Takes::Nothing => ArgAction::Count,
    });
    if retired.takes == Takes::Value {
        arg = arg.allow_negative_numbers(true);
    }
    for flag in retired.flags {
        arg = match (flag.chars().next(), flag.len()) {
            (Some(letter), 1) => arg.short(letter),
            _ if arg.get_long().is_none() => arg.long(*flag),
            _ => arg.alias(*flag),
        };
    }
    arg
}

const AFTER_HELP: &str = "\
`master ctl` asks a running master and changes it; see `master ctl --help`.
Every setting can also stand in the settings file, under its name with _ for -, or in a variable: MONOCEROS_WORKERS.
Exit codes: 0 clean stop, 1 failure, 2 wrong command line, 3 no worker could boot, 4 application not loadable,
69 address not bindable, 78 wrong settings.";

fn help_of(name: &str) -> &'static str {
    Setting::find(name).map_or("", Setting::summary)
}

fn argument(setting: &'static Setting, flag: &str) -> Arg {
    let summary = setting.summary();
    let default = match setting.default {
        "" | "false" | "true" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let rest = setting.doc[1..].iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let mut arg = Arg::new(setting.name)
        .long(flag.to_owned())
        .visible_aliases(setting.aliases.iter().copied())
        .help(format!("{summary}{default}"))
        .long_help(format!(
            "{summary}{default}{}{}",
            if rest.trim().is_empty() { "" } else { "\n" },
            rest.trim()
        ))
        .help_heading(setting.section.title());
    if let Some(short) = setting.short {
        arg = arg.short(short);
    }
    match setting.kind {
        Kind::Switch => arg.action(ArgAction::SetTrue).overrides_with(format!("no-{flag}")),
        Kind::List => arg.action(ArgAction::Append).value_name(setting.meta),
        // A value may begin with a dash: `--umask -1` is the setting's error, not a missing value.
        _ => arg.action(ArgAction::Set).value_name(setting.meta).allow_negative_numbers(true),
    }
}

/// What a command line says.
#[derive(Debug, Default)]
pub struct Said {
    /// Settings with their values.
    pub assignments: Vec<Assignment>,
    /// Flags of gunicorn that are not offered, judged by their values.
    pub retired: Vec<Retired>,
}

/// Reads a command line without its program name; values are checked later, by the settings themselves.
///
/// # Errors
///
/// What clap has to say: a usage error, or `--help` and `--version`, which are no mistake.
pub fn parse(args: impl IntoIterator<Item = OsString>, place: &Place) -> Result<Said, clap::Error> {
    let matches = command().no_binary_name(true).try_get_matches_from(args)?;
    let judged = |retired: &Retired| match retired.takes {
        _ if retired.flags.is_empty() => None,
        Takes::Value => {
            let mut values = matches.get_many::<String>(retired.name)?;
            retired.with(values.next_back()?)
        }
        Takes::Nothing => (0 < matches.get_count(retired.name)).then_some(*retired),
    };
    let retired = RETIRED.iter().filter_map(judged).collect();
    Ok(Said { assignments: assignments(&matches, place), retired })
}

fn assignments(matches: &ArgMatches, place: &Place) -> Vec<Assignment> {
    let mut found = Vec::new();
    for setting in SETTINGS {
        let texts: Vec<String> = match (setting.kind, setting.long_flag()) {
            (Kind::Switch, Some(flag)) => {
                let said = [(setting.name.to_owned(), "true"), (format!("no-{flag}"), "false")];
                said.iter()
                    .filter(|(id, _)| matches.get_flag(id))
                    .map(|&(_, text)| text.to_owned())
                    .collect()
            }
            // A setting without a flag that is not one of the two by place has no argument at all.
            _ => matches
                .try_get_many::<String>(setting.name)
                .ok()
                .flatten()
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        };
        found.extend(texts.into_iter().map(|text| Assignment {
            setting,
            text,
            place: place.clone(),
        }));
    }
    found
}

/// Whether clap's answer is one that was asked for, not a mistake.
#[must_use]
pub fn is_answer(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Result<Vec<(&'static str, String)>, clap::Error> {
        let found = parse(line.iter().map(OsString::from), &Place::CommandLine)?;
        Ok(found.assignments.into_iter().map(|a| (a.setting.name, a.text)).collect())
    }

    #[test]
    fn the_table_makes_a_sound_command() {
        command().debug_assert();
    }

    #[test]
    fn gunicorn_habits_work() {
        let found = read(&[
            "-w",
            "4",
            "-b",
            ":80",
            "--bind=unix:/x",
            "-t",
            "5",
            "--keep-alive",
            "75",
            "app:app",
        ])
        .unwrap();
        let want = [
            ("app", "app:app"),
            ("bind", ":80"),
            ("bind", "unix:/x"),
            ("workers", "4"),
            ("timeout", "5"),
            ("keepalive", "75"),
        ];
        assert_eq!(found, want.map(|(name, text)| (name, text.to_owned())));
        assert_eq!(read(&["-w", "2", "-w", "3"]).unwrap(), [("workers", "3".to_owned())]);
    }

    #[test]
    fn flags_of_gunicorn_that_are_not_offered_are_understood() {
        let line = ["-k", "gthread", "--threads=4", "--paster", "x.ini", "--spew", "app:app"];
        let said = parse(line.iter().map(OsString::from), &Place::CommandLine).unwrap();
        let retired: Vec<&str> = said.retired.iter().map(|retired| retired.name).collect();
        assert_eq!(retired, ["worker_class", "spew", "paste"]);
        assert_eq!(said.assignments.len(), 2, "the threads and the application");
    }

    #[test]
    fn flags_of_gunicorn_are_judged_by_their_values() {
        let line = ["--protocol", "http", "--http-protocols", "h1", "--http2-cleartext", "off"];
        let line =
            line.into_iter().chain(["--cert-reqs", "0", "-k", "uvicorn.workers.UvicornWorker"]);
        let said = parse(line.map(OsString::from), &Place::CommandLine).unwrap();
        let [class] = said.retired[..] else { panic!("{said:?}") };
        assert_eq!((class.name, class.fate), ("worker_class", shared::settings::Fate::Refused));
    }

    #[test]
    fn the_last_of_a_switch_and_its_opposite_counts() {
        assert_eq!(
            read(&["--reuse-port", "--no-reuse-port"]).unwrap(),
            [("reuse_port", "false".to_owned())]
        );
        assert_eq!(
            read(&["--no-reuse-port", "--reuse-port"]).unwrap(),
            [("reuse_port", "true".to_owned())]
        );
    }

    #[test]
    fn a_foreign_command_keeps_its_own_flags() {
        let found = read(&["-w", "2", "--", "prog", "-w", "9", "--help"]).unwrap();
        let words: Vec<&str> =
            found.iter().filter(|(n, _)| *n == "command").map(|(_, t)| t.as_str()).collect();
        assert_eq!(words, ["prog", "-w", "9", "--help"]);
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [&["--wrokers", "2"][..], &["-w"], &["a", "b"]] {
            let error = read(line).unwrap_err();
            assert!(!is_answer(&error) && error.exit_code() == shared::exit::USAGE, "{error}");
        }
        assert!(is_answer(&read(&["--help"]).unwrap_err()));
    }
}
