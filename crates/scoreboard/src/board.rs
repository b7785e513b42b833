//! All blocks together: handing them out, taking them back, adding them up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use sys::shm::SharedMemory;

use crate::block::Block;
use crate::counters::{Counter, Counters, Gauge, Histogram};
use crate::facts::Master;
use crate::layout::{
    BLOCK_WORDS, BLOCKS, HEADER_BLOCKS, HEADER_FOLDING, HEADER_MAGIC, HEADER_RETIRED, HEADER_SLOTS,
    HEADER_USED, HEADER_VERSION, MAGIC, RETIRED_SERIES, SLOT_BUSY, SLOT_CPU, SLOT_REQUESTS,
    SLOT_SPAWNS, SLOT_WORDS, SLOTS, SLOTS_MAX, VERSION,
};
use crate::series;
use crate::snapshot::{SlotTotals, Snapshot, WorkerFacts};

/// Largest number of blocks one scoreboard may have.
pub const BLOCKS_MAX: usize = 16_384;

/// Tries to read totals while a dead worker's counters are being folded, before a reader takes what it has.
const READ_TRIES_MAX: usize = 500;
/// The first tries follow each other at once: folding takes microseconds.
const READ_TRIES_AT_ONCE: usize = 16;
/// Wait before each further try: the master has no processor at the moment.
const READ_TRY_WAIT: Duration = Duration::from_micros(200);

/// The shared memory with its blocks.
#[derive(Debug)]
pub struct Scoreboard {
    memory: SharedMemory,
    blocks: usize,
    /// Which blocks are handed out. Kept here, not in the memory: workers may scribble there.
    in_use: Vec<bool>,
}

impl Scoreboard {
    /// Makes a scoreboard of `blocks` free blocks (at least 1, at most [`BLOCKS_MAX`]).
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn create(blocks: usize) -> io::Result<Scoreboard> {
        let blocks = blocks.clamp(1, BLOCKS_MAX);
        let memory = SharedMemory::create(c"scoreboard", memory_words(blocks) * size_of::<u64>())?;
        memory[HEADER_MAGIC].store(MAGIC, Ordering::Relaxed);
        memory[HEADER_VERSION].store(VERSION, Ordering::Relaxed);
        memory[HEADER_BLOCKS].store(blocks as u64, Ordering::Relaxed);
        Ok(Scoreboard { memory, blocks, in_use: vec![false; blocks] })
    }

    /// Opens the scoreboard of another process by its descriptor.
    ///
    /// # Errors
    ///
    /// `InvalidData`: no scoreboard, or one of another version.
    pub fn open(fd: OwnedFd) -> io::Result<Scoreboard> {
        let memory = SharedMemory::map(fd)?;
        let read = |word: usize| memory.get(word).map_or(0, |word| word.load(Ordering::Relaxed));
        if read(HEADER_MAGIC) != MAGIC {
            return Err(invalid("not a scoreboard"));
        }
        if read(HEADER_VERSION) != VERSION {
            return Err(invalid("scoreboard of another version"));
        }
        let blocks = read(HEADER_BLOCKS) as usize;
        let fits = blocks <= BLOCKS_MAX && memory_words(blocks) <= memory.len();
        if blocks == 0 || !fits {
            return Err(invalid("scoreboard with an impossible number of blocks"));
        }
        Ok(Scoreboard { memory, blocks, in_use: vec![false; blocks] })
    }

    /// Copies the descriptor, for a process that shall [`Scoreboard::open`] it.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.memory.as_fd().try_clone_to_owned()
    }

    /// Keeps the scoreboard until the process ends, so that blocks can be kept anywhere.
    #[must_use]
    pub fn leak(self) -> &'static Scoreboard {
        Box::leak(Box::new(self))
    }

    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The block with this index. `None`: there are not so many.
    #[must_use]
    pub fn block(&self, index: usize) -> Option<Block<'_>> {
        (index < self.blocks).then(|| {
            let start = BLOCKS + index * BLOCK_WORDS;
            Block::new(&self.memory[start..start + BLOCK_WORDS])
        })
    }

    /// What the master says of itself.
    #[must_use]
    pub fn master(&self) -> Master<'_> {
        Master::new(&self.memory)
    }

    /// Takes a free block for a process that is about to be spawned, and clears it. `None`: all are in use.
    pub fn acquire(&mut self, slot: u64, generation: u64) -> Option<usize> {
        let index = self.in_use.iter().position(|in_use| !in_use)?;
        self.in_use[index] = true;
        self.block(index)?.clear(slot, generation);
        self.raise(HEADER_USED, index as u64 + 1);
        if let Some(words) = self.slot_words(slot) {
            self.raise(HEADER_SLOTS, slot + 1);
            bump(&words[SLOT_SPAWNS], 1);
        }
        Some(index)
    }

    /// Takes the block of a process that has ended, folds its counters into the retired totals and returns them.
    ///
    /// `cpu_ns` is the processor time it took in all. Releasing a block that is not in use changes nothing and returns
    /// zeroes.
    pub fn release(&mut self, index: usize, cpu_ns: u64) -> Counters {
        let in_use = self.in_use.get(index).copied().unwrap_or(false);
        let Some(block) = self.block(index).filter(|_| in_use) else { return Counters::ZERO };
        let mut last = block.counters();
        last.set(Counter::CpuNanoseconds, cpu_ns);
        let mut retired = self.retired();
        retired.add(&last);
        // Readers must not see the dead worker twice, nor not at all.
        let folding = self.memory[HEADER_FOLDING].load(Ordering::Relaxed);
        self.memory[HEADER_FOLDING].store(folding.wrapping_add(1) | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        retired.store(self.retired_words());
        if let Some(words) = self.slot_words(block.slot()) {
            bump(&words[SLOT_REQUESTS], last.get(Counter::RequestsDone));
            bump(&words[SLOT_BUSY], last.get(Counter::BusyNanoseconds));
            bump(&words[SLOT_CPU], cpu_ns);
        }
        series::retire(&self.memory[RETIRED_SERIES..BLOCKS], block.series().into_iter());
        block.close();
        self.memory[HEADER_FOLDING].store((folding | 1).wrapping_add(1), Ordering::Release);
        self.in_use[index] = false;
        last
    }

    /// Adds up all workers, dead and alive. From any process; never less than before.
    #[must_use]
    pub fn totals(&self) -> Counters {
        self.read_consistently(|| {
            let mut totals = self.retired();
            for (_, block) in self.handed_out() {
                totals.add(&block.counters());
            }
            totals
        })
    }

    /// Adds up the durations of all requests.
    #[must_use]
    pub fn durations(&self) -> Histogram {
        let mut all = Histogram::ZERO;
        for series in self.snapshot().series {
            all.add(&series.durations);
        }
        all
    }

    /// Adds up one gauge over all workers.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.handed_out().fold(0, |sum, (_, block)| sum.wrapping_add(block.gauge(gauge)))
    }

    /// Reads everything about the workers at one moment. From any process.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.read_consistently(|| {
            let mut snapshot = Snapshot {
                totals: self.retired(),
                series: series::read_retired(&self.memory[RETIRED_SERIES..BLOCKS]).collect(),
                slots: self.retired_slots(),
                workers: Vec::new(),
            };
            for (index, block) in self.handed_out() {
                let worker = WorkerFacts::read(index, block);
                snapshot.totals.add(&worker.counters);
                series::merge(&mut snapshot.series, block.series().into_iter());
                if let Some(slot) = snapshot.slots.get_mut(worker.slot as usize) {
                    slot.requests =
                        slot.requests.wrapping_add(worker.counters.get(Counter::RequestsDone));
                    slot.busy_ns =
                        slot.busy_ns.wrapping_add(worker.counters.get(Counter::BusyNanoseconds));
                }
                snapshot.workers.push(worker);
            }
            snapshot
        })
    }

    /// Reads again if meanwhile a dead worker's counters were being folded.
    fn read_consistently<T>(&self, read: impl Fn() -> T) -> T {
        for turn in 1..READ_TRIES_MAX {
            let before = self.memory[HEADER_FOLDING].load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let value = read();
                fence(Ordering::Acquire);
                if self.memory[HEADER_FOLDING].load(Ordering::Relaxed) == before {
                    return value;
                }
            }
            if turn < READ_TRIES_AT_ONCE {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(READ_TRY_WAIT);
            }
        }
        read()
    }

    /// The blocks that are handed out, with their index.
    fn handed_out(&self) -> impl Iterator<Item = (usize, Block<'_>)> {
        let used = self.memory[HEADER_USED].load(Ordering::Relaxed) as usize;
        (0..used.min(self.blocks))
            .filter_map(|index| Some((index, self.block(index)?)))
            .filter(|(_, block)| block.is_in_use())
    }

    fn retired_slots(&self) -> Vec<SlotTotals> {
        let slots = self.memory[HEADER_SLOTS].load(Ordering::Relaxed);
        (0..slots.min(SLOTS_MAX as u64))
            .filter_map(|slot| self.slot_words(slot))
            .map(|words| SlotTotals {
                requests: words[SLOT_REQUESTS].load(Ordering::Relaxed),
                busy_ns: words[SLOT_BUSY].load(Ordering::Relaxed),
                cpu_ns: words[SLOT_CPU].load(Ordering::Relaxed),
                spawns: words[SLOT_SPAWNS].load(Ordering::Relaxed),
            })
            .collect()
    }

    fn slot_words(&self, slot: u64) -> Option<&[AtomicU64]> {
        let slot = usize::try_from(slot).ok().filter(|slot| *slot < SLOTS_MAX)?;
        Some(&self.memory[SLOTS + slot * SLOT_WORDS..][..SLOT_WORDS])
    }

    fn raise(&self, word: usize, least: u64) {
        let word = &self.memory[word];
        word.store(word.load(Ordering::Relaxed).max(least), Ordering::Relaxed);
    }

    fn retired(&self) -> Counters {
        Counters::load(self.retired_words())
    }

    fn retired_words(&self) -> &[AtomicU64] {
        &self.memory[HEADER_RETIRED..HEADER_RETIRED + Counters::WORDS]
    }
}

/// The descriptor to pass to workers.
impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn memory_words(blocks: usize) -> usize {
    BLOCKS + blocks * BLOCK_WORDS
}

fn bump(word: &AtomicU64, more: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
