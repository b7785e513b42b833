//! What each thread is at, for the loop that watches over it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use net::Peer;
use pyo3::prelude::*;
use pyo3::types::PyType;
use worker::AtWork;

use crate::ffi;

/// In the place of a time: the thread has no request.
const IDLE: u64 = 0;
/// In the place of a time: the thread waits for its client.
const WAITING: u64 = u64::MAX;

/// A request, as far as others need to know it.
pub struct Title {
    /// Its number: no other request has it.
    pub number: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds when the loop handed it over.
    pub since: u64,
    pub method: String,
    pub path: Vec<u8>,
    pub peer: Peer,
}

/// The place of one thread.
#[derive(Default)]
pub struct Seat {
    /// `CLOCK_MONOTONIC` in nanoseconds when its request moved last; or [`IDLE`], or [`WAITING`].
    still_since: AtomicU64,
    taken: Mutex<Option<Taken>>,
}

struct Taken {
    title: Title,
    /// Python's name for the thread.
    thread: u64,
    /// It was told to end.
    is_interrupted: bool,
}

impl Seat {
    /// The thread begins with a request.
    pub fn take(&self, title: Title, thread: u64) {
        *self.lock() = Some(Taken { title, thread, is_interrupted: false });
        self.moves();
    }

    /// The thread is through with its request. An interruption that comes too late is taken back: it was not meant for the
    /// next one.
    pub fn leave(&self, py: Python<'_>) {
        let taken = self.lock().take();
        self.still_since.store(IDLE, Ordering::Relaxed);
        if let Some(Taken { thread, is_interrupted: true, .. }) = taken {
            ffi::raise_in(thread, None, py);
        }
    }

    /// Its request has got on.
    pub fn moves(&self) {
        self.still_since.store(sys::clock::monotonic(), Ordering::Relaxed);
    }

    /// The thread waits for its client: that it stands still is not its fault.
    pub fn waits(&self) {
        self.still_since.store(WAITING, Ordering::Relaxed);
    }

    /// Since when its request has not moved, as [`AtWork::still_since`]; outer `None`: it has none.
    pub fn still_since(&self) -> Option<Option<u64>> {
        match self.still_since.load(Ordering::Relaxed) {
            IDLE => None,
            WAITING => Some(None),
            since => Some(Some(since)),
        }
    }

    /// The request, for the loop to show.
    pub fn at_work(&self) -> Option<AtWork> {
        let still_since = self.still_since()?;
        let taken = self.lock();
        let title = &taken.as_ref()?.title;
        Some(AtWork {
            since: title.since,
            still_since,
            method: title.method.clone(),
            path: title.path.clone(),
            peer: title.peer,
        })
    }

    /// The number of its request, unless that was told to end before.
    pub fn uninterrupted(&self) -> Option<u64> {
        let taken = self.lock();
        taken.as_ref().filter(|taken| !taken.is_interrupted).map(|taken| taken.title.number)
    }

    /// Raises `exception` in the thread, if it is still at the request of this `number`.
    pub fn interrupt(&self, number: u64, exception: &Bound<'_, PyType>) {
        let mut taken = self.lock();
        // With the interpreter's lock held, the thread cannot leave between this look and the next line.
        if let Some(taken) = taken.as_mut().filter(|taken| taken.title.number == number) {
            taken.is_interrupted = true;
            ffi::raise_in(taken.thread, Some(exception), exception.py());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
