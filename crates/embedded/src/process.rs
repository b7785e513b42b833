//! Child processes: started as another user, with their output in the log, and waited for with a bound.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sys::pidfd::{self, Exit};
use sys::spawn::{Child, Credentials, Spawn};

use crate::account::Account;
use crate::error::Error;
use crate::layout::Layout;
use crate::wait::{Wake, Watch};

/// Variables of ours that a child of ours may inherit; the rest (`PG…` above all) would change what it does.
const INHERITED: [&str; 4] = ["PATH", "HOME", "TZ", "TMPDIR"];

/// What is about to be started.
pub(crate) struct Job<'a> {
    program: PathBuf,
    args: Vec<OsString>,
    variables: Vec<(&'static str, String)>,
    input: String,
    output: &'a File,
    account: Option<&'a Account>,
    parent_death_signal: Signal,
}

impl<'a> Job<'a> {
    /// Describes `program`, which will print to `output` and read nothing.
    pub(crate) fn new(program: &Path, args: Vec<OsString>, output: &'a File) -> Job<'a> {
        Job {
            program: program.to_path_buf(),
            args,
            variables: Vec::new(),
            input: String::new(),
            output,
            account: None,
            parent_death_signal: Signal::SIGKILL,
        }
    }

    pub(crate) fn run_as(mut self, account: &'a Account) -> Job<'a> {
        self.account = Some(account).filter(|account| account.switch);
        self
    }

    /// Lets it read `text`, which must fit into a pipe's buffer.
    pub(crate) fn input(mut self, text: String) -> Job<'a> {
        self.input = text;
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: String) -> Job<'a> {
        self.variables.push((name, value));
        self
    }

    /// If the companion is killed, the child gets this signal, by default KILL.
    pub(crate) fn signal_when_parent_dies(mut self, signal: Signal) -> Job<'a> {
        self.parent_death_signal = signal;
        self
    }

    pub(crate) fn start(self) -> Result<Process, Error> {
        self.spawn().map_err(|source| Error::Spawn { program: self.program.clone(), source })
    }

    fn spawn(&self) -> io::Result<Process> {
        let (read_end, mut write_end) = io::pipe()?;
        write_end.write_all(self.input.as_bytes())?;
        drop(write_end);
        let mut spawn = Spawn::new(c_string(self.program.as_os_str())?);
        let args = std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().map(OsString::as_os_str));
        spawn.args = args.map(c_string).collect::<io::Result<_>>()?;
        spawn.env =
            self.environment().iter().map(|pair| c_string(pair)).collect::<io::Result<_>>()?;
        spawn.fds = vec![(read_end.as_fd(), 0), (self.output.as_fd(), 1), (self.output.as_fd(), 2)];
        // Our own folder may be one that the other user cannot enter.
        spawn.dir = Some(c_string(OsStr::new("/"))?);
        spawn.umask = Some(0o077);
        spawn.credentials = self.account.map(|account| Credentials {
            uid: account.uid.as_raw(),
            gid: account.gid.as_raw(),
            groups: Vec::new(),
        });
        spawn.parent_death_signal = Some(self.parent_death_signal);
        // A Ctrl-C at the terminal is for the master, which stops us when the workers are gone.
        spawn.session = true;
        spawn.spawn().map(Process::Child)
    }

    fn environment(&self) -> Vec<OsString> {
        let pair = |name: &str, value: &OsStr| [OsStr::new(name), value].join(OsStr::new("="));
        let inherited =
            INHERITED.iter().filter_map(|name| Some(pair(name, &std::env::var_os(name)?)));
        let own = self.variables.iter().map(|(name, value)| pair(name, OsStr::new(value)));
        // Messages in English: errors quote them.
        inherited.chain(own).chain([OsString::from("LC_ALL=C.UTF-8")]).collect()
    }
}

/// A process that is watched through its pidfd.
pub(crate) enum Process {
    /// Our own child.
    Child(Child),
    /// Somebody else's, or nobody's any more: it can be signalled and waited for, not asked how it ended.
    Other(OwnedFd),
}

impl Process {
    /// Opens process `pid`. `None`: there is none.
    pub(crate) fn of_other_parent(pid: i32) -> Result<Option<Process>, Error> {
        match pidfd::open(Pid::from_raw(pid)) {
            Ok(fd) => Ok(Some(Process::Other(fd))),
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
            Err(error) => Err(Error::system("open a process")(error)),
        }
    }

    /// The process id of a child; 0 for another process.
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Process::Child(child) => child.pid.as_raw(),
            Process::Other(_) => 0,
        }
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        match self {
            Process::Child(child) => child.pidfd.as_fd(),
            Process::Other(fd) => fd.as_fd(),
        }
    }

    /// Sends `signal`; one that has ended is left alone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        match pidfd::send_signal(&self.pidfd(), signal) {
            Err(error) if error.raw_os_error() != Some(Errno::ESRCH as i32) => {
                Err(Error::system("signal a process")(error))
            }
            _ => Ok(()),
        }
    }

    /// Collects a process that has ended; returns how, in words that follow its name.
    pub(crate) fn reap(self) -> Result<Ended, Error> {
        let Process::Child(child) = self else {
            return Ok(Ended { well: true, how: "ended".into() });
        };
        if let Some((step, source)) = child.exec_failure() {
            // Reaped all the same; the reason is the better answer.
            let _ = pidfd::reap(&child.pidfd);
            return Ok(Ended { well: false, how: format!("could not be run: {step}: {source}") });
        }
        let exit = pidfd::reap(&child.pidfd).map_err(Error::system("collect a process"))?;
        let how = match exit {
            Some(Exit::Code(code)) => format!("exited with code {code}"),
            Some(Exit::Signal(number, _)) => {
                let name = Signal::try_from(number)
                    .map_or_else(|_| number.to_string(), |signal| signal.to_string());
                format!("was ended by {name}")
            }
            None => "has not ended".into(),
        };
        Ok(Ended { well: exit == Some(Exit::Code(0)), how })
    }
}

/// How a process ended.
pub(crate) struct Ended {
    /// By itself, reporting success.
    pub(crate) well: bool,
    /// In words that follow its name: `exited with code 1`.
    pub(crate) how: String,
}

/// Waits for a program that ends by itself. `Ok(Some(name))`: a stop was asked for meanwhile, and it was killed.
pub(crate) fn finish(
    process: Process,
    what: &'static str,
    limit: Duration,
    layout: &Layout,
    watch: &mut Watch,
) -> Result<Option<&'static str>, Error> {
    let wake = watch.wait(Some(process.pidfd()), Some(Instant::now() + limit))?;
    if wake != Wake::Exited {
        process.signal(Signal::SIGKILL)?;
        while watch.wait(Some(process.pidfd()), None)? != Wake::Exited {}
    }
    let ended = process.reap()?;
    let how = match wake {
        Wake::Stop(name) => return Ok(Some(name)),
        Wake::Exited if ended.well => return Ok(None),
        Wake::Exited => ended.how,
        Wake::Deadline => format!("was not done after {} s", limit.as_secs()),
    };
    let last = crate::cluster::last_line(layout);
    Err(Error::Failed { what, how, log: layout.log.clone(), last })
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.to_owned().into_vec())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in it"))
}
