//! Deadlines of one loop; is handed the time.
//!
//! A deadline that moves at every request must cost nothing. So it is kept where it moves, by the caller, and the heap
//! holds at most one live entry per key, which is allowed to be too early: when it comes due the caller says where the
//! deadline is by now, and the entry is put back there. Ten thousand busy connections touch the heap once per time
//! limit each, not once per request, and a key that is used again takes over the entry of its predecessor.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use timer::Timers;
//!
//! let start = Instant::now();
//! let second = Duration::from_secs(1);
//! let mut timers = Timers::new();
//! timers.schedule(7usize, start + second);
//! // Meanwhile the deadline of 7 has moved to two seconds; nobody told the timers.
//! let mut asked = Vec::new();
//! timers.expire(start + second, usize::MAX, &mut |key| { asked.push(key); Some(start + 2 * second) });
//! assert_eq!((asked, timers.next_deadline()), (vec![7], Some(start + 2 * second)));
//! ```

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// What a deadline belongs to: something with a small number of its own, such as a place in a slab.
pub trait Key: Copy + Ord {
    /// Returns the number. The timers use memory for every number up to the largest one seen.
    fn index(self) -> usize;
}

impl Key for usize {
    fn index(self) -> usize {
        self
    }
}

impl Key for u32 {
    fn index(self) -> usize {
        self as usize
    }
}

/// The deadlines of one loop, at most one per key.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    slots: Vec<Slot>,
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

/// What the heap holds for one key.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The key's entry that counts; others are left over from deadlines that moved to earlier times.
    armed: Option<Instant>,
    /// Cancelled keys keep their entry, so that a key which comes and goes does not fill the heap.
    is_wanted: bool,
}

impl<K: Key> Default for Timers<K> {
    fn default() -> Self {
        Timers::new()
    }
}

impl<K: Key> Timers<K> {
    /// Creates an empty set.
    #[must_use]
    pub fn new() -> Self {
        Timers { slots: Vec::new(), heap: BinaryHeap::new() }
    }

    /// Sees to it that `key` is asked about at `at` or before.
    ///
    /// A key that will be asked about earlier anyway is left as it is, which costs one comparison: call this freely.
    /// Nobody need be told of a deadline that moves later.
    pub fn schedule(&mut self, key: K, at: Instant) {
        let index = key.index();
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot { armed: None, is_wanted: false });
        }
        let slot = &mut self.slots[index];
        slot.is_wanted = true;
        if slot.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        slot.armed = Some(at);
        self.heap.push(Reverse((at, key)));
    }

    /// Forgets the deadline of `key`, which may be used for something else at once.
    pub fn cancel(&mut self, key: K) {
        if let Some(slot) = self.slots.get_mut(key.index()) {
            slot.is_wanted = false;
        }
    }

    /// Returns when [`Timers::expire`] is to be called next. May be too early, never too late.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(&Reverse((when, key))) = self.heap.peek() {
            let slot = &mut self.slots[key.index()];
            if slot.armed == Some(when) {
                if slot.is_wanted {
                    return Some(when);
                }
                slot.armed = None;
            }
            self.heap.pop();
        }
        None
    }

    /// Asks about keys that are due at `now`, at most `most` of them: the others stay due. The answer is the key's deadline as
    /// it is by now: a later one puts the key back, `None` forgets it.
    ///
    /// An answer that is not after `now` is asked about again at the next call, not in this one, so the call ends.
    pub fn expire(&mut self, now: Instant, most: usize, ask: &mut dyn FnMut(K) -> Option<Instant>) {
        let mut overdue = Vec::new();
        for _ in 0..most {
            if self.next_deadline().is_none_or(|when| now < when) {
                break;
            }
            let Some(Reverse((_, key))) = self.heap.pop() else { break };
            self.slots[key.index()] = Slot { armed: None, is_wanted: false };
            match ask(key) {
                Some(again) if again <= now => overdue.push((key, again)),
                Some(again) => self.schedule(key, again),
                None => (),
            }
        }
        for (key, again) in overdue {
            self.schedule(key, again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timers;
    use std::time::{Duration, Instant};

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn due(timers: &mut Timers<usize>, now: Instant) -> Vec<usize> {
        let mut asked = Vec::new();
        timers.expire(now, usize::MAX, &mut |key| {
            asked.push(key);
            None
        });
        asked
    }

    #[test]
    fn keys_come_due_in_order_and_once() {
        let start = Instant::now();
        let mut timers: Timers<usize> = Timers::new();
        for (key, at) in [(3, 30), (1, 10), (2, 20)] {
            timers.schedule(key, start + ms(at));
        }
        assert_eq!(timers.next_deadline(), Some(start + ms(10)));
        assert_eq!(due(&mut timers, start + ms(9)), []);
        assert_eq!(due(&mut timers, start + ms(20)), [1, 2]);
        assert_eq!(due(&mut timers, start + ms(60)), [3]);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn deadline_that_moves_later_touches_no_heap() {
        let start = Instant::now();
        let mut timers: Timers<usize> = Timers::new();
        let mut deadlines = vec![start; 10_000];
        for round in 0..100 {
            for (key, deadline) in deadlines.iter_mut().enumerate() {
                *deadline = start + ms(1000 + round);
                timers.schedule(key, *deadline);
            }
        }
        assert_eq!(timers.heap.len(), 10_000);
        let mut asked = 0;
        timers.expire(start + ms(1000), usize::MAX, &mut |key| {
            asked += 1;
            Some(deadlines[key])
        });
        assert_eq!((asked, timers.next_deadline()), (10_000, Some(start + ms(1099))));
    }

    #[test]
    fn deadline_that_moves_earlier_is_met() {
        let start = Instant::now();
        let mut timers: Timers<usize> = Timers::new();
        timers.schedule(0, start + ms(30_000));
        timers.schedule(0, start + ms(2000));
        assert_eq!(timers.next_deadline(), Some(start + ms(2000)));
        assert_eq!(due(&mut timers, start + ms(2000)), [0]);
        // The entry of the earlier deadline is not mistaken for a new one.
        assert_eq!(due(&mut timers, start + ms(60_000)), []);
    }

    #[test]
    fn cancelled_key_is_not_asked_about_and_its_successor_is() {
        let start = Instant::now();
        let mut timers: Timers<usize> = Timers::new();
        timers.schedule(5, start + ms(10));
        timers.cancel(5);
        assert_eq!(timers.next_deadline(), None);
        timers.schedule(5, start + ms(10));
        timers.cancel(5);
        timers.schedule(5, start + ms(40));
        assert_eq!(due(&mut timers, start + ms(40)), [5]);
        timers.cancel(99);
    }

    #[test]
    fn connections_that_come_and_go_do_not_fill_the_heap() {
        let start = Instant::now();
        let mut timers: Timers<usize> = Timers::new();
        for number in 0..100_000 {
            timers.schedule(number as usize % 4, start + ms(30_000 + number));
            timers.cancel(number as usize % 4);
        }
        assert!(timers.heap.len() <= 4, "{}", timers.heap.len());
    }

    #[test]
    fn answer_in_the_past_does_not_loop() {
        let start = Instant::now();
        let mut timers: Timers<usize> = Timers::new();
        timers.schedule(0, start);
        let mut asked = 0;
        timers.expire(start + ms(1), usize::MAX, &mut |_| {
            asked += 1;
            Some(start)
        });
        assert_eq!((asked, timers.next_deadline()), (1, Some(start)));
    }

    /// Against the plain way: a map from key to deadline.
    #[test]
    fn no_deadline_is_missed_or_invented() {
        let start = Instant::now();
        let mut random = fastrand::Rng::with_seed(7);
        let mut timers: Timers<usize> = Timers::new();
        let mut deadlines: Vec<Option<Instant>> = vec![None; 20];
        for tick in 0..20_000u64 {
            let now = start + ms(tick);
            let key = random.usize(..20);
            if random.u8(..4) == 0 {
                deadlines[key] = None;
                timers.cancel(key);
            } else {
                let at = now + ms(random.u64(1..50));
                deadlines[key] = Some(at);
                timers.schedule(key, at);
            }
            let mut fired = Vec::new();
            timers.expire(now, usize::MAX, &mut |key| match deadlines[key] {
                Some(at) if at <= now => {
                    fired.push(key);
                    deadlines[key] = None;
                    None
                }
                other => other,
            });
            assert!(deadlines.iter().flatten().all(|&at| now < at), "missed at {tick}");
            assert!(timers.heap.len() <= 400, "{}", timers.heap.len());
        }
    }

    #[test]
    fn many_that_are_due_at_once_are_asked_about_a_few_at_a_time() {
        let start = Instant::now();
        let mut timers = Timers::new();
        for key in 0..5usize {
            timers.schedule(key, start);
        }
        let mut asked = Vec::new();
        for count in [2, 4, 5, 5] {
            timers.expire(start, 2, &mut |key| {
                asked.push(key);
                None
            });
            assert_eq!(asked.len(), count);
            assert_eq!(timers.next_deadline(), (count < 5).then_some(start));
        }
        asked.sort_unstable();
        assert_eq!(asked, [0, 1, 2, 3, 4]);
    }
}
