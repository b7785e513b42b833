//! One process's block: written by its worker, read by anyone.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::counters::{Counter, Counters, Gauge, Histogram};
use crate::layout::{
    CHILD, COUNTERS, GAUGES, GENERATION, HEARTBEAT, IN_USE, METHOD, PATH, PEER, PEER_END, PID,
    QUERIES, SEQUENCE, SERIES, SINCE, SLOT, STANDING, STARTED, STATE,
};
use crate::series::{self, Call, Series};
use crate::words;

/// Tries to read a request that its writer is replacing, before a reader gives up.
const READ_TRIES_MAX: usize = 64;

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not ready yet.
    Booting,
    /// Accepting.
    Ready,
    /// Finishing what it accepted.
    Draining,
}

impl State {
    fn of(word: u64) -> State {
        match word {
            1 => State::Ready,
            2 => State::Draining,
            _ => State::Booting,
        }
    }
}

/// What a worker was doing when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInHand {
    /// `CLOCK_MONOTONIC` in nanoseconds when it was taken in hand.
    pub since: u64,
    /// Request method; what cannot be printed is replaced, as in the texts below.
    pub method: String,
    /// Path without the query, cut at [`crate::PATH_BYTES_MAX`] bytes.
    pub path: String,
    /// Address of the client; empty when it has none.
    pub peer: String,
}

/// A handle of one block. Copies stand for the same block; only its worker may call the writing half.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    words: &'a [AtomicU64],
}

/// Writing: for the worker that owns the block.
impl Block<'_> {
    /// Says which process writes here, and gives the first heartbeat.
    pub fn start(self, pid: u32) {
        self.put(PID, u64::from(pid));
        self.beat(sys::clock::monotonic());
    }

    /// Publishes how far this worker has come.
    pub fn set_state(self, state: State) {
        self.put(STATE, state as u64);
    }

    /// Says "alive"; `now` is `CLOCK_MONOTONIC` in nanoseconds (the coarse clock will do).
    pub fn beat(self, now: u64) {
        self.put(HEARTBEAT, now);
    }

    /// Adds to a counter that one thread alone adds to.
    pub fn add(self, counter: Counter, more: u64) {
        self.bump(COUNTERS + counter as usize, more);
    }

    /// Adds to a counter that several threads of the worker add to, each by this method.
    pub fn add_from_any_thread(self, counter: Counter, more: u64) {
        self.words[COUNTERS + counter as usize].fetch_add(more, Ordering::Relaxed);
    }

    /// Adds database queries: how many fell into each bucket of [`crate::LATENCY_BOUNDS_NS`] (one more takes what is
    /// slower), and how long all took together.
    pub fn add_queries(self, buckets: &[u64], sum_ns: u64) {
        self.bump(QUERIES, sum_ns);
        for (bucket, count) in buckets.iter().take(Histogram::WORDS - 1).enumerate() {
            self.bump(QUERIES + 1 + bucket, *count);
        }
    }

    /// Sets a gauge.
    pub fn set(self, gauge: Gauge, value: u64) {
        self.put(GAUGES + gauge as usize, value);
    }

    /// Counts a request as started and takes it in hand; `now` as in [`Block::beat`], but not 0.
    pub fn begin(self, now: u64, method: &[u8], path: &[u8], peer: &[u8]) {
        self.add(Counter::RequestsStarted, 1);
        self.hold(now, method, path, peer);
    }

    /// Publishes the request whose code is about to run, until [`Block::let_go`]. Not counted: it may be a resumption.
    pub fn hold(self, now: u64, method: &[u8], path: &[u8], peer: &[u8]) {
        let sequence = self.get(SEQUENCE);
        self.put(SEQUENCE, sequence.wrapping_add(1) | 1);
        fence(Ordering::Release);
        self.put(SINCE, now);
        words::put_text(&self.words[METHOD..PATH], method);
        words::put_text(&self.words[PATH..PEER], path);
        words::put_text(&self.words[PEER..PEER_END], peer);
        self.words[SEQUENCE].store((sequence | 1).wrapping_add(1), Ordering::Release);
    }

    /// Says that no request's code is running.
    pub fn let_go(self) {
        self.put(SINCE, 0);
    }

    /// Counts a request as answered, and how long it took.
    pub fn finish(self, call: &Call<'_>, duration_ns: u64) {
        self.finish_many(call, duration_ns, 1);
    }

    /// Counts `count` requests of one kind as answered, each of which took this long: for the price of one.
    pub fn finish_many(self, call: &Call<'_>, duration_ns: u64, count: u64) {
        self.add(Counter::RequestsDone, count);
        self.add(Counter::of_status(call.status), count);
        series::count(&self.words[SERIES..], call, duration_ns, count);
    }

    fn put(self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Relaxed);
    }

    /// One writer: a load and a store, not a locked addition.
    fn bump(self, word: usize, more: u64) {
        self.put(word, self.get(word).wrapping_add(more));
    }
}

impl Block<'static> {
    /// Has the request in hand written to standard error when this process gets ABRT.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`: this process has registered a block before.
    pub fn report_on_abort(self) -> io::Result<()> {
        sys::signal::report_on_abort(sys::signal::AbortReport {
            since: &self.words[SINCE],
            facts: [
                ("method", &self.words[METHOD..PATH]),
                ("path", &self.words[PATH..PEER]),
                ("peer", &self.words[PEER..PEER_END]),
            ],
        })
    }
}

/// Reading: for anyone.
impl<'a> Block<'a> {
    pub(crate) fn new(words: &'a [AtomicU64]) -> Block<'a> {
        Block { words }
    }

    /// Process id, as the worker wrote it or as the master knows it; 0: it has not begun.
    #[must_use]
    pub fn pid(self) -> u64 {
        match self.get(PID) {
            0 => self.get(CHILD),
            pid => pid,
        }
    }

    /// What the master thinks of it: also of a program that writes nothing here.
    #[must_use]
    pub fn standing(self) -> State {
        State::of(self.get(STANDING))
    }

    /// Number of the slot it was spawned for.
    #[must_use]
    pub fn slot(self) -> u64 {
        self.get(SLOT)
    }

    /// Number of the generation it belongs to.
    #[must_use]
    pub fn generation(self) -> u64 {
        self.get(GENERATION)
    }

    /// `CLOCK_MONOTONIC` in nanoseconds when the block was acquired for it.
    #[must_use]
    pub fn started(self) -> u64 {
        self.get(STARTED)
    }

    /// How far it has come.
    #[must_use]
    pub fn state(self) -> State {
        State::of(self.get(STATE))
    }

    /// `CLOCK_MONOTONIC` in nanoseconds of its last sign of life; 0: none yet.
    #[must_use]
    pub fn heartbeat(self) -> u64 {
        self.get(HEARTBEAT)
    }

    /// Reads a gauge.
    #[must_use]
    pub fn gauge(self, gauge: Gauge) -> u64 {
        self.get(GAUGES + gauge as usize)
    }

    /// Reads all its counters.
    #[must_use]
    pub fn counters(self) -> Counters {
        Counters::load(&self.words[COUNTERS..COUNTERS + Counters::WORDS])
    }

    /// Reads the durations of its requests.
    #[must_use]
    pub fn series(self) -> Vec<Series> {
        series::read(&self.words[SERIES..]).collect()
    }

    /// `CLOCK_MONOTONIC` in nanoseconds when the code that runs began. `None`: none does.
    #[must_use]
    pub fn busy_since(self) -> Option<u64> {
        Some(self.get(SINCE)).filter(|since| *since != 0)
    }

    /// Reads the request whose code is running, never half of one and half of another.
    ///
    /// `None`: there is none, or the worker died or is stuck while it wrote.
    #[must_use]
    pub fn request_in_hand(self) -> Option<RequestInHand> {
        for _ in 0..READ_TRIES_MAX {
            let before = self.words[SEQUENCE].load(Ordering::Acquire);
            let since = self.get(SINCE);
            let texts = [METHOD..PATH, PATH..PEER, PEER..PEER_END];
            let texts = texts.map(|range| words::text(&self.words[range]));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.get(SEQUENCE) == before {
                let [method, path, peer] = texts;
                return (since != 0).then_some(RequestInHand { since, method, path, peer });
            }
            std::hint::spin_loop();
        }
        None
    }

    fn get(self, word: usize) -> u64 {
        self.words[word].load(Ordering::Relaxed)
    }

    /// Whether it is handed out.
    pub(crate) fn is_in_use(self) -> bool {
        self.words[IN_USE].load(Ordering::Acquire) != 0
    }

    /// Says which process writes here: the master's part.
    pub fn set_child(self, pid: u32) {
        self.put(CHILD, u64::from(pid));
    }

    /// Says what the master thinks of the process: the master's part.
    pub fn set_standing(self, standing: State) {
        self.put(STANDING, standing as u64);
    }

    /// Prepares the block for a new process: the master's part, before the worker exists.
    pub(crate) fn clear(self, slot: u64, generation: u64) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
        self.put(SLOT, slot);
        self.put(GENERATION, generation);
        self.put(STARTED, sys::clock::monotonic());
        // Whoever sees it handed out sees it clean.
        self.words[IN_USE].store(1, Ordering::Release);
    }

    /// Marks it as not handed out, so that nobody looks at it: the master's part.
    pub(crate) fn close(self) {
        self.put(IN_USE, 0);
    }
}
