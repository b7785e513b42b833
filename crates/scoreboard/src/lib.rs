//! The scoreboard: shared memory in which every worker process writes what it does, and everybody reads.
//!
//! - One block per *process*, not per slot: a draining worker keeps its own beside its successor's.
//! - A block has one writer, its worker. The master clears it before the worker exists and takes it back after its end.
//! - Counters never fall: those of the dead are folded into the retired totals, and into those of their slot.
//! - What the arbiter knows of itself stands beside them: [`Master`].
//! - Readers trust nothing but numbers: a worker may scribble, and nobody else comes to harm.
//!
//! ```
//! use scoreboard::{Call, Counter, Scoreboard, State, Verb};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut board = Scoreboard::create(4)?;
//! let index = board.acquire(0, 1).expect("a free block");
//! // In the worker, which was given the descriptor and the index:
//! let theirs = Scoreboard::open(board.share()?)?;
//! let block = theirs.block(index).expect("the index is valid");
//! block.start(4242);
//! block.set_state(State::Ready);
//! block.begin(1_000, b"GET", b"/json", b"127.0.0.1:4000");
//! block.let_go();
//! block.finish(&Call { verb: Verb::of(b"GET"), route: 1, pattern: "/json", status: 200 }, 90_000);
//! // In the master:
//! assert_eq!(board.block(index).expect("valid").state(), State::Ready);
//! board.release(index, 0);
//! assert_eq!(board.totals().get(Counter::RequestsDone), 1);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod block;
mod board;
mod counters;
mod facts;
mod layout;
mod series;
mod snapshot;
mod words;

pub use block::{Block, RequestInHand, State};
pub use board::{BLOCKS_MAX, Scoreboard};
pub use counters::{Counter, Counters, Gauge, Histogram, LATENCY_BOUNDS_NS};
pub use facts::{Fact, ListenerFacts, Master, Phase};
pub use layout::{
    LISTENERS_MAX, METHOD_BYTES_MAX, PATH_BYTES_MAX, PEER_BYTES_MAX, ROUTE_BYTES_MAX, SERIES_MAX,
};
pub use series::{Call, ROUTE_OTHER, Series, Verb};
pub use snapshot::{SlotTotals, Snapshot, WorkerFacts};
