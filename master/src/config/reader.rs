//! Asking an interpreter what gunicorn's configuration file says.
//!
//! - The file is executed in a process of its own, never in the master, with bounds on its time and its answer.
//! - Whoever cannot wait looks after it with [`Reader::tend`]; [`Reader::wait`] is for the start.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sys::Pid;
use sys::pidfd::Exit;
use sys::spawn::{Child, Spawn};

use super::source::FILE_BYTES_MAX;
use crate::piped;
use crate::process::Environment;

/// Longest time that a Python file may take.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest answer in bytes; a file in TOML may be no larger.
const ANSWER_BYTES_MAX: usize = FILE_BYTES_MAX as usize;

/// Pieces of the answer that are read in one turn, so that it keeps the arbiter from nothing.
const READS_PER_TURN_MAX: usize = 16;

/// What the interpreter said, or why it said nothing.
pub type Answer = Result<String, String>;

/// An interpreter that executes a configuration file.
#[derive(Debug)]
pub struct Reader {
    python: PathBuf,
    child: Child,
    pipe: Option<File>,
    said: Vec<u8>,
    deadline: Instant,
    is_reaped: bool,
}

impl Reader {
    /// Starts `python` in `directory` on the file that `form` names.
    pub(super) fn start(python: &Path, form: &str, directory: &Path) -> io::Result<Reader> {
        let program = CString::new(python.as_os_str().as_bytes())?;
        let mut spawn = Spawn::new(program.clone());
        spawn.args = vec![program, c"-m".into(), c"monoceros.config".into(), CString::new(form)?];
        spawn.env = Environment::of_this_process().variables();
        spawn.dir = Some(CString::new(directory.as_os_str().as_bytes())?);
        let (child, pipe) = piped::start(spawn, false)?;
        Ok(Reader {
            python: python.to_owned(),
            child,
            pipe: Some(pipe),
            said: Vec::new(),
            deadline: Instant::now() + READ_TIME_MAX,
            is_reaped: false,
        })
    }

    /// Looks what there is. `None`: it is still at work. Never waits.
    pub fn tend(&mut self) -> Option<Answer> {
        self.read(READS_PER_TURN_MAX);
        if ANSWER_BYTES_MAX < self.said.len() {
            return Some(Err(format!("it says more than {ANSWER_BYTES_MAX} bytes")));
        }
        let ended = match sys::pidfd::reap(&self.child.pidfd) {
            Ok(None) if self.deadline <= Instant::now() => {
                let limit_s = READ_TIME_MAX.as_secs();
                return Some(Err(format!("it takes longer than {limit_s} s")));
            }
            Ok(None) => return None,
            Ok(Some(ended)) => Some(ended),
            Err(_) => None,
        };
        self.is_reaped = true;
        // What it wrote is in the pipe, which holds less than an answer may have.
        self.read(ANSWER_BYTES_MAX);
        let python = self.python.display();
        Some(match (self.child.exec_failure(), ended) {
            (Some((step, error)), _) => Err(format!("{python}: {step}: {error}")),
            (None, Some(Exit::Code(0))) => String::from_utf8(std::mem::take(&mut self.said))
                .map_err(|_| format!("{python} does not answer in UTF-8")),
            (None, Some(exit)) => Err(format!("{python} ended with {exit}")),
            (None, None) => Err(format!("{python} ended unseen")),
        })
    }

    /// Waits for the answer; never longer than a file may take.
    pub fn wait(mut self) -> Answer {
        loop {
            if let Some(answer) = self.tend() {
                return answer;
            }
            let mut polled: Vec<PollFd<'_>> =
                self.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let wait = u16::try_from(self.longest_wait().as_millis()).unwrap_or(u16::MAX);
            // An error is EINTR or a lack of kernel memory: the loop looks for itself.
            let _ = poll(&mut polled, PollTimeout::from(wait.saturating_add(1)));
        }
    }

    /// What becomes readable when there is something to do.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(self.child.pidfd.as_fd()), self.pipe.as_ref().map(AsFd::as_fd)].into_iter().flatten()
    }

    /// Time until it has taken too long.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Its process id: its end is collected here and nowhere else.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    fn read(&mut self, pieces_max: usize) {
        let mut piece = [0; 8192];
        for _ in 0..pieces_max {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.said.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
            if ANSWER_BYTES_MAX < self.said.len() {
                return;
            }
        }
    }
}

/// An answer that nobody waits for any more. Whoever collects orphans finds the dead one.
impl Drop for Reader {
    fn drop(&mut self) {
        if !self.is_reaped {
            piped::kill(&self.child);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An interpreter that does this.
    fn interpreter(name: &str, does: &str) -> (PathBuf, Reader) {
        let folder = std::env::temp_dir().join(format!("reader-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let python = folder.join("python");
        let fresh = folder.join("fresh");
        fs::write(&fresh, format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, &python).unwrap();
        let reader = Reader::start(&python, "form", &folder).unwrap();
        (folder, reader)
    }

    #[test]
    fn an_answer_comes_whole_and_its_time_is_bounded() {
        let (folder, reader) =
            interpreter("long", "head -c 300000 /dev/zero | tr '\\0' x; echo $3");
        let answer = reader.wait().unwrap();
        assert!(answer.len() == 300_005 && answer.ends_with("xform\n"), "{}", answer.len());
        fs::remove_dir_all(folder).unwrap();

        let (folder, mut reader) = interpreter("slow", "sleep 600");
        assert_eq!(reader.tend(), None);
        reader.deadline = Instant::now();
        assert_eq!(reader.wait(), Err("it takes longer than 30 s".to_owned()));
        fs::remove_dir_all(folder).unwrap();
    }
}
