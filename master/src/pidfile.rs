//! The pidfile: says which process the master is, and keeps a second master out.
//!
//! - The lock on the file decides, not the number in it: process ids are used again, locks end with their process.
//! - The content is the process id alone, because people write `kill -HUP $(cat FILE)`.
//! - Removed at the end only if the path still leads to our own file.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Tries to lock a file that somebody else removes at the same moment.
const TRIES_MAX: usize = 8;

/// A pidfile that is ours for as long as this lives.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: Flock<File>,
}

/// Why the pidfile cannot be had.
#[derive(Debug)]
pub enum PidFileError {
    /// Another master holds it.
    Running {
        /// The file.
        path: PathBuf,
        /// The number in it.
        pid: Option<i32>,
    },
    /// It cannot be opened, locked or written.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PidFile {
    /// Opens or makes the file, locks it, and writes `pid` into it.
    ///
    /// # Errors
    ///
    /// Another master holds it; or the file system's reason.
    pub fn acquire(path: &Path, pid: u32) -> Result<PidFile, PidFileError> {
        let failed = |source| PidFileError::Io { path: path.to_owned(), source };
        for _ in 0..TRIES_MAX {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .map_err(failed)?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    return Err(PidFileError::Running {
                        path: path.to_owned(),
                        pid: read_pid(&mut file),
                    });
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            // A network file system may grant locks that mean nothing elsewhere; a live owner then still counts.
            if let Some(other) = read_pid(&mut file)
                && other != pid as i32
                && wrote(other, &file)
            {
                return Err(PidFileError::Running { path: path.to_owned(), pid: Some(other) });
            }
            // Absolute, since a master changes its directory.
            let absolute = std::path::absolute(path).map_err(failed)?;
            let mut ours = PidFile { path: absolute, file };
            if !ours.is_in_place() {
                continue;
            }
            ours.write(pid).map_err(failed)?;
            return Ok(ours);
        }
        Err(failed(io::Error::other("it is removed again and again")))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to `path`, in place of whatever lies there; nobody ever finds none, or an unlocked one.
    ///
    /// # Errors
    ///
    /// The file system's reason; it then stays where it is.
    pub fn rename(&mut self, path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        if self.path != path {
            fs::rename(&self.path, &path)?;
            self.path = path;
        }
        Ok(())
    }

    /// Removes the file, if the path still leads to it.
    pub fn release(self) {
        if self.is_in_place() {
            // It may have vanished since; then there is nothing to remove.
            let _ = fs::remove_file(&self.path);
        }
    }

    fn write(&mut self, pid: u32) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{pid}\n").as_bytes())
    }

    fn is_in_place(&self) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let ours = self.file.metadata().map(identity).ok();
        ours.is_some() && ours == fs::metadata(&self.path).map(identity).ok()
    }
}

/// The number in the file. `None`: none, or anything else.
fn read_pid(file: &mut File) -> Option<i32> {
    /// A process id and some blanks; a longer file is something else.
    const BYTES_MAX: u64 = 32;
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| 0 < *pid)
}

/// Whether `pid` is a master of ours that can have written `file`: one that began later has only the same number.
fn wrote(pid: i32, file: &File) -> bool {
    /// The start is known to a hundredth of a second, and clocks are set now and then.
    const TOLERANCE: Duration = Duration::from_secs(2);
    let is_ours = fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.windows(17).any(|window| window == b"monoceros: master"));
    let Some(started) = started(pid) else { return false };
    let written = file.metadata().and_then(|meta| meta.modified());
    is_ours && written.is_ok_and(|written| started <= written + TOLERANCE)
}

/// When a process began, by the wall clock.
fn started(pid: i32) -> Option<SystemTime> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22; the name in field 2 may hold spaces and parentheses.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    /// The kernel's clock ticks per second as user programs see them, on every Linux machine.
    const TICKS_PER_SECOND: f64 = 100.0;
    let age = (uptime - ticks as f64 / TICKS_PER_SECOND).max(0.0);
    SystemTime::now().checked_sub(Duration::from_secs_f64(age))
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PidFileError::Running { path, pid: Some(pid) } => {
                write!(f, "Already running on PID {pid} pidfile={}", path.display())
            }
            PidFileError::Running { path, pid: None } => {
                write!(f, "Already running: another process holds pidfile={}", path.display())
            }
            PidFileError::Io { path, .. } => write!(f, "cannot use pidfile {}", path.display()),
        }
    }
}

impl Error for PidFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PidFileError::Io { source, .. } => Some(source),
            PidFileError::Running { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path =
                std::env::temp_dir().join(format!("monoceros-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_second_master_is_kept_out_and_told_by_whom() {
        let folder = Folder::new("pid-second");
        let path = folder.0.join("m.pid");
        let first = PidFile::acquire(&path, 4242).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "4242\n");
        let error = PidFile::acquire(&path, 4343).unwrap_err();
        assert!(error.to_string().starts_with("Already running on PID 4242"), "{error}");
        first.release();
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_never_blocks_a_start() {
        let folder = Folder::new("pid-stale");
        let path = folder.0.join("m.pid");
        // Our own number stands for any living process that is no master: process ids are used again.
        for content in [
            format!("{}\n", std::process::id()),
            "1\n".into(),
            "rubbish".into(),
            "-1".into(),
            String::new(),
        ] {
            fs::write(&path, &content).unwrap();
            let file =
                PidFile::acquire(&path, 77).unwrap_or_else(|error| panic!("{content:?}: {error}"));
            assert_eq!(fs::read_to_string(&path).unwrap(), "77\n");
            drop(file);
        }
    }

    #[test]
    fn only_our_own_file_is_removed() {
        let folder = Folder::new("pid-own");
        let path = folder.0.join("m.pid");
        let ours = PidFile::acquire(&path, 1).unwrap();
        fs::rename(&path, folder.0.join("old")).unwrap();
        fs::write(&path, "2\n").unwrap();
        ours.release();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn a_start_is_known_by_the_wall_clock() {
        let age = started(std::process::id() as i32).unwrap().elapsed().unwrap_or_default();
        assert!(age < Duration::from_secs(600), "{age:?}");
    }
}
