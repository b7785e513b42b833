//! Several threads of Python's serve one worker's requests.
//!
//! - The loop's thread does all that is done with sockets and never has the interpreter's lock: what happens in Python
//!   cannot hold it up. A whole request goes to a thread through a queue, its response comes back through an outbox.
//! - A thread is at one request until its `close()` has returned. There are never more requests out than threads; others
//!   wait in the loop, and no connection is accepted meanwhile.
//! - A request that has stood still for its time has an exception raised in its thread, by one more thread, which may have to
//!   wait for the interpreter's lock. If that does not help, the loop lets the worker fall silent and its master ends it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::PyType;
use worker::http1::{Exchange, FieldStorage};
use worker::{
    AtWork, Boot, Detached, Host, HostRequest, Log, PATH_BYTES_MAX, Progress, RequestId, Responder,
};

use crate::environ::Asked;
use crate::ffi::Parked;
use crate::hooks::Hooks;
use crate::host::Wsgi;
use crate::outbox::{Outbox, Speaker};
use crate::seats::{Seat, Title};
use crate::sink::Sink;

/// A request on its way to a thread.
struct Job {
    title: Title,
    request: Detached,
    exchange: Exchange,
    local_address: Option<SocketAddr>,
    outbox: Arc<Outbox>,
}

/// What loop and threads share.
struct Crew {
    seats: Vec<Arc<Seat>>,
    /// Requests that no thread has taken yet: never more than there are idle threads.
    jobs: Mutex<Jobs>,
    arrival: Condvar,
    /// Requests that are out: handed over, and not yet through.
    at_work: AtomicUsize,
    overdue: Mutex<Overdue>,
    alarm: Condvar,
    /// A quick stop was asked for.
    is_interrupted: AtomicBool,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    is_closed: bool,
}

#[derive(Default)]
struct Overdue {
    /// Seats, with the numbers of their requests.
    requests: Vec<(usize, u64)>,
    is_closed: bool,
}

impl Crew {
    fn new(threads: usize) -> Arc<Crew> {
        Arc::new(Crew {
            seats: (0..threads).map(|_| Arc::default()).collect(),
            jobs: Mutex::default(),
            arrival: Condvar::new(),
            at_work: AtomicUsize::new(0),
            overdue: Mutex::default(),
            alarm: Condvar::new(),
            is_interrupted: AtomicBool::new(false),
        })
    }

    fn put(&self, job: Job) {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        lock(&self.jobs).waiting.push_back(job);
        self.arrival.notify_one();
    }

    /// Waits for a request, and takes `seat` with it; `None`: there will be none any more.
    fn take(&self, seat: &Seat, thread: u64) -> Option<Work> {
        let mut jobs = lock(&self.jobs);
        let job = loop {
            if jobs.is_closed {
                return None;
            }
            match jobs.waiting.pop_front() {
                Some(job) => break job,
                // `close` ends this wait at the latest.
                None => jobs = self.arrival.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(jobs);
        let Job { title, request, exchange, local_address, outbox } = job;
        seat.take(title, thread);
        Some(Work { request, exchange, local_address, outbox })
    }

    /// Waits for requests that should be told to end; `None`: there will be none any more.
    fn next_overdue(&self) -> Option<Vec<(usize, u64)>> {
        let mut overdue = lock(&self.overdue);
        while overdue.requests.is_empty() && !overdue.is_closed {
            overdue = self.alarm.wait(overdue).unwrap_or_else(PoisonError::into_inner);
        }
        (!overdue.is_closed).then(|| std::mem::take(&mut overdue.requests))
    }

    /// The loop has ended.
    fn close(&self) {
        let mut jobs = lock(&self.jobs);
        jobs.is_closed = true;
        jobs.waiting.clear();
        drop(jobs);
        self.arrival.notify_all();
        lock(&self.overdue).is_closed = true;
        self.alarm.notify_all();
    }
}

/// A request at its thread.
struct Work {
    request: Detached,
    exchange: Exchange,
    local_address: Option<SocketAddr>,
    outbox: Arc<Outbox>,
}

/// What Python's threads run.
#[pyclass(frozen)]
pub struct Threads {
    crew: Arc<Crew>,
    /// One for each thread that has not begun.
    ready: Mutex<Vec<Wsgi>>,
    hooks: Option<Hooks>,
    log: Log,
}

#[pymethods]
impl Threads {
    /// Answers requests until the worker ends, on the thread that Python calls `thread` and that has the seat `number`.
    fn answer(&self, py: Python<'_>, number: usize, thread: u64) {
        let Some(seat) = self.crew.seats.get(number) else { return };
        let Some(mut wsgi) = lock(&self.ready).pop() else { return };
        let mut fields = FieldStorage::new();
        while let Some(work) = py.detach(|| self.crew.take(seat, thread)) {
            let leaving = Leaving { py, crew: &self.crew, seat, outbox: Arc::clone(&work.outbox) };
            let answered = catch_unwind(AssertUnwindSafe(|| {
                wsgi.answer_apart(py, work, seat, &mut fields);
            }));
            if answered.is_err() {
                // The request is lost, the thread is not. Where it was, the panic itself has said.
                self.log.error(format_args!("The host failed on thread {}", number + 1));
                wsgi.give_up(py);
            }
            drop(leaving);
        }
    }

    /// Raises `exception` in threads whose requests have stood still for too long, until the worker ends; then what is
    /// still at work is told to leave.
    fn watch(&self, py: Python<'_>, exception: &Bound<'_, PyType>) {
        while let Some(overdue) = py.detach(|| self.crew.next_overdue()) {
            for (seat, number) in overdue {
                if let Some(seat) = self.crew.seats.get(seat) {
                    seat.interrupt(number, exception);
                }
            }
        }
        if self.crew.is_interrupted.load(Ordering::Relaxed)
            && let Some(hooks) = &self.hooks
            && let Err(error) = hooks.interrupted(py)
        {
            self.log.error(format_args!("A hook failed: {error}"));
        }
        // The responses are given up by now: whatever cleans up after itself may do so.
        let farewell = py.get_type::<PySystemExit>();
        for seat in &self.crew.seats {
            if let Some(number) = seat.uninterrupted() {
                seat.interrupt(number, &farewell);
            }
        }
    }
}

impl Wsgi {
    /// Answers a request to its end, on a thread that is not the loop's.
    fn answer_apart(
        &mut self,
        py: Python<'_>,
        work: Work,
        seat: &Arc<Seat>,
        fields: &mut FieldStorage,
    ) {
        let Work { mut request, exchange, local_address, outbox } = work;
        let mut speaker = Speaker::new(outbox, Arc::clone(seat), &exchange);
        let body = request.take_body();
        let Some(head) = request.head(fields) else { return };
        let asked = Asked {
            head: &head,
            peer: request.peer(),
            is_https: request.is_https(),
            local_address: &|| local_address,
        };
        let environ = self.environ(py, &asked, body);
        self.answer(py, &mut Sink::Thread(&mut speaker), environ);
    }
}

/// A thread is through with its request, however that went.
struct Leaving<'c> {
    py: Python<'c>,
    crew: &'c Crew,
    seat: &'c Seat,
    outbox: Arc<Outbox>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.seat.leave(self.py);
        let before = self.crew.at_work.fetch_sub(1, Ordering::Relaxed);
        if before == self.crew.seats.len() {
            // Others may wait for a thread.
            self.outbox.wake();
        }
    }
}

/// The host that hands requests to threads.
pub struct Threaded {
    crew: Arc<Crew>,
    outboxes: HashMap<RequestId, Arc<Outbox>>,
    /// Requests so far.
    count: u64,
    /// Where the application finds its own address is not the same for all connections.
    needs_address: bool,
    /// A request may stand still for so many nanoseconds before it is told to end.
    still_ns_max: Option<u64>,
    parked: Parked,
}

impl Threaded {
    /// `start` begins Python's threads: it is given a [`Threads`], and how many there shall be.
    pub fn new(
        py: Python<'_>,
        wsgi: &Wsgi,
        start: &Bound<'_, PyAny>,
        boot: &Boot,
    ) -> PyResult<Threaded> {
        let settings = boot.settings();
        let crew = Crew::new(settings.threads);
        let limits = [settings.request_limit(), settings.silence_limit()];
        let host = Threaded {
            crew: Arc::clone(&crew),
            outboxes: HashMap::new(),
            count: 0,
            needs_address: boot.only_address().is_none(),
            still_ns_max: limits.into_iter().flatten().min().map(|limit| limit.as_nanos() as u64),
            parked: Parked::default(),
        };
        let ready = (0..settings.threads).map(|_| wsgi.twin(py)).collect::<PyResult<_>>()?;
        let (hooks, log) = (wsgi.hooks(py), boot.log().clone());
        let threads = Threads { crew, ready: Mutex::new(ready), hooks, log };
        start.call1((Py::new(py, threads)?, settings.threads))?;
        Ok(host)
    }
}

impl Host for Threaded {
    fn has_capacity(&self) -> bool {
        self.crew.at_work.load(Ordering::Relaxed) < self.crew.seats.len()
    }

    fn call(&mut self, mut request: HostRequest<'_>, responder: &mut Responder<'_>) -> Progress {
        self.parked.park();
        self.count += 1;
        let (outbox, head) = (Outbox::new(request.waker()), request.head());
        let title = Title {
            number: self.count,
            since: sys::clock::monotonic(),
            method: head.method().as_str().to_owned(),
            path: head.path()[..head.path().len().min(PATH_BYTES_MAX)].to_vec(),
            peer: *request.peer(),
        };
        self.outboxes.insert(request.id(), Arc::clone(&outbox));
        self.crew.put(Job {
            title,
            exchange: Exchange::of(head),
            local_address: self.needs_address.then(|| responder.local_address()).flatten(),
            outbox,
            request: request.detach(),
        });
        Progress::Pending
    }

    fn resume(&mut self, id: RequestId, responder: &mut Responder<'_>) -> Progress {
        match self.outboxes.get(&id) {
            Some(outbox) if !outbox.tell(responder) => Progress::Pending,
            _ => {
                self.outboxes.remove(&id);
                Progress::Done
            }
        }
    }

    fn cancel(&mut self, id: RequestId) {
        if let Some(outbox) = self.outboxes.remove(&id) {
            outbox.close();
        }
    }

    /// The lock is the threads' from the first sleep on.
    fn before_park(&mut self) {
        self.parked.park();
    }

    fn after_park(&mut self) {}

    /// The hook is called by a thread of Python's, at the end.
    fn interrupted(&mut self) {
        self.crew.is_interrupted.store(true, Ordering::Relaxed);
    }

    fn has_threads(&self) -> bool {
        true
    }

    fn at_work(&self) -> usize {
        self.crew.at_work.load(Ordering::Relaxed)
    }

    fn slowest(&mut self, now: u64) -> Option<AtWork> {
        let mut slowest: Option<(u64, &Seat)> = None;
        let mut overdue = Vec::new();
        for (index, seat) in self.crew.seats.iter().enumerate() {
            let Some(still_since) = seat.still_since() else { continue };
            // Who waits for a client comes last.
            let order = still_since.unwrap_or(u64::MAX);
            if slowest.is_none_or(|(before, _)| order < before) {
                slowest = Some((order, seat));
            }
            if let (Some(since), Some(limit)) = (still_since, self.still_ns_max)
                && limit <= now.saturating_sub(since)
                && let Some(number) = seat.uninterrupted()
            {
                overdue.push((index, number));
            }
        }
        if !overdue.is_empty() {
            lock(&self.crew.overdue).requests = overdue;
            self.crew.alarm.notify_one();
        }
        slowest.and_then(|(_, seat)| seat.at_work())
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        for (_, outbox) in self.outboxes.drain() {
            outbox.close();
        }
        self.crew.close();
        self.parked.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
