//! The arbiter: binds, forks workers, supervises them.

#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod fleet;
