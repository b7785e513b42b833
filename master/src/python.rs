//! Python applications: which interpreter runs them, and whether it has what that takes.
//!
//! The interpreter is the user's own, so virtual environments and extension modules are right without our doing:
//! a worker is `PYTHON -m monoceros APP`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::app::AppError;

/// The interpreter that was seen to have the package: it is asked once, not at every reload.
static ASKED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Finds the interpreter: the setting `python`, else `$VIRTUAL_ENV`, else the one of the environment that this program
/// was installed into, else `python3` on `PATH`.
///
/// # Errors
///
/// There is none.
pub fn interpreter(
    named: Option<&str>,
    directory: &Path,
    own_program: Option<&Path>,
) -> Result<PathBuf, AppError> {
    let path = std::env::var_os("PATH");
    let find = |name: &OsStr| {
        sys::spawn::find_program(name, path.as_deref()).map(|program| directory.join(program))
    };
    if let Some(name) = named {
        return find(OsStr::new(name)).ok_or_else(|| AppError::NotFound(name.to_owned()));
    }
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV").filter(|name| !name.is_empty()) {
        return Ok(directory.join(environment).join("bin/python"));
    }
    // `ENVIRONMENT/bin/master`, without the environment being activated.
    let beside = own_program.and_then(Path::parent).map(|folder| folder.join("python"));
    let is_environment = |python: &PathBuf| {
        let folder = python.parent().and_then(Path::parent);
        python.is_file() && folder.is_some_and(|folder| folder.join("pyvenv.cfg").is_file())
    };
    beside
        .filter(is_environment)
        .or_else(|| find(OsStr::new("python3")))
        .ok_or_else(|| AppError::NotFound("python3".to_owned()))
}

/// Asks the interpreter whether it has the package.
///
/// # Errors
///
/// It has not, or cannot be run.
pub fn check_package(python: &Path) -> Result<(), AppError> {
    let Ok(mut asked) = ASKED.lock() else { return Ok(()) };
    if asked.as_deref() == Some(python) {
        return Ok(());
    }
    let output = Command::new(python)
        .args(["-c", "import monoceros._monoceros"])
        .stdin(Stdio::null())
        .output()
        .map_err(|_| AppError::NoProgram(python.to_owned()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().last().unwrap_or("it says nothing").trim().to_owned();
        return Err(AppError::NoPackage { python: python.to_owned(), why });
    }
    *asked = Some(python.to_owned());
    Ok(())
}
