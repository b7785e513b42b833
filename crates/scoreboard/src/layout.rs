//! Which word of a block means what. Master and workers of one server may be different builds of it: [`VERSION`].

use crate::counters::{Counter, Gauge};

/// First word of the memory: "is this a scoreboard".
pub(crate) const MAGIC: u64 = u64::from_be_bytes(*b"MONOCSB\0");
/// Changes whenever a word changes its meaning.
pub(crate) const VERSION: u64 = 1;

/// Longest method kept of the request in hand, in bytes; the rest is cut.
pub const METHOD_BYTES_MAX: usize = 16;
/// Longest path kept of the request in hand, in bytes; the rest is cut.
pub const PATH_BYTES_MAX: usize = 128;
/// Longest peer address kept of the request in hand, in bytes; the rest is cut.
pub const PEER_BYTES_MAX: usize = 48;

/// Words of one cache line.
const LINE_WORDS: usize = 8;

// The header, in the first block's place.
pub(crate) const HEADER_MAGIC: usize = 0;
pub(crate) const HEADER_VERSION: usize = 1;
pub(crate) const HEADER_BLOCKS: usize = 2;
/// Odd while counters of a dead worker are being folded.
pub(crate) const HEADER_FOLDING: usize = 3;
/// Counters of all workers that are gone.
pub(crate) const HEADER_RETIRED: usize = LINE_WORDS;

// A block. Its first line is written rarely, the second by the loop, the rest per request.
pub(crate) const PID: usize = 0;
pub(crate) const GENERATION: usize = 1;
pub(crate) const SLOT: usize = 2;
pub(crate) const STATE: usize = 3;
pub(crate) const STARTED: usize = 4;
pub(crate) const HEARTBEAT: usize = LINE_WORDS;
pub(crate) const GAUGES: usize = HEARTBEAT + 1;
pub(crate) const COUNTERS: usize = up_to_line(GAUGES + Gauge::COUNT);
/// Odd while the request in hand is being written.
pub(crate) const SEQUENCE: usize = up_to_line(COUNTERS + Counter::COUNT);
pub(crate) const SINCE: usize = SEQUENCE + 1;
/// Texts are a word with the length in bytes, then the bytes.
pub(crate) const METHOD: usize = SINCE + 1;
pub(crate) const PATH: usize = METHOD + 1 + METHOD_BYTES_MAX / 8;
pub(crate) const PEER: usize = PATH + 1 + PATH_BYTES_MAX / 8;
pub(crate) const PEER_END: usize = PEER + 1 + PEER_BYTES_MAX / 8;
pub(crate) const BLOCK_WORDS: usize = up_to_line(PEER_END);

const fn up_to_line(word: usize) -> usize {
    word.div_ceil(LINE_WORDS) * LINE_WORDS
}

// The retired totals share the header's block.
const _: () = assert!(HEADER_RETIRED + Counter::COUNT <= BLOCK_WORDS);
