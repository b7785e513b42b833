//! The file that faulthandler writes to: the error log, by a descriptor of its own, which stays the same when the file is
//! opened anew.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use worker::Log;

static TRACE: Mutex<Option<(PathBuf, OwnedFd)>> = Mutex::new(None);

/// Opens the error log for traces; returns the descriptor's number, good until the process ends.
#[pyfunction]
pub fn open_trace(path: PathBuf) -> PyResult<i32> {
    let file = open(&path)?;
    let number = file.as_raw_fd();
    let mut trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner);
    *trace = Some((path, file.into()));
    Ok(number)
}

/// Opens the file again, after a rotation. The interpreter has no part in it.
pub fn reopen(log: &Log) {
    let mut trace = TRACE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((path, fd)) = &mut *trace
        && let Err(error) = open(path).and_then(|file| sys::fd::replace(fd, &file))
    {
        log.error(format_args!("Cannot open {} again for traces: {error}", path.display()));
    }
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
