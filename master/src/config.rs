//! Reading the settings: once at start, again at each reload, and for `--check-config` by the same code.
//!
//! - What the process was started with (arguments, variables, directory) is captured once, in [`Invocation`].
//! - [`Invocation::load`] reads the file and lays the sources over each other; it changes nothing.
//! - [`Loaded`] is checked as a whole: addresses understood, application found. Whoever holds one can use it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use net::BindAddr;
use shared::contract::CMD_ARGS;
use shared::settings::{
    self, Assignment, Fate, Found, Place, Problem, Problems, Resolved, Settings,
};
use sys::spawn::Credentials;

use crate::app::App;
use crate::cli::{self, Said};
use crate::identity::Remembered;

/// The settings file that is read when none is named, if it is there.
const FILE_BY_DEFAULT: &str = "monoceros.toml";

/// Largest settings file in bytes: more is surely another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the process was started with. Captured before anything changes it.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Arguments without the program's name.
    pub args: Vec<OsString>,
    /// The environment, as far as it is text.
    pub variables: Vec<(String, String)>,
    /// The program itself, absolute; for the bundled application beside it, and for starting it again.
    pub program: Option<PathBuf>,
    /// Where the program was started from, absolute, links and all: an upgrade starts what lies there then.
    pub origin: Option<PathBuf>,
    /// The working directory at start.
    pub directory: PathBuf,
    /// Who the workers are, as it was looked up last.
    pub identity: Remembered,
}

/// Settings that were read and found usable.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings with their sources.
    pub resolved: Resolved,
    /// The addresses to listen on, as `settings.bind` has them.
    pub addresses: Vec<BindAddr>,
    /// What runs in the slots.
    pub app: App,
    /// Who the workers are; `None`: whoever the master is.
    pub credentials: Option<Credentials>,
    /// What is not wrong but surely not meant, a line each.
    pub warnings: Vec<String>,
    /// Where relative paths start: the start directory, or `chdir`.
    pub directory: PathBuf,
}

/// Why the settings cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The command line, or the one in the variable, cannot be understood; or `--help` was asked for.
    Usage(Box<clap::Error>),
    /// The settings file cannot be read.
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Wrong settings, all of them.
    Settings(Problems),
}

impl Invocation {
    /// Captures this process's own.
    #[must_use]
    pub fn of_this_process() -> Invocation {
        let mut args = env::args_os();
        let name = args.next();
        let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let text = |text: OsString| text.into_string().ok();
        Invocation {
            args: args.collect(),
            variables: env::vars_os().filter_map(|(k, v)| Some((text(k)?, text(v)?))).collect(),
            origin: origin(name.as_deref(), &directory),
            program: own_program(name, &directory),
            directory,
            identity: Remembered::default(),
        }
    }

    /// Reads everything and checks it.
    ///
    /// # Errors
    ///
    /// The first source that cannot be read, or else every wrong setting at once.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        let (outside, mut warnings) = self.outside()?;
        // Where the file lies is said outside of it; mistakes there are reported together with the file's own below.
        let early =
            settings::resolve(&outside.all()).map(|resolved| resolved.settings).unwrap_or_default();
        let mut directory = self.directory.clone();
        directory.extend(&early.chdir);
        let Found { assignments: in_file, mut problems, warnings: in_vain } =
            read_file(&directory, early.config.as_deref())?;
        warnings.extend(in_vain);
        problems.extend(outside.problems.iter().cloned());
        directory.extend(
            in_file
                .iter()
                .filter(|a| a.setting.name == "chdir" && early.chdir.is_none())
                .map(|a| &a.text),
        );

        match settings::resolve(&outside.around(in_file)) {
            Ok(mut resolved) => {
                let addresses = check_addresses(&resolved, &mut problems);
                let app = App::find(&resolved.settings, &directory, self.program.as_deref())
                    .map_err(|error| {
                        problems.push(problem(&resolved, &["app", "command"], error.to_string()));
                    });
                let credentials =
                    self.identity.resolve(&resolved.settings).unwrap_or_else(|(name, why)| {
                        problems.push(problem(&resolved, &[name], why));
                        None
                    });
                if app.as_ref().is_ok_and(|app| app.is_python) {
                    lift_body_limit(&mut resolved);
                }
                check_database(&resolved, &mut problems);
                check_admin(&resolved, &mut problems);
                match app {
                    Ok(app) if problems.is_empty() => {
                        Ok(Loaded { resolved, addresses, app, credentials, warnings, directory })
                    }
                    _ => Err(LoadError::Settings(Problems(problems))),
                }
            }
            Err(Problems(more)) => {
                problems.extend(more);
                Err(LoadError::Settings(Problems(problems)))
            }
        }
    }

    fn outside(&self) -> Result<(Outside, Vec<String>), LoadError> {
        let usage = |error| LoadError::Usage(Box::new(error));
        let (environment, mut warnings) = settings::environment(&self.variables);
        let cmd_args = self.variables.iter().find(|(name, _)| name == CMD_ARGS);
        let cmd_args = match cmd_args.map(|(_, line)| settings::split(line)) {
            None => Said::default(),
            Some(Ok(words)) => {
                cli::parse(words.into_iter().map(OsString::from), &Place::CmdArgs).map_err(usage)?
            }
            Some(Err(why)) => {
                let message = format!("cannot be split into words: {why}");
                return Err(LoadError::Settings(Problems(vec![Problem {
                    place: Place::CmdArgs,
                    message,
                }])));
            }
        };
        let command_line =
            cli::parse(self.args.iter().cloned(), &Place::CommandLine).map_err(usage)?;
        let mut problems = Vec::new();
        for (said, place) in [(&cmd_args, Place::CmdArgs), (&command_line, Place::CommandLine)] {
            for retired in &said.retired {
                let problem = Problem { place: place.clone(), message: retired.sentence() };
                match retired.fate {
                    Fate::Ignored => warnings.push(problem.to_string()),
                    Fate::Refused => problems.push(problem),
                }
            }
        }
        let (cmd_args, command_line) = (cmd_args.assignments, command_line.assignments);
        Ok((Outside { environment, cmd_args, command_line, problems }, warnings))
    }
}

/// What is said outside of the file.
struct Outside {
    environment: Vec<Assignment>,
    cmd_args: Vec<Assignment>,
    command_line: Vec<Assignment>,
    /// Flags that are refused.
    problems: Vec<Problem>,
}

impl Outside {
    fn all(&self) -> Vec<Assignment> {
        [&self.environment[..], &self.cmd_args, &self.command_line].concat()
    }

    /// All sources in rising priority.
    fn around(self, file: Vec<Assignment>) -> Vec<Assignment> {
        [self.environment, file, self.cmd_args, self.command_line].concat()
    }
}

fn read_file(directory: &Path, named: Option<&Path>) -> Result<Found, LoadError> {
    let shown = named.unwrap_or(Path::new(FILE_BY_DEFAULT));
    let read = || {
        let mut text = String::new();
        let path = directory.join(shown);
        // A pipe would keep the reader waiting, and at a reload that is the arbiter.
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut file = fs::File::open(path)?.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text)?;
        if FILE_BYTES_MAX < text.len() as u64 {
            return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(text)
    };
    match read() {
        Ok(text) => Ok(settings::file(shown, &text)),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
            Ok(Found::default())
        }
        Err(source) => Err(LoadError::File { path: shown.to_owned(), source }),
    }
}

fn check_addresses(resolved: &Resolved, problems: &mut Vec<Problem>) -> Vec<BindAddr> {
    let mut addresses = Vec::new();
    for text in &resolved.settings.bind {
        match text.parse::<BindAddr>() {
            Ok(address) if addresses.contains(&address) => {
                problems.push(problem(resolved, &["bind"], format!("bind names {text} twice")));
            }
            Ok(address) => addresses.push(address),
            Err(error) => {
                problems.push(problem(resolved, &["bind"], format!("bind is {text:?}: {error}")))
            }
        }
    }
    addresses
}

/// Under gunicorn an application sets its own limit on bodies, and large ones do not stay in memory: no limit by default.
fn lift_body_limit(resolved: &mut Resolved) {
    let is_default =
        resolved.value("limit_request_body").is_none_or(|value| value.place == Place::Default);
    if is_default {
        resolved.settings.limit_request_body = 0;
    }
}

fn check_database(resolved: &Resolved, problems: &mut Vec<Problem>) {
    let Some(database) = resolved.settings.database.as_deref() else { return };
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| database.starts_with(scheme));
    // The key-value form of libpq is a URL to the client library too.
    if database != "embedded" && !is_url && !database.contains('=') {
        let message = "database is neither a postgresql:// URL nor `embedded`".to_owned();
        problems.push(problem(resolved, &["database"], message));
    }
}

fn check_admin(resolved: &Resolved, problems: &mut Vec<Problem>) {
    for text in &resolved.settings.admin_bind {
        if let Err(error) = text.parse::<BindAddr>() {
            let message = format!("admin_bind is {text:?}: {error}");
            problems.push(problem(resolved, &["admin_bind"], message));
        }
    }
}

/// A problem with a setting whose text is well-formed, placed where the setting was written.
fn problem(resolved: &Resolved, names: &[&str], message: String) -> Problem {
    let place = names
        .iter()
        .filter_map(|name| resolved.value(name))
        .map(|value| value.place.clone())
        .find(|place| *place != Place::Default)
        .unwrap_or(Place::Default);
    Problem { place, message }
}

/// The path that this program was started by. Not by `/proc/self/exe`: that is the old file for ever, and behind all links.
fn origin(name: Option<&OsStr>, directory: &Path) -> Option<PathBuf> {
    let named = sys::spawn::find_program(name?, env::var_os("PATH").as_deref());
    let named = named.map(|path| directory.join(path));
    let real = env::current_exe().ok();
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // Whoever starts a program may call it what he likes: then the name leads elsewhere, or nowhere.
    match (named, real) {
        (Some(named), Some(real)) if identity(&named) == identity(&real) => Some(named),
        (_, real) => real,
    }
}

/// Where this program lies, so that the one beside it can be found and this one be started again after it was replaced.
///
/// Not `/proc/self/exe` first: after an upgrade on disk that names the old file, `… (deleted)`.
fn own_program(name: Option<OsString>, directory: &Path) -> Option<PathBuf> {
    let from_proc = || {
        let path = env::current_exe().ok()?.into_os_string().into_vec();
        let path = path.strip_suffix(b" (deleted)").unwrap_or(&path).to_vec();
        Some(PathBuf::from(OsString::from_vec(path)))
    };
    let found = name
        .and_then(|name| sys::spawn::find_program(&name, env::var_os("PATH").as_deref()))
        .map(|path| directory.join(path))
        .filter(|path| path.is_file());
    // A program started through a link, or under a name of the caller's choice, is not beside its worker.
    match (found, from_proc()) {
        (Some(named), Some(real)) if !same_file(&named, &real) => Some(real),
        (named, real) => named.or(real),
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    fs::symlink_metadata(one).is_ok_and(|meta| meta.is_file()) && identity(one) == identity(other)
}

impl Loaded {
    /// The settings alone.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.resolved.settings
    }
}

impl LoadError {
    /// The exit code when this happens at start.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            LoadError::Usage(error) if cli::is_answer(error) => shared::exit::OK,
            LoadError::Usage(_) => shared::exit::USAGE,
            LoadError::File { .. } | LoadError::Settings(_) => shared::exit::CONFIG,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Usage(error) => write!(f, "{}", error.render()),
            LoadError::File { path, .. } => {
                write!(f, "cannot read settings file {}", path.display())
            }
            LoadError::Settings(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::File { source, .. } => Some(source),
            LoadError::Usage(_) | LoadError::Settings(_) => None,
        }
    }
}
