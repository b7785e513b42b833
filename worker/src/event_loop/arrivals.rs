//! New connections: how many are taken, from which shard, and when none is.

use std::time::Instant;

use mio::Token;
use net::{Accepted, Kind, Peer};
use scoreboard::Counter;

use super::EventLoop;
use crate::connection::{Activity, Connection};
use crate::stream::Stream;

/// Connections taken from one shard when all are looked at, woken or not.
const ACCEPTS_PER_SWEEP_MAX: usize = 8;
/// Connections taken from one shard at the last stop, when nobody else will.
pub(super) const ACCEPTS_AT_END_MAX: usize = 65_536;
/// A turn that has lasted longer than this, in nanoseconds, takes no further connections.
const TURN_LATE_NS: u64 = 1_000_000;

impl EventLoop {
    /// How many connections may be held at once.
    pub(super) fn capacity(&self) -> usize {
        self.core.kernel.settings.worker_connections
    }

    /// So many are held.
    pub(super) fn is_full(&self) -> bool {
        self.capacity() <= self.connections.len()
    }

    /// A shard has connections, or had a moment ago.
    pub(super) fn on_arrival(&mut self, shard: usize) {
        let count = self.shards.on_wake(&self.poll, shard, self.core.now());
        self.accept_some(shard, self.at_most(count));
    }

    /// Looks at the shards that were left to their owners for long enough.
    pub(super) fn take_overdue(&mut self, now: Instant) {
        while let Some(shard) = self.shards.next_overdue(now) {
            let was_there = self.accept_some(shard, 1) != 0;
            self.shards.looked(&self.poll, shard, was_there, now);
        }
    }

    /// Takes connections from one shard, as long as there are any, and capacity. Returns how many.
    pub(super) fn accept_some(&mut self, shard: usize, accepts_max: usize) -> usize {
        for taken in 0..accepts_max {
            // At the last stop nobody else would take them.
            if !self.core.drain.is_draining() {
                if self.is_full() {
                    self.shards.set_full(&self.poll, true);
                    return taken;
                }
                if self.core.gate.as_ref().is_some_and(|gate| !gate.is_free()) {
                    return taken; // The listeners leave the set at the end of this turn.
                }
                if self.is_late() {
                    return taken; // What waits is reported again, here or to a worker with more time.
                }
            }
            let Some((accepted, peer)) = self.accept(shard) else { return taken };
            // Before each call a host is out of the queue anyway.
            if self.welcome(accepted, peer) && self.core.gate.is_none() {
                self.shards.kept(&self.poll, shard);
            }
        }
        accepts_max
    }

    /// Takes one connection from a shard, if there is one.
    pub(super) fn accept(&mut self, shard: usize) -> Option<(Accepted, Peer)> {
        match self.shards.accept(&self.poll, shard, self.core.now()) {
            Ok(taken) => {
                self.accept_fails &= taken.is_none();
                taken
            }
            Err(error) => {
                // Once for a whole run of failures: they come ten times a second.
                if !std::mem::replace(&mut self.accept_fails, true) {
                    self.core.kernel.log.error(format_args!("Cannot accept connections: {error}"));
                }
                None
            }
        }
    }

    /// So many connections at once, but with a host one: its request is carried out first.
    fn at_most(&self, count: usize) -> usize {
        if self.core.gate.is_some() { count.min(1) } else { count }
    }

    /// A host without capacity takes no connections: another worker may. One that has it again takes what waits.
    pub(super) fn watch_gate(&mut self) {
        if self.core.shows_threads {
            // A thread comes to its end between the loop's calls.
            self.core.wake_waiting();
        }
        let Some(gate) = &self.core.gate else { return };
        let is_busy = !gate.is_free();
        if is_busy != std::mem::replace(&mut self.host_is_busy, is_busy) {
            let is_full = is_busy || self.is_full();
            self.shards.set_full(&self.poll, is_full);
        }
    }

    /// Whether handlers have held this turn up, so that there may be news.
    fn is_late(&self) -> bool {
        TURN_LATE_NS < self.core.tick.saturating_sub(self.began)
    }

    /// A new connection. Its first request has often come along, so it is read from before it is waited for.
    /// Returns whether it is there to stay, as far as anyone knows.
    pub(super) fn welcome(&mut self, accepted: Accepted, peer: Peer) -> bool {
        self.core.block.add(Counter::ConnectionsAccepted, 1);
        let stream = match accepted.kind {
            Kind::Tcp => Stream::tcp(accepted.fd),
            Kind::Unix => Stream::unix(accepted.fd),
        };
        let token = Token(self.connections.next_token());
        let index = self.connections.insert(Connection::new(stream, token, peer, &self.core));
        let registry = self.poll.registry();
        let Some(connection) = self.connections.get_mut(index) else { return false };
        let verdict = connection.on_accept(registry, &mut self.core);
        let is_kept = connection.activity() == Activity::Idle;
        self.with(index, |_, _| verdict);
        is_kept
    }

    /// Looks at every shard, woken or not.
    pub(super) fn sweep(&mut self) {
        self.sweep_for(self.at_most(ACCEPTS_PER_SWEEP_MAX));
    }

    /// As [`EventLoop::sweep`], for so many connections from each.
    pub(super) fn sweep_for(&mut self, accepts_max: usize) {
        if self.is_full() && !self.core.drain.is_draining() {
            self.make_room();
        }
        for shard in 0..self.shards.len() {
            self.accept_some(shard, accepts_max);
        }
    }
}
