//! Starting a program: fork, arrange the child, exec.
//!
//! - Between `fork` and `exec` the child makes async-signal-safe calls only: everything it needs is laid out before.
//! - The child starts with default signal dispositions, an empty mask, the asked-for descriptors at the asked-for
//!   numbers, its standard streams, and nothing else.
//! - What failed between `fork` and `exec` arrives in the parent with its `errno`, through a close-on-exec pipe.

mod child;

use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{access, pipe2};

use crate::{Pid, Signal};

/// Largest number of descriptors handed to one child, so that a mistake is an error and not a full table.
pub const PASSED_FDS_MAX: usize = 1024;

/// Who the child is to be. Supplementary groups are always replaced, if only by none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// The whole list of supplementary groups.
    pub groups: Vec<u32>,
}

/// A program to start. Fill the fields, then [`Spawn::spawn`].
#[derive(Clone, Debug)]
pub struct Spawn<'a> {
    /// Path of the program; no `PATH` is searched (see [`find_program`]).
    pub program: CString,
    /// The whole argument list, `argv[0]` included.
    pub args: Vec<CString>,
    /// The whole environment, as `KEY=value`.
    pub env: Vec<CString>,
    /// Adds `LISTEN_PID=<the child's pid>` to the environment.
    pub listen_pid: bool,
    /// Descriptors and the numbers they have in the child. 0, 1 and 2 replace standard streams.
    pub fds: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Directory to start in; entered before credentials are given up.
    pub dir: Option<CString>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// User and groups to become.
    pub credentials: Option<Credentials>,
    /// Signal that the child gets when the thread that spawned it ends.
    pub parent_death_signal: Option<Signal>,
    /// Starts a session of its own, away from the terminal and its process group.
    pub session: bool,
}

/// A started child. Dropping it neither kills nor reaps.
#[derive(Debug)]
pub struct Child {
    /// Its process id; not to be signalled by: see `pidfd`.
    pub pid: Pid,
    /// Readable when it has ended; for [`crate::pidfd::send_signal`] and [`crate::pidfd::reap`].
    pub pidfd: OwnedFd,
    /// Becomes readable when the program was executed (end-of-file) or could not be. `None`: it executes none.
    pub exec_error: Option<OwnedFd>,
}

/// What the child was doing when it failed before its program began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Starting a session of its own.
    Session,
    /// Entering its directory.
    Directory,
    /// Putting descriptors at their numbers.
    Descriptors,
    /// Changing supplementary groups.
    Groups,
    /// Changing group.
    Group,
    /// Changing user.
    User,
    /// Tying itself to its parent's life.
    ParentDeath,
    /// Executing the program.
    Exec,
}

impl Step {
    const ALL: [Step; 8] = [
        Step::Session,
        Step::Directory,
        Step::Descriptors,
        Step::Groups,
        Step::Group,
        Step::User,
        Step::ParentDeath,
        Step::Exec,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Session => "cannot start a session",
            Step::Directory => "cannot enter its directory",
            Step::Descriptors => "cannot arrange its descriptors",
            Step::Groups => "cannot change supplementary groups",
            Step::Group => "cannot change group",
            Step::User => "cannot change user",
            Step::ParentDeath => "cannot follow its parent",
            Step::Exec => "cannot execute the program",
        })
    }
}

impl<'a> Spawn<'a> {
    /// Describes a child that runs `program` with neither arguments nor environment, in every other respect as we are.
    #[must_use]
    pub fn new(program: CString) -> Spawn<'a> {
        Spawn {
            program,
            args: Vec::new(),
            env: Vec::new(),
            listen_pid: false,
            fds: Vec::new(),
            dir: None,
            umask: None,
            credentials: None,
            parent_death_signal: None,
            session: false,
        }
    }

    /// Passes `fd` under the next free number from 3 on, and returns that number.
    pub fn pass(&mut self, fd: BorrowedFd<'a>) -> RawFd {
        let highest = self.fds.iter().map(|&(_, number)| number).max().unwrap_or(0);
        let number = highest.max(libc::STDERR_FILENO) + 1;
        self.fds.push((fd, number));
        number
    }

    /// Forks and executes. Returns as soon as the child exists: see [`Child::exec_failure`] for what became of it.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, `ENOMEM`, `EMFILE`: no child was made. `InvalidInput`: a target number twice, negative, or too many.
    pub fn spawn(&self) -> io::Result<Child> {
        let mut plan = child::Plan::new(self)?;
        let (exec_error, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        plan.report_to(report.as_raw_fd());

        let forked = fork(|| plan.run());
        let pid = Pid::from_raw(forked?);
        // Our own child, not reaped yet: the number cannot have been given to another process.
        match crate::pidfd::open(pid) {
            Ok(pidfd) => Ok(Child { pid, pidfd, exec_error: Some(exec_error) }),
            Err(error) => {
                // Out of descriptors. A child without a pidfd could never be supervised: take it back.
                // SAFETY: the call takes two integers; the pid is our own child's, not reaped yet.
                unsafe { libc::kill(pid.as_raw(), libc::SIGKILL) };
                // SAFETY: a null status pointer is allowed: nothing is written.
                let _ = crate::retry(|| unsafe {
                    libc::waitpid(pid.as_raw(), std::ptr::null_mut(), 0)
                });
                Err(error)
            }
        }
    }

    /// As [`Spawn::spawn`], but through a second fork, so that the new process is no child of ours: it belongs to process 1,
    /// or to whoever collects orphans here.
    ///
    /// Not even to us while [`crate::sibling::adopt_orphans`] is on. [`crate::pidfd::reap`] is not for it; its pidfd becomes
    /// readable at its end all the same. Waits for two forks.
    ///
    /// # Errors
    ///
    /// As [`Spawn::spawn`].
    pub fn spawn_detached(&self) -> io::Result<Child> {
        let mut plan = child::Plan::new(self)?;
        let (exec_error, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        plan.report_to(report.as_raw_fd());
        let (named, name) = pipe2(OFlag::O_CLOEXEC)?;
        let (hold, release) = pipe2(OFlag::O_CLOEXEC)?;
        let between = child::Between {
            name: name.as_raw_fd(),
            hold: hold.as_raw_fd(),
            release: release.as_raw_fd(),
        };
        let adopts = nix::sys::prctl::get_child_subreaper().unwrap_or(false);
        if adopts {
            crate::sibling::adopt_orphans(false)?;
        }
        let middle = fork(|| plan.run_detached(between));
        let middle = match middle {
            Ok(middle) => middle,
            Err(error) => {
                restore_adoption(adopts);
                return Err(error);
            }
        };
        // Our copies: with them open the reads below would not end.
        drop((report, name, hold));
        let mut said = [0; 4];
        let child = match File::from(named).read_exact(&mut said).map(|()| i32::from_ne_bytes(said))
        {
            Ok(pid) if pid > 0 => {
                let pid = Pid::from_raw(pid);
                let exec_error = Some(exec_error);
                crate::pidfd::open(pid).map(|pidfd| Child { pid, pidfd, exec_error })
            }
            Ok(errno) => Err(io::Error::from_raw_os_error(-errno)),
            Err(error) => Err(error),
        };
        drop(release);
        // SAFETY: a null status pointer is allowed: nothing is written.
        let reaped = crate::retry(|| unsafe { libc::waitpid(middle, std::ptr::null_mut(), 0) });
        restore_adoption(adopts);
        reaped?;
        child
    }
}

/// Adopts orphans again, if that was so before. A process that was able to stop that can begin it.
fn restore_adoption(adopts: bool) {
    if adopts {
        let _ = crate::sibling::adopt_orphans(true);
    }
}

/// Forks; the child runs `become_it` with every signal blocked and never comes back.
fn fork(mut become_it: impl FnMut()) -> io::Result<libc::pid_t> {
    // No handler of ours may run in the child, so nothing is delivered until it has reset its dispositions.
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the child calls nothing but methods of `Plan`, which are async-signal-safe and never return.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        become_it();
    }
    let forked = crate::check(forked);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    forked
}

impl Child {
    /// Says why the program never began. `None`: it did, or has not got there yet.
    ///
    /// A failed child exits with code 127, so after its end the answer is final.
    #[must_use]
    pub fn exec_failure(&self) -> Option<(Step, io::Error)> {
        let mut report = [0; child::REPORT_BYTES];
        let length = nix::unistd::read(self.exec_error.as_ref()?, &mut report).ok()?;
        if length < report.len() {
            return None;
        }
        let step = *Step::ALL.get(usize::from(report[0]))?;
        let errno = i32::from_ne_bytes([report[1], report[2], report[3], report[4]]);
        Some((step, io::Error::from_raw_os_error(errno)))
    }
}

/// Finds the program that `name` means: itself when it contains a slash, else the first executable file in `path`.
#[must_use]
pub fn find_program(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    std::env::split_paths(path?).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, nix::unistd::AccessFlags::X_OK).is_ok()
}
