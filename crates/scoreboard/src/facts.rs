//! What the master says of itself: written by the arbiter alone, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::layout::{
    FACTS, LISTENER_LENGTH, LISTENER_LIMIT, LISTENER_NAME, LISTENER_WORDS, LISTENERS,
    LISTENERS_FIRST, LISTENERS_MAX,
};
use crate::words;

/// One number about the master. Those named `Exits…`, `Reloads…`, `Spawn…` and `Log…` only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Fact {
    Pid,
    /// Milliseconds since 1970.
    StartedUnixMs,
    /// `CLOCK_MONOTONIC` in nanoseconds of the loop's last turn.
    Heartbeat,
    /// See [`Phase`].
    Phase,
    /// Workers wanted.
    Target,
    /// The generation that new workers are spawned from.
    Generation,
    /// Workers that have not said READY.
    Booting,
    /// Workers that said READY and were not told to go.
    Serving,
    /// Workers that were told to go.
    Leaving,
    Spawns,
    SpawnFailures,
    /// Ended cleanly: at a stop, or of its own accord.
    ExitsOk,
    /// Ended by a signal that was not ours.
    ExitsSignal,
    /// Ended with an error code while it served.
    ExitsError,
    /// Silent for too long, or not through with its drain in time.
    ExitsTimeout,
    /// Never got ready.
    ExitsBoot,
    /// Replaced for a reason of its own: requests, age, memory.
    ExitsRecycled,
    /// Replaced by a new generation.
    ExitsReload,
    /// One too many after TTOU.
    ExitsScale,
    ReloadsSucceeded,
    ReloadsFailed,
    /// 0: none yet; 1: it succeeded; 2: it failed.
    LastReload,
    /// Milliseconds since 1970 of the last one that succeeded; the boot is one.
    LastReloadSuccessUnixMs,
    LogWarnings,
    LogErrors,
    LogCriticals,
}

impl Fact {
    /// Every fact, in the order of its word.
    pub const ALL: [Fact; 26] = [
        Fact::Pid,
        Fact::StartedUnixMs,
        Fact::Heartbeat,
        Fact::Phase,
        Fact::Target,
        Fact::Generation,
        Fact::Booting,
        Fact::Serving,
        Fact::Leaving,
        Fact::Spawns,
        Fact::SpawnFailures,
        Fact::ExitsOk,
        Fact::ExitsSignal,
        Fact::ExitsError,
        Fact::ExitsTimeout,
        Fact::ExitsBoot,
        Fact::ExitsRecycled,
        Fact::ExitsReload,
        Fact::ExitsScale,
        Fact::ReloadsSucceeded,
        Fact::ReloadsFailed,
        Fact::LastReload,
        Fact::LastReloadSuccessUnixMs,
        Fact::LogWarnings,
        Fact::LogErrors,
        Fact::LogCriticals,
    ];
    /// How many there are.
    pub const COUNT: usize = Fact::ALL.len();
}

/// What the whole server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first boot is under way.
    Starting,
    /// Serving.
    Running,
    /// Serving, while a reload is under way.
    Reloading,
    /// A stop was asked for.
    Stopping,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 4] =
        [Phase::Starting, Phase::Running, Phase::Reloading, Phase::Stopping];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Reloading => "reloading",
            Phase::Stopping => "stopping",
        }
    }
}

/// The queue of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerFacts {
    /// Its address.
    pub name: String,
    /// Connections that wait to be accepted.
    pub length: u64,
    /// Connections that may.
    pub limit: u64,
}

/// A handle of what the master says. Only the arbiter may call the writing half.
#[derive(Clone, Copy, Debug)]
pub struct Master<'a> {
    memory: &'a [AtomicU64],
}

impl<'a> Master<'a> {
    pub(crate) fn new(memory: &'a [AtomicU64]) -> Master<'a> {
        Master { memory }
    }

    /// Writes a fact.
    pub fn set(self, fact: Fact, value: u64) {
        self.memory[FACTS + fact as usize].store(value, Ordering::Relaxed);
    }

    /// Adds one to a fact that only grows.
    pub fn count(self, fact: Fact) {
        self.set(fact, self.get(fact).wrapping_add(1));
    }

    /// Writes what the server is doing. Seen at once by every reader.
    pub fn set_phase(self, phase: Phase) {
        self.set(Fact::Phase, phase as u64);
    }

    /// Writes all listeners; those beyond [`LISTENERS_MAX`] are left out.
    pub fn set_listeners(self, listeners: impl Iterator<Item = ListenerFacts>) {
        let mut count = 0;
        for (place, listener) in listeners.take(LISTENERS_MAX).enumerate() {
            let words = self.listener(place);
            let name = &words[LISTENER_NAME..];
            if words::text(name) != listener.name {
                words::put_text(name, listener.name.as_bytes());
            }
            words[LISTENER_LENGTH].store(listener.length, Ordering::Relaxed);
            words[LISTENER_LIMIT].store(listener.limit, Ordering::Relaxed);
            count = place + 1;
        }
        self.memory[LISTENERS].store(count as u64, Ordering::Relaxed);
    }

    /// Reads a fact.
    #[must_use]
    pub fn get(self, fact: Fact) -> u64 {
        self.memory[FACTS + fact as usize].load(Ordering::Relaxed)
    }

    /// Reads what the server is doing.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self.get(Fact::Phase) {
            1 => Phase::Running,
            2 => Phase::Reloading,
            3 => Phase::Stopping,
            _ => Phase::Starting,
        }
    }

    /// Reads the listeners.
    #[must_use]
    pub fn listeners(self) -> Vec<ListenerFacts> {
        let count = self.memory[LISTENERS].load(Ordering::Relaxed) as usize;
        (0..count.min(LISTENERS_MAX))
            .map(|place| {
                let words = self.listener(place);
                ListenerFacts {
                    name: words::text(&words[LISTENER_NAME..]),
                    length: words[LISTENER_LENGTH].load(Ordering::Relaxed),
                    limit: words[LISTENER_LIMIT].load(Ordering::Relaxed),
                }
            })
            .collect()
    }

    fn listener(self, place: usize) -> &'a [AtomicU64] {
        &self.memory[LISTENERS_FIRST + place * LISTENER_WORDS..][..LISTENER_WORDS]
    }
}
