//! Decides; does nothing. Pure, so a test can hand it any table of slots and any clock.

use std::time::Instant;

use super::{ABORT_GRACE, Fleet, Id, Manner, Reload, Slot, Stage, State};

/// What should be done now. Whoever does it reports it to the fleet, or the next plan says it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Spawn a worker of `generation` for `slot`, beside the one there if there is one.
    Spawn {
        /// Its slot.
        slot: usize,
        /// Its generation.
        generation: u32,
    },
    /// Ask a worker to finish and go.
    Drain {
        /// Which.
        id: Id,
        /// Why, for the log.
        reason: DrainReason,
    },
    /// Abort a worker that gave no sign of life for too long.
    AbortSilent {
        /// Which.
        id: Id,
        /// Its last sign of life, or the end of the master's own pause.
        heard: Instant,
    },
    /// Abort a worker whose loop one request has had for longer than `request_timeout`.
    AbortOverdue {
        /// Which.
        id: Id,
    },
    /// Abort a worker that took too long to boot.
    AbortBoot {
        /// Which.
        id: Id,
    },
    /// Kill a process whose time is over.
    Kill {
        /// Which.
        id: Id,
    },
    /// The reload is done.
    FinishReload,
    /// `shutdown_delay` is over: turn new connections away, let begun ones arrive.
    Settle,
    /// Tell everybody to go.
    StopAll,
}

/// Why a worker is asked to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainReason {
    /// Its successor is ready.
    Replaced,
    /// There are more workers than wanted.
    Surplus,
    /// It was booting from settings that are no longer the newest.
    Outdated,
}

/// Share of the slots that a reload replaces at once: memory for that many more workers is needed.
const ROLL_SHARE: usize = 4;

impl Fleet {
    /// Decides what moves the fleet towards `target` serving workers of its generation; performs nothing.
    #[must_use]
    pub fn plan(&self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for leaving in &self.leaving {
            match leaving.manner {
                Manner::Draining { deadline: end } | Manner::Aborting { kill_at: end }
                    if end <= now =>
                {
                    actions.push(Action::Kill { id: leaving.worker.id });
                }
                _ => (),
            }
        }
        match self.stage {
            Stage::Waiting | Stage::Stopping => return actions,
            Stage::SayingClose { until } if until <= now => actions.push(Action::Settle),
            Stage::Settling { until } if until <= now => actions.push(Action::StopAll),
            Stage::Running | Stage::SayingClose { .. } => self.plan_slots(now, &mut actions),
            // A worker more would only have to be told to go.
            Stage::Settling { .. } => (),
        }
        actions
    }

    fn plan_slots(&self, now: Instant, actions: &mut Vec<Action>) {
        let canary = self.canary_slot();
        let mut room = self.replacement_room();
        for (number, slot) in self.slots.iter().enumerate() {
            self.plan_health(slot, now, actions);
            if let Reload::Canary { generation } = self.reload
                && canary == Some(number)
            {
                match &slot.state {
                    State::Vacant | State::Serving(_) if now < self.want.retry_at => (),
                    State::Vacant | State::Serving(_) => {
                        actions.push(Action::Spawn { slot: number, generation });
                    }
                    State::Booting(worker) => {
                        actions
                            .push(Action::Drain { id: worker.id, reason: DrainReason::Outdated });
                    }
                    State::Replacing { new, .. } => {
                        actions.push(Action::Drain { id: new.id, reason: DrainReason::Outdated });
                    }
                    State::Replaced { .. } => (),
                }
                continue;
            }
            if self.target <= number {
                // A canary may stand where no worker is wanted: it is what brings a dismissed fleet back.
                let is_canary = |generation| self.reload == Reload::Canary { generation };
                let surplus = slot.state.workers().filter(|worker| !is_canary(worker.generation));
                actions.extend(
                    surplus.map(|worker| Action::Drain {
                        id: worker.id,
                        reason: DrainReason::Surplus,
                    }),
                );
                continue;
            }
            self.plan_slot(number, slot, now, &mut room, actions);
        }
        if matches!(self.reload, Reload::Rolling { .. })
            && self.is_settled()
            && self.is_of_one_generation()
        {
            actions.push(Action::FinishReload);
        }
    }

    /// One slot that is wanted, apart from a reload's canary.
    fn plan_slot(
        &self,
        number: usize,
        slot: &Slot,
        now: Instant,
        room: &mut usize,
        actions: &mut Vec<Action>,
    ) {
        let is_rolling = matches!(self.reload, Reload::Rolling { .. });
        let may_spawn = slot.retry_at <= now && (self.was_ever_ready || slot.failures == 0);
        let spawn = Action::Spawn { slot: number, generation: self.generation };
        match &slot.state {
            State::Vacant if may_spawn => actions.push(spawn),
            State::Vacant => (),
            State::Booting(worker) => {
                if is_rolling && worker.generation < self.generation {
                    actions.push(Action::Drain { id: worker.id, reason: DrainReason::Outdated });
                }
            }
            State::Serving(serving) => {
                let outdated = is_rolling && serving.worker.generation < self.generation;
                let worn = serving.is_worn && self.reload == Reload::Idle;
                if (outdated || worn) && may_spawn && 0 < *room {
                    *room -= 1;
                    actions.push(spawn);
                }
            }
            State::Replacing { new, .. } => {
                if is_rolling && new.generation < self.generation {
                    actions.push(Action::Drain { id: new.id, reason: DrainReason::Outdated });
                }
            }
            State::Replaced { old, .. } => {
                if !matches!(self.reload, Reload::Rolling { drain_from } if now < drain_from) {
                    actions
                        .push(Action::Drain { id: old.worker.id, reason: DrainReason::Replaced });
                }
            }
        }
    }

    fn plan_health(&self, slot: &Slot, now: Instant, actions: &mut Vec<Action>) {
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        for serving in slot.state.serving() {
            let id = serving.worker.id;
            if is_past(serving.silent_at(self)) {
                let heard = serving.heard.unwrap_or(now).max(self.resumed_at);
                actions.push(Action::AbortSilent { id, heard });
            } else if is_past(serving.overdue_at(self)) {
                actions.push(Action::AbortOverdue { id });
            }
        }
        if let (Some(limit), State::Booting(worker) | State::Replacing { new: worker, .. }) =
            (self.limits.boot_timeout, &slot.state)
            && worker.since + limit <= now
        {
            actions.push(Action::AbortBoot { id: worker.id });
        }
    }

    /// Where the canary of a reload goes, if it is not there yet.
    ///
    /// Beside a serving worker if there is one, so that nothing is lost when it fails.
    fn canary_slot(&self) -> Option<usize> {
        let Reload::Canary { generation } = self.reload else { return None };
        if self.workers().any(|(_, worker)| worker.generation == generation) {
            return None;
        }
        let first = |wanted: &dyn Fn(&State) -> bool| {
            self.slots.iter().take(self.target.max(1)).position(|slot| wanted(&slot.state))
        };
        first(&|state| matches!(state, State::Serving(_)))
            .or_else(|| first(&|state| *state == State::Vacant))
            .or_else(|| first(&|state| !matches!(state, State::Replaced { .. })))
    }

    /// Number of replacements that may be started: a share of the slots in a reload, else one at a time.
    fn replacement_room(&self) -> usize {
        let most = match self.reload {
            Reload::Rolling { .. } => (self.target / ROLL_SHARE).max(1),
            Reload::Idle => 1,
            Reload::Canary { .. } => 0,
        };
        let busy =
            |slot: &&Slot| matches!(slot.state, State::Replacing { .. } | State::Replaced { .. });
        most.saturating_sub(self.slots.iter().filter(busy).count())
    }

    fn is_of_one_generation(&self) -> bool {
        self.workers().all(|(_, worker)| worker.generation == self.generation)
    }

    /// The next time after `now` at which [`Fleet::plan`] may say something new although nothing happened.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let leaving = self.leaving.iter().filter_map(|leaving| match leaving.manner {
            Manner::Draining { deadline: end } | Manner::Aborting { kill_at: end } => Some(end),
            Manner::Killed { .. } => None,
        });
        let slots = self.slots.iter().enumerate().flat_map(|(number, slot)| {
            let silent = slot.state.serving().filter_map(|serving| serving.silent_at(self));
            let overdue = slot.state.serving().filter_map(|serving| serving.overdue_at(self));
            let boot = match &slot.state {
                State::Booting(worker) | State::Replacing { new: worker, .. } => {
                    self.limits.boot_timeout.map(|limit| worker.since + limit)
                }
                _ => None,
            };
            let waits = match &slot.state {
                State::Vacant => {
                    number < self.target && (self.was_ever_ready || slot.failures == 0)
                }
                State::Serving(serving) => serving.is_worn,
                _ => false,
            };
            silent.chain(overdue).chain(boot).chain(waits.then_some(slot.retry_at))
        });
        let stage = match self.stage {
            Stage::SayingClose { until } | Stage::Settling { until } => Some(until),
            _ => None,
        };
        let reload = match self.reload {
            Reload::Rolling { drain_from } => Some(drain_from),
            Reload::Canary { .. } => Some(self.want.retry_at),
            Reload::Idle => None,
        };
        // What is past was planned already, or waits for something else than time.
        let is_ahead = |deadline: &Instant| now < *deadline;
        match self.stage {
            Stage::Waiting | Stage::Stopping | Stage::Settling { .. } => {
                leaving.chain(stage).filter(is_ahead).min()
            }
            _ => leaving.chain(slots).chain(stage).chain(reload).filter(is_ahead).min(),
        }
    }

    /// How a worker that is aborted at `now` leaves.
    #[must_use]
    pub fn aborting(now: Instant) -> Manner {
        Manner::Aborting { kill_at: now + ABORT_GRACE }
    }
}
