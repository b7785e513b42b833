//! The arbiter: binds, forks workers, supervises them.
//!
//! Read [`arbiter`] first, then [`fleet`]: the loop, and the decisions it carries out. [`config`] turns what the process
//! was started with into settings; [`process`] starts a worker under the contract of [`shared::contract`].

#![forbid(unsafe_code)]

pub mod app;
pub mod application_check;
pub mod arbiter;
pub mod cli;
pub mod clock;
pub mod companion;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod fleet;
pub mod generation;
pub mod hooks;
pub mod identity;
pub mod journal;
pub mod log_check;
pub mod lookup;
pub mod obituary;
pub mod oom;
pub mod pidfile;
mod piped;
pub mod proc;
pub mod process;
mod python;
pub mod store;
pub mod upgrade;
pub mod upgrade_link;
pub mod watch;
pub mod wear;
