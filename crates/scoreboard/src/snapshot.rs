//! What a reader of everything gets: the sums, and each living worker.

use crate::block::{Block, RequestInHand, State};
use crate::counters::{Counter, Counters, Gauge};
use crate::series::Series;

/// Everything about the workers, read at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Sums over all workers, dead and alive.
    pub totals: Counters,
    /// Durations of all requests of all workers, by method, route and status.
    pub series: Vec<Series>,
    /// What the workers of each slot did, the living included (of their processor time `/proc` knows).
    pub slots: Vec<SlotTotals>,
    /// The living.
    pub workers: Vec<WorkerFacts>,
}

/// What all workers of one slot did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotTotals {
    /// Requests answered.
    pub requests: u64,
    /// Time not spent waiting, in nanoseconds.
    pub busy_ns: u64,
    /// Processor time of those that are gone, in nanoseconds.
    pub cpu_ns: u64,
    /// Processes spawned.
    pub spawns: u64,
}

/// One living worker.
#[derive(Clone, Debug)]
pub struct WorkerFacts {
    /// Its block.
    pub index: usize,
    /// Its slot.
    pub slot: u64,
    /// Its generation.
    pub generation: u64,
    /// Its process; 0: not known yet.
    pub pid: u64,
    /// How far it has come, as the master sees it.
    pub standing: State,
    /// `CLOCK_MONOTONIC` in nanoseconds when it was spawned.
    pub started: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds of its last sign of life; 0: it gives none.
    pub heartbeat: u64,
    /// The request whose code is running; `None`: none is.
    pub request: Option<RequestInHand>,
    /// Its counters.
    pub counters: Counters,
    /// Its gauges, in the order of [`Gauge::ALL`].
    pub gauges: [u64; Gauge::COUNT],
}

impl WorkerFacts {
    pub(crate) fn read(index: usize, block: Block<'_>) -> WorkerFacts {
        WorkerFacts {
            index,
            slot: block.slot(),
            generation: block.generation(),
            pid: block.pid(),
            // A worker knows first that it drains, the master that it has to.
            standing: if block.state() == State::Draining {
                State::Draining
            } else {
                block.standing()
            },
            started: block.started(),
            heartbeat: block.heartbeat(),
            request: block.request_in_hand(),
            counters: block.counters(),
            gauges: Gauge::ALL.map(|gauge| block.gauge(gauge)),
        }
    }

    /// Requests taken in hand and not yet answered.
    #[must_use]
    pub fn active(&self) -> u64 {
        let (done, aborted) = (Counter::RequestsDone, Counter::RequestsAborted);
        let ended = self.counters.get(done).wrapping_add(self.counters.get(aborted));
        self.counters.get(Counter::RequestsStarted).saturating_sub(ended)
    }

    /// Reads a gauge.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize]
    }
}
