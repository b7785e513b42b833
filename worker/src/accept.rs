//! The listeners: which are in the wait set, and when.
//!
//! - Every worker waits on every shard of every address, its own first: exclusive waiters are woken in the order of
//!   their registration, so the owner gets its own connections while it is idle, and anyone else when it is not.
//! - A worker at its limit takes all shards out of the set *before* it waits; it never declines after a wake-up.
//! - A wake-up dies with the process that was woken. Hence the re-arming at the master's word, and the sweep.
//! - Closing means closing our copies: the sockets belong to the master.

use std::io;
use std::time::{Duration, Instant};

use mio::Poll;
use net::{Accepted, Listener, Peer};

/// Time between registering the own shards and the others, at start-up: every owner comes first in its queue.
const OTHERS_AFTER: Duration = Duration::from_millis(100);
/// Time between two looks at every shard without being asked: bounds the harm of a lost wake-up.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Wait after `accept` failed for lack of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// One listener, and whether it is in the wait set.
struct Shard {
    listener: Listener,
    is_own: bool,
    is_armed: bool,
    /// Number of its address, in the order of the listeners.
    address: usize,
    /// No newer worker holds it.
    is_retired: bool,
}

/// What the wait set holds, as far as listeners go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arming {
    /// Nothing yet: the application is being built.
    Off,
    /// The own shards; the others follow at this time.
    Own { others_at: Instant },
    /// All.
    All,
    /// Nothing, for want of capacity.
    Full,
    /// Nothing until this time, because `accept` failed.
    BackingOff { until: Instant },
    /// Nothing any more: our copies are closed.
    Closed,
}

/// The listeners of this worker.
pub(crate) struct Shards {
    shards: Vec<Shard>,
    first_token: u64,
    arming: Arming,
    sweep_at: Instant,
}

impl Shards {
    /// `listeners`, each with whether this worker owns it. Their tokens are `first_token` and on, in order.
    pub(crate) fn new(listeners: Vec<(Listener, bool)>, first_token: u64, now: Instant) -> Self {
        let mut addresses = Vec::new();
        let (mut shards, mut others): (Vec<_>, Vec<_>) = listeners
            .into_iter()
            .map(|(listener, is_own)| {
                let own = listener.local_addr();
                let known = addresses.iter().position(|address| address == own);
                let address = known.unwrap_or_else(|| {
                    addresses.push(own.clone());
                    addresses.len() - 1
                });
                Shard { listener, is_own, is_armed: false, address, is_retired: false }
            })
            .partition(|shard| shard.is_own);
        // Or the worker that happens to be first would be first for everybody's connections.
        fastrand::shuffle(&mut others);
        shards.append(&mut others);
        Shards { shards, first_token, arming: Arming::Off, sweep_at: now + SWEEP_EVERY }
    }

    /// How many listeners there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// Begins to take connections: from the own shards now, from the others 100 ms later.
    pub(crate) fn open(&mut self, poll: &Poll, now: Instant) {
        if self.shards.iter().all(|shard| shard.is_own) {
            // Nothing to wait for. A host must not be called before the worker has said that it is ready: a request that
            // takes its time would look like a worker that boots for ever.
            return self.arm_all(poll);
        }
        self.arm(poll, |shard| shard.is_own);
        self.arming = Arming::Own { others_at: now + OTHERS_AFTER };
    }

    /// Whether all shards are in the wait set, or were and will be again.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.arming, Arming::Off | Arming::Own { .. })
    }

    /// Takes all shards out of the set while there is no capacity, and puts them back when there is.
    pub(crate) fn set_full(&mut self, poll: &Poll, is_full: bool) {
        match (self.arming, is_full) {
            (Arming::Own { .. } | Arming::All | Arming::BackingOff { .. }, true) => {
                self.disarm(poll, |_| true);
                self.arming = Arming::Full;
            }
            (Arming::Full, false) => self.arm_all(poll),
            _ => (),
        }
    }

    /// Another worker died: moves to the end of the queues of shards that are not ours.
    ///
    /// The caller then looks at every shard once.
    pub(crate) fn re_arm(&mut self, poll: &Poll) {
        if self.arming == Arming::All {
            self.disarm(poll, |shard| !shard.is_own);
            self.arm(poll, |_| true);
        }
    }

    /// No newer worker holds the listeners of `address`: the last to close them takes what waits there.
    pub(crate) fn retire(&mut self, address: u8) {
        for shard in self.shards.iter_mut().filter(|shard| shard.address == usize::from(address)) {
            shard.is_retired = true;
        }
    }

    /// Indices of the shards that were retired.
    pub(crate) fn retired(&self) -> Vec<usize> {
        let retired = self.shards.iter().enumerate().filter(|(_, shard)| shard.is_retired);
        retired.map(|(index, _)| index).collect()
    }

    /// Closes our copies. The sockets stay open with the master.
    pub(crate) fn close(&mut self, poll: &Poll) {
        self.disarm(poll, |_| true);
        self.shards.clear();
        self.arming = Arming::Closed;
    }

    /// When [`Shards::on_deadline`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.arming {
            Arming::Own { others_at } => Some(others_at),
            Arming::All => Some(self.sweep_at),
            Arming::BackingOff { until } => Some(until),
            Arming::Off | Arming::Full | Arming::Closed => None,
        }
    }

    /// Does what is due; `true`: the caller looks at every shard once.
    pub(crate) fn on_deadline(&mut self, poll: &Poll, now: Instant) -> bool {
        match self.arming {
            Arming::Own { others_at } if others_at <= now => self.arm_all(poll),
            Arming::BackingOff { until } if until <= now => self.arm_all(poll),
            Arming::All if self.sweep_at <= now => (),
            _ => return false,
        }
        self.sweep_at = now + SWEEP_EVERY;
        true
    }

    /// Takes one connection from shard `index`; `Ok(None)`: there is none, or another worker was faster.
    ///
    /// After an error of the whole process (no descriptors, no memory) nothing is taken for a while.
    pub(crate) fn accept(
        &mut self,
        poll: &Poll,
        index: usize,
        now: Instant,
    ) -> io::Result<Option<(Accepted, Peer)>> {
        let Some(shard) = self.shards.get(index) else { return Ok(None) };
        let taken = shard.listener.accept();
        if taken.is_err() && self.is_open() {
            self.disarm(poll, |_| true);
            self.arming = Arming::BackingOff { until: now + BACK_OFF };
        }
        taken
    }

    fn arm_all(&mut self, poll: &Poll) {
        // The own ones come first in `shards`.
        self.arm(poll, |_| true);
        self.arming = Arming::All;
    }

    fn arm(&mut self, poll: &Poll, which: impl Fn(&Shard) -> bool) {
        for (shard, token) in self.shards.iter_mut().zip(self.first_token..) {
            if which(shard) && !shard.is_armed {
                // A failure (no memory) is mended by the sweep, which looks at unarmed shards too.
                shard.is_armed = sys::epoll::add_exclusive(poll, &shard.listener, token).is_ok();
            }
        }
    }

    fn disarm(&mut self, poll: &Poll, which: impl Fn(&Shard) -> bool) {
        for shard in self.shards.iter_mut().filter(|shard| shard.is_armed && which(shard)) {
            // It is in the set, so this cannot fail.
            let _ = sys::epoll::delete(poll, &shard.listener);
            shard.is_armed = false;
        }
    }
}
