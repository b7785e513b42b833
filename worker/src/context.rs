//! What a handler has at hand besides the request: the worker's state, the database, timers, buffers, the log.
//!
//! - One `Context` per worker, made after exec, cloned by counting: nothing in it needs `Send` or a lock.
//! - What handlers ask of the loop (a timer, a further task) goes through [`Kernel`]; the loop looks at it each turn.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use net::LocalAddr;
use shared::settings::Settings;

use crate::buffer::Buffer;
use crate::clock::Clock;
use crate::log::Log;

/// The worker's state and services, as handlers see them. Cheap to clone.
pub struct Context<S = ()> {
    inner: Rc<Inner<S>>,
}

struct Inner<S> {
    state: S,
    kernel: Rc<Kernel>,
}

impl<S> Clone for Context<S> {
    fn clone(&self) -> Context<S> {
        Context { inner: Rc::clone(&self.inner) }
    }
}

impl<S> Context<S> {
    pub(crate) fn new(state: S, kernel: Rc<Kernel>) -> Context<S> {
        Context { inner: Rc::new(Inner { state, kernel }) }
    }

    /// The worker's own object, given to [`App::with_state`](crate::App::with_state).
    #[must_use]
    pub fn state(&self) -> &S {
        &self.inner.state
    }

    /// The database: one pipelined connection, shared by all requests of this worker.
    ///
    /// While it is away, or when none is configured, queries fail at once; by `?` the client gets 503 with
    /// `Retry-After`.
    #[must_use]
    pub fn database(&self) -> &pg::Database {
        &self.inner.kernel.database
    }

    /// An empty pooled buffer; as a response's body it goes out without being copied into another.
    #[must_use]
    pub fn buffer(&self) -> Buffer {
        Buffer::new()
    }

    /// Waits for `duration`; other requests go on.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let now = self.inner.kernel.clock.now();
        // A wait that the clock cannot express is for ever.
        let until = now.checked_add(duration).unwrap_or(now + FOR_EVER);
        Sleep { kernel: Rc::clone(&self.inner.kernel), until, entry: None }
    }

    /// Runs `task` beside the requests, until it is done or the worker ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.inner.kernel.spawned.borrow_mut().push(Box::pin(task));
    }

    /// The settings this worker was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.kernel.settings
    }

    /// The error log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.kernel.log
    }

    /// The time of this turn of the loop: exact enough for deadlines, free of charge.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.inner.kernel.clock.now()
    }

    /// Tells the client of this request what it will need (103 Early Hints), before the response is ready.
    ///
    /// To be called while an asynchronous handler is at work and has not answered yet. Elsewhere, in HTTP/1.0, and beyond
    /// 16 KiB, nothing is sent.
    ///
    /// # Errors
    ///
    /// A name or a value is not valid; nothing is sent.
    pub fn early_hints(&self, fields: &[(&str, &str)]) -> Result<(), http1::ResponseError> {
        let mut interim = self.inner.kernel.interim.borrow_mut();
        if INTERIM_BYTES_MAX < interim.len() {
            return Ok(());
        }
        let fields: Vec<(&str, &[u8])> =
            fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        http1::interim(&mut interim, 103, &fields)
    }

    /// Whether the worker finishes its work and will end: long work should come to a close.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.kernel.is_draining.get()
    }
}

/// Bytes of early hints that wait to be sent; with more, further ones are left out.
const INTERIM_BYTES_MAX: usize = 16 * 1024;

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What handlers and the loop share.
pub(crate) struct Kernel {
    pub(crate) settings: Settings,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    pub(crate) database: pg::Database,
    pub(crate) is_draining: Cell<bool>,
    /// Tasks spawned since the loop last looked.
    pub(crate) spawned: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
    pub(crate) sleeps: RefCell<Sleeps>,
    /// Interim responses of the handler that is being run or polled; the connection takes them right after.
    pub(crate) interim: RefCell<Vec<u8>>,
}

/// The waits of all tasks, by time.
#[derive(Default)]
pub(crate) struct Sleeps {
    entries: std::collections::BTreeMap<(Instant, u64), Waker>,
    next_number: u64,
}

impl Sleeps {
    /// When [`Sleeps::expire`] has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(key, _)| key.0)
    }

    /// Wakes every task whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.entries.first_entry() {
            if now < entry.key().0 {
                break;
            }
            entry.remove().wake();
        }
    }
}

/// A wait begun by [`Context::sleep`]. Dropping it ends it.
pub struct Sleep {
    kernel: Rc<Kernel>,
    until: Instant,
    /// Number of the entry in the table, once there is one.
    entry: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<()> {
        let sleep = &mut *self;
        if sleep.until <= sleep.kernel.clock.now() {
            return Poll::Ready(());
        }
        let mut sleeps = sleep.kernel.sleeps.borrow_mut();
        let number = *sleep.entry.get_or_insert_with(|| {
            sleeps.next_number += 1;
            sleeps.next_number
        });
        sleeps.entries.insert((sleep.until, number), task.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.entry {
            self.kernel.sleeps.borrow_mut().entries.remove(&(self.until, number));
        }
    }
}

/// What the application is built from: everything but the requests.
pub struct Boot {
    pub(crate) kernel: Rc<Kernel>,
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    /// The server does not serve yet.
    pub(crate) is_first: bool,
    /// What the listeners are bound to.
    pub(crate) addresses: Vec<LocalAddr>,
}

impl Boot {
    /// The database; statements made from it here are ready for every request.
    #[must_use]
    pub fn database(&self) -> &pg::Database {
        &self.kernel.database
    }

    /// The settings this worker was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.kernel.settings
    }

    /// The error log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.kernel.log
    }

    /// Calls `action` on the worker's thread every `period`, beside the requests, until the worker ends.
    ///
    /// It must not wait for anything: no request is served meanwhile.
    pub fn every(&self, period: Duration, mut action: impl FnMut() + 'static) {
        let kernel = Rc::clone(&self.kernel);
        self.kernel.spawned.borrow_mut().push(Box::pin(async move {
            loop {
                let until = kernel.clock.now() + period;
                Sleep { kernel: Rc::clone(&kernel), until, entry: None }.await;
                action();
            }
        }));
    }

    /// The one IP address that all clients of this worker connect to, if there is one such.
    #[must_use]
    pub fn only_address(&self) -> Option<SocketAddr> {
        let first = self.addresses.first()?;
        self.addresses.iter().all(|other| other == first).then(|| first.ip()).flatten()
    }

    /// Number of this worker's slot, from 0.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Whether no worker of the server has ever been ready: others are on their way up, and fail alike if this one does.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Number of the reading of the settings that this worker was started from.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
