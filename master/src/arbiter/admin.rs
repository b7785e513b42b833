//! The program `admin`: metrics, health checks and StatsD, in a process of its own beside the workers.
//!
//! - Nothing here ever harms serving: whatever fails is logged and tried again later.
//! - It is up before the first worker is ready and leaves after the last, so that readiness can be seen at both ends.
//! - A reload that changes its program or settings has a second one READY before the first goes.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use net::{BindAddr, BindOptions};
use shared::contract::{self, Order};
use shared::settings::{LogLevel, Settings};
use sys::Signal;
use sys::pidfd::Exit;
use sys::spawn::Credentials;

use super::{Arbiter, chain};
use crate::fleet::{Id, backoff_delay};
use crate::generation::Listening;
use crate::lookup::Addresses;
use crate::process::{Orders, Process};

/// Name of the program, looked for beside the master's own.
const PROGRAM: &str = "admin";
/// Longest boot.
const BOOT_MAX: Duration = Duration::from_secs(30);
/// Longest stop: answers are short.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Ready for this long makes earlier failures forgotten.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Longest silence: it gives a sign of life every second.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Connections that the program holds at once.
const CONNECTIONS_MAX: usize = 256;
/// Time a client of it has to send a request, and to take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// File mode creation mask of its unix sockets: for their owner only.
const UMASK: u32 = 0o177;

/// What is known of the program and its processes.
#[derive(Debug)]
pub(super) struct Admin {
    /// What is wanted; `None`: nothing.
    plan: Option<Plan>,
    state: State,
    /// What a reload wants instead, and the process that is to prove it.
    next: Option<(Plan, Booting)>,
    /// Processes that were told to go, and when they are killed.
    leaving: Vec<(Id, Instant)>,
    failures: u32,
    /// Listeners that an old master passed, until they are opened from here.
    passed: Vec<Rc<Listening>>,
    /// Listeners that somebody outside opened for it; `admin_bind` is not used then.
    inherited: Vec<Rc<Listening>>,
    /// Whether a new master has taken over, so that what this one does is no longer what the server does.
    pub(super) is_left_to_successor: bool,
}

#[derive(Debug)]
enum State {
    /// To be spawned at this time.
    Absent { retry_at: Instant },
    /// Spawned, not ready.
    Booting(Booting),
    /// At work.
    Ready { id: Id, since: Instant, heard: Instant },
}

#[derive(Debug, Clone, Copy)]
struct Booting {
    id: Id,
    deadline: Instant,
}

/// Everything that a process of the program is started with.
#[derive(Debug)]
struct Plan {
    program: PathBuf,
    /// Device, inode and time of change of the program.
    build: Option<(u64, u64, i64)>,
    settings: Settings,
    addresses: Vec<BindAddr>,
    /// Where the names among them lead.
    found: Addresses,
    /// Opened when it is first spawned.
    listening: Vec<Rc<Listening>>,
    sealed: Option<OwnedFd>,
    credentials: Option<Credentials>,
}

impl Admin {
    pub(super) fn new(passed: Vec<Rc<Listening>>, now: Instant) -> Admin {
        let state = State::Absent { retry_at: now };
        let (inherited, passed) =
            passed.into_iter().partition(|listening| listening.address().is_none());
        Admin {
            plan: None,
            state,
            next: None,
            leaving: Vec::new(),
            failures: 0,
            passed,
            inherited,
            is_left_to_successor: false,
        }
    }

    /// Its listeners, for a new master.
    pub(super) fn listening(&self) -> Vec<Rc<Listening>> {
        self.plan.as_ref().map_or_else(Vec::new, |plan| plan.listening.clone())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Absent { retry_at } => self.plan.is_some().then_some(*retry_at),
            State::Booting(booting) => Some(booting.deadline),
            State::Ready { heard, .. } => Some(*heard + SILENCE_MAX),
        };
        let next = self.next.as_ref().map(|(_, booting)| booting.deadline);
        self.leaving.iter().map(|(_, deadline)| *deadline).chain(own).chain(next).min()
    }

    /// Processes that were not told to go.
    pub(super) fn ids(&self) -> impl Iterator<Item = Id> {
        let own = match &self.state {
            State::Absent { .. } => None,
            State::Booting(Booting { id, .. }) | State::Ready { id, .. } => Some(*id),
        };
        own.into_iter().chain(self.next.as_ref().map(|(_, booting)| booting.id))
    }
}

impl Plan {
    /// What the settings want; `None`: no such process. Opens nothing.
    fn of(
        settings: &Settings,
        master: Option<&Path>,
        as_who: Option<&Credentials>,
        inherited: &[Rc<Listening>],
        found: &Addresses,
    ) -> Option<Plan> {
        let is_wanted = !inherited.is_empty()
            || !settings.admin_bind.is_empty()
            || settings.statsd_host.is_some();
        if !is_wanted {
            return None;
        }
        let program = master.and_then(Path::parent)?.join(PROGRAM);
        // They were checked when they were read.
        let addresses = settings.admin_bind.iter().filter_map(|text| text.parse().ok()).collect();
        Some(Plan {
            build: std::fs::metadata(&program).ok().map(|m| (m.dev(), m.ino(), m.mtime())),
            program,
            settings: settings_of_its_own(settings),
            addresses,
            listening: inherited.to_vec(),
            found: found.clone(),
            sealed: None,
            credentials: as_who.cloned(),
        })
    }

    fn is_same(&self, other: &Plan) -> bool {
        (&self.program, self.build, &self.settings)
            == (&other.program, other.build, &other.settings)
    }

    /// Opens what is not open yet; addresses that `previous` has are shared.
    fn open(&mut self, previous: &[Rc<Listening>]) -> Result<(), String> {
        if self.listening.is_empty() {
            let options = BindOptions { umask: UMASK, ..BindOptions::default() };
            self.listening = Listening::open(&self.addresses, previous, 1, &options, &self.found)
                .map_err(|error| chain(&error))?;
        }
        if self.sealed.is_none() {
            let json = serde_json::to_vec(&self.settings).map_err(|error| error.to_string())?;
            let sealed = sys::shm::sealed(c"settings", &json).map_err(|error| error.to_string())?;
            self.sealed = Some(sealed);
        }
        Ok(())
    }
}

/// The few settings that concern it; the application's (its database above all) do not.
fn settings_of_its_own(settings: &Settings) -> Settings {
    Settings {
        admin_bind: settings.admin_bind.clone(),
        statsd_host: settings.statsd_host.clone(),
        statsd_prefix: settings.statsd_prefix.clone(),
        dogstatsd_tags: settings.dogstatsd_tags.clone(),
        enable_backlog_metric: settings.enable_backlog_metric,
        errorlog: settings.errorlog.clone(),
        // It has a worker's habit of announcing itself; the arbiter does that in its own words.
        loglevel: settings.loglevel.max(LogLevel::Warning),
        graceful_timeout: STOP_MAX,
        worker_connections: CONNECTIONS_MAX,
        header_timeout: CLIENT_TIMEOUT,
        write_timeout: CLIENT_TIMEOUT,
        ..Settings::default()
    }
}

impl Arbiter {
    /// Takes over what `settings` want of it.
    pub(super) fn want_admin(&mut self, settings: &Settings, as_who: Option<&Credentials>) {
        let now = self.now();
        let program = self.invocation.program.as_deref();
        let wanted = Plan::of(settings, program, as_who, &self.admin.inherited, &self.found);
        match (wanted, &self.admin.plan) {
            // Open and read by nobody would be worse than closed.
            (None, None) => self.admin.passed.clear(),
            (None, Some(_)) => {
                self.send_admin_away();
                self.admin.state = State::Absent { retry_at: now };
                if let Some(plan) = self.admin.plan.take() {
                    self.close_admin(plan.listening);
                }
            }
            (Some(mut plan), None) => {
                if !self.admin.passed.is_empty() {
                    match plan.open(&self.admin.passed) {
                        Ok(()) => self.admin.passed.clear(),
                        Err(why) => self.journal.error(&format!("Cannot open admin reason={why}")),
                    }
                }
                self.admin.plan = Some(plan);
                self.admin.failures = 0;
                self.admin.state = State::Absent { retry_at: now };
            }
            (Some(plan), Some(current)) if plan.is_same(current) => (),
            (Some(plan), Some(_)) => self.replace_admin(plan, now),
        }
    }

    /// Starts a second one beside the first, which goes when the second is ready.
    fn replace_admin(&mut self, mut plan: Plan, now: Instant) {
        if let Some((_, booting)) = self.admin.next.take() {
            self.dismiss(booting.id, now);
        }
        let previous = self.admin.plan.as_ref().map(|plan| plan.listening.clone());
        match plan.open(&previous.unwrap_or_default()) {
            Ok(()) => match self.start_admin(&plan, now) {
                Ok(id) => {
                    let booting = Booting { id, deadline: now + BOOT_MAX };
                    self.admin.next = Some((plan, booting));
                }
                Err(why) => self.journal.error(&format!("Cannot replace admin reason={why}")),
            },
            Err(why) => self.journal.error(&format!("Cannot replace admin reason={why}")),
        }
    }

    /// Spawns and kills as its state and the time demand.
    pub(super) fn tend_admin(&mut self) {
        let now = self.now();
        if let State::Absent { retry_at } = self.admin.state
            && retry_at <= now
            // It would say "starting" on a socket that the old one answers for.
            && !self.upgrade.is_understudy()
            && !(self.stop.is_some() && self.fleet.is_empty())
            && let Some(mut plan) = self.admin.plan.take()
        {
            let started = plan.open(&self.admin.passed).and_then(|()| self.start_admin(&plan, now));
            self.admin.plan = Some(plan);
            match started {
                Ok(id) => {
                    self.admin.state = State::Booting(Booting { id, deadline: now + BOOT_MAX });
                }
                Err(why) => self.admin_failed(&format!("Cannot start admin reason={why}"), now),
            }
        }
        let overdue = |booting: &Booting| (booting.deadline <= now).then_some(booting.id);
        let own = match &self.admin.state {
            State::Booting(booting) => overdue(booting),
            State::Ready { id, heard, .. } if *heard + SILENCE_MAX <= now => Some(*id),
            State::Ready { .. } | State::Absent { .. } => None,
        };
        let next = self.admin.next.as_ref().and_then(|(_, booting)| overdue(booting));
        let leaving = self.admin.leaving.iter_mut().filter(|(_, deadline)| *deadline <= now);
        let mut due: Vec<Id> = own.into_iter().chain(next).collect();
        for (id, deadline) in leaving {
            // Asked again should it hang in the kernel.
            *deadline = now + STOP_MAX;
            due.push(*id);
        }
        for id in due {
            if let Some(process) = self.processes.get(&id) {
                process.signal(Signal::SIGKILL);
            }
        }
    }

    fn start_admin(&mut self, plan: &Plan, now: Instant) -> Result<Id, String> {
        let sealed = plan.sealed.as_ref().ok_or("its settings are missing")?;
        let program = CString::new(plan.program.as_os_str().as_bytes());
        let orders = Orders {
            program: program.map_err(|error| error.to_string())?,
            args: vec![PROGRAM.to_owned()],
            environment: &self.environment,
            notify_socket: self.receiver.name(),
            listeners: plan
                .listening
                .iter()
                .flat_map(|listening| listening.group.shards())
                .map(AsFd::as_fd)
                .collect(),
            listener_name: contract::admin_listener_name,
            observed: Some(self.scoreboard.as_fd()),
            settings: sealed.as_fd(),
            credentials: plan.credentials.clone(),
            worker: None,
            preloader: None,
        };
        let process = Process::spawn(&orders, now).map_err(|error| error.to_string())?;
        let id = self.next_id();
        self.journal
            .repeated(self.admin.failures, &format!("Booting admin with pid: {}", process.pid()));
        self.processes.insert(id, process);
        Ok(id)
    }

    /// A process said READY; whether it was one of these.
    pub(super) fn admin_is_ready(&mut self, id: Id) -> bool {
        let now = self.now();
        if !self.admin.ids().any(|known| known == id) {
            return self.admin.leaving.iter().any(|(known, _)| *known == id);
        }
        if let Some((plan, _)) = self.admin.next.take_if(|(_, booting)| booting.id == id) {
            if let State::Booting(Booting { id, .. }) | State::Ready { id, .. } = self.admin.state {
                self.dismiss(id, now);
            }
            let old = self.admin.plan.replace(plan);
            self.close_admin(old.map(|plan| plan.listening).unwrap_or_default());
        }
        self.admin.state = State::Ready { id, since: now, heard: now };
        let pid = self.processes.get(&id).map_or(0, |process| process.pid().as_raw());
        let listening = self.admin.plan.iter().flat_map(|plan| &plan.listening);
        let addresses: Vec<String> =
            listening.map(|listening| listening.group.addr().to_string()).collect();
        let at = if addresses.is_empty() { "statsd only".to_owned() } else { addresses.join(",") };
        self.journal.repeated(self.admin.failures, &format!("Admin at: {at} ({pid})"));
        true
    }

    /// A process ended; whether it was one of these.
    pub(super) fn admin_ended(&mut self, id: Id, process: &Process, ended: Option<Exit>) -> bool {
        let now = self.now();
        let pid = process.pid();
        let how = ended.map_or_else(|| "code=unknown".to_owned(), |exit| exit.to_string());
        if let Some(place) = self.admin.leaving.iter().position(|(known, _)| *known == id) {
            self.admin.leaving.swap_remove(place);
            self.journal.debug(&format!("Admin exited pid={pid} {how}"));
            return true;
        }
        let why = match (&process.exec_failure, &process.status) {
            (Some(failure), _) => format!(" reason={failure:?}"),
            (None, Some(status)) => format!(" reason={status:?}"),
            (None, None) => String::new(),
        };
        if let Some((plan, _)) = self.admin.next.take_if(|(_, booting)| booting.id == id) {
            self.journal.error(&format!("Cannot replace admin, the old one stays {how}{why}"));
            self.close_admin(plan.listening);
            return true;
        }
        if !self.admin.ids().any(|known| known == id) {
            return false;
        }
        if let State::Ready { since, .. } = self.admin.state
            && since + HEALTHY_AFTER <= now
        {
            self.admin.failures = 0;
        }
        let silence = match self.admin.state {
            State::Ready { heard, .. } => now.saturating_duration_since(heard),
            _ => Duration::ZERO,
        };
        let why =
            if SILENCE_MAX <= silence { format!(" silent_s={}", silence.as_secs()) } else { why };
        self.admin_failed(&format!("Admin (pid:{pid}) ended {how}{why}"), now);
        true
    }

    fn admin_failed(&mut self, line: &str, now: Instant) {
        let wait = backoff_delay(self.admin.failures, fastrand::f64());
        self.admin.failures = self.admin.failures.saturating_add(1);
        self.admin.state = State::Absent { retry_at: now + wait };
        let wait_s = wait.as_secs_f64();
        let line = format!("{line} failures={} retry_in_s={wait_s:.1}", self.admin.failures);
        self.journal.repeated_error(self.admin.failures, &line);
    }

    fn dismiss(&mut self, id: Id, now: Instant) {
        if let Some(process) = self.processes.get(&id) {
            process.signal(Signal::SIGTERM);
        }
        self.admin.leaving.push((id, now + STOP_MAX));
    }

    fn send_admin_away(&mut self) {
        let now = self.now();
        for id in self.admin.ids().collect::<Vec<_>>() {
            if let Some(process) = self.processes.get(&id) {
                // What is queued is answered: it is the last to hold the sockets.
                process.order(Order::Final);
            }
            self.dismiss(id, now);
        }
        if let Some((plan, _)) = self.admin.next.take() {
            self.close_admin(plan.listening);
        }
    }

    /// At a stop, when all workers are gone: sends it after them; whether it has left.
    pub(super) fn admin_has_left(&mut self) -> bool {
        self.send_admin_away();
        self.admin.state = State::Absent { retry_at: self.now() };
        self.admin.leaving.is_empty()
    }

    /// The new master's has the same sockets, and would be taken for this one, which says "draining" from now on.
    pub(super) fn leave_admin_to_successor(&mut self) {
        let now = self.now();
        for id in self.admin.ids().collect::<Vec<_>>() {
            self.dismiss(id, now);
        }
        self.leave_admin();
        let leaving = std::mem::take(&mut self.admin.leaving);
        self.admin = Admin { leaving, is_left_to_successor: true, ..Admin::new(Vec::new(), now) };
    }

    /// A process sent WATCHDOG=1.
    pub(super) fn admin_beat(&mut self, id: Id) {
        let now = self.now();
        if let State::Ready { id: known, heard, .. } = &mut self.admin.state
            && *known == id
        {
            *heard = now;
        }
    }

    /// The last thing: its sockets.
    pub(super) fn leave_admin(&mut self) {
        if let Some(plan) = self.admin.plan.take() {
            self.close_admin(plan.listening);
        }
    }

    /// Closes what nobody else shares.
    fn close_admin(&self, listening: Vec<Rc<Listening>>) {
        for listening in listening {
            let address = listening.group.addr().to_string();
            if let Some(listening) = Rc::into_inner(listening) {
                self.close_listening(listening, &address);
            }
        }
    }
}
