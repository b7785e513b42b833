//! The companion: a process beside the workers that is up before the first and goes after the last.
//!
//! One kind so far, the embedded database: this program again, under the same contract but without listeners or slot.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use shared::exit;
use sys::Signal;
use sys::pidfd::Exit;

use super::Arbiter;
use crate::companion::EMBEDDED_COMMAND;
use crate::fleet::{Id, Stage, backoff_delay};
use crate::generation::state_directory;
use crate::process::{Orders, Process};

/// Longest boot: a cluster is made and filled on first use, on slow machines too.
const BOOT_MAX: Duration = Duration::from_secs(300);

/// Longest stop: a database writes down what it has.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Ready for this long makes earlier failures forgotten.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// The companion that is wanted.
#[derive(Debug)]
pub(super) struct Companion {
    state: State,
    failures: u32,
    was_ever_ready: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// To be spawned at this time.
    Absent { retry_at: Instant },
    /// Spawned, not ready.
    Booting { id: Id, deadline: Instant },
    /// At work.
    Ready { id: Id, since: Instant },
    /// To go; killed at `deadline`. Asked, or killed already because it did not get ready.
    Leaving { id: Id, deadline: Instant, is_asked: bool },
    /// Gone for good.
    Gone,
}

impl Companion {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Absent { retry_at: at }
            | State::Booting { deadline: at, .. }
            | State::Leaving { deadline: at, .. } => Some(at),
            State::Ready { .. } | State::Gone => None,
        }
    }
}

impl Arbiter {
    /// From now on a companion is wanted.
    pub(super) fn want_companion(&mut self) {
        if self.companion.is_none() {
            let state = State::Absent { retry_at: self.now() };
            self.companion = Some(Companion { state, failures: 0, was_ever_ready: false });
        }
    }

    /// Spawns, kills and lets go as its state and the time demand.
    pub(super) fn tend_companion(&mut self) {
        let now = self.now();
        // Until its last worker is gone: a drain may still need the database. A stop sends it away by itself.
        let is_wanted =
            self.stop.is_some() || self.generations.values().any(|g| g.wants_embedded());
        let Some(companion) = &self.companion else { return };
        match companion.state {
            State::Absent { .. } | State::Gone if !is_wanted => self.companion = None,
            State::Booting { id, .. } | State::Ready { id, .. } if !is_wanted => {
                self.send_companion_away(id);
            }
            State::Absent { retry_at } if retry_at <= now && self.stop.is_none() => {
                self.spawn_companion(now)
            }
            State::Booting { id, deadline } | State::Leaving { id, deadline, .. }
                if deadline <= now =>
            {
                if let Some(process) = self.processes.get(&id) {
                    self.journal.error(&format!(
                        "Killing the companion, its time is over pid={}",
                        process.pid()
                    ));
                    process.signal(Signal::SIGKILL);
                }
                // Asked again when it hangs in the kernel; nobody waits for it meanwhile but a stop.
                let is_asked = matches!(companion.state, State::Leaving { is_asked: true, .. });
                self.set_companion(State::Leaving { id, deadline: now + STOP_MAX, is_asked });
            }
            _ => (),
        }
    }

    fn set_companion(&mut self, state: State) {
        if let Some(companion) = &mut self.companion {
            companion.state = state;
        }
    }

    fn spawn_companion(&mut self, now: Instant) {
        match self.start_companion(now) {
            Ok(process) => {
                let id = self.next_id();
                self.journal.info(&format!(
                    "Booting companion with pid: {} name=embedded-postgres",
                    process.pid()
                ));
                self.processes.insert(id, process);
                self.set_companion(State::Booting { id, deadline: now + BOOT_MAX });
            }
            Err(error) => {
                self.journal.error(&format!("Cannot spawn the companion error={error:?}"));
                self.companion_failed(now);
            }
        }
    }

    fn start_companion(&self, now: Instant) -> std::io::Result<Process> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let newest = self.generations.values().next_back().ok_or_else(missing)?;
        let program = self.invocation.program.as_ref().ok_or_else(missing)?;
        let directory = state_directory(newest.settings()).map_err(std::io::Error::other)?;
        let mut args = vec!["master".to_owned(), EMBEDDED_COMMAND.to_owned()];
        let is_bundled = newest.settings().app.is_none() && !newest.app().is_foreign;
        // Only of the bundled application is it known how to make its tables.
        let tables = is_bundled.then(|| newest.app().program.to_string_lossy().into_owned());
        let group = newest.loaded.credentials.as_ref().map(|who| who.gid.to_string());
        args.push(directory.to_string_lossy().into_owned());
        args.extend([group.unwrap_or_else(|| "-".into()), tables.unwrap_or_else(|| "-".into())]);
        let orders = Orders {
            program: CString::new(program.as_os_str().as_bytes())?,
            args,
            environment: &self.environment,
            notify_socket: self.receiver.name(),
            listeners: Vec::new(),
            listener_name: shared::contract::listener_name,
            observed: None,
            settings: newest.sealed(),
            credentials: None,
            worker: None,
            preloader: None,
        };
        Process::spawn(&orders, now)
    }

    pub(super) fn companion_is_ready(&mut self, id: Id) {
        let now = self.now();
        let Some(companion) = &mut self.companion else { return };
        if let State::Booting { id: booting, .. } = companion.state
            && booting == id
        {
            companion.state = State::Ready { id, since: now };
            companion.was_ever_ready = true;
            let boot_ms = self
                .processes
                .get(&id)
                .map_or(0, |p| now.saturating_duration_since(p.since).as_millis());
            self.journal.info(&format!("Companion ready name=embedded-postgres boot_ms={boot_ms}"));
            if self.fleet.stage == Stage::Waiting {
                self.fleet.stage = Stage::Running;
            }
        }
    }

    pub(super) fn companion_ended(&mut self, id: Id, process: &Process, ended: Option<Exit>) {
        let now = self.now();
        let Some(companion) = &mut self.companion else { return };
        let how = ended.map_or_else(|| "code=unknown".to_owned(), |exit| exit.to_string());
        let status =
            process.status.as_ref().map(|status| format!(" reason={status:?}")).unwrap_or_default();
        let pid = process.pid();
        match companion.state {
            State::Leaving { id: known, is_asked: true, .. } if known == id => {
                // Should it be wanted again by now, it begins anew.
                let is_over = self.stop.is_some();
                companion.state =
                    if is_over { State::Gone } else { State::Absent { retry_at: now } };
                self.journal.info(&format!("Companion exited pid={pid} {how}"));
            }
            State::Booting { id: known, .. }
            | State::Ready { id: known, .. }
            | State::Leaving { id: known, .. }
                if known == id =>
            {
                if let State::Ready { since, .. } = companion.state
                    && since + HEALTHY_AFTER <= now
                {
                    companion.failures = 0;
                }
                self.journal.error(&format!(
                    "Companion (pid:{pid}) ended name=embedded-postgres {how}{status}"
                ));
                self.companion_failed(now);
            }
            _ => (),
        }
    }

    fn companion_failed(&mut self, now: Instant) {
        let Some(companion) = &mut self.companion else { return };
        if self.stop.is_some() {
            companion.state = State::Gone;
            return;
        }
        let retry_at = now + backoff_delay(companion.failures, fastrand::f64());
        companion.failures = companion.failures.saturating_add(1);
        companion.state = State::Absent { retry_at };
        if !companion.was_ever_ready && self.fleet.stage == Stage::Waiting {
            companion.state = State::Gone;
            self.journal.error("The database that was asked for cannot be had: nothing is served");
            self.halt(exit::RUNTIME);
        }
    }

    fn send_companion_away(&mut self, id: Id) {
        if let Some(process) = self.processes.get(&id) {
            process.signal(Signal::SIGTERM);
        }
        let deadline = self.now() + STOP_MAX;
        self.set_companion(State::Leaving { id, deadline, is_asked: true });
    }

    /// At a stop, when all workers are gone: sends the companion after them; whether it has left.
    pub(super) fn companion_has_left(&mut self) -> bool {
        let Some(companion) = &self.companion else { return true };
        match companion.state {
            State::Absent { .. } | State::Gone => true,
            State::Leaving { .. } => false,
            State::Booting { id, .. } | State::Ready { id, .. } => {
                self.send_companion_away(id);
                false
            }
        }
    }
}
