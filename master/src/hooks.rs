//! Hooks: commands of the operator, run at certain moments beside everything else.
//!
//! - Nobody waits for a hook but [`Hooks::run_to_end`], and that for a bounded time.
//! - Each is a child with a session and a process group of its own, which is killed when its time is over.
//! - Their number at once, those that wait, and what they print are bounded. A failing hook is one WARNING, no more.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shared::settings::{self, Setting, Settings};
use sys::Pid;
use sys::pidfd::Exit;
use sys::spawn::{Child, Spawn, find_program};

use crate::journal::Journal;
use crate::piped;
use crate::process::Environment;

/// Hooks that run at one time; further ones wait their turn.
const RUNNING_MAX: usize = 8;

/// Hooks that wait; further ones are given up with a WARNING.
const WAITING_MAX: usize = 64;

/// Output of one hook that is logged; the rest is read and counted.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Longest line of output that is logged in one piece.
const LINE_BYTES_MAX: usize = 1_000;

/// Pieces of output read from one hook in one turn, so that a chatty one keeps the loop from nothing.
const READS_PER_TURN_MAX: usize = 8;

/// Longest wait between two looks at hooks that are waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A moment at which a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The settings describe them.
pub enum Hook {
    OnStarting,
    WhenReady,
    OnAllReady,
    OnReload,
    PreFork,
    PostFork,
    PostWorkerInit,
    WorkerAbort,
    ChildExit,
    WorkerExit,
    NworkersChanged,
    PreExec,
    OnExit,
}

impl Hook {
    /// The setting's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Hook::OnStarting => "on_starting",
            Hook::WhenReady => "when_ready",
            Hook::OnAllReady => "on_all_ready",
            Hook::OnReload => "on_reload",
            Hook::PreFork => "pre_fork",
            Hook::PostFork => "post_fork",
            Hook::PostWorkerInit => "post_worker_init",
            Hook::WorkerAbort => "worker_abort",
            Hook::ChildExit => "child_exit",
            Hook::WorkerExit => "worker_exit",
            Hook::NworkersChanged => "nworkers_changed",
            Hook::PreExec => "pre_exec",
            Hook::OnExit => "on_exit",
        }
    }

    fn command(self, settings: &Settings) -> Option<&str> {
        match self {
            Hook::OnStarting => &settings.on_starting,
            Hook::WhenReady => &settings.when_ready,
            Hook::OnAllReady => &settings.on_all_ready,
            Hook::OnReload => &settings.on_reload,
            Hook::PreFork => &settings.pre_fork,
            Hook::PostFork => &settings.post_fork,
            Hook::PostWorkerInit => &settings.post_worker_init,
            Hook::WorkerAbort => &settings.worker_abort,
            Hook::ChildExit => &settings.child_exit,
            Hook::WorkerExit => &settings.worker_exit,
            Hook::NworkersChanged => &settings.nworkers_changed,
            Hook::PreExec => &settings.pre_exec,
            Hook::OnExit => &settings.on_exit,
        }
        .as_deref()
    }
}

/// A hook to be run, with what it is told.
#[derive(Debug)]
struct Call {
    hook: Hook,
    command: String,
    environment: Environment,
    limit: Duration,
}

/// A hook that runs.
#[derive(Debug)]
struct Running {
    hook: Hook,
    child: Child,
    output: Output,
    deadline: Instant,
    /// Whether its time was over and it was killed.
    is_killed: bool,
}

/// The hooks that run and those that wait.
#[derive(Debug)]
pub struct Hooks {
    journal: Journal,
    environment: Environment,
    running: Vec<Running>,
    waiting: VecDeque<Call>,
}

impl Hooks {
    /// No hooks yet. They get `environment`.
    #[must_use]
    pub fn new(journal: Journal, environment: Environment) -> Hooks {
        Hooks { journal, environment, running: Vec::new(), waiting: VecDeque::new() }
    }

    /// Runs `hook` if `settings` name a command for it, telling it `facts`: `MONOCEROS_HOOK_` and the first of each pair.
    pub fn call(&mut self, settings: &Settings, hook: Hook, facts: &[(&str, String)]) {
        let Some(command) = hook.command(settings) else { return };
        if WAITING_MAX <= self.waiting.len() {
            let name = hook.name();
            self.journal.warning(&format!("Hook not run, too many wait their turn hook={name}"));
            return;
        }
        let mut environment = self
            .environment
            .with_all(&settings.raw_env)
            .with("MONOCEROS_HOOK", hook.name())
            .with("MONOCEROS_HOOK_MASTER_PID", &std::process::id().to_string())
            .with("MONOCEROS_HOOK_SETTINGS", &without_secrets(settings));
        for (name, value) in facts {
            environment = environment.with(&format!("MONOCEROS_HOOK_{name}"), value);
        }
        let limit = settings.hook_timeout;
        self.waiting.push_back(Call { hook, command: command.to_owned(), environment, limit });
        self.tend();
    }

    /// Takes output and ends, ends what takes too long, and starts who waits. Never waits itself.
    pub fn tend(&mut self) {
        for running in &mut self.running {
            running.output.read(running.hook, &self.journal);
        }
        let now = Instant::now();
        let mut index = 0;
        while let Some(running) = self.running.get_mut(index) {
            if running.deadline <= now && !running.is_killed {
                running.is_killed = true;
                piped::kill(&running.child);
            }
            match sys::pidfd::reap(&running.child.pidfd) {
                Ok(None) => index += 1,
                ended => {
                    let running = self.running.swap_remove(index);
                    self.report(running, ended);
                }
            }
        }
        while self.running.len() < RUNNING_MAX
            && let Some(call) = self.waiting.pop_front()
        {
            let (hook, command) = (call.hook, call.command.clone());
            match start(call) {
                Ok(running) => self.running.push(running),
                Err(error) => self.journal.warning(&format!(
                    "Hook failed hook={} command={command:?} error={error}",
                    hook.name()
                )),
            }
        }
    }

    /// Waits until every hook has ended, for `longest` at most; then ends them.
    pub fn run_to_end(&mut self, longest: Duration) {
        self.tend();
        let give_up_at = Instant::now() + longest;
        while !self.running.is_empty() && Instant::now() < give_up_at {
            let mut polled: Vec<PollFd<'_>> =
                self.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let left = give_up_at.saturating_duration_since(Instant::now());
            let wait = self.longest_wait().unwrap_or(left).min(left).min(LOOK_EVERY);
            let wait = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX).saturating_add(1);
            // An error is EINTR or a lack of kernel memory: the loop looks for itself.
            let _ = poll(&mut polled, PollTimeout::from(wait));
            drop(polled);
            self.tend();
            self.journal.pump();
        }
        for running in self.running.drain(..) {
            piped::kill(&running.child);
            let (name, pid) = (running.hook.name(), running.child.pid);
            self.journal.warning(&format!("Hook left behind hook={name} pid={pid}"));
        }
        for call in self.waiting.drain(..) {
            let name = call.hook.name();
            self.journal.warning(&format!("Hook not run, there is no time hook={name}"));
        }
    }

    /// What becomes readable when there is something to do.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().flat_map(|running| {
            let output = running.output.pipe.as_ref().map(AsFd::as_fd);
            [Some(running.child.pidfd.as_fd()), output].into_iter().flatten()
        })
    }

    /// Time until a hook's time is over.
    #[must_use]
    pub fn longest_wait(&self) -> Option<Duration> {
        let alive = self.running.iter().filter(|running| !running.is_killed);
        let deadline = alive.map(|running| running.deadline).min()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Process ids of running hooks: their ends are collected here and nowhere else.
    #[must_use]
    pub fn pids(&self) -> BTreeSet<i32> {
        self.running.iter().map(|running| running.child.pid.as_raw()).collect()
    }

    fn report(&self, mut running: Running, ended: io::Result<Option<Exit>>) {
        running.output.read(running.hook, &self.journal);
        running.output.end(running.hook, &self.journal);
        let (name, pid) = (running.hook.name(), running.child.pid);
        let how = match (running.child.exec_failure(), ended) {
            (Some((step, error)), _) => format!("error={:?}", format!("{step}: {error}")),
            (None, _) if running.is_killed => "reason=hook_timeout".to_owned(),
            (None, Ok(Some(Exit::Code(0)))) => {
                return self.journal.debug(&format!("Hook done hook={name} pid={pid}"));
            }
            (None, Ok(Some(exit))) => exit.to_string(),
            (None, Ok(None) | Err(_)) => "code=unknown".to_owned(),
        };
        self.journal.warning(&format!("Hook failed hook={name} pid={pid} {how}"));
    }
}

/// The settings as JSON, but for those that may hold a password.
fn without_secrets(settings: &Settings) -> String {
    // Settings are written for workers in the same way; an empty text is no harm to whoever asks nothing of it.
    let mut json = serde_json::to_value(settings).unwrap_or_default();
    if let Some(json) = json.as_object_mut() {
        json.retain(|name, _| Setting::find(name).is_some_and(|setting| !setting.secret));
    }
    json.to_string()
}

fn start(call: Call) -> io::Result<Running> {
    let words = settings::split(&call.command).map_err(io::Error::other)?;
    let name = words.first().ok_or(io::ErrorKind::InvalidInput)?;
    let path = std::env::var_os("PATH");
    let program = find_program(OsStr::new(name), path.as_deref())
        .ok_or_else(|| io::Error::other("no such program in PATH"))?;
    let mut spawn = Spawn::new(CString::new(program.as_os_str().as_bytes())?);
    spawn.args = words.iter().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
    spawn.env = call.environment.variables();
    let (child, pipe) = piped::start(spawn, true)?;
    let output = Output { pipe: Some(pipe), line: Vec::new(), bytes: 0 };
    let deadline = Instant::now() + call.limit;
    Ok(Running { hook: call.hook, child, output, deadline, is_killed: false })
}

/// What a hook prints, on its way into the error log.
#[derive(Debug)]
struct Output {
    pipe: Option<File>,
    /// A line that has not ended yet.
    line: Vec<u8>,
    /// Bytes so far.
    bytes: usize,
}

impl Output {
    /// Reads and logs what is there.
    fn read(&mut self, hook: Hook, journal: &Journal) {
        let mut piece = [0; 4096];
        for _ in 0..READS_PER_TURN_MAX {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.take(&piece[..length], hook, journal),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn take(&mut self, piece: &[u8], hook: Hook, journal: &Journal) {
        let room = OUTPUT_BYTES_MAX.saturating_sub(self.bytes);
        self.bytes += piece.len();
        for &byte in &piece[..piece.len().min(room)] {
            if byte == b'\n' || LINE_BYTES_MAX <= self.line.len() {
                self.log(hook, journal);
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    /// Logs what has no line end, and how much was left out.
    fn end(&mut self, hook: Hook, journal: &Journal) {
        self.log(hook, journal);
        if let left_out @ 1.. = self.bytes.saturating_sub(OUTPUT_BYTES_MAX) {
            let name = hook.name();
            journal.info(&format!("Hook said more hook={name} left_out_bytes={left_out}"));
        }
    }

    fn log(&mut self, hook: Hook, journal: &Journal) {
        let text = String::from_utf8_lossy(&self.line);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line.clear();
        if !text.trim().is_empty() {
            journal.info(&format!("Hook says hook={} {}", hook.name(), text.trim_end()));
        }
    }
}

/// Facts about a process for a hook.
#[must_use]
pub fn worker_facts(pid: Pid, slot: usize, generation: u32) -> Vec<(&'static str, String)> {
    vec![
        ("WORKER_PID", pid.to_string()),
        ("SLOT", slot.to_string()),
        ("GENERATION", generation.to_string()),
    ]
}
