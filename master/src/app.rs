//! What runs in a slot: APP on the command line, or the program after `--`.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use shared::settings::Settings;

use crate::python;

/// Name of the bundled application's program, looked for beside the master's own.
const BUNDLED: &str = "worker";

/// A program for the slots, found and executable when it was looked at; a worker executes whatever is there by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments, its own name first.
    pub args: Vec<String>,
    /// Whether it is any program (`-- COMMAND`) and not one built on the worker library.
    ///
    /// Such a program gets one listener per address, and need not say READY=1.
    pub is_foreign: bool,
    /// Whether it is a Python application: its workers share one listener per address, for each takes one request at a
    /// time, and nobody waits behind a busy one.
    pub is_python: bool,
}

/// Why APP cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppError {
    /// APP and `-- COMMAND` exclude each other.
    Both,
    /// The program is not there, or not executable.
    NoProgram(PathBuf),
    /// Not a path and not in `PATH`.
    NotFound(String),
    /// The interpreter lacks the package that hosts applications.
    NoPackage {
        /// The interpreter.
        python: PathBuf,
        /// What it said.
        why: String,
    },
    /// The master does not know where its own program lies, so it cannot find the one beside it.
    NoBundled,
}

impl App {
    /// Finds the program that `settings` ask for; relative paths start at `directory`.
    ///
    /// `own_program` is the master's own, for the one beside it.
    ///
    /// # Errors
    ///
    /// Why it cannot be run.
    pub fn find(
        settings: &Settings,
        directory: &Path,
        own_program: Option<&Path>,
    ) -> Result<App, AppError> {
        match (named(settings), settings.command.as_slice()) {
            (Some(_), [_, ..]) => Err(AppError::Both),
            (None, [name, ..]) => {
                let path = std::env::var_os("PATH");
                let program = sys::spawn::find_program(OsStr::new(name), path.as_deref())
                    .ok_or_else(|| AppError::NotFound(name.clone()))?;
                let program = directory.join(program);
                check(&program)?;
                Ok(App {
                    program,
                    args: settings.command.clone(),
                    is_foreign: true,
                    is_python: false,
                })
            }
            (Some(app), []) => {
                if is_python(app, directory) {
                    return App::python(app, settings, directory, own_program);
                }
                let path = directory.join(app);
                check(&path)?;
                let args = vec![app.to_owned()];
                Ok(App { program: path, args, is_foreign: false, is_python: false })
            }
            (None, []) => {
                let program = bundled(own_program).ok_or(AppError::NoBundled)?;
                check(&program)?;
                let args = vec![BUNDLED.to_owned()];
                Ok(App { program, args, is_foreign: false, is_python: false })
            }
        }
    }

    /// `module:callable`, in the interpreter that `settings` ask for.
    fn python(
        app: &str,
        settings: &Settings,
        directory: &Path,
        own_program: Option<&Path>,
    ) -> Result<App, AppError> {
        let program = python::interpreter(settings.python.as_deref(), directory, own_program)?;
        check(&program)?;
        python::check_package(&program)?;
        let name = program.to_string_lossy().into_owned();
        let args = [&name, "-m", "monoceros", app].map(str::to_owned).to_vec();
        Ok(App { program, args, is_foreign: false, is_python: true })
    }

    /// Tells the workers of a Python application that the configuration file `form` has hooks for them.
    pub fn with_hooks_of(&mut self, form: &str) {
        // Before the application, which is the last.
        let at = self.args.len().saturating_sub(1);
        self.args.splice(at..at, ["--config".to_owned(), form.to_owned()]);
    }

    /// The name for logs and process titles.
    #[must_use]
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or_else(|| OsStr::new("?")).to_string_lossy().into_owned()
    }

    /// The program as the kernel takes it. `None` only for a path with a NUL byte, which no settings source lets in.
    #[must_use]
    pub fn c_program(&self) -> Option<CString> {
        let bytes = self.program.as_os_str().as_bytes();
        CString::new(bytes).ok()
    }
}

/// The application that `settings` name; gunicorn's own name for it is the weaker, and no rival of `-- COMMAND`.
fn named(settings: &Settings) -> Option<&str> {
    let weaker = settings.wsgi_app.as_deref().filter(|_| settings.command.is_empty());
    settings.app.as_deref().or(weaker)
}

/// Whether `app` is no program.
fn is_python(app: &str, directory: &Path) -> bool {
    // gunicorn's users write `module:callable`, or `module` alone; a program has a slash or is a file here.
    !app.contains('/') && !directory.join(app).is_file()
}

/// Whether `settings` name a Python application, or nothing although there is no bundled one: then its name must be in
/// the settings file.
#[must_use]
pub fn runs_python(settings: &Settings, directory: &Path, own_program: Option<&Path>) -> bool {
    match named(settings) {
        _ if !settings.command.is_empty() => false,
        Some(app) => is_python(app, directory),
        None => bundled(own_program).is_none_or(|program| !program.exists()),
    }
}

/// The bundled application's program.
fn bundled(own_program: Option<&Path>) -> Option<PathBuf> {
    Some(own_program.and_then(Path::parent)?.join(BUNDLED))
}

fn check(program: &Path) -> Result<(), AppError> {
    let is_executable = program.is_file() && access(program, AccessFlags::X_OK).is_ok();
    if is_executable { Ok(()) } else { Err(AppError::NoProgram(program.to_owned())) }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppError::Both => f.write_str("APP and `-- COMMAND` exclude each other"),
            AppError::NoProgram(path) => {
                write!(f, "{}: no such program, or not executable", path.display())
            }
            AppError::NotFound(name) => write!(f, "{name}: no such program in PATH"),
            AppError::NoPackage { python, why } => {
                let python = python.display();
                write!(
                    f,
                    "{python} cannot host Python applications: {why}. Install the package with \
                     `{python} -m pip install monoceros`, or name another interpreter with --python"
                )
            }
            AppError::NoBundled => {
                f.write_str("cannot tell where this program lies; name the application by its path")
            }
        }
    }
}

impl std::error::Error for AppError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(app: Option<&str>, command: &[&str]) -> Settings {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Settings { app: app.map(str::to_owned), command, ..Settings::default() }
    }

    #[test]
    fn programs_are_told_from_python_applications() {
        let app = App::find(&settings(Some("/bin/sh"), &[]), Path::new("/"), None).unwrap();
        assert!(!app.is_foreign && app.args == ["/bin/sh"], "{app:?}");
        for python in ["app:app", "package.module:create()", "wsgi"] {
            let settings =
                Settings { python: Some("/bin/no-python".into()), ..settings(Some(python), &[]) };
            assert_eq!(
                App::find(&settings, Path::new("/"), None),
                Err(AppError::NoProgram("/bin/no-python".into()))
            );
            // Any other program lacks the package, and the message says what to do.
            let settings = Settings { python: Some("/bin/false".into()), ..settings };
            let error = App::find(&settings, Path::new("/"), None).unwrap_err().to_string();
            assert!(error.contains("/bin/false -m pip install monoceros"), "{error}");
        }
        let missing = App::find(&settings(Some("./nowhere"), &[]), Path::new("/"), None);
        assert_eq!(missing, Err(AppError::NoProgram("/./nowhere".into())));
    }

    #[test]
    fn commands_are_found_in_path_and_keep_their_arguments() {
        let app = App::find(&settings(None, &["sh", "-c", "true"]), Path::new("/"), None).unwrap();
        assert!(
            app.is_foreign && app.program.is_absolute() && app.args == ["sh", "-c", "true"],
            "{app:?}"
        );
        assert_eq!(
            App::find(&settings(Some("/bin/sh"), &["sh"]), Path::new("/"), None),
            Err(AppError::Both)
        );
    }

    #[test]
    fn the_bundled_application_lies_beside_the_master() {
        let error =
            App::find(&settings(None, &[]), Path::new("/"), Some(Path::new("/nowhere/master")))
                .unwrap_err();
        assert_eq!(error, AppError::NoProgram("/nowhere/worker".into()));
    }
}
