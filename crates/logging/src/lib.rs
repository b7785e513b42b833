//! Logs that never block their writer, are written line by line, and can be reopened.
//!
//! - A log that nobody reads, a full disk, a stopped terminal: the writer goes on, and what was lost is counted and said.
//! - Lines of several processes on one pipe do not mix: what is written at once ends with a line and fits `PIPE_BUF`.
//! - A text cannot forge a line: control characters are escaped.
//!
//! ```
//! use logging::{Level, Log, Target, info};
//!
//! # fn main() -> std::io::Result<()> {
//! let log = Log::open(Target::Stderr)?;
//! log.set_level(Level::Info);
//! info!(log, "Booting worker with pid: {}", 4242);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod access;
mod frame;
mod level;
mod line_buffer;
mod log;
mod queue;
mod sink;
mod stamp;
mod syslog;

pub use frame::{Frame, LINE_BYTES_MAX};
pub use level::{Level, LevelError};
pub use line_buffer::{ACCESS_QUEUE_BYTES_MAX, LineBuffer};
pub use log::{LOG_QUEUE_BYTES_MAX, Log};
pub use sink::Target;
pub use syslog::Syslog;
