//! Which word of the memory means what. Master and workers of one server may be different builds of it: [`VERSION`].
//!
//! header · master's facts · listeners · slots · series of the dead · one block per process

use crate::counters::{Counter, Counters, Gauge, Histogram};
use crate::facts::Fact;

/// First word of the memory: "is this a scoreboard".
pub(crate) const MAGIC: u64 = u64::from_be_bytes(*b"MONOCSB\0");
/// Changes whenever a word changes its meaning.
pub(crate) const VERSION: u64 = 3;

/// Longest method kept of the request in hand, in bytes; the rest is cut.
pub const METHOD_BYTES_MAX: usize = 16;
/// Longest path kept of the request in hand, in bytes; the rest is cut.
pub const PATH_BYTES_MAX: usize = 128;
/// Longest peer address kept of the request in hand, in bytes; the rest is cut.
pub const PEER_BYTES_MAX: usize = 48;
/// Longest route pattern kept of a series, in bytes; the rest is cut.
pub const ROUTE_BYTES_MAX: usize = 72;
/// Longest address kept of a listener, in bytes; the rest is cut.
pub const LISTENER_BYTES_MAX: usize = 128;
/// Listeners that are kept; a server with more shows the first ones.
pub const LISTENERS_MAX: usize = 32;
/// Slots with counters of their own; requests of further ones are in the totals only.
pub const SLOTS_MAX: usize = 512;
/// Series (method, route, status) that one process keeps apart; what is beyond goes into one.
pub const SERIES_MAX: usize = 128;
/// Series of all processes that are gone; what is beyond goes into one.
pub const RETIRED_SERIES_MAX: usize = 1024;

/// Words of one cache line.
const LINE_WORDS: usize = 8;

/// Words of a text of at most `bytes` bytes: its length, then the bytes.
const fn text_words(bytes: usize) -> usize {
    1 + bytes.div_ceil(8)
}

const fn up_to_line(word: usize) -> usize {
    word.div_ceil(LINE_WORDS) * LINE_WORDS
}

// The header.
pub(crate) const HEADER_MAGIC: usize = 0;
pub(crate) const HEADER_VERSION: usize = 1;
pub(crate) const HEADER_BLOCKS: usize = 2;
/// Odd while counters of a dead worker are being folded.
pub(crate) const HEADER_FOLDING: usize = 3;
/// Blocks from this one on were never used: nobody looks at them, so they cost no memory.
pub(crate) const HEADER_USED: usize = 4;
/// Number of slots that ever had a process.
pub(crate) const HEADER_SLOTS: usize = 5;
/// Counters of all workers that are gone.
pub(crate) const HEADER_RETIRED: usize = LINE_WORDS;

/// What the master says of itself.
pub(crate) const FACTS: usize = up_to_line(HEADER_RETIRED + Counters::WORDS);
/// The master's listeners: their number, then one after the other.
pub(crate) const LISTENERS: usize = up_to_line(FACTS + Fact::COUNT);
pub(crate) const LISTENERS_FIRST: usize = LISTENERS + LINE_WORDS;
pub(crate) const LISTENER_LENGTH: usize = 0;
pub(crate) const LISTENER_LIMIT: usize = 1;
pub(crate) const LISTENER_NAME: usize = 2;
pub(crate) const LISTENER_WORDS: usize = up_to_line(LISTENER_NAME + text_words(LISTENER_BYTES_MAX));

/// Counters of slots: what the dead of each have done.
pub(crate) const SLOTS: usize = LISTENERS_FIRST + LISTENERS_MAX * LISTENER_WORDS;
pub(crate) const SLOT_REQUESTS: usize = 0;
pub(crate) const SLOT_BUSY: usize = 1;
pub(crate) const SLOT_CPU: usize = 2;
pub(crate) const SLOT_SPAWNS: usize = 3;
pub(crate) const SLOT_WORDS: usize = LINE_WORDS;

// A series. What is written per request lies in its first line.
/// Which series it is; 0: none yet. See `series::Key`.
pub(crate) const SERIES_KEY: usize = 0;
pub(crate) const SERIES_DURATIONS: usize = 1;
pub(crate) const SERIES_ROUTE: usize = SERIES_DURATIONS + Histogram::WORDS;
pub(crate) const SERIES_WORDS: usize = up_to_line(SERIES_ROUTE + text_words(ROUTE_BYTES_MAX));

/// Series of all workers that are gone.
pub(crate) const RETIRED_SERIES: usize = SLOTS + SLOTS_MAX * SLOT_WORDS;
/// The blocks.
pub(crate) const BLOCKS: usize = RETIRED_SERIES + RETIRED_SERIES_MAX * SERIES_WORDS;

// A block. Its first line is written rarely, the second by the loop, the rest per request.
pub(crate) const PID: usize = 0;
pub(crate) const GENERATION: usize = 1;
pub(crate) const SLOT: usize = 2;
pub(crate) const STATE: usize = 3;
pub(crate) const STARTED: usize = 4;
/// Whether it is handed out.
pub(crate) const IN_USE: usize = 5;
/// Process id as the master knows it: a program that writes nothing has one too.
pub(crate) const CHILD: usize = 6;
/// State as the master sees it.
pub(crate) const STANDING: usize = 7;
pub(crate) const HEARTBEAT: usize = LINE_WORDS;
pub(crate) const GAUGES: usize = HEARTBEAT + 1;
pub(crate) const COUNTERS: usize = up_to_line(GAUGES + Gauge::COUNT);
/// The durations of database queries, as a histogram's words; counters too.
pub(crate) const QUERIES: usize = COUNTERS + Counter::COUNT;
/// Odd while the request in hand is being written.
pub(crate) const SEQUENCE: usize = up_to_line(COUNTERS + Counters::WORDS);
pub(crate) const SINCE: usize = SEQUENCE + 1;
pub(crate) const METHOD: usize = SINCE + 1;
pub(crate) const PATH: usize = METHOD + text_words(METHOD_BYTES_MAX);
pub(crate) const PEER: usize = PATH + text_words(PATH_BYTES_MAX);
pub(crate) const PEER_END: usize = PEER + text_words(PEER_BYTES_MAX);
pub(crate) const SERIES: usize = up_to_line(PEER_END);
pub(crate) const BLOCK_WORDS: usize = SERIES + SERIES_MAX * SERIES_WORDS;

const _: () = assert!(SERIES_WORDS == 32, "a series is meant to fill four lines");
