//! One process's block: written by its worker, read by anyone.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::counters::{Counter, Counters, Gauge, Histogram};
use crate::layout::{
    COUNTERS, GAUGES, GENERATION, HEARTBEAT, METHOD, METHOD_BYTES_MAX, PATH, PATH_BYTES_MAX, PEER,
    PEER_BYTES_MAX, PEER_END, PID, SEQUENCE, SINCE, SLOT, STARTED, STATE,
};

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

/// What a worker was doing when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInHand {
    /// `CLOCK_MONOTONIC` in nanoseconds when it was taken in hand.
    pub since: u64,
    /// Request method; what cannot be printed is replaced, as in the texts below.
    pub method: String,
    /// Path without the query, cut at [`PATH_BYTES_MAX`] bytes.
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

    /// Adds to a counter.
    pub fn add(self, counter: Counter, more: u64) {
        self.bump(COUNTERS + counter as usize, more);
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
        self.put_text(METHOD, PATH, method);
        self.put_text(PATH, PEER, path);
        self.put_text(PEER, PEER_END, peer);
        self.words[SEQUENCE].store((sequence | 1).wrapping_add(1), Ordering::Release);
    }

    /// Says that no request's code is running.
    pub fn let_go(self) {
        self.put(SINCE, 0);
    }

    /// Counts a request as answered, with its status and how long it took.
    pub fn finish(self, status: u16, duration_ns: u64) {
        self.add(Counter::RequestsDone, 1);
        self.add(Counter::of_status(status), 1);
        self.bump(COUNTERS + Histogram::word(duration_ns), 1);
        self.bump(COUNTERS + Histogram::SUM, duration_ns);
    }

    fn put(self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Relaxed);
    }

    /// One writer: a load and a store, not a locked addition.
    fn bump(self, word: usize, more: u64) {
        self.put(word, self.get(word).wrapping_add(more));
    }

    fn put_text(self, start: usize, end: usize, text: &[u8]) {
        let room = (end - start - 1) * 8;
        let text = &text[..text.len().min(room)];
        self.put(start, text.len() as u64);
        for (word, part) in self.words[start + 1..end].iter().zip(text.chunks(8)) {
            let value = match <[u8; 8]>::try_from(part) {
                Ok(whole) => whole,
                Err(_) => {
                    let mut padded = [0; 8];
                    padded[..part.len()].copy_from_slice(part);
                    padded
                }
            };
            word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        }
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

    /// Process id as the worker wrote it; 0: it has not begun.
    #[must_use]
    pub fn pid(self) -> u64 {
        self.get(PID)
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
        match self.get(STATE) {
            1 => State::Ready,
            2 => State::Draining,
            _ => State::Booting,
        }
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
        Counters::load(&self.words[COUNTERS..COUNTERS + Counter::COUNT])
    }

    /// Reads the request whose code is running, never half of one and half of another.
    ///
    /// `None`: there is none, or the worker died or is stuck while it wrote.
    #[must_use]
    pub fn request_in_hand(self) -> Option<RequestInHand> {
        for _ in 0..READ_TRIES_MAX {
            let before = self.words[SEQUENCE].load(Ordering::Acquire);
            let since = self.get(SINCE);
            let texts = [
                self.text(METHOD, METHOD_BYTES_MAX),
                self.text(PATH, PATH_BYTES_MAX),
                self.text(PEER, PEER_BYTES_MAX),
            ];
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

    fn text(self, start: usize, bytes_max: usize) -> String {
        let length = (self.get(start) as usize).min(bytes_max);
        let words = &self.words[start + 1..=start + bytes_max / 8];
        let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        // Clients choose these bytes and the log shows them: nothing that moves a cursor or ends a line.
        bytes
            .take(length)
            .map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' })
            .collect()
    }

    /// Prepares the block for a new process: the master's part, before the worker exists.
    pub(crate) fn clear(self, slot: u64, generation: u64) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
        self.put(SLOT, slot);
        self.put(GENERATION, generation);
        self.put(STARTED, sys::clock::monotonic());
    }
}
