//! The calls that need `unsafe`: the interpreter's own, and the way from `write()` back to the response.
//!
//! Nothing outside of this file is unsafe.

#![allow(unsafe_code, reason = "the interpreter's interface is C")]

use std::cell::Cell;
use std::ffi::{c_char, c_long};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};
use sys::Pid;
use sys::sibling::Forked;

use crate::sink::Sink;

/// The bytes of a header as a string, one character each, as PEP 3333 has it.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // Slices are never longer than this.
    let length = bytes.len() as ffi::Py_ssize_t;
    // SAFETY: pointer and length are of one slice; the interpreter copies it. `errors` may be null.
    let string = unsafe {
        ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast::<c_char>(), length, ptr::null())
    };
    // SAFETY: a new reference to a string, or null with the exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, string) }.map(|any| {
        // SAFETY: the call above makes nothing but strings.
        unsafe { any.cast_into_unchecked() }
    })
}

/// A descriptor of our own for what an object of the application has open under `number`. `_py`: it does not close it meanwhile.
pub fn duplicate(number: RawFd, _py: Python<'_>) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is no longer used than for this call, which answers with EBADF should the number be closed.
    let theirs = unsafe { BorrowedFd::borrow_raw(number) };
    theirs.try_clone_to_owned()
}

/// The interpreter's lock, let go while the loop sleeps.
#[derive(Default)]
pub struct Parked(Option<NonNull<ffi::PyThreadState>>);

impl Parked {
    /// Lets other threads of the application run.
    pub fn park(&mut self) {
        if self.0.is_none() {
            // SAFETY: the loop's thread holds the lock: it called `run`, and `wake` has given it back.
            self.0 = NonNull::new(unsafe { ffi::PyEval_SaveThread() });
        }
    }

    /// Takes the lock again.
    pub fn wake(&mut self) {
        if let Some(state) = self.0.take() {
            // SAFETY: the state is what `park` was given on this thread.
            unsafe { ffi::PyEval_RestoreThread(state.as_ptr()) };
        }
    }
}

/// Who lets go of the lock gives it back at the latest with this.
impl Drop for Parked {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Has `exception` raised in a thread of Python's as soon as it runs Python code; `None` takes back one that was not
/// raised yet.
pub fn raise_in(thread: u64, exception: Option<&Bound<'_, PyType>>, _py: Python<'_>) {
    let exception = exception.map_or(ptr::null_mut(), |exception| exception.as_ptr());
    // The interpreter's type for it was signed once; the bits are what counts.
    let thread = thread as c_long;
    // SAFETY: the lock is held, `_py` says so; the exception is null or a class, to which the interpreter takes a
    // reference of its own. A thread that is gone is not found, and nothing happens.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread, exception) };
}

thread_local! {
    /// The response that the application at work may write to.
    static CURRENT: Cell<Option<NonNull<()>>> = const { Cell::new(None) };
}

/// Runs `act`, in which [`with_current`] reaches `sink`.
pub fn lend<R>(sink: &mut Sink<'_, '_>, act: impl FnOnce() -> R) -> R {
    /// Puts back what was there before, whatever happens.
    struct Before(Option<NonNull<()>>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(Some(NonNull::from(sink).cast())));
    act()
}

/// The response that is being answered on this thread, if one is.
pub fn with_current<R>(act: impl FnOnce(&mut Sink<'_, '_>) -> R) -> Option<R> {
    // Taken out, so that there is never a second reference to it.
    let current = CURRENT.take()?;
    // SAFETY: `lend` put it there from a reference that is exclusively its own until it returns, and takes it away
    // before it does; this thread is inside it.
    let sink = unsafe { current.cast::<Sink<'_, '_>>().as_mut() };
    let result = act(sink);
    CURRENT.set(Some(current));
    Some(result)
}

/// The next item of an iterator; `None` at its end.
pub fn next<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: the reference is valid, and the object came out of `iter()`.
    let item = unsafe { ffi::PyIter_Next(iterator.as_ptr()) };
    if item.is_null() {
        return match PyErr::take(iterator.py()) {
            Some(error) => Err(error),
            None => Ok(None),
        };
    }
    // SAFETY: a new reference, not null.
    Ok(Some(unsafe { Bound::from_owned_ptr(iterator.py(), item) }))
}

/// Forks a copy of this process as a child of `parent`, as `os.fork()` would: the interpreter's own locks are taken and
/// given back around it, and what the application registered for a fork is called, once in each process.
pub fn fork_sibling(_py: Python<'_>, parent: Pid) -> io::Result<Forked> {
    // SAFETY: the lock is held, and the main thread calls.
    unsafe { ffi::PyOS_BeforeFork() };
    let forked = sys::sibling::fork(parent);
    if matches!(forked, Ok(Forked::Copy)) {
        // SAFETY: in the child of a fork, on the thread that forked, which called `PyOS_BeforeFork`.
        unsafe { ffi::PyOS_AfterFork_Child() };
    } else {
        // SAFETY: in the process that forked, or could not, after `PyOS_BeforeFork`.
        unsafe { ffi::PyOS_AfterFork_Parent() };
    }
    forked
}
