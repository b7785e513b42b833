//! What can keep the cluster from serving, in words that say what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why the companion gave up. `source()` is the operating system's reason, where there is one.
#[derive(Debug)]
pub(crate) enum Error {
    /// No PostgreSQL on this machine.
    NotInstalled,
    /// The cluster was made by a major version that is not installed.
    OtherVersion { data: PathBuf, cluster: u32, here: Vec<u32> },
    /// Another companion runs this cluster.
    InUse { home: PathBuf, pid: Option<i32> },
    /// Root may not run PostgreSQL, and there is nobody to run it as.
    NobodyToRunAs,
    /// The unprivileged user cannot pass through a folder above the cluster.
    Unreachable { folder: PathBuf, user: String },
    /// A folder for the socket exists and is not ours.
    ForeignFolder { folder: PathBuf },
    /// A file or folder could not be made, read or changed.
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// A program could not be started.
    Spawn { program: PathBuf, source: io::Error },
    /// A program that should end by itself failed or took too long.
    Failed { what: &'static str, how: String, log: PathBuf, last: String },
    /// The system refused a signal or a wait.
    System { action: &'static str, source: io::Error },
}

impl Error {
    /// Says which action on which path the system refused.
    pub(crate) fn file(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::File { action, path, source }
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { action, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotInstalled => write!(
                f,
                "PostgreSQL is not installed (no initdb and postgres on PATH or in /usr/lib/postgresql/*/bin): \
                 run `apt-get install postgresql`, or name a server with --database URL"
            ),
            Error::OtherVersion { data, cluster, here } => {
                let here: Vec<String> = here.iter().map(u32::to_string).collect();
                write!(
                    f,
                    "the cluster in {} was made by PostgreSQL {cluster}, and this machine has {}: \
                     run `apt-get install postgresql-{cluster}`, or move the folder away to begin with an empty one",
                    data.display(),
                    here.join(" and ")
                )
            }
            Error::InUse { home, pid: Some(pid) } => {
                write!(f, "the cluster in {} is in use by process {pid}", home.display())
            }
            Error::InUse { home, pid: None } => {
                write!(f, "the cluster in {} is in use", home.display())
            }
            Error::NobodyToRunAs => {
                write!(
                    f,
                    "PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody"
                )
            }
            Error::Unreachable { folder, user } => write!(
                f,
                "user {user}, whom PostgreSQL runs as, may not enter {}: \
                 set XDG_STATE_HOME to a folder that everyone may pass through",
                folder.display()
            ),
            Error::ForeignFolder { folder } => {
                write!(
                    f,
                    "{} belongs to another user: remove it, or choose a shorter state folder",
                    folder.display()
                )
            }
            Error::File { action, path, .. } => write!(f, "cannot {action} {}", path.display()),
            Error::Spawn { program, .. } => write!(f, "cannot run {}", program.display()),
            Error::Failed { what, how, log, last } => {
                write!(f, "{what} {how}; its output is in {}", log.display())?;
                if last.is_empty() { Ok(()) } else { write!(f, ", at the end: {last}") }
            }
            Error::System { action, .. } => write!(f, "cannot {action}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File { source, .. }
            | Error::Spawn { source, .. }
            | Error::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
