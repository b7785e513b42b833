//! The fleet: what the arbiter knows of its workers, and every change to that.
//!
//! - A slot's number never changes; the process in it does. A process that was told to go is no longer in a slot: it is
//!   *leaving*, so its slot can be filled while it finishes or dies.
//! - Nothing here calls the system or reads the clock: callers report what happened, and pass `now`.
//! - [`Fleet::plan`] (in `plan.rs`) says what should be done; the arbiter does it, then reports it here.
//! - READY before DRAIN: an old worker is asked to drain only when its successor in the same slot is ready.

mod backoff;
mod plan;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use backoff::delay as backoff_delay;
pub use plan::{Action, DrainReason};

/// One process for the whole life of the master; process ids are used again, these are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u64);

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Which process.
    pub id: Id,
    /// The reading of the settings it was spawned from.
    pub generation: u32,
    /// When it was spawned.
    pub since: Instant,
}

/// A worker that said READY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The process.
    pub worker: Worker,
    /// When it said so.
    pub ready_at: Instant,
    /// Its last sign of life. `None`: it never gave one, so its silence means nothing (a foreign program).
    pub heard: Option<Instant>,
    /// Since when one request's code has had it, without a pause. `None`: none has.
    pub busy_since: Option<Instant>,
    /// When it was last let off, because somebody looks at it with a debugger.
    pub excused_at: Option<Instant>,
    /// Whether it is to be replaced for a reason of its own (`max_requests` and the like).
    pub is_worn: bool,
}

/// What is in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody.
    Vacant,
    /// A worker that has not said READY.
    Booting(Worker),
    /// A worker.
    Serving(Serving),
    /// A worker, and the one that is to replace it.
    Replacing {
        /// Serves until the other is ready.
        old: Serving,
        /// Boots.
        new: Worker,
    },
    /// A worker to be drained now, and the one that has replaced it.
    Replaced {
        /// Serves still, until it is told.
        old: Serving,
        /// Serves already.
        new: Serving,
    },
}

/// A worker position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What is in it.
    pub state: State,
    /// Ends of its processes that nobody asked for, in a row; forgotten after [`HEALTHY_AFTER`].
    pub failures: u32,
    /// No spawn before this.
    pub retry_at: Instant,
}

/// A process that was told to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The process.
    pub worker: Worker,
    /// The slot it came from.
    pub slot: usize,
    /// How it was told.
    pub manner: Manner,
}

/// How a process was told to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It finishes its requests; killed at `deadline`.
    Draining {
        /// The end of its time.
        deadline: Instant,
    },
    /// It got ABRT; killed at `kill_at`.
    Aborting {
        /// The end of its time.
        kill_at: Instant,
    },
    /// It got KILL; the kernel has yet to report its end, and may take as long as a broken disk does.
    Killed {
        /// When.
        since: Instant,
    },
}

/// What the whole fleet is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Companions boot first; no worker yet.
    Waiting,
    /// Serving, or getting there.
    Running,
    /// A stop was asked for: all goes on, but every response says close (`shutdown_delay`).
    SayingClose {
        /// When the stop goes on.
        until: Instant,
    },
    /// New connections are turned away, begun ones still arrive (`settle_time`).
    Settling {
        /// When the stop goes on.
        until: Instant,
    },
    /// Everybody was told to go.
    Stopping,
}

/// Where a reload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// None is under way.
    Idle,
    /// One worker of the new generation is to prove that it can boot.
    Canary {
        /// The new generation.
        generation: u32,
    },
    /// The canary was ready: the others follow.
    Rolling {
        /// No old worker is drained before this: see [`Fleet::prove`].
        drain_from: Instant,
    },
}

/// A reload's want of processes, memory or descriptors: spawns that failed in a row.
#[derive(Debug, Clone, Copy)]
struct Want {
    failures: u32,
    /// When the first of them failed.
    since: Instant,
    /// No canary is spawned before this.
    retry_at: Instant,
}

/// What a failed spawn meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnFailure {
    /// It is tried again after this time.
    RetryIn(Duration),
    /// It was the last attempt of a reload, which is over: whoever serves, serves on.
    EndsReload,
}

/// The limits that the settings put on workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest silence; `None`: any.
    pub timeout: Option<Duration>,
    /// Longest time that one request's code may have a worker, [`REQUEST_GRACE`] apart; `None`: any.
    pub request_timeout: Option<Duration>,
    /// Longest boot; `None`: any.
    pub boot_timeout: Option<Duration>,
    /// Longest drain.
    pub graceful_timeout: Duration,
}

/// What the end of a process meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It had been told to go, in this manner.
    Asked(Manner),
    /// It was serving. The slot is filled again after `retry_in`.
    Crashed {
        /// Time until then.
        retry_in: Duration,
        /// Such ends in a row, this one included.
        failures: u32,
    },
    /// It never said READY. `retry_in` is `None` when nobody will try again: another reload must be asked for, or the
    /// server is about to halt.
    BootFailed {
        /// Time until the next attempt.
        retry_in: Option<Duration>,
        /// Such ends in a row, this one included.
        failures: u32,
    },
}

/// What a READY meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    /// One more worker serves.
    Serves,
    /// It is the canary of a reload.
    Canary,
    /// It had been told to go, or had said READY before: nothing changes.
    Ignored,
}

/// Serving for this long makes earlier failures of a slot forgotten.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Time between ABRT and KILL: enough to write down what one was doing.
pub const ABORT_GRACE: Duration = Duration::from_secs(2);

/// Time beyond `request_timeout` that a worker has to answer for itself: those that can have done so by then.
pub const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// Spawns that may fail in a row before a reload gives up, whatever `boot_timeout` is: about a minute of waiting.
pub const SPAWN_FAILURES_MAX: u32 = 10;

/// Most slots; the scoreboard has to have room.
pub const SLOTS_MAX: usize = shared::settings::WORKERS_MAX;

/// The fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The slots by number. Those from `target` on are to be emptied.
    pub slots: Vec<Slot>,
    /// Processes that were told to go.
    pub leaving: Vec<Leaving>,
    /// Number of workers wanted.
    pub target: usize,
    /// The generation that new workers are spawned from.
    pub generation: u32,
    /// Where a reload stands.
    pub reload: Reload,
    /// What keeps it from spawning, if anything does.
    want: Want,
    /// What the whole fleet is doing.
    pub stage: Stage,
    /// The limits in force.
    pub limits: Limits,
    /// Whether any worker ever said READY: from then on the server never gives up.
    pub was_ever_ready: bool,
    /// When the master last woke from a pause (stopped, or its machine was): silence before counts for nothing.
    pub resumed_at: Instant,
}

impl Fleet {
    /// A fleet of `target` vacant slots.
    #[must_use]
    pub fn new(target: usize, limits: Limits, now: Instant) -> Fleet {
        let mut fleet = Fleet {
            slots: Vec::new(),
            leaving: Vec::new(),
            target: 0,
            generation: 0,
            reload: Reload::Idle,
            want: Want { failures: 0, since: now, retry_at: now },
            stage: Stage::Waiting,
            limits,
            was_ever_ready: false,
            resumed_at: now,
        };
        fleet.set_target(target, now);
        fleet
    }

    /// Wants `target` workers, 1 to [`SLOTS_MAX`]; returns the number that it came to.
    pub fn set_target(&mut self, target: usize, now: Instant) -> usize {
        self.target = target.clamp(1, SLOTS_MAX);
        while self.slots.len() < self.target {
            self.slots.push(Slot { state: State::Vacant, failures: 0, retry_at: now });
        }
        self.target
    }

    /// Wants no workers at all, until [`Fleet::set_target`] or a reload says otherwise.
    pub fn dismiss_all(&mut self) {
        self.target = 0;
    }

    /// A process was spawned for `slot`: beside the worker there, or alone.
    pub fn spawned(&mut self, slot: usize, worker: Worker) {
        let Some(slot) = self.slots.get_mut(slot) else { return };
        if self.reload != Reload::Idle {
            self.want.failures = 0;
        }
        slot.state = match std::mem::replace(&mut slot.state, State::Vacant) {
            State::Serving(old) => State::Replacing { old, new: worker },
            State::Vacant => State::Booting(worker),
            // `plan` spawns into no other state; the process would be lost, so it is at least kept as the slot's own.
            state => {
                debug_assert!(false, "spawned into {state:?}");
                state
            }
        };
    }

    /// No process of `generation` could be made for `slot`.
    ///
    /// Never tried again at once: whatever is lacking (processes, memory, descriptors) is lacking still. A reload tries
    /// for `boot_timeout`, at most [`SPAWN_FAILURES_MAX`] times in a row.
    pub fn spawn_failed(
        &mut self,
        slot: usize,
        generation: u32,
        now: Instant,
        jitter: f64,
    ) -> SpawnFailure {
        if self.is_reloading(generation) {
            if self.want.failures == 0 {
                self.want.since = now;
            }
            self.want.failures += 1;
            let is_over =
                self.limits.boot_timeout.is_some_and(|limit| self.want.since + limit <= now);
            if is_over || SPAWN_FAILURES_MAX <= self.want.failures {
                self.reload = Reload::Idle;
                return SpawnFailure::EndsReload;
            }
        }
        if self.reload == (Reload::Canary { generation }) {
            // The slot is not to blame: it may be filled from what is proven meanwhile.
            let delay = backoff::delay(self.want.failures, jitter);
            self.want.retry_at = now + delay;
            return SpawnFailure::RetryIn(delay);
        }
        let Some(slot) = self.slots.get_mut(slot) else {
            return SpawnFailure::RetryIn(Duration::ZERO);
        };
        slot.failures = slot.failures.max(1);
        SpawnFailure::RetryIn(slot.fail(now, jitter))
    }

    /// A worker said READY.
    pub fn ready(&mut self, id: Id, now: Instant) -> Promotion {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.state.boots(id)) else {
            return Promotion::Ignored;
        };
        let serving = |worker| Serving {
            worker,
            ready_at: now,
            heard: None,
            busy_since: None,
            excused_at: None,
            is_worn: false,
        };
        let mut generation = 0;
        slot.state = match std::mem::replace(&mut slot.state, State::Vacant) {
            State::Booting(worker) => {
                generation = worker.generation;
                State::Serving(serving(worker))
            }
            State::Replacing { old, new } => {
                generation = new.generation;
                State::Replaced { old, new: serving(new) }
            }
            state => state,
        };
        self.was_ever_ready = true;
        match self.reload {
            Reload::Canary { generation: candidate } if candidate == generation => {
                Promotion::Canary
            }
            _ => Promotion::Serves,
        }
    }

    /// A worker gave a sign of life at `heard`.
    pub fn heard(&mut self, id: Id, heard: Instant) {
        for slot in &mut self.slots {
            for serving in slot.state.serving_mut() {
                if serving.worker.id == id {
                    serving.heard = serving.heard.max(Some(heard));
                }
            }
        }
    }

    /// Since when one request's code has had a worker; `None`: it has not.
    pub fn busy(&mut self, id: Id, since: Option<Instant>) {
        for slot in &mut self.slots {
            for serving in slot.state.serving_mut() {
                if serving.worker.id == id {
                    serving.busy_since = since;
                }
            }
        }
    }

    /// A worker's time begins anew, whatever it does.
    pub fn excuse(&mut self, id: Id, now: Instant) {
        self.heard(id, now);
        for slot in &mut self.slots {
            for serving in slot.state.serving_mut().filter(|serving| serving.worker.id == id) {
                serving.excused_at = Some(now);
            }
        }
    }

    /// A worker is to be replaced for a reason of its own.
    pub fn wear(&mut self, id: Id) {
        for slot in &mut self.slots {
            for serving in slot.state.serving_mut() {
                serving.is_worn |= serving.worker.id == id;
            }
        }
    }

    /// A process was told to go in this manner. Its slot is free for the next one at once.
    pub fn told(&mut self, id: Id, manner: Manner, now: Instant, jitter: f64) {
        if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.worker.id == id) {
            leaving.manner = manner;
            return;
        }
        let found = self.slots.iter_mut().enumerate().find(|(_, slot)| slot.state.holds(id));
        if let Some((number, slot)) = found {
            // A drain was our own wish; ABRT and KILL answer a failure.
            let failed = !matches!(manner, Manner::Draining { .. });
            let was_booting = slot.state.boots(id);
            let healthy = slot.state.is_healthy(id, now);
            let worker = slot.take(id);
            if failed {
                slot.failures = if healthy { 0 } else { slot.failures };
                slot.fail(now, jitter);
            }
            if let Some(worker) = worker {
                let generation = worker.generation;
                self.leaving.push(Leaving { worker, slot: number, manner });
                if failed && was_booting {
                    self.boot_failed(generation);
                }
            }
        }
    }

    /// A process ended. `None`: it is not of this fleet.
    pub fn exited(&mut self, id: Id, now: Instant, jitter: f64) -> Option<(usize, Departure)> {
        if let Some(index) = self.leaving.iter().position(|leaving| leaving.worker.id == id) {
            let leaving = self.leaving.swap_remove(index);
            return Some((leaving.slot, Departure::Asked(leaving.manner)));
        }
        let (number, slot) =
            self.slots.iter_mut().enumerate().find(|(_, slot)| slot.state.holds(id))?;
        let was_booting = slot.state.boots(id);
        if slot.state.is_healthy(id, now) {
            slot.failures = 0;
        }
        let generation = slot.take(id)?.generation;
        let mut retry_in = slot.fail(now, jitter);
        let failures = slot.failures;
        if !was_booting {
            if slot.state != State::Vacant {
                // Its successor is there already.
                retry_in = Duration::ZERO;
            }
            return Some((number, Departure::Crashed { retry_in, failures }));
        }
        let stays_vacant = !self.was_ever_ready;
        let was_reload = self.boot_failed(generation);
        let retry_in = (!stays_vacant && !was_reload).then_some(retry_in);
        Some((number, Departure::BootFailed { retry_in, failures }))
    }

    /// Begins a reload: one worker of `generation` first.
    pub fn begin_reload(&mut self, generation: u32, now: Instant) {
        self.reload = Reload::Canary { generation };
        self.want = Want { failures: 0, since: now, retry_at: now };
    }

    /// The canary was ready: its generation is the fleet's from now on, with these limits.
    ///
    /// `drain_from`: not before this are old workers drained, because addresses that only they hold settle first.
    pub fn prove(&mut self, generation: u32, limits: Limits, drain_from: Instant, now: Instant) {
        self.generation = generation;
        self.limits = limits;
        self.reload = Reload::Rolling { drain_from };
        for slot in &mut self.slots {
            slot.retry_at = now;
            slot.failures = 0;
        }
    }

    /// Ends a reload, for good or ill: whoever serves, serves on.
    pub fn end_reload(&mut self) {
        self.reload = Reload::Idle;
    }

    /// Everybody has to go by `deadline`; returns who is to be told.
    pub fn stop_all(&mut self, deadline: Instant) -> Vec<Id> {
        self.stage = Stage::Stopping;
        self.reload = Reload::Idle;
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let state = std::mem::replace(&mut slot.state, State::Vacant);
            self.leaving.extend(state.into_workers().into_iter().map(|worker| Leaving {
                worker,
                slot: number,
                manner: Manner::Draining { deadline },
            }));
        }
        for leaving in &mut self.leaving {
            if let Manner::Draining { deadline: own } = &mut leaving.manner {
                *own = deadline.min(*own);
            }
        }
        self.leaving.iter().map(|leaving| leaving.worker.id).collect()
    }

    /// Number of workers that said READY and were not told to go.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.slots.iter().filter(|slot| slot.state.is_served()).count()
    }

    /// Whether every wanted slot is served and nothing is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.slots.iter().enumerate().all(|(number, slot)| match slot.state {
            State::Serving(_) => number < self.target,
            State::Vacant => self.target <= number,
            _ => false,
        })
    }

    /// Whether no process is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty() && self.slots.iter().all(|slot| slot.state == State::Vacant)
    }

    /// Whether there is nothing to hope for: nobody was ever ready, and each slot has had its attempt.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        let tried = |slot: &Slot| slot.state == State::Vacant && 0 < slot.failures;
        self.stage == Stage::Running
            && !self.was_ever_ready
            && self.slots.iter().take(self.target).all(tried)
    }

    /// Every worker in a slot, whatever it does there.
    pub fn workers(&self) -> impl Iterator<Item = (usize, &Worker)> {
        let slots = self.slots.iter().enumerate();
        slots.flat_map(|(number, slot)| slot.state.workers().map(move |worker| (number, worker)))
    }

    /// Ends a reload whose generation could not boot; whether there was one.
    fn boot_failed(&mut self, generation: u32) -> bool {
        let is_its = self.is_reloading(generation);
        if is_its {
            self.reload = Reload::Idle;
        }
        is_its
    }

    /// Whether a reload is under way that brings in `generation`.
    fn is_reloading(&self, generation: u32) -> bool {
        match self.reload {
            Reload::Idle => false,
            Reload::Canary { generation: candidate } => candidate == generation,
            Reload::Rolling { .. } => self.generation == generation,
        }
    }
}

impl Slot {
    /// Counts a failure and puts off the next attempt; returns by how much.
    fn fail(&mut self, now: Instant, jitter: f64) -> Duration {
        let delay = backoff::delay(self.failures, jitter);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + delay;
        delay
    }

    /// Takes one process out.
    fn take(&mut self, id: Id) -> Option<Worker> {
        let (state, taken) = match std::mem::replace(&mut self.state, State::Vacant) {
            State::Booting(worker) if worker.id == id => (State::Vacant, Some(worker)),
            State::Serving(serving) if serving.worker.id == id => {
                (State::Vacant, Some(serving.worker))
            }
            State::Replacing { old, new } if new.id == id => (State::Serving(old), Some(new)),
            State::Replacing { old, new } if old.worker.id == id => {
                (State::Booting(new), Some(old.worker))
            }
            State::Replaced { old, new } if new.worker.id == id => {
                (State::Serving(old), Some(new.worker))
            }
            State::Replaced { old, new } if old.worker.id == id => {
                (State::Serving(new), Some(old.worker))
            }
            state => (state, None),
        };
        self.state = state;
        taken
    }
}

impl Serving {
    /// When it is silent for too long.
    fn silent_at(&self, fleet: &Fleet) -> Option<Instant> {
        Some(self.heard?.max(fleet.resumed_at) + fleet.limits.timeout?)
    }

    /// When one request has had it for too long.
    fn overdue_at(&self, fleet: &Fleet) -> Option<Instant> {
        let limit = fleet.limits.request_timeout?;
        let since = self.busy_since?.max(fleet.resumed_at);
        Some(self.excused_at.map_or(since, |at| at.max(since)) + limit + REQUEST_GRACE)
    }
}

impl State {
    /// The processes in the slot.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        let (one, two) = match self {
            State::Vacant => (None, None),
            State::Booting(worker) => (Some(worker), None),
            State::Serving(serving) => (Some(&serving.worker), None),
            State::Replacing { old, new } => (Some(&old.worker), Some(new)),
            State::Replaced { old, new } => (Some(&old.worker), Some(&new.worker)),
        };
        one.into_iter().chain(two)
    }

    fn into_workers(self) -> Vec<Worker> {
        self.workers().cloned().collect()
    }

    /// The processes in the slot that said READY.
    pub fn serving(&self) -> impl Iterator<Item = &Serving> {
        let (one, two) = match self {
            State::Vacant | State::Booting(_) => (None, None),
            State::Serving(serving) | State::Replacing { old: serving, .. } => {
                (Some(serving), None)
            }
            State::Replaced { old, new } => (Some(old), Some(new)),
        };
        one.into_iter().chain(two)
    }

    fn serving_mut(&mut self) -> impl Iterator<Item = &mut Serving> {
        let (one, two) = match self {
            State::Vacant | State::Booting(_) => (None, None),
            State::Serving(serving) | State::Replacing { old: serving, .. } => {
                (Some(serving), None)
            }
            State::Replaced { old, new } => (Some(old), Some(new)),
        };
        one.into_iter().chain(two)
    }

    /// Whether somebody here serves.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.serving().next().is_some()
    }

    fn holds(&self, id: Id) -> bool {
        self.workers().any(|worker| worker.id == id)
    }

    /// Whether `id` is here and has not said READY.
    fn boots(&self, id: Id) -> bool {
        match self {
            State::Booting(worker) | State::Replacing { new: worker, .. } => worker.id == id,
            _ => false,
        }
    }

    fn is_healthy(&self, id: Id, now: Instant) -> bool {
        self.serving().any(|s| s.worker.id == id && s.ready_at + HEALTHY_AFTER <= now)
    }
}
