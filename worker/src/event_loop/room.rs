//! Room for new connections in a worker that holds as many as it may: who makes way.
//!
//! - Siblings come first: a full worker leaves the wait set, and only what still waits at its next sweep is for it.
//! - Those that ask for nothing make way, longest first; then those that send or read more slowly than they must. A handler
//!   at work, and a client that keeps up, never do.
//! - Looked for at sweeps alone, so it costs requests nothing; sweeps come quickly while somebody waits.

use std::time::{Duration, Instant};

use super::{CAPACITY_SLACK, EventLoop};

/// Time between two lines of the log about it.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// What is to be said of the connections that made way.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    count: usize,
    said_at: Option<Instant>,
}

impl EventLoop {
    /// Takes a connection that waits although this worker is full, and closes idle ones for it and those to come.
    pub(super) fn make_room(&mut self) {
        if self.core.gate.as_ref().is_some_and(|gate| !gate.is_free()) {
            return;
        }
        let idlest = self.idlest();
        if idlest.is_empty() {
            return;
        }
        if let Some((accepted, peer)) = (0..self.shards.len()).find_map(|shard| self.accept(shard))
        {
            self.evict(&idlest);
            self.welcome(accepted, peer);
            // Whoever was let go may be back at once, and somebody else behind it.
            self.shards.sweep_soon(self.core.now());
        }
    }

    /// The connections that would make way for new ones: enough of them for this worker to wait for new ones again.
    fn idlest(&mut self) -> Vec<u32> {
        let core = &self.core;
        let mut idle: Vec<_> = self
            .connections
            .iter_mut()
            .filter_map(|(index, connection)| {
                let (dispensable, since) = connection.dispensable(core)?;
                Some((dispensable, since, index))
            })
            .collect();
        let wanted = self.capacity() / CAPACITY_SLACK + 1;
        if wanted < idle.len() {
            idle.select_nth_unstable(wanted);
            idle.truncate(wanted);
        }
        idle.into_iter().map(|(_, _, index)| index).collect()
    }

    /// Closes these.
    fn evict(&mut self, indices: &[u32]) {
        for &index in indices {
            if let Some(connection) = self.connections.get_mut(index) {
                connection.record_cut(&mut self.core);
            }
            self.close(index);
        }
        self.evictions.count += indices.len();
        let now = self.core.now();
        if self.evictions.said_at.is_none_or(|at| at + SAID_EVERY <= now) {
            self.core.kernel.log.warning(format_args!(
                "No room for new connections: closed the idlest worker_connections={} closed={}",
                self.capacity(),
                self.evictions.count
            ));
            self.evictions = Evictions { count: 0, said_at: Some(now) };
        }
    }
}
