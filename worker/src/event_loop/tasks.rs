//! Tasks: handlers' and spawned ones, polled when they were woken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::EventLoop;
use crate::connection::Connection;
use crate::executor::{TaskKey, TaskWaker};
use crate::panics;

/// Times that woken tasks are polled in one turn; tasks that wake each other go on in the next.
const TASK_ROUNDS_MAX: usize = 16;

/// Nanoseconds of a turn that go to long responses; what is left of them waits until newcomers were looked at.
const LONG_NS_MAX: u64 = 250_000;

/// A task that belongs to no request.
pub(super) struct Spawned {
    future: Pin<Box<dyn Future<Output = ()>>>,
    inside: Arc<TaskWaker>,
    waker: std::task::Waker,
}

impl EventLoop {
    /// Polls the tasks that were woken, and those that they wake.
    pub(super) fn run_tasks(&mut self) {
        for _ in 0..TASK_ROUNDS_MAX {
            self.adopt_spawned();
            let mut woken = std::mem::take(&mut self.woken);
            self.core.queue.take(&mut woken);
            if woken.is_empty() {
                self.woken = woken;
                return;
            }
            for key in woken.drain(..) {
                match key {
                    TaskKey::Connection(index) => self.wake_connection(index),
                    TaskKey::Spawned(index) => self.poll_spawned(index),
                }
            }
            self.woken = woken;
        }
    }

    fn wake_connection(&mut self, index: u32) {
        let is_long = self.connections.get_mut(index).is_some_and(|it| it.is_long());
        if !is_long {
            return self.with(index, Connection::on_wake);
        }
        if LONG_NS_MAX < self.long_ns {
            return self.put_off.push(TaskKey::Connection(index));
        }
        let began = sys::clock::monotonic();
        self.with(index, Connection::on_wake);
        self.core.tick = sys::clock::monotonic();
        self.long_ns += self.core.tick.saturating_sub(began);
    }

    /// Long responses that had no share of this turn have one in the next, in their order.
    pub(super) fn put_back_long(&mut self) {
        self.long_ns = 0;
        self.core.queue.put_back(self.put_off.drain(..));
    }

    /// Gives the tasks that handlers spawned their places, and begins them.
    fn adopt_spawned(&mut self) {
        let spawned = std::mem::take(&mut *self.core.kernel.spawned.borrow_mut());
        for future in spawned {
            let key = TaskKey::Spawned(self.spawned.next_token() as u32);
            let (inside, waker) = TaskWaker::new(&self.core.queue, key);
            waker.wake_by_ref();
            self.spawned.insert(Spawned { future, inside, waker });
        }
    }

    /// Drops what handlers spawned and is not done.
    pub(super) fn end_spawned(&mut self) {
        for (_, spawned) in self.spawned.iter_mut() {
            let done: Pin<Box<dyn Future<Output = ()>>> = Box::pin(std::future::ready(()));
            self.core.end(std::mem::replace(&mut spawned.future, done));
        }
    }

    fn poll_spawned(&mut self, index: u32) {
        let Some(spawned) = self.spawned.get_mut(index) else { return };
        spawned.inside.before_poll();
        self.core.has_asked = true;
        let mut context = Context::from_waker(&spawned.waker);
        let polled = panics::catch(|| spawned.future.as_mut().poll(&mut context));
        // It belongs to no request: hints of its own are nobody's.
        self.core.kernel.interim.borrow_mut().clear();
        if let Err(panic) = &polled {
            self.core.kernel.log.error(format_args!("A task failed: {}", panic.text()));
        }
        if !matches!(polled, Ok(Poll::Pending)) {
            let ended = self.spawned.remove(index);
            self.core.end(ended);
        }
    }
}
