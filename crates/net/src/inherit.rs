//! Descriptors that systemd, or a parent that speaks like it, opened for this process.

use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// Number of passed descriptors.
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// Process they are meant for.
pub const LISTEN_PID: &str = "LISTEN_PID";
/// Their names, separated by colons.
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";

/// Variables that concern this process alone, to be left out of every child's environment.
pub const NAMES: [&str; 3] = [LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES];

/// Number of the first passed descriptor.
pub const FIRST: RawFd = 3;

/// Largest number of descriptors taken over.
pub const INHERITED_MAX: usize = sys::spawn::PASSED_FDS_MAX;

/// One passed descriptor.
#[derive(Debug)]
pub struct Inherited {
    /// The descriptor, close-on-exec by now.
    pub fd: OwnedFd,
    /// Its name; empty when it was given none.
    pub name: String,
}

/// Passed descriptors could not be taken over.
#[derive(Debug)]
pub enum InheritError {
    /// `LISTEN_FDS` is no number from 0 to [`INHERITED_MAX`].
    Count(String),
    /// This descriptor is not open, or was taken over before. `source()` says which.
    Descriptor(RawFd, io::Error),
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritError::Count(text) => {
                write!(f, "{LISTEN_FDS}={text:?} is not a number from 0 to {INHERITED_MAX}")
            }
            InheritError::Descriptor(number, _) => {
                write!(f, "cannot take over descriptor {number} promised by {LISTEN_FDS}")
            }
        }
    }
}

impl std::error::Error for InheritError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InheritError::Count(_) => None,
            InheritError::Descriptor(_, error) => Some(error),
        }
    }
}

/// Takes over what was passed to this process; nothing when it was passed to another one, or to none.
///
/// The variables stay as they are (changing them is not safe once there are threads): see [`NAMES`]. Once only: a second
/// call finds the descriptors taken. Call it before the program opens anything of its own.
///
/// # Errors
///
/// See [`InheritError`].
pub fn take() -> Result<Vec<Inherited>, InheritError> {
    take_from(std::process::id(), |name| std::env::var(name).ok())
}

fn take_from(
    pid: u32,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Inherited>, InheritError> {
    let (Some(count), Some(for_pid)) = (variable(LISTEN_FDS), variable(LISTEN_PID)) else {
        return Ok(Vec::new());
    };
    if for_pid.parse() != Ok(pid) {
        return Ok(Vec::new());
    }
    let count = match count.parse::<usize>() {
        Ok(count) if count <= INHERITED_MAX => count,
        _ => return Err(InheritError::Count(count)),
    };
    let names = variable(LISTEN_FDNAMES).unwrap_or_default();
    let mut names = names.split(':');
    (FIRST..)
        .take(count)
        .map(|number| {
            let fd =
                sys::fd::adopt(number).map_err(|error| InheritError::Descriptor(number, error))?;
            Ok(Inherited { fd, name: names.next().unwrap_or_default().to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        for pairs in [
            &[][..],
            &[(LISTEN_FDS, "2")],
            &[(LISTEN_PID, "7")],
            &[(LISTEN_FDS, "2"), (LISTEN_PID, "8")],
            &[(LISTEN_FDS, "2"), (LISTEN_PID, "")],
            &[(LISTEN_FDS, "nonsense"), (LISTEN_PID, "8")],
            &[(LISTEN_FDS, "0"), (LISTEN_PID, "7")],
        ] {
            assert!(take_from(7, with(pairs)).expect("nothing to take").is_empty(), "{pairs:?}");
        }
    }

    #[test]
    fn impossible_counts_are_refused() {
        for count in ["-1", "1025", "two", "99999999999999999999"] {
            let pairs = [(LISTEN_FDS, count), (LISTEN_PID, "7")];
            assert!(matches!(take_from(7, with(&pairs)), Err(InheritError::Count(_))), "{count}");
        }
    }
}
