//! Tasks of one loop: who asked to be polled again.
//!
//! - A task is polled only on the loop's thread; it needs no `Send`.
//! - Its waker is a standard one: cheap on the loop's thread, and good on any other, which then wakes the loop up.
//! - A wake-up that comes late, for a task that is gone, costs one needless look and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Names a task to its loop: a connection's index, or a spawned task's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskKey {
    /// The task of the request that the connection of this index has in hand.
    Connection(u32),
    /// A task that belongs to no request.
    Spawned(u32),
}

/// The keys of the tasks to be polled, in the order in which they were woken.
pub(crate) struct ReadyQueue {
    keys: Mutex<Vec<TaskKey>>,
    /// The loop sleeps or is about to: a push must wake it.
    is_parked: AtomicBool,
    alarm: mio::Waker,
}

impl ReadyQueue {
    /// Makes an empty queue; `alarm` ends the loop's wait.
    pub(crate) fn new(alarm: mio::Waker) -> Arc<ReadyQueue> {
        Arc::new(ReadyQueue {
            keys: Mutex::new(Vec::new()),
            is_parked: AtomicBool::new(false),
            alarm,
        })
    }

    /// Asks for `key` to be looked at in this turn or the next.
    pub(crate) fn push(&self, key: TaskKey) {
        self.lock().push(key);
        if self.is_parked.load(Ordering::SeqCst) {
            // A failure leaves the key in the queue: the loop finds it at its next tick.
            let _ = self.alarm.wake();
        }
    }

    /// Says that the loop is about to sleep; `false` if there is work, so that it must not.
    pub(crate) fn park(&self) -> bool {
        self.is_parked.store(true, Ordering::SeqCst);
        self.lock().is_empty()
    }

    /// Says that the loop is awake: pushes need not wake it.
    pub(crate) fn unpark(&self) {
        self.is_parked.store(false, Ordering::SeqCst);
    }

    /// Moves all keys to the end of `into`.
    pub(crate) fn take(&self, into: &mut Vec<TaskKey>) {
        into.append(&mut self.lock());
    }

    /// Queues `keys` before all others.
    pub(crate) fn put_back(&self, keys: impl ExactSizeIterator<Item = TaskKey>) {
        if keys.len() != 0 {
            self.lock().splice(..0, keys);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TaskKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a task's waker holds. One per connection slot, used again for every request on it.
pub(crate) struct TaskWaker {
    queue: Arc<ReadyQueue>,
    key: TaskKey,
    is_queued: AtomicBool,
}

impl TaskWaker {
    /// Makes the waker's inside and the waker.
    pub(crate) fn new(queue: &Arc<ReadyQueue>, key: TaskKey) -> (Arc<TaskWaker>, Waker) {
        let inside = Arc::new(TaskWaker {
            queue: Arc::clone(queue),
            key,
            is_queued: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&inside));
        (inside, waker)
    }

    /// To be called before each poll: from now on a wake-up queues the task again.
    pub(crate) fn before_poll(&self) {
        self.is_queued.store(false, Ordering::Release);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<TaskWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<TaskWaker>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn queue() -> (mio::Poll, Arc<ReadyQueue>) {
        let poll = mio::Poll::new().unwrap();
        let alarm = mio::Waker::new(poll.registry(), mio::Token(1)).unwrap();
        (poll, ReadyQueue::new(alarm))
    }

    #[test]
    fn a_task_woken_twice_is_queued_once_until_it_is_polled() {
        let (_poll, queue) = queue();
        let (inside, waker) = TaskWaker::new(&queue, TaskKey::Connection(7));
        waker.wake_by_ref();
        waker.wake_by_ref();
        let mut keys = Vec::new();
        queue.take(&mut keys);
        assert_eq!(keys, [TaskKey::Connection(7)]);
        inside.before_poll();
        waker.wake();
        queue.take(&mut keys);
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn another_thread_ends_the_wait() {
        let (mut poll, queue) = queue();
        let (_inside, waker) = TaskWaker::new(&queue, TaskKey::Spawned(1));
        assert!(queue.park());
        let other = std::thread::spawn(move || waker.wake());
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(events.iter().count(), 1);
        queue.unpark();
        assert!(!queue.park());
        other.join().unwrap();
    }
}
