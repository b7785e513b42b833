//! The listeners: which are in the wait set, and when.
//!
//! - Every worker waits on every shard of every address, its own first: exclusive waiters are woken in the order of
//!   their registration, so the owner gets its own connections while it is idle, and anyone else when it is not.
//! - An owner that was woken and has not run yet looks busy. So what came to somebody else's shard is left to its owner for
//!   a moment, and then taken one by one: kept connections stay spread over the workers.
//! - Where all workers share one listener, whoever keeps a connection goes to the end of the queue.
//! - A worker at its limit takes all shards out of the set *before* it waits; it never declines after a wake-up. At the
//!   sweeps it takes what no sibling took, if some connection can make way (`event_loop/room.rs`).
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
/// The same while connections are let go for others that wait.
const SWEEP_SOON: Duration = Duration::from_millis(10);
/// Wait after `accept` failed for lack of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Time that the owner of a shard has for what came, before others look at it.
const PATIENCE: Duration = Duration::from_millis(2);
/// Connections taken at once from a shard of our own.
const OWN_AT_ONCE: usize = 8;
/// Connections taken at once from a listener that all workers share.
const SHARED_AT_ONCE: usize = 2;
/// An owner that has left so many connections in a row is taken to be away: stuck, or gone. On a busy machine one that is
/// merely not running yet needs some milliseconds.
const LEFT_IN_A_ROW_MAX: u32 = 8;
/// For so long nothing is left to an owner that is taken to be away.
const AWAY: Duration = Duration::from_secs(1);

/// One listener, and whether it is in the wait set.
struct Shard {
    listener: Listener,
    whose: Whose,
    is_armed: bool,
    /// Number of its address, in the order of the listeners.
    address: usize,
    /// No newer worker holds it.
    is_retired: bool,
    /// Something came, and was left to the owner. The shard is not in the wait set then.
    left: Option<Left>,
    /// How often in a row the owner did not take what was left to it.
    left_in_a_row: u32,
    /// Until then the owner is taken to be away.
    away_until: Option<Instant>,
}

/// Who is to take what comes to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// We, while we have the time.
    Ours,
    /// Every worker alike: it is the only one of its address.
    Shared,
    /// Another worker, while it has the time.
    Another,
}

/// What was left to the owner of a shard.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// When we look whether it is still there.
    until: Instant,
    /// We have looked before, and taken one.
    is_more: bool,
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
        // The addresses in the order of the listeners, and how many listeners each has.
        let mut addresses: Vec<(net::LocalAddr, usize)> = Vec::new();
        for (listener, _) in &listeners {
            match addresses.iter_mut().find(|(address, _)| address == listener.local_addr()) {
                Some((_, count)) => *count += 1,
                None => addresses.push((listener.local_addr().clone(), 1)),
            }
        }
        let place = |listener: &Listener| {
            let mut known = addresses.iter().enumerate();
            known.find(|(_, (address, _))| address == listener.local_addr())
        };
        let (mut shards, mut others): (Vec<_>, Vec<_>) = listeners
            .into_iter()
            .map(|(listener, is_own)| {
                let (address, count) =
                    place(&listener).map_or((0, 1), |(address, (_, count))| (address, *count));
                Shard {
                    whose: match (count, is_own) {
                        (1, _) => Whose::Shared,
                        (_, true) => Whose::Ours,
                        (_, false) => Whose::Another,
                    },
                    listener,
                    is_armed: false,
                    address,
                    is_retired: false,
                    left: None,
                    left_in_a_row: 0,
                    away_until: None,
                }
            })
            .partition(Shard::is_own);
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
        if self.shards.iter().all(Shard::is_own) {
            // Nothing to wait for. A host must not be called before the worker has said that it is ready: a request that
            // takes its time would look like a worker that boots for ever.
            return self.arm_all(poll);
        }
        self.arm(poll, Shard::is_own);
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
            self.disarm(poll, |shard| !shard.is_own());
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
            Arming::All => {
                let left = self.shards.iter().filter_map(|shard| shard.left);
                Some(left.fold(self.sweep_at, |next, left| next.min(left.until)))
            }
            Arming::Full => Some(self.sweep_at),
            Arming::BackingOff { until } => Some(until),
            Arming::Off | Arming::Closed => None,
        }
    }

    /// Does what is due; `true`: the caller looks at every shard once.
    pub(crate) fn on_deadline(&mut self, poll: &Poll, now: Instant) -> bool {
        match self.arming {
            Arming::Own { others_at } if others_at <= now => self.arm_all(poll),
            Arming::BackingOff { until } if until <= now => self.arm_all(poll),
            Arming::All | Arming::Full if self.sweep_at <= now => (),
            _ => return false,
        }
        self.sweep_at = now + SWEEP_EVERY;
        true
    }

    /// The next look at every shard comes soon.
    pub(crate) fn sweep_soon(&mut self, now: Instant) {
        self.sweep_at = self.sweep_at.min(now + SWEEP_SOON);
    }

    /// Something came to shard `index`. Returns how many connections are to be taken at once; 0: it is left to its owner.
    pub(crate) fn on_wake(&mut self, poll: &Poll, index: usize, now: Instant) -> usize {
        match self.shards.get_mut(index) {
            Some(shard) if shard.leaves(now) => {
                shard.left = Some(Left { until: now + PATIENCE, is_more: false });
                self.disarm(poll, |shard| shard.left.is_some());
                0
            }
            Some(shard) if shard.whose == Whose::Shared => SHARED_AT_ONCE,
            _ => OWN_AT_ONCE,
        }
    }

    /// A shard whose owner has had its time by `now`: one connection is to be taken from it.
    ///
    /// The caller tells [`Shards::looked`] whether there was one.
    pub(crate) fn next_overdue(&self, now: Instant) -> Option<usize> {
        self.shards.iter().position(|shard| shard.left.is_some_and(|left| left.until <= now))
    }

    /// We looked at a shard that [`Shards::next_overdue`] named.
    ///
    /// If there was a connection, its owner has time for the next one, too; but soon it is taken to be away, and what comes
    /// to it is taken as if it came to us.
    pub(crate) fn looked(&mut self, poll: &Poll, index: usize, was_there: bool, now: Instant) {
        let Some(shard) = self.shards.get_mut(index) else { return };
        let Some(left) = shard.left.take() else { return };
        if was_there {
            shard.left_in_a_row += 1;
        } else if !left.is_more {
            shard.left_in_a_row = 0;
        }
        if LEFT_IN_A_ROW_MAX <= shard.left_in_a_row {
            shard.left_in_a_row = 0;
            shard.away_until = Some(now + AWAY);
        }
        if was_there && shard.leaves(now) {
            shard.left = Some(Left { until: now + PATIENCE, is_more: true });
        } else if self.arming == Arming::All {
            self.arm(poll, |_| true);
        }
    }

    /// A connection that came to listener `index` is kept: where all share it, the next one is another worker's.
    pub(crate) fn kept(&mut self, poll: &Poll, index: usize) {
        if let Some(shard) = self.shards.get_mut(index)
            && shard.whose == Whose::Shared
            && shard.is_armed
        {
            // It is in the set, so this cannot fail.
            let _ = sys::epoll::delete(poll, &shard.listener);
            shard.is_armed = false;
            self.arm_one(poll, index);
        }
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
        for index in 0..self.shards.len() {
            if which(&self.shards[index]) {
                self.arm_one(poll, index);
            }
        }
    }

    fn arm_one(&mut self, poll: &Poll, index: usize) {
        let token = self.first_token + index as u64;
        let shard = &mut self.shards[index];
        if !shard.is_armed && shard.left.is_none() {
            // A failure (no memory) is mended by the sweep, which looks at unarmed shards too.
            shard.is_armed = sys::epoll::add_exclusive(poll, &shard.listener, token).is_ok();
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

impl Shard {
    fn is_own(&self) -> bool {
        self.whose != Whose::Another
    }

    /// Whether what comes is left to another worker first.
    fn leaves(&self, now: Instant) -> bool {
        self.whose == Whose::Another && self.away_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::{BindAddr, BindOptions, ListenerGroup};

    fn shards(count: usize, own: usize, now: Instant) -> (Poll, Shards) {
        let address: BindAddr = "127.0.0.1:0".parse().unwrap();
        let group = ListenerGroup::bind(&address, count, &BindOptions::default()).unwrap();
        let shards = group.shards().iter().enumerate();
        let listeners = shards.map(|(index, shard)| (shard.try_clone().unwrap(), index == own));
        let poll = Poll::new().unwrap();
        let mut shards = Shards::new(listeners.collect(), 0, now);
        shards.open(&poll, now);
        shards.on_deadline(&poll, now + OTHERS_AFTER);
        assert!(shards.is_open());
        (poll, shards)
    }

    #[test]
    fn what_comes_to_another_is_left_to_it_for_a_moment() {
        let now = Instant::now();
        let (poll, mut shards) = shards(2, 1, now);
        assert_eq!(shards.on_wake(&poll, 0, now), OWN_AT_ONCE);
        assert_eq!(shards.on_wake(&poll, 1, now), 0);
        assert_eq!(shards.next_overdue(now), None);
        assert_eq!(shards.next_deadline(), Some(now + PATIENCE));
        assert_eq!(shards.next_overdue(now + PATIENCE), Some(1));
        // There was one: its owner has time for the next.
        shards.looked(&poll, 1, true, now + PATIENCE);
        assert_eq!(shards.next_overdue(now + PATIENCE), None);
        assert_eq!(shards.next_overdue(now + 2 * PATIENCE), Some(1));
        // It took the rest.
        shards.looked(&poll, 1, false, now + 2 * PATIENCE);
        assert_eq!(shards.next_overdue(now + AWAY), None);
        assert!(shards.shards[1].is_armed);
    }

    #[test]
    fn an_owner_that_takes_nothing_is_taken_to_be_away_for_a_while() {
        let now = Instant::now();
        let (poll, mut shards) = shards(2, 1, now);
        for _ in 0..LEFT_IN_A_ROW_MAX {
            assert_eq!(shards.on_wake(&poll, 1, now), 0);
            shards.looked(&poll, 1, true, now);
            shards.looked(&poll, 1, false, now);
        }
        assert_eq!(shards.on_wake(&poll, 1, now), OWN_AT_ONCE);
        assert_eq!(shards.on_wake(&poll, 1, now + AWAY), 0);
    }

    #[test]
    fn the_only_listener_of_an_address_is_everybodys() {
        let now = Instant::now();
        let (poll, mut shards) = shards(1, 0, now);
        assert_eq!(shards.on_wake(&poll, 0, now), SHARED_AT_ONCE);
        shards.kept(&poll, 0);
        assert!(shards.shards[0].is_armed);
    }
}
