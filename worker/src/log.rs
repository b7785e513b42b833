//! The error log, as the worker and its handlers use it.

use std::fmt;

/// The error log.
pub struct Log;

impl Log {
    pub(crate) fn to_stderr() -> Log {
        Log
    }
    pub(crate) fn open(_: &shared::settings::Settings) -> Log {
        Log
    }
    pub(crate) fn flush(&self) {}
    pub(crate) fn reopen(&self) {}

    /// Someone must act.
    pub fn error(&self, text: fmt::Arguments<'_>) {
        let _ = text;
    }

    /// The program acted by itself.
    pub fn warning(&self, text: fmt::Arguments<'_>) {
        let _ = text;
    }

    /// Life cycle.
    pub fn info(&self, text: fmt::Arguments<'_>) {
        let _ = text;
    }

    /// The rest.
    pub fn debug(&self, text: fmt::Arguments<'_>) {
        let _ = text;
    }
}
