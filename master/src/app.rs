//! What runs in a slot: APP on the command line, or the program after `--`.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use shared::settings::Settings;

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
    /// `module:callable`.
    Python(String),
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
        match (settings.app.as_deref(), settings.command.as_slice()) {
            (Some(_), [_, ..]) => Err(AppError::Both),
            (None, [name, ..]) => {
                let path = std::env::var_os("PATH");
                let program = sys::spawn::find_program(OsStr::new(name), path.as_deref())
                    .ok_or_else(|| AppError::NotFound(name.clone()))?;
                let program = directory.join(program);
                check(&program)?;
                Ok(App { program, args: settings.command.clone(), is_foreign: true })
            }
            (Some(app), []) => {
                let path = directory.join(app);
                // gunicorn's users write `module:callable`, or `module` alone; a program has a slash or is a file here.
                if !app.contains('/') && !path.is_file() {
                    return Err(AppError::Python(app.to_owned()));
                }
                check(&path)?;
                Ok(App { program: path, args: vec![app.to_owned()], is_foreign: false })
            }
            (None, []) => {
                let folder = own_program.and_then(Path::parent).ok_or(AppError::NoBundled)?;
                let program = folder.join(BUNDLED);
                check(&program)?;
                Ok(App { program, args: vec![BUNDLED.to_owned()], is_foreign: false })
            }
        }
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
            AppError::Python(app) => write!(
                f,
                "{app}: Python applications cannot be hosted yet, and there is no program of that name; \
                 a program is given as a path (./{app}), any other command after --"
            ),
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
            assert_eq!(
                App::find(&settings(Some(python), &[]), Path::new("/"), None),
                Err(AppError::Python(python.into()))
            );
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
