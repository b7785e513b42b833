//! One look at the server: the scoreboard, and what `/proc` adds to it.
//!
//! Sums per slot never fall, whoever dies meanwhile: what was shown once is the least that is shown again.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scoreboard::{
    Counter, Fact, Gauge, ListenerFacts, Phase, Scoreboard, Snapshot, State, WorkerFacts,
};

use crate::proc;

/// Tries to have the scoreboard and `/proc` tell of the same processes.
const TRIES_MAX: usize = 3;

/// Looks at one server.
pub struct Observer {
    board: &'static Scoreboard,
    /// The largest busy and processor time shown of each slot, in nanoseconds.
    shown: RefCell<Vec<(u64, u64)>>,
}

/// The server at one moment.
pub struct View {
    pub snapshot: Snapshot,
    pub workers: Vec<Worker>,
    pub slots: Vec<Slot>,
    pub listeners: Vec<ListenerFacts>,
    pub phase: Phase,
    pub master: proc::Facts,
    /// Time since the arbiter's loop last went round.
    pub master_silence: Duration,
    facts: [u64; Fact::COUNT],
    pub now_unix: Duration,
}

/// A living worker.
pub struct Worker {
    pub facts: WorkerFacts,
    pub doing: Doing,
    pub resident_bytes: Option<u64>,
    pub cpu: Option<Duration>,
    /// Time since its last sign of life; `None`: it gives none.
    pub silence: Option<Duration>,
    pub age: Duration,
    now_ns: u64,
}

/// What a worker is doing, as one would say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Starting,
    Idle,
    Busy,
    Draining,
}

impl Doing {
    pub const ALL: [Doing; 4] = [Doing::Starting, Doing::Idle, Doing::Busy, Doing::Draining];

    pub fn name(self) -> &'static str {
        match self {
            Doing::Starting => "starting",
            Doing::Idle => "idle",
            Doing::Busy => "busy",
            Doing::Draining => "draining",
        }
    }
}

/// What a slot's workers did, the dead and the living.
#[derive(Clone, Copy)]
pub struct Slot {
    pub requests: u64,
    pub busy: Duration,
    pub cpu: Duration,
}

impl Observer {
    pub fn new(board: &'static Scoreboard) -> Observer {
        Observer { board, shown: RefCell::default() }
    }

    /// Looks once.
    pub fn look(&self) -> View {
        let now_ns = sys::clock::monotonic();
        let (snapshot, processes) = self.consistent();
        let master = self.board.master();
        let slots = self.slots(&snapshot, &processes, now_ns);
        let workers = snapshot.workers.iter().zip(&processes);
        let workers = workers.map(|(facts, process)| Worker::of(facts, process, now_ns)).collect();
        let since = |then: u64| Duration::from_nanos(now_ns.saturating_sub(then));
        View {
            workers,
            slots,
            listeners: master.listeners(),
            phase: master.phase(),
            master: proc::facts(master.get(Fact::Pid)),
            master_silence: since(master.get(Fact::Heartbeat)),
            facts: Fact::ALL.map(|fact| master.get(fact)),
            now_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            snapshot,
        }
    }

    /// The scoreboard, and of each living worker what `/proc` knows: again when one died in between.
    fn consistent(&self) -> (Snapshot, Vec<proc::Facts>) {
        let mut snapshot = self.board.snapshot();
        for _ in 1..TRIES_MAX {
            let facts: Vec<proc::Facts> =
                snapshot.workers.iter().map(|worker| proc::facts(worker.pid)).collect();
            if facts.iter().zip(&snapshot.workers).all(|(f, w)| f.cpu.is_some() || w.pid == 0) {
                return (snapshot, facts);
            }
            snapshot = self.board.snapshot();
        }
        let facts = snapshot.workers.iter().map(|worker| proc::facts(worker.pid)).collect();
        (snapshot, facts)
    }

    fn slots(&self, snapshot: &Snapshot, processes: &[proc::Facts], now_ns: u64) -> Vec<Slot> {
        let mut sums: Vec<(u64, u64)> =
            snapshot.slots.iter().map(|slot| (slot.busy_ns, slot.cpu_ns)).collect();
        for (worker, process) in snapshot.workers.iter().zip(processes) {
            let Some((busy, cpu)) = sums.get_mut(worker.slot as usize) else { continue };
            // A handler that does not return has not been counted yet.
            if let Some(request) = &worker.request {
                let running = now_ns.saturating_sub(request.since.max(worker.heartbeat));
                *busy = busy.saturating_add(running);
            }
            let taken = process.cpu.map_or(0, |cpu| u64::try_from(cpu.as_nanos()).unwrap_or(0));
            *cpu = cpu.saturating_add(taken);
        }
        let mut shown = self.shown.borrow_mut();
        let count = sums.len().max(shown.len());
        shown.resize(count, (0, 0));
        let slots = snapshot.slots.iter().zip(sums).zip(shown.iter_mut());
        slots
            .map(|((slot, now), shown)| {
                *shown = (shown.0.max(now.0), shown.1.max(now.1));
                Slot {
                    requests: slot.requests,
                    busy: Duration::from_nanos(shown.0),
                    cpu: Duration::from_nanos(shown.1),
                }
            })
            .collect()
    }
}

impl Worker {
    /// How long the request in hand has been there; zero without one.
    pub fn request_age(&self) -> Duration {
        let since = self.facts.request.as_ref().map_or(self.now_ns, |request| request.since);
        Duration::from_nanos(self.now_ns.saturating_sub(since))
    }

    fn of(facts: &WorkerFacts, process: &proc::Facts, now_ns: u64) -> Worker {
        let since = |then: u64| Duration::from_nanos(now_ns.saturating_sub(then));
        let is_busy = facts.request.is_some() || 0 < facts.active();
        Worker {
            doing: match facts.standing {
                State::Booting => Doing::Starting,
                State::Draining => Doing::Draining,
                State::Ready if is_busy => Doing::Busy,
                State::Ready => Doing::Idle,
            },
            resident_bytes: process.resident_bytes,
            cpu: process.cpu,
            silence: (facts.heartbeat != 0).then(|| since(facts.heartbeat)),
            age: since(facts.started),
            facts: facts.clone(),
            now_ns,
        }
    }
}

impl View {
    pub fn fact(&self, fact: Fact) -> u64 {
        self.facts[fact as usize]
    }

    pub fn total(&self, counter: Counter) -> u64 {
        self.snapshot.totals.get(counter)
    }

    /// Number of workers that are doing this.
    pub fn doing(&self, doing: Doing) -> u64 {
        self.workers.iter().filter(|worker| worker.doing == doing).count() as u64
    }

    /// Requests in hand of all workers.
    pub fn active(&self) -> u64 {
        sum(self.workers.iter().map(|worker| worker.facts.active()))
    }

    /// A gauge of all workers.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        sum(self.workers.iter().map(|worker| worker.facts.gauge(gauge)))
    }

    /// Time since the master started.
    pub fn uptime(&self) -> Duration {
        self.now_unix.saturating_sub(Duration::from_millis(self.fact(Fact::StartedUnixMs)))
    }
}

/// Wraps, as counters do: a worker may have written anything.
pub fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scoreboard as the master and an observer have it.
    fn pair() -> (Scoreboard, Observer) {
        let ours = Scoreboard::create(2).unwrap();
        let theirs = Scoreboard::open(ours.share().unwrap()).unwrap();
        (ours, Observer::new(theirs.leak()))
    }

    #[test]
    fn a_worker_that_scribbles_spoils_numbers_only() {
        let (mut master, observer) = pair();
        master.acquire(0, 1).unwrap();
        let memory = sys::shm::SharedMemory::map(master.share().unwrap()).unwrap();
        let mut random = 1_u64;
        for round in 0..4 {
            for word in memory.iter() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let value = if round == 0 { u64::MAX } else { random };
                word.store(value, std::sync::atomic::Ordering::Relaxed);
            }
            let view = observer.look();
            for page in [
                crate::prometheus::page(&view),
                crate::json::page(&view),
                crate::page::page(&view),
                crate::apache::page(&view),
            ] {
                assert!(!page.is_empty());
            }
        }
    }

    #[test]
    fn a_handler_that_does_not_return_counts_as_busy_and_never_backwards() {
        let (mut master, observer) = pair();
        let index = master.acquire(0, 1).unwrap();
        let block = master.block(index).unwrap();
        block.start(std::process::id());
        block.set_standing(State::Ready);
        let long_ago = sys::clock::monotonic().saturating_sub(5_000_000_000).max(1);
        block.beat(long_ago);
        block.begin(long_ago, b"GET", b"/slow", b"");
        let view = observer.look();
        assert_eq!((view.workers[0].doing, view.active()), (Doing::Busy, 1));
        assert!(Duration::from_secs(5) <= view.slots[0].busy, "{:?}", view.slots[0].busy);
        let cpu = view.slots[0].cpu;

        // It is killed: what it had not counted itself is lost with it, but not from what was shown.
        master.release(index, 0);
        let after = observer.look();
        assert!(view.slots[0].busy <= after.slots[0].busy && cpu <= after.slots[0].cpu);
        assert!(after.workers.is_empty());
    }
}
