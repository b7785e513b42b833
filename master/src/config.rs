//! Reading the settings: once at start, again at each reload, and for `--check-config` by the same code.
//!
//! - What the process was started with (arguments, variables, directory) is captured once, in [`Invocation`].
//! - [`Invocation::load`] reads the file and lays the sources over each other; it changes nothing.
//! - A file in Python is executed by its interpreter, which takes time. Whoever cannot wait takes a [`Draft`], asks, and
//!   has it finished when the answer is there.
//! - [`Loaded`] is checked as a whole: addresses understood, application found. Whoever holds one can use it.

mod reader;
mod source;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use net::BindAddr;
use shared::contract::{CMD_ARGS, DATABASE_URL, GUNICORN_CMD_ARGS};
use shared::settings::{
    self, Assignment, Fate, Found, Place, Problem, Problems, PythonError, PythonFound, Resolved,
    Setting, Settings, WORKER_HOOKS, quote,
};
use sys::spawn::Credentials;

use crate::app::{App, runs_python};
use crate::cli::{self, Said};
use crate::identity::Remembered;
use crate::python;

pub use reader::{Answer, Reader};
use source::{PythonFile, Source, read_toml};

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
    /// What is good to know once, a line each.
    pub notes: Vec<String>,
    /// Where relative paths start: the start directory, or `chdir`.
    pub directory: PathBuf,
}

/// Why the settings cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The command line, or the one in a variable, cannot be understood; or `--help` was asked for.
    Usage(Place, Box<clap::Error>),
    /// The settings file cannot be read.
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The settings file in Python cannot be executed.
    Python {
        /// Its name.
        name: String,
        /// Why.
        source: PythonError,
    },
    /// Wrong settings, all of them.
    Settings(Problems),
}

/// Settings that are read but for the file, if that has to be asked for.
#[derive(Debug)]
pub struct Draft {
    outside: Outside,
    warnings: Vec<String>,
    notes: Vec<String>,
    /// What is said outside of the file.
    early: Settings,
    /// Where relative paths start.
    directory: PathBuf,
    own_program: Option<PathBuf>,
    source: Source,
    /// Who the workers are, as it was looked up last.
    identity: Remembered,
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

    /// Reads everything and checks it; waits for the interpreter if the file is in Python.
    ///
    /// # Errors
    ///
    /// The first source that cannot be read, or else every wrong setting at once.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        let draft = self.draft()?;
        let answer = draft.ask()?.map(Reader::wait);
        draft.finish(answer)
    }

    /// Reads what can be read without waiting.
    ///
    /// # Errors
    ///
    /// A source that cannot be read.
    pub fn draft(&self) -> Result<Draft, LoadError> {
        let (outside, warnings, notes) = self.outside()?;
        // Where the file lies is said outside of it; mistakes there are reported together with the file's own later.
        let early =
            settings::resolve(&outside.all()).map(|resolved| resolved.settings).unwrap_or_default();
        let mut directory = self.directory.clone();
        directory.extend(&early.chdir);
        let own_program = self.program.clone();
        let hosts_python = runs_python(&early, &directory, own_program.as_deref());
        let source = Source::find(early.config.as_deref(), &directory, hosts_python)?;
        let identity = self.identity.clone();
        Ok(Draft { outside, warnings, notes, early, directory, own_program, source, identity })
    }

    fn outside(&self) -> Result<(Outside, Vec<String>, Vec<String>), LoadError> {
        let (environment, mut warnings) = settings::environment(&self.variables);
        let mut problems = Vec::new();
        let mut taken = |said: Said, place: &Place| {
            for retired in &said.retired {
                let problem = Problem { place: place.clone(), message: retired.sentence() };
                match retired.fate {
                    Fate::Ignored => warnings.push(problem.to_string()),
                    Fate::Refused => problems.push(problem),
                }
            }
            said.assignments
        };
        let mut cmd_args = Vec::new();
        let mut notes = Vec::new();
        for name in [GUNICORN_CMD_ARGS, CMD_ARGS] {
            let place = Place::CmdArgs(name);
            let said = self.said_in(name, &place)?;
            let mut names: Vec<&str> = said.assignments.iter().map(|a| a.setting.name).collect();
            names.dedup();
            // It is named after another program: whoever left it there finds it in the log.
            if name == GUNICORN_CMD_ARGS && !names.is_empty() {
                notes.push(format!("Settings taken from {name} names={}", names.join(",")));
            }
            cmd_args.extend(taken(said, &place));
        }
        let place = Place::CommandLine;
        let command_line = taken(parse(self.args.iter().cloned(), &place)?, &place);
        Ok((Outside { environment, cmd_args, command_line, problems }, warnings, notes))
    }

    /// The command line in the variable `name`.
    fn said_in(&self, name: &str, place: &Place) -> Result<Said, LoadError> {
        let variable = self.variables.iter().find(|(known, _)| known == name);
        match variable.map(|(_, line)| settings::split(line)) {
            None => Ok(Said::default()),
            Some(Ok(words)) => parse(words.into_iter().map(OsString::from), place),
            Some(Err(why)) => {
                let message = format!("cannot be split into words: {why}");
                Err(LoadError::Settings(Problems(vec![Problem { place: place.clone(), message }])))
            }
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>, place: &Place) -> Result<Said, LoadError> {
    cli::parse(args, place).map_err(|error| LoadError::Usage(place.clone(), Box::new(error)))
}

impl Draft {
    /// Starts what has to be asked for the file; `None`: nothing has.
    ///
    /// # Errors
    ///
    /// There is no interpreter, or it lacks the package.
    pub fn ask(&self) -> Result<Option<Reader>, LoadError> {
        let Source::Python(file) = &self.source else { return Ok(None) };
        let python = self.interpreter().map_err(|why| self.unread(file, why))?;
        let reader = Reader::start(&python, &file.form, &self.directory);
        reader.map(Some).map_err(|error| self.unread(file, error.to_string()))
    }

    fn interpreter(&self) -> Result<PathBuf, String> {
        let named = self.early.python.as_deref();
        let python = python::interpreter(named, &self.directory, self.own_program.as_deref())
            .map_err(|error| error.to_string())?;
        python::check_package(&python).map_err(|error| error.to_string())?;
        Ok(python)
    }

    fn unread(&self, file: &PythonFile, why: String) -> LoadError {
        let source = PythonError { line: None, traceback: why };
        LoadError::Python { name: file.name.clone(), source }
    }

    /// Lays the sources over each other and checks the whole; `answer` is what [`Draft::ask`] led to.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or else every wrong setting at once.
    pub fn finish(mut self, answer: Option<Answer>) -> Result<Loaded, LoadError> {
        let (found, mut hooks) = self.file(answer)?;
        let Found { assignments: in_file, mut problems, warnings: in_vain } = found;
        self.warnings.extend(in_vain);
        let Draft {
            outside,
            mut warnings,
            notes,
            early,
            mut directory,
            own_program,
            source,
            identity,
        } = self;
        problems.extend(outside.problems.iter().cloned());
        directory.extend(
            in_file
                .iter()
                .filter(|a| a.setting.name == "chdir" && early.chdir.is_none())
                .map(|a| &a.text),
        );

        let commands = std::mem::take(&mut hooks.commands);
        match settings::resolve(&outside.around(commands, in_file)) {
            Ok(mut resolved) => {
                let addresses = check_addresses(&resolved, &mut problems);
                let mut app = App::find(&resolved.settings, &directory, own_program.as_deref())
                    .map_err(|error| {
                        let names = &["app", "wsgi_app", "command"];
                        problems.push(problem(&resolved, names, error.to_string()));
                    });
                let credentials =
                    identity.resolve(&resolved.settings).unwrap_or_else(|(name, why)| {
                        problems.push(problem(&resolved, &[name], why));
                        None
                    });
                if let Ok(app) = &app {
                    if app.is_python {
                        lift_body_limit(&mut resolved);
                    } else {
                        warnings.extend(idle_threads(&resolved));
                    }
                    warnings.extend(unusual(&resolved, app));
                    check_watched(&resolved, app, &mut problems);
                }
                if let (Ok(app), Source::Python(file)) = (&mut app, &source) {
                    warnings.extend(hooks.give_to(app, file));
                }
                if app.as_ref().is_ok_and(|app| app.is_python || app.is_foreign) {
                    leave_database_url(&mut resolved);
                }
                check_database(&resolved, &mut problems);
                check_admin(&resolved, &mut problems);
                match app {
                    Ok(app) if problems.is_empty() => Ok(Loaded {
                        resolved,
                        addresses,
                        app,
                        credentials,
                        warnings,
                        notes,
                        directory,
                    }),
                    _ => Err(LoadError::Settings(Problems(problems))),
                }
            }
            Err(Problems(more)) => {
                problems.extend(more);
                Err(LoadError::Settings(Problems(problems)))
            }
        }
    }

    /// What the file holds.
    fn file(&self, answer: Option<Answer>) -> Result<(Found, Hooks), LoadError> {
        let file = match &self.source {
            Source::Nothing => return Ok((Found::default(), Hooks::default())),
            Source::Toml(path) => {
                return Ok((read_toml(&self.directory, path)?, Hooks::default()));
            }
            Source::Python(file) => file,
        };
        let answer = answer.unwrap_or_else(|| Err("nobody was asked".to_owned()));
        let answer = answer.map_err(|why| self.unread(file, why))?;
        let PythonFound { found, hooks } = settings::python_file(&file.name, &answer)
            .map_err(|source| LoadError::Python { name: file.name.clone(), source })?;
        let python = self.interpreter().map_err(|why| self.unread(file, why))?;
        Ok((found, Hooks::sorted(hooks, &python, file)))
    }
}

/// Hooks that are functions in a Python file.
#[derive(Debug, Default)]
struct Hooks {
    /// The commands that call the master's.
    commands: Vec<Assignment>,
    /// Those that workers call themselves.
    of_workers: Vec<(String, Place)>,
}

impl Hooks {
    fn sorted(hooks: Vec<(String, Place)>, python: &Path, file: &PythonFile) -> Hooks {
        let mut sorted = Hooks::default();
        for (name, place) in hooks {
            match Setting::find(&name) {
                Some(setting) if !WORKER_HOOKS.contains(&setting.name) => {
                    let python = quote(&python.to_string_lossy());
                    let text = format!("{python} -m monoceros.hook {} {name}", quote(&file.form));
                    sorted.commands.push(Assignment { setting, text, place });
                }
                _ => sorted.of_workers.push((name, place)),
            }
        }
        sorted
    }

    /// Tells the workers of a Python application where their hooks are; warnings if `app` is none.
    fn give_to(&self, app: &mut App, file: &PythonFile) -> Vec<String> {
        if app.is_python {
            if !self.of_workers.is_empty() {
                app.with_hooks_of(&file.form);
            }
            return Vec::new();
        }
        let ignored = |(name, place): &(String, Place)| {
            format!("{place}: {name} is never called: this is no Python application")
        };
        self.of_workers.iter().map(ignored).collect()
    }
}

/// What is said outside of the file.
#[derive(Debug)]
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

    /// All sources in rising priority. The commands that call a Python file's hooks come first: a hook that is set
    /// anywhere by hand goes before them.
    fn around(self, hooks: Vec<Assignment>, file: Vec<Assignment>) -> Vec<Assignment> {
        [hooks, self.environment, file, self.cmd_args, self.command_line].concat()
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

/// What is not wrong, and worth a warning.
fn unusual(resolved: &Resolved, app: &App) -> Vec<String> {
    let mut warnings = Vec::new();
    if resolved.settings.preload_app && !app.is_python {
        let why = "preload_app has no effect: programs share their code anyway, and a reload \
                   always brings the new one";
        warnings.push(problem(resolved, &["preload_app"], why.to_owned()).to_string());
    }
    if resolved.settings.reload {
        // gunicorn's words.
        warnings.push("Reloader is on. Use in development only!".to_owned());
    }
    warnings
}

/// The master looks at files by their names alone; patterns are read where Python runs.
fn check_watched(resolved: &Resolved, app: &App, problems: &mut Vec<Problem>) {
    let is_pattern = |path: &&String| path.contains(['*', '?', '[']);
    let pattern = resolved.settings.reload_extra_files.iter().find(is_pattern);
    if let Some(pattern) = pattern.filter(|_| !app.is_python) {
        let message = format!(
            "reload_extra_files is {pattern:?}: patterns are for Python applications, name the file"
        );
        problems.push(problem(resolved, &["reload_extra_files"], message));
    }
}

/// Under gunicorn an application sets its own limit on bodies, and large ones do not stay in memory: no limit by default.
fn lift_body_limit(resolved: &mut Resolved) {
    let is_default =
        resolved.value("limit_request_body").is_none_or(|value| value.place == Place::Default);
    if is_default {
        resolved.settings.limit_request_body = 0;
    }
}

/// Threads that are asked for where no Python application is: nothing comes of them.
fn idle_threads(resolved: &Resolved) -> Option<String> {
    let message = "threads has no effect: a worker is one event loop that serves many connections";
    (1 < resolved.settings.threads)
        .then(|| problem(resolved, &["threads"], message.to_owned()).to_string())
}

/// A program in another language connects to its database by itself: what `DATABASE_URL` says is between it and whoever
/// set the variable, and may name any kind of database. The setting given elsewhere sets the variable.
fn leave_database_url(resolved: &mut Resolved) {
    let variable = Place::Variable(DATABASE_URL.to_owned());
    let value = resolved.values.iter_mut().find(|value| value.name == "database");
    if let Some(value) = value.filter(|value| value.place == variable) {
        value.texts.clear();
        value.place = Place::Default;
        resolved.settings.database = None;
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
            LoadError::Usage(_, error) if cli::is_answer(error) => shared::exit::OK,
            LoadError::Usage(..) => shared::exit::USAGE,
            LoadError::File { .. } | LoadError::Python { .. } | LoadError::Settings(_) => {
                shared::exit::CONFIG
            }
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Usage(Place::CmdArgs(name), error) => {
                write!(f, "environment {name}: {}", error.render())
            }
            LoadError::Usage(_, error) => write!(f, "{}", error.render()),
            LoadError::File { path, .. } => {
                write!(f, "cannot read settings file {}", path.display())
            }
            LoadError::Python { name, .. } => write!(f, "cannot read settings file {name}"),
            LoadError::Settings(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::File { source, .. } => Some(source),
            LoadError::Python { source, .. } => Some(source),
            LoadError::Usage(..) | LoadError::Settings(_) => None,
        }
    }
}
