//! What the arbiter says of itself in the scoreboard, for metrics: it is the only writer there.

use std::time::{Duration, Instant, SystemTime};

use scoreboard::{Fact, ListenerFacts, Phase, State};
use sys::pidfd::Exit;

use super::Arbiter;
use crate::fleet::{self, Departure, DrainReason, Manner};
use crate::process::Process;

/// Time between two looks at the queues of the listeners: a system call for each of their sockets.
const QUEUES_EVERY: Duration = Duration::from_secs(1);

impl Arbiter {
    /// Says what is true from the start on.
    pub(super) fn introduce(&self) {
        let master = self.scoreboard.master();
        master.set(Fact::Pid, u64::from(std::process::id()));
        master.set(Fact::StartedUnixMs, unix_ms());
        master.set(Fact::LastReloadSuccessUnixMs, unix_ms());
        self.publish();
    }

    /// Says what may have changed in this turn.
    pub(super) fn publish(&self) {
        let master = self.scoreboard.master();
        master.set(Fact::Heartbeat, sys::clock::monotonic());
        if self.admin.is_left_to_successor {
            // Whoever asks meanwhile asks about the server, which goes on under the new master.
            return;
        }
        master.set_phase(match () {
            () if self.stop.is_some() && !self.upgrade.is_followed() => Phase::Stopping,
            () if !self.fleet.was_ever_ready => Phase::Starting,
            () if self.is_reloading() => Phase::Reloading,
            () => Phase::Running,
        });
        master.set(Fact::Target, self.fleet.target as u64);
        master.set(Fact::Generation, u64::from(self.fleet.generation));
        let (mut booting, mut serving) = (0, 0);
        for slot in &self.fleet.slots {
            let served = slot.state.serving().count();
            serving += served;
            booting += slot.state.workers().count() - served;
        }
        master.set(Fact::Booting, booting as u64);
        master.set(Fact::Serving, serving as u64);
        master.set(Fact::Leaving, self.fleet.leaving.len() as u64);
        let lines = self.journal.grave_lines();
        master.set(Fact::LogWarnings, lines.warnings);
        master.set(Fact::LogErrors, lines.errors);
        master.set(Fact::LogCriticals, lines.criticals);
        self.publish_standings();
    }

    fn publish_standings(&self) {
        let say = |id: &fleet::Id, standing: State| {
            let block = self.processes.get(id).and_then(|process| process.block);
            if let Some(block) = block.and_then(|block| self.scoreboard.block(block)) {
                block.set_standing(standing);
            }
        };
        for slot in &self.fleet.slots {
            slot.state.workers().for_each(|worker| say(&worker.id, State::Booting));
            slot.state.serving().for_each(|serving| say(&serving.worker.id, State::Ready));
        }
        self.fleet.leaving.iter().for_each(|leaving| say(&leaving.worker.id, State::Draining));
    }

    /// Looks at the queues of the listeners, now and then.
    pub(super) fn sample_queues(&mut self, now: Instant) {
        if now < self.queues_at {
            return;
        }
        self.queues_at = now + QUEUES_EVERY;
        let listening = self.generation().map(|generation| generation.listening.as_slice());
        let facts = listening.unwrap_or_default().iter().map(|listening| ListenerFacts {
            name: listening.group.addr().to_string(),
            length: u64::from(listening.group.queue_length().unwrap_or(0)),
            limit: u64::from(listening.group.queue_limit().unwrap_or(0)),
        });
        self.scoreboard.master().set_listeners(facts);
    }

    /// Counts the end of a worker by its reason.
    pub(super) fn count_exit(&self, process: &Process, ended: Option<Exit>, departure: Departure) {
        let fact = match departure {
            Departure::BootFailed { .. } => Fact::ExitsBoot,
            Departure::Asked(Manner::Aborting { .. } | Manner::Killed { .. })
                if !process.is_ready =>
            {
                Fact::ExitsBoot
            }
            Departure::Asked(Manner::Aborting { .. } | Manner::Killed { .. }) => Fact::ExitsTimeout,
            Departure::Asked(Manner::Draining { .. }) => match process.drained_because {
                Some(DrainReason::Surplus) => Fact::ExitsScale,
                Some(_) if process.generation != self.fleet.generation => Fact::ExitsReload,
                Some(_) => Fact::ExitsRecycled,
                None => Fact::ExitsOk,
            },
            Departure::Crashed { .. } => match ended {
                Some(Exit::Signal(..)) => Fact::ExitsSignal,
                Some(Exit::Code(0)) => Fact::ExitsOk,
                _ => Fact::ExitsError,
            },
        };
        self.scoreboard.master().count(fact);
    }

    /// Writes down how a reload ended.
    pub(super) fn count_reload(&self, succeeded: bool) {
        let master = self.scoreboard.master();
        if succeeded {
            master.count(Fact::ReloadsSucceeded);
            master.set(Fact::LastReload, 1);
            master.set(Fact::LastReloadSuccessUnixMs, unix_ms());
        } else {
            master.count(Fact::ReloadsFailed);
            master.set(Fact::LastReload, 2);
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
