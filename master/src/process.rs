//! Starting the processes of the fleet, under the worker contract.
//!
//! Spawning is all that knows descriptors and variables; who is spawned when is the fleet's business.

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use shared::contract::{self, Order};
use sys::pidfd::Exit;
use sys::spawn::{Child, Credentials, Spawn};
use sys::{Pid, Signal};

use crate::fleet::DrainReason;
use crate::wear::Wear;

/// Variables that a child must not inherit: they are between us and whoever started us.
const OURS_ALONE: &[&str] = &[
    contract::LISTEN_FDS,
    contract::LISTEN_PID,
    contract::LISTEN_FDNAMES,
    contract::NOTIFY_SOCKET,
    contract::SLOT,
    contract::GENERATION,
    contract::SETTINGS,
    contract::SCOREBOARD,
    contract::BLOCK,
    contract::LIFELINE,
    contract::OBSERVED,
    contract::PRELOADER,
    contract::CMD_ARGS,
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "FDSTORE",
    "_MONOCEROS_REPORT",
    crate::upgrade::VARIABLE,
];

/// What every child gets of our own environment.
#[derive(Debug, Clone)]
pub struct Environment(Vec<CString>);

impl Environment {
    /// Captures our own, less what is ours alone.
    #[must_use]
    pub fn of_this_process() -> Environment {
        Environment(
            std::env::vars_os()
                .filter(|(name, _)| !OURS_ALONE.iter().any(|ours| name == ours))
                .filter_map(|(name, value)| variable(&name, &value))
                .collect(),
        )
    }

    /// The same with `name` set to `value`.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Environment {
        let mut environment = self.clone();
        environment.set(name, value);
        environment
    }

    /// The same with each `NAME=value` of `entries` set.
    #[must_use]
    pub fn with_all(&self, entries: &[String]) -> Environment {
        let mut environment = self.clone();
        for (name, value) in entries.iter().filter_map(|entry| entry.split_once('=')) {
            environment.set(name, value);
        }
        environment
    }

    /// Every variable, as `NAME=value`.
    #[must_use]
    pub fn variables(&self) -> Vec<CString> {
        self.0.clone()
    }

    fn set(&mut self, name: &str, value: &str) {
        let prefix = [name.as_bytes(), b"="].concat();
        self.0.retain(|entry| !entry.as_bytes().starts_with(&prefix));
        self.0.extend(variable(&name.into(), &value.into()));
    }
}

/// `NAME=value`; nothing with a NUL byte in it can be a variable.
fn variable(name: &OsString, value: &OsString) -> Option<CString> {
    let mut entry = name.as_bytes().to_vec();
    entry.push(b'=');
    entry.extend_from_slice(value.as_bytes());
    CString::new(entry).ok()
}

/// What a child is told at its start.
#[derive(Debug)]
pub struct Orders<'a> {
    /// The program.
    pub program: CString,
    /// Its arguments, its own name first.
    pub args: Vec<String>,
    /// Its environment, apart from the contract.
    pub environment: &'a Environment,
    /// The master's notify socket.
    pub notify_socket: &'a std::ffi::OsStr,
    /// The listeners, in order.
    pub listeners: Vec<BorrowedFd<'a>>,
    /// How the listeners are called, by their place.
    pub listener_name: fn(usize) -> String,
    /// The scoreboard, for a program that reads all of it.
    pub observed: Option<BorrowedFd<'a>>,
    /// The sealed settings.
    pub settings: BorrowedFd<'a>,
    /// Who it is to be; `None`: who we are.
    pub credentials: Option<Credentials>,
    /// What only workers get.
    pub worker: Option<WorkerOrders<'a>>,
    /// What only preloaders get.
    pub preloader: Option<PreloaderOrders<'a>>,
}

/// What only preloaders get.
#[derive(Debug)]
pub struct PreloaderOrders<'a> {
    /// The generation whose workers it makes.
    pub generation: u32,
    /// Where it hears of the workers that are wanted.
    pub channel: BorrowedFd<'a>,
    /// The scoreboard, for its workers.
    pub scoreboard: BorrowedFd<'a>,
}

/// What only workers get.
#[derive(Debug)]
pub struct WorkerOrders<'a> {
    /// The slot.
    pub slot: usize,
    /// The generation.
    pub generation: u32,
    /// The scoreboard, and the block in it. `None`: all blocks are in use.
    pub block: Option<(BorrowedFd<'a>, usize)>,
}

/// A child of the master.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lifeline: UnixStream,
    /// When it was spawned, by the arbiter's clock.
    pub since: Instant,
    /// Its slot; companions have none.
    pub slot: Option<usize>,
    /// The reading of the settings it was spawned from.
    pub generation: u32,
    /// Its scoreboard block.
    pub block: Option<usize>,
    /// Counts as ready at this time if it lives and has said nothing: for programs that know no READY.
    pub ready_at: Option<Instant>,
    /// Whether it said READY, or counts as if it had.
    pub is_ready: bool,
    /// When it is to be replaced although nothing is wrong with it.
    pub wear: Wear,
    /// Why it was asked to drain.
    pub drained_because: Option<DrainReason>,
    /// What it last said about itself; with a failed boot, why.
    pub status: Option<String>,
    /// Why its program never began, once that is known: see [`Process::learn_exec_failure`].
    pub exec_failure: Option<String>,
}

/// A lifeline: our end, and the child's.
///
/// # Errors
///
/// No descriptors left.
pub fn lifeline() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}

impl Process {
    /// Spawns a child.
    ///
    /// # Errors
    ///
    /// No process, memory or descriptors left. That the program cannot be executed is seen at its end.
    pub fn spawn(orders: &Orders<'_>, now: Instant) -> io::Result<Process> {
        let (lifeline, theirs) = lifeline()?;

        let mut spawn = Spawn::new(orders.program.clone());
        spawn.args =
            orders.args.iter().filter_map(|arg| CString::new(arg.as_bytes()).ok()).collect();
        let mut environment = orders.environment.clone();
        for &listener in &orders.listeners {
            spawn.pass(listener);
        }
        if !orders.listeners.is_empty() {
            let names: Vec<String> =
                (0..orders.listeners.len()).map(orders.listener_name).collect();
            environment.set(contract::LISTEN_FDS, &orders.listeners.len().to_string());
            environment.set(contract::LISTEN_FDNAMES, &names.join(":"));
            spawn.listen_pid = true;
        }
        environment.set(contract::SETTINGS, &spawn.pass(orders.settings).to_string());
        environment.set(contract::LIFELINE, &spawn.pass(theirs.as_fd()).to_string());
        if let Some(scoreboard) = orders.observed {
            environment.set(contract::OBSERVED, &spawn.pass(scoreboard).to_string());
        }
        if let Some(worker) = &orders.worker {
            environment.set(contract::SLOT, &worker.slot.to_string());
            environment.set(contract::GENERATION, &worker.generation.to_string());
            if let Some((scoreboard, block)) = worker.block {
                environment.set(contract::SCOREBOARD, &spawn.pass(scoreboard).to_string());
                environment.set(contract::BLOCK, &block.to_string());
            }
        }
        if let Some(preloader) = &orders.preloader {
            environment.set(contract::GENERATION, &preloader.generation.to_string());
            environment.set(contract::PRELOADER, &spawn.pass(preloader.channel).to_string());
            environment.set(contract::SCOREBOARD, &spawn.pass(preloader.scoreboard).to_string());
        }
        let notify = orders.notify_socket.to_os_string().into_vec();
        environment
            .0
            .extend(variable(&contract::NOTIFY_SOCKET.into(), &OsString::from_vec(notify)));
        spawn.env = environment.0;
        // A graceful end when we die: killing it would take every request in its hands along.
        spawn.parent_death_signal = Some(Signal::SIGTERM);
        spawn.credentials = orders.credentials.clone();
        // Companions outlive the workers at a stop, so the terminal's Ctrl-C is not for them.
        spawn.session = orders.worker.is_none() && orders.preloader.is_none();
        let child = spawn.spawn()?;
        let of_worker = orders.worker.as_ref().map(|worker| worker.generation);
        let of_preloader = orders.preloader.as_ref().map(|preloader| preloader.generation);
        Ok(Process {
            slot: orders.worker.as_ref().map(|worker| worker.slot),
            generation: of_worker.or(of_preloader).unwrap_or(0),
            block: orders.worker.as_ref().and_then(|worker| Some(worker.block?.1)),
            ..Process::new(child, lifeline, now)
        })
    }

    /// A worker that somebody else forked for us.
    #[must_use]
    pub fn forked(
        child: Child,
        lifeline: UnixStream,
        (slot, generation): (usize, u32),
        block: Option<usize>,
        now: Instant,
    ) -> Process {
        Process { slot: Some(slot), generation, block, ..Process::new(child, lifeline, now) }
    }

    fn new(child: Child, lifeline: UnixStream, now: Instant) -> Process {
        Process {
            child,
            lifeline,
            since: now,
            slot: None,
            generation: 0,
            block: None,
            ready_at: None,
            is_ready: false,
            wear: Wear::default(),
            drained_because: None,
            status: None,
            exec_failure: None,
        }
    }

    /// Its process id, for people.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Sends a signal. That it is dead already is no failure: its end is about to be reported.
    pub fn signal(&self, signal: Signal) {
        // EPERM is impossible while workers keep our user, and would not change what can be done.
        let _ = sys::pidfd::send_signal(&self.child.pidfd, signal);
    }

    /// Sends an order. One that reads none, or is dead, loses it: orders only make a good thing better.
    pub fn order(&self, order: Order) {
        let _ = (&self.lifeline).write(&[order.byte()]);
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    ///
    /// Somebody else reaped it.
    pub fn reap(&self) -> io::Result<Option<Exit>> {
        sys::pidfd::reap(&self.child.pidfd)
    }

    /// After its end: finds out whether its program ever began. The kernel tells only once.
    pub fn learn_exec_failure(&mut self) {
        let failure = self.child.exec_failure();
        self.exec_failure = failure.map(|(step, error)| format!("{step}: {error}"));
    }

    /// Whether it has a handler of its own for `signal`; the default action of most would end it.
    #[must_use]
    pub fn catches(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.pid));
        status.is_ok_and(|status| catches(&status, signal))
    }
}

/// Looks for `signal` in the line `SigCgt` of `/proc/PID/status`.
fn catches(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal as i32 - 1)) != 0
}

impl AsFd for Process {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_seen_in_proc() {
        let status = "Name:\tx\nSigIgn:\t0000000000000200\nSigCgt:\t0000000180004202\n";
        assert!(catches(status, Signal::SIGINT));
        assert!(catches(status, Signal::SIGTERM));
        assert!(!catches(status, Signal::SIGHUP));
        assert!(!catches("", Signal::SIGTERM));
    }

    #[test]
    fn a_variable_is_set_once() {
        let environment = Environment(vec![c"A=1".into(), c"AB=2".into()]).with("A", "3");
        assert_eq!(environment.0, [CString::from(c"AB=2"), CString::from(c"A=3")]);
    }
}
