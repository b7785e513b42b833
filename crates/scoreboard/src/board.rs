//! All blocks together: handing them out, taking them back, adding them up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use sys::shm::SharedMemory;

use crate::block::Block;
use crate::counters::{Counter, Counters, Gauge};
use crate::layout::{
    BLOCK_WORDS, HEADER_BLOCKS, HEADER_FOLDING, HEADER_MAGIC, HEADER_RETIRED, HEADER_VERSION,
    MAGIC, VERSION,
};

/// Largest number of blocks one scoreboard may have.
pub const BLOCKS_MAX: usize = 16_384;

/// Tries to read totals while a dead worker's counters are being folded, before a reader takes what it has.
const READ_TRIES_MAX: usize = 64;

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
        let memory =
            SharedMemory::create(c"scoreboard", (blocks + 1) * BLOCK_WORDS * size_of::<u64>())?;
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
        let fits = blocks <= BLOCKS_MAX && (blocks + 1) * BLOCK_WORDS <= memory.len();
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
            let start = (index + 1) * BLOCK_WORDS;
            Block::new(&self.memory[start..start + BLOCK_WORDS])
        })
    }

    /// Takes a free block for a process that is about to be spawned, and clears it. `None`: all are in use.
    pub fn acquire(&mut self, slot: u64, generation: u64) -> Option<usize> {
        let index = self.in_use.iter().position(|in_use| !in_use)?;
        self.in_use[index] = true;
        self.block(index)?.clear(slot, generation);
        Some(index)
    }

    /// Takes the block of a process that has ended, folds its counters into the retired totals and returns them.
    ///
    /// Releasing a block that is not in use changes nothing and returns zeroes.
    pub fn release(&mut self, index: usize) -> Counters {
        let in_use = self.in_use.get(index).copied().unwrap_or(false);
        let Some(block) = self.block(index).filter(|_| in_use) else { return Counters::ZERO };
        let last = block.counters();
        let mut retired = self.retired();
        retired.add(&last);
        // Readers of totals must not see the dead worker twice, nor not at all.
        let folding = self.memory[HEADER_FOLDING].load(Ordering::Relaxed);
        self.memory[HEADER_FOLDING].store(folding.wrapping_add(1) | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        retired.store(self.retired_words());
        block.clear(0, 0);
        self.memory[HEADER_FOLDING].store((folding | 1).wrapping_add(1), Ordering::Release);
        self.in_use[index] = false;
        last
    }

    /// Adds up all workers, dead and alive. From any process; never less than before.
    #[must_use]
    pub fn totals(&self) -> Counters {
        let mut totals = Counters::ZERO;
        for _ in 0..READ_TRIES_MAX {
            let before = self.memory[HEADER_FOLDING].load(Ordering::Acquire);
            totals = self.retired();
            for index in 0..self.blocks {
                if let Some(block) = self.block(index) {
                    totals.add(&block.counters());
                }
            }
            fence(Ordering::Acquire);
            let after = self.memory[HEADER_FOLDING].load(Ordering::Relaxed);
            if before.is_multiple_of(2) && after == before {
                break;
            }
            std::hint::spin_loop();
        }
        totals
    }

    /// Adds up one gauge over all workers.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        (0..self.blocks)
            .filter_map(|index| self.block(index))
            .fold(0, |sum, block| sum.wrapping_add(block.gauge(gauge)))
    }

    fn retired(&self) -> Counters {
        Counters::load(self.retired_words())
    }

    fn retired_words(&self) -> &[AtomicU64] {
        &self.memory[HEADER_RETIRED..HEADER_RETIRED + Counter::COUNT]
    }
}

/// The descriptor to pass to workers.
impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
