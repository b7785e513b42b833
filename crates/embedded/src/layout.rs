//! Where the cluster's files lie, and the URL that follows from it.
//!
//! Pure: no file is touched. Master and companion come to the same paths without talking to each other.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Role and database of the cluster.
pub(crate) const NAME: &str = "monoceros";

/// The port number in the socket's file name; no network port is ever opened.
pub(crate) const PORT: u16 = 5432;

/// What the names of unfinished clusters begin with. Each companion has its own: programs of one that was killed
/// may still be busy in theirs.
pub(crate) const UNFINISHED: &str = "data.unfinished";

/// Longest socket path that the system takes, in bytes: `sun_path` less its final zero byte.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The paths below one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Holds everything below; removing it makes the next start a first use.
    pub(crate) home: PathBuf,
    /// The cluster.
    pub(crate) data: PathBuf,
    /// A cluster that is being made; becomes `data` by a rename once it is whole.
    pub(crate) unfinished: PathBuf,
    /// Holds the socket, and nothing else.
    pub(crate) run: PathBuf,
    /// What PostgreSQL's programs print.
    pub(crate) log: PathBuf,
    /// Locked for as long as a companion lives; holds its process id.
    pub(crate) lock: PathBuf,
}

impl Layout {
    pub(crate) fn new(state_dir: &Path) -> Layout {
        let home = state_dir.join("postgresql");
        let mut run = home.join("run");
        let socket = run.as_os_str().len() + format!("/.s.PGSQL.{PORT}.lock").len();
        if socket > SOCKET_PATH_BYTES_MAX {
            run = PathBuf::from(format!(
                "/tmp/monoceros-{:016x}",
                fnv1a(home.as_os_str().as_bytes())
            ));
        }
        Layout {
            data: home.join("data"),
            unfinished: home.join(format!("{UNFINISHED}-{}", std::process::id())),
            log: home.join("log"),
            lock: home.join("lock"),
            run,
            home,
        }
    }
}

/// Returns the URL of the cluster that lives in `state_dir`, for the workers' `database` setting.
///
/// The cluster need not exist yet.
#[must_use]
pub fn url(state_dir: &Path) -> String {
    let run = Layout::new(state_dir).run;
    format!("postgresql://{NAME}@/{NAME}?host={}", percent_encoded(run.as_os_str().as_bytes()))
}

/// Chooses the user's state directory: `$STATE_DIRECTORY` (systemd's), `$XDG_STATE_HOME/monoceros`,
/// `/var/lib/monoceros` for root, `~/.local/state/monoceros`. `None`: nothing names one.
#[must_use]
pub fn state_dir(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(given) = variable("STATE_DIRECTORY") {
        // systemd lists several, separated by colons; the first is the service's own.
        let first = given.as_bytes().split(|&byte| byte == b':').next().unwrap_or_default();
        let first = Path::new(OsStr::from_bytes(first));
        if first.is_absolute() {
            return Some(first.to_path_buf());
        }
    }
    if let Some(home) = absolute("XDG_STATE_HOME") {
        return Some(home.join("monoceros"));
    }
    if is_root {
        return Some(PathBuf::from("/var/lib/monoceros"));
    }
    absolute("HOME").map(|home| home.join(".local/state/monoceros"))
}

/// A short name for a long path. Not for security: the directory's owner is checked.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn percent_encoded(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_names_the_socket_directory() {
        assert_eq!(
            url(Path::new("/var/lib/monoceros")),
            "postgresql://monoceros@/monoceros?host=/var/lib/monoceros/postgresql/run"
        );
        assert_eq!(
            url(Path::new("/srv/a b%c")),
            "postgresql://monoceros@/monoceros?host=/srv/a%20b%25c/postgresql/run"
        );
    }

    #[test]
    fn deep_state_directory_gets_a_short_socket_path() {
        let deep = PathBuf::from(format!("/srv/{}", "d/".repeat(60)));
        let layout = Layout::new(&deep);
        assert!(layout.run.starts_with("/tmp"), "{layout:?}");
        assert!(layout.data.starts_with(&deep));
        assert_ne!(
            Layout::new(&deep.join("x")).run,
            layout.run,
            "two clusters must not share a socket"
        );
        // The longest that fits stays where it is.
        let room = SOCKET_PATH_BYTES_MAX - "/postgresql/run/.s.PGSQL.5432.lock".len();
        let longest = PathBuf::from(format!("/{}", "x".repeat(room - 1)));
        assert!(Layout::new(&longest).run.starts_with(&longest));
        let longer = PathBuf::from(format!("/{}", "x".repeat(room)));
        assert!(Layout::new(&longer).run.starts_with("/tmp"));
    }

    #[test]
    fn state_directory_follows_the_environment() {
        #[track_caller]
        fn check(is_root: bool, variables: &[(&str, &str)], want: Option<&str>) {
            let variable = |name: &str| {
                variables.iter().find(|pair| pair.0 == name).map(|pair| OsString::from(pair.1))
            };
            assert_eq!(state_dir(is_root, variable), want.map(PathBuf::from));
        }
        check(true, &[("HOME", "/root")], Some("/var/lib/monoceros"));
        check(true, &[("HOME", "/root"), ("XDG_STATE_HOME", "/x")], Some("/x/monoceros"));
        check(true, &[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")], Some("/var/lib/a"));
        check(false, &[("HOME", "/home/u")], Some("/home/u/.local/state/monoceros"));
        check(false, &[("HOME", "/home/u"), ("XDG_STATE_HOME", "/x")], Some("/x/monoceros"));
        check(
            false,
            &[("HOME", "/home/u"), ("XDG_STATE_HOME", "relative")],
            Some("/home/u/.local/state/monoceros"),
        );
        check(false, &[], None);
    }
}
