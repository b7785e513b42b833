//! Doing what the plan says.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use scoreboard::{Counter, Fact, State};
use shared::contract::{Order, RETIRED_ADDRESSES_MAX};
use sys::Signal;

use super::{Arbiter, PLANS_PER_TURN_MAX};
use crate::fleet::{
    Action, DrainReason, Fleet, Id, Manner, Promotion, Reload, SpawnFailure, Stage, Worker,
};
use crate::generation::{Generation, Listening};
use crate::hooks::{Hook, worker_facts};
use crate::proc::{Facts, rss};
use crate::process::{Orders, PreloaderOrders, Process, WorkerOrders};
use crate::wear::{LOOK_EVERY, Wear};

/// A program that is not built on the worker library counts as ready when it has lived this long without a word.
///
/// Long enough for most programs to accept; its listener queues meanwhile, so a slow one costs waiting, not requests.
const FOREIGN_READY_AFTER: Duration = Duration::from_secs(2);

impl Arbiter {
    /// Plans and performs until there is nothing left to do now.
    pub(super) fn act(&mut self) {
        self.promote_the_silent();
        for _ in 0..PLANS_PER_TURN_MAX {
            let plan = self.fleet.plan(self.now());
            if plan.is_empty() {
                return;
            }
            for action in plan {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let now = self.now();
        match action {
            Action::Spawn { slot, generation } => self.spawn(slot, generation, now),
            Action::Drain { id, reason } => self.drain(id, reason, now),
            Action::AbortSilent { id, heard } => {
                self.abort_silent(id, now.saturating_duration_since(heard), now);
            }
            Action::AbortOverdue { id } => self.abort_overdue(id, now),
            Action::AbortBoot { id } => self.abort_boot(id, now),
            Action::Kill { id } => self.kill(id, now),
            Action::FinishReload => self.finish_reload(now),
            Action::Settle => self.settle(now),
            Action::StopAll => self.stop_all(now),
        }
    }

    fn spawn(&mut self, slot: usize, generation: u32, now: Instant) {
        let about = [("SLOT", slot.to_string()), ("GENERATION", generation.to_string())];
        self.hook(Hook::PreFork, &about);
        let block = self.scoreboard.acquire(slot as u64, u64::from(generation));
        let spawned = if self.generations.get(&generation).is_some_and(Generation::preloads) {
            self.ask_for_worker(slot, generation, block, now)
        } else {
            self.spawn_worker(slot, generation, block, now).map(|process| {
                let id = self.next_id();
                self.introduce_worker(id, process, now);
                id
            })
        };
        match spawned {
            Ok(id) => self.fleet.spawned(slot, Worker { id, generation, since: now }),
            Err(error) => {
                self.scoreboard.master().count(Fact::SpawnFailures);
                if let Some(block) = block {
                    self.scoreboard.release(block, 0);
                }
                self.spawn_failed(slot, generation, &error, now);
            }
        }
    }

    fn spawn_failed(&mut self, slot: usize, generation: u32, error: &std::io::Error, now: Instant) {
        let before = self.fleet.reload;
        match self.fleet.spawn_failed(slot, generation, now, fastrand::f64()) {
            SpawnFailure::EndsReload => {
                let why = format!("cannot spawn a worker: {error}");
                self.reload_may_have_failed(before, &why);
            }
            SpawnFailure::RetryIn(wait) => {
                let wait = wait.as_secs_f64();
                let line =
                    format!("Cannot spawn worker slot={slot} retry_in_s={wait:.1} error={error:?}");
                match before {
                    Reload::Idle => self.journal.error(&line),
                    // The failure of the reload is the error, if it comes to that.
                    _ => self.journal.warning(&line),
                }
            }
        }
    }

    /// A worker's process is there: it is watched from now on.
    pub(super) fn introduce_worker(&mut self, id: Id, mut process: Process, now: Instant) {
        let (slot, generation) = (process.slot.unwrap_or_default(), process.generation);
        if let Some(generation) = self.generations.get(&generation) {
            let is_foreign = generation.app().is_foreign;
            process.ready_at = is_foreign.then(|| now + FOREIGN_READY_AFTER);
            process.wear = Wear::new(generation.settings(), now, fastrand::f64());
        }
        let pid = process.pid();
        let line = format!("Booting worker with pid: {pid} slot={slot} generation={generation}");
        self.journal.repeated(self.failures(slot), &line);
        self.scoreboard.master().count(Fact::Spawns);
        if let Some(block) = process.block.and_then(|block| self.scoreboard.block(block)) {
            block.set_child(pid.as_raw().unsigned_abs());
        }
        self.processes.insert(id, process);
        self.hook(Hook::PostFork, &worker_facts(pid, slot, generation));
    }

    fn spawn_worker(
        &self,
        slot: usize,
        generation: u32,
        block: Option<usize>,
        now: Instant,
    ) -> std::io::Result<Process> {
        let block = block.map(|block| (self.scoreboard.as_fd(), block));
        let worker = WorkerOrders { slot, generation, block };
        self.spawn_application(generation, Some(worker), None, now)
    }

    /// Spawns the application of a generation, as a worker or as a preloader.
    pub(super) fn spawn_application(
        &self,
        generation: u32,
        worker: Option<WorkerOrders<'_>>,
        preloader: Option<PreloaderOrders<'_>>,
        now: Instant,
    ) -> std::io::Result<Process> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let generation = self.generations.get(&generation).ok_or_else(missing)?;
        let program: CString = generation.app().c_program().ok_or_else(missing)?;
        let mut environment = self.environment.with_all(&generation.settings().raw_env);
        if let Some(url) = &generation.database_url {
            environment = environment.with(shared::contract::DATABASE_URL, url);
        }
        let orders = Orders {
            program,
            args: generation.app().args.clone(),
            environment: &environment,
            notify_socket: self.receiver.name(),
            listeners: generation.listeners(),
            listener_name: shared::contract::listener_name,
            observed: None,
            settings: generation.sealed(),
            credentials: generation.loaded.credentials.clone(),
            worker,
            preloader,
        };
        Process::spawn(&orders, now)
    }

    fn drain(&mut self, id: Id, reason: DrainReason, now: Instant) {
        let deadline = now + self.fleet.limits.graceful_timeout;
        if let Some(process) = self.processes.get_mut(&id) {
            process.drained_because = Some(reason);
            let reason = match reason {
                DrainReason::Replaced => "replaced",
                DrainReason::Surplus => "surplus",
                DrainReason::Outdated => "outdated",
            };
            let (pid, slot) = (process.pid(), process.slot.unwrap_or_default());
            self.journal.debug(&format!("Draining worker pid={pid} slot={slot} reason={reason}"));
        }
        if let Some(process) = self.processes.get(&id) {
            self.order_retired(process);
            process.signal(Signal::SIGTERM);
        }
        self.tell(id, Manner::Draining { deadline }, now);
    }

    /// Before a TERM: whatever waits on the addresses that end with this worker's generation is its own.
    pub(super) fn order_retired(&self, process: &Process) {
        let Some(generation) = self.generations.get(&process.generation) else { return };
        // Who has handed over keeps only what the new master does not have.
        let newest = self.generation().filter(|_| !self.upgrade.is_followed());
        let is_retired = |listening: &Rc<Listening>| {
            let goes_on =
                |newest: &Generation| newest.listening.iter().any(|l| Rc::ptr_eq(l, listening));
            !listening.is_held_elsewhere() && !newest.is_some_and(goes_on)
        };
        let places = generation.places(is_retired).into_iter();
        for place in places.take_while(|place| *place < RETIRED_ADDRESSES_MAX) {
            process.order(Order::Retired(u8::try_from(place).unwrap_or(u8::MAX)));
        }
    }

    fn abort_silent(&mut self, id: Id, silence: Duration, now: Instant) {
        if self.is_left_to_debugger(id, now) {
            return;
        }
        if let Some(process) = self.processes.get(&id) {
            let (pid, slot) = (process.pid(), process.slot.unwrap_or_default());
            let (silent_s, facts) = (silence.as_secs(), Facts::of(pid));
            let request = self.request_in_hand(process);
            // gunicorn's words come first: people search for them.
            self.journal.critical(&format!(
                "WORKER TIMEOUT (pid:{pid}) slot={slot} silent_s={silent_s}{request}{facts}"
            ));
            process.signal(Signal::SIGABRT);
        }
        self.hook_of_abort(id);
        self.tell(id, Fleet::aborting(now), now);
    }

    fn abort_overdue(&mut self, id: Id, now: Instant) {
        if self.is_left_to_debugger(id, now) {
            return;
        }
        if let Some(process) = self.processes.get(&id) {
            let (pid, slot) = (process.pid(), process.slot.unwrap_or_default());
            let (request, facts) = (self.request_in_hand(process), Facts::of(pid));
            self.journal.critical(&format!(
                "WORKER TIMEOUT (pid:{pid}) slot={slot} reason=request_timeout{request}{facts}"
            ));
            process.signal(Signal::SIGABRT);
        }
        self.hook_of_abort(id);
        self.tell(id, Fleet::aborting(now), now);
    }

    /// Whether somebody looks at it with a debugger: killing it would be no help.
    fn is_left_to_debugger(&mut self, id: Id, now: Instant) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        let (pid, slot) = (process.pid(), process.slot.unwrap_or_default());
        let is_traced = Facts::of(pid).is_traced();
        if is_traced {
            self.journal.warning(&format!(
                "Worker is out of time, but being debugged: left alone pid={pid} slot={slot}"
            ));
            self.fleet.excuse(id, now);
        }
        is_traced
    }

    fn abort_boot(&mut self, id: Id, now: Instant) {
        if let Some(process) = self.processes.get(&id) {
            let (pid, slot) = (process.pid(), process.slot.unwrap_or_default());
            let boot_s = now.saturating_duration_since(process.since).as_secs();
            let facts = Facts::of(pid);
            self.journal.critical(&format!(
                "WORKER TIMEOUT (pid:{pid}) slot={slot} boot_s={boot_s} reason=boot_timeout{facts}"
            ));
            process.signal(Signal::SIGABRT);
        } else {
            self.abort_preloader_of(id, now);
        }
        self.boot_code.get_or_insert(shared::exit::WORKER_BOOT);
        self.hook_of_abort(id);
        self.fail_as_successor("a worker was not ready within boot_timeout");
        self.tell(id, Fleet::aborting(now), now);
    }

    fn hook_of_abort(&mut self, id: Id) {
        if let Some(process) = self.processes.get(&id) {
            let slot = process.slot.unwrap_or_default();
            let facts = worker_facts(process.pid(), slot, process.generation);
            self.hook(Hook::WorkerAbort, &facts);
        }
    }

    fn kill(&mut self, id: Id, now: Instant) {
        if let Some(process) = self.processes.get(&id) {
            let (pid, slot) = (process.pid(), process.slot.unwrap_or_default());
            let request = self.request_in_hand(process);
            self.journal.warning(&format!(
                "Killing worker, its time is over pid={pid} slot={slot}{request}"
            ));
            process.signal(Signal::SIGKILL);
        }
        self.tell(id, Manner::Killed { since: now }, now);
    }

    /// Reports to the fleet what a process was told, and notices when a reload ends by it.
    fn tell(&mut self, id: Id, manner: Manner, now: Instant) {
        let before = self.fleet.reload;
        self.fleet.told(id, manner, now, fastrand::f64());
        self.reload_may_have_failed(before, "a new worker was not ready within boot_timeout");
    }

    /// What a worker has in hand, for the log: ` method=… path=… request_age_s=… peer=…`.
    pub(super) fn request_in_hand(&self, process: &Process) -> String {
        let block = process.block.and_then(|block| self.scoreboard.block(block));
        let Some(request) = block.and_then(|block| block.request_in_hand()) else {
            return String::new();
        };
        let age = Duration::from_nanos(sys::clock::monotonic().saturating_sub(request.since));
        format!(
            " method={} path={} request_age_s={:.1} peer={}",
            request.method,
            request.path,
            age.as_secs_f64(),
            request.peer
        )
    }

    /// Takes every worker's heartbeat from the scoreboard, and its READY should the message have been lost.
    ///
    /// Anybody on this machine can fill the queue of the notify socket; here only our own processes write.
    pub(super) fn listen_for_heartbeats(&mut self) {
        let (real, now) = (sys::clock::monotonic(), self.now());
        let mut unheard = Vec::new();
        for (id, process) in &self.processes {
            let block = process.block.and_then(|block| self.scoreboard.block(block));
            if !process.is_ready && block.is_some_and(|block| block.state() == State::Ready) {
                unheard.push(*id);
            }
            let beat = block.map_or(0, |block| block.heartbeat());
            if beat != 0 {
                // A worker may scribble: a beat from the future is one from now.
                let age = Duration::from_nanos(real.saturating_sub(beat));
                self.fleet.heard(*id, now.checked_sub(age).unwrap_or(self.fleet.resumed_at));
            }
            let busy = block.and_then(|block| block.busy_since()).map(|since| {
                let age = Duration::from_nanos(real.saturating_sub(since));
                now.checked_sub(age).unwrap_or(self.fleet.resumed_at)
            });
            self.fleet.busy(*id, busy);
        }
        for id in unheard {
            self.worker_is_ready(id);
        }
    }

    /// Finds workers that have served long enough; the fleet replaces them one at a time.
    pub(super) fn look_for_wear(&mut self) {
        let now = self.now();
        if now < self.next_look_for_wear {
            return;
        }
        self.next_look_for_wear = now + LOOK_EVERY;
        for (id, process) in &mut self.processes {
            if !process.is_ready || !process.wear.is_limited() {
                continue;
            }
            let block = process.block.and_then(|block| self.scoreboard.block(block));
            let requests = block.map_or(0, |block| block.counters().get(Counter::RequestsDone));
            let pid = process.pid();
            if let Some(reason) = process.wear.reached(requests, now, || rss(pid)) {
                // Once is enough: the fleet remembers.
                process.wear = Wear::default();
                let slot = process.slot.unwrap_or_default();
                self.journal.info(&format!(
                    "Autorestarting worker pid={pid} slot={slot} reason={reason} requests={requests}"
                ));
                self.fleet.wear(*id);
            }
        }
    }

    /// Foreign programs count as ready once they have lived for a while.
    fn promote_the_silent(&mut self) {
        let now = self.now();
        let due = |process: &Process| process.ready_at.is_some_and(|at| at <= now);
        let due: Vec<Id> =
            self.processes.iter().filter(|(_, process)| due(process)).map(|(id, _)| *id).collect();
        for id in due {
            self.worker_is_ready(id);
        }
    }

    /// A worker is ready, or counts as such.
    pub(super) fn worker_is_ready(&mut self, id: Id) {
        let now = self.now();
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.ready_at = None;
        if std::mem::replace(&mut process.is_ready, true) {
            return;
        }
        let boot_ms = now.saturating_duration_since(process.since).as_millis();
        let (pid, slot, generation) =
            (process.pid(), process.slot.unwrap_or_default(), process.generation);
        let promotion = self.fleet.ready(id, now);
        if promotion != Promotion::Ignored {
            let line = format!(
                "Worker ready pid={pid} slot={slot} generation={generation} boot_ms={boot_ms}"
            );
            self.journal.repeated(self.failures(slot), &line);
            self.hook(Hook::PostWorkerInit, &worker_facts(pid, slot, generation));
        }
        if promotion == Promotion::Canary
            && let Reload::Canary { generation } = self.fleet.reload
        {
            self.prove(generation, now);
        }
        if matches!(self.fleet.stage, Stage::SayingClose { .. })
            && let Some(process) = self.processes.get(&id)
        {
            process.order(Order::SayClose);
        }
        self.announce_boot();
    }

    /// Failures in a row of a slot.
    pub(super) fn failures(&self, slot: usize) -> u32 {
        self.fleet.slots.get(slot).map_or(0, |slot| slot.failures)
    }
}
