//! Which file holds the settings, and the content of one in TOML.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use shared::settings::{self, Found};

use super::LoadError;

/// The settings file that is read when none is named, if it is there.
const FILE_BY_DEFAULT: &str = "monoceros.toml";

/// gunicorn's own, for a Python application without the other one.
const PYTHON_BY_DEFAULT: &str = "gunicorn.conf.py";

/// gunicorn's mark of a module that holds settings.
const MODULE: &str = "python:";

/// Largest settings file in bytes: more is surely another file.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the settings lie that are not given by hand.
#[derive(Debug)]
pub(super) enum Source {
    /// Nowhere.
    Nothing,
    /// In this TOML file.
    Toml(PathBuf),
    /// In a Python file.
    Python(PythonFile),
}

/// gunicorn's configuration file.
#[derive(Debug)]
pub(super) struct PythonFile {
    /// As it was named, for people.
    pub(super) name: String,
    /// An absolute path, or `python:MODULE`: good in every process, wherever that stands.
    pub(super) form: String,
}

impl Source {
    /// Finds the file that was `named`, or else the one that lies in `directory`; a Python file only where
    /// `hosts_python`.
    ///
    /// # Errors
    ///
    /// The Python file that was named is not there.
    pub(super) fn find(
        named: Option<&str>,
        directory: &Path,
        hosts_python: bool,
    ) -> Result<Source, LoadError> {
        let name = match named {
            Some(name) => name,
            None if fs::symlink_metadata(directory.join(FILE_BY_DEFAULT)).is_ok() => {
                FILE_BY_DEFAULT
            }
            None if hosts_python && directory.join(PYTHON_BY_DEFAULT).is_file() => {
                PYTHON_BY_DEFAULT
            }
            None => return Ok(Source::Nothing),
        };
        let form = match name {
            _ if name.starts_with(MODULE) => name.to_owned(),
            _ if name.ends_with(".py") => {
                let path = directory.join(name);
                fs::metadata(&path)
                    .map_err(|source| LoadError::File { path: name.into(), source })?;
                path.to_string_lossy().into_owned()
            }
            _ => return Ok(Source::Toml(name.into())),
        };
        Ok(Source::Python(PythonFile { name: name.to_owned(), form }))
    }
}

/// Reads a TOML file; `shown` is its path as it was named.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn read_toml(directory: &Path, shown: &Path) -> Result<Found, LoadError> {
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
        Err(source) => Err(LoadError::File { path: shown.to_owned(), source }),
    }
}
