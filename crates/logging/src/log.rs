//! The error log, in gunicorn's frame.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::level::Level;
use crate::queue::Queue;
use crate::sink::{Sink, Target};
use crate::stamp::Stamp;
use crate::syslog::Syslog;

/// Most bytes that wait for a reader; further lines are dropped and counted.
pub const LOG_QUEUE_BYTES_MAX: usize = 256 * 1024;

/// Longest text of one line in bytes; the rest is cut.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// A log. Copies write to the same one.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// `None`: a descriptor that was handed to us, with no name by which to open it again.
    target: Option<Target>,
    sink: Sink,
    queue: Queue,
    level: Level,
    stamp: Stamp,
    owner: Option<(u32, u32)>,
    syslog: Option<Syslog>,
}

impl Log {
    /// Opens a log; the level is [`Level::Info`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened for appending, or standard error is closed.
    pub fn open(target: Target) -> io::Result<Log> {
        let sink = Sink::open(&target)?;
        Ok(Log::new(Some(target), sink))
    }

    /// Logs to an open descriptor; [`Log::reopen`] does nothing then.
    ///
    /// # Errors
    ///
    /// None that a descriptor which is open can cause.
    pub fn to_fd(fd: OwnedFd) -> io::Result<Log> {
        Ok(Log::new(None, Sink::from_fd(fd)?))
    }

    fn new(target: Option<Target>, sink: Sink) -> Log {
        let inner = Inner {
            target,
            sink,
            queue: Queue::new(LOG_QUEUE_BYTES_MAX),
            level: Level::Info,
            stamp: Stamp::default(),
            owner: None,
            syslog: None,
        };
        Log { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Sends every further line to syslog too; `None` ends that.
    pub fn set_syslog(&self, syslog: Option<Syslog>) {
        self.lock().syslog = syslog;
    }

    /// Drops lines below `level` from now on.
    pub fn set_level(&self, level: Level) {
        self.lock().level = level;
    }

    /// Tells whether lines of this level are written.
    #[must_use]
    pub fn is_enabled(&self, level: Level) -> bool {
        self.lock().level <= level
    }

    /// Writes one line, or keeps it until there is room, or counts it as lost. Never waits.
    pub fn write_line(&self, level: Level, text: &str) {
        self.write(level, format_args!("{text}"));
    }

    /// As [`Log::write_line`]; formats only what will be written. See the macros, such as [`crate::info!`].
    pub fn write(&self, level: Level, text: fmt::Arguments<'_>) {
        let mut inner = self.lock();
        if inner.level <= level {
            let inner = &mut *inner;
            inner.queue.flush(&inner.sink);
            inner.say_what_was_lost();
            inner.push(level, text);
            inner.queue.flush(&inner.sink);
        }
    }

    /// Writes what waits, as far as there is room. Call it now and then: a reader may have come back.
    pub fn flush(&self) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.queue.flush(&inner.sink);
        if let Some(syslog) = &mut inner.syslog {
            syslog.flush();
        }
        inner.say_what_was_lost();
    }

    /// Writes what waits before the process ends, for at most `limit`. Returns whether everything was written.
    pub fn flush_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            self.flush();
            let inner = self.lock();
            if inner.queue.is_empty() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !inner.sink.wait(left) {
                return false;
            }
        }
    }

    /// Opens the file again, by its name: for the signal that follows a rotation. Streams stay as they are.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; the log goes on in the old one.
    pub fn reopen(&self) -> io::Result<()> {
        self.flush();
        let mut inner = self.lock();
        if let Some(target @ Target::File(_)) = &inner.target {
            let sink = Sink::open(target)?;
            if let Some((uid, gid)) = inner.owner {
                sink.set_owner(uid, gid)?;
            }
            inner.sink = sink;
        }
        Ok(())
    }

    /// Gives the file, now and whenever it is reopened, to the user who workers run as.
    ///
    /// # Errors
    ///
    /// `EPERM`: only root gives files away.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let mut inner = self.lock();
        inner.owner = Some((uid, gid));
        inner.sink.set_owner(uid, gid)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while writing a line leaves nothing worse behind than that line.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, level: Level, text: fmt::Arguments<'_>) {
        if let Some(syslog) = &mut self.syslog {
            let mut bytes = Vec::new();
            let _ = write!(Line { bytes: &mut bytes, left: LINE_BYTES_MAX }, "{text}");
            syslog.send(level, &bytes);
            syslog.flush();
        }
        let stamp = self.stamp.at(SystemTime::now());
        self.queue.push(|bytes| {
            let mut line = Line { bytes, left: LINE_BYTES_MAX };
            // Only a broken `Display` fails, and then the line says as much as it could.
            let _ = write!(line, "[{stamp}] [{}] [{level}] {text}", std::process::id());
            bytes.push(b'\n');
        });
    }

    /// Once there is room again, the gap in the log is explained.
    fn say_what_was_lost(&mut self) {
        let dropped = self.queue.dropped();
        if dropped > 0 && self.queue.is_empty() {
            self.queue.forget_dropped();
            self.push(
                Level::Warning,
                format_args!("Log lines lost because the log took no more lines={dropped}"),
            );
            self.queue.flush(&self.sink);
        }
    }
}

/// Writes text as one line: control characters escaped, cut at the bound.
struct Line<'a> {
    bytes: &'a mut Vec<u8>,
    left: usize,
}

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut utf8 = [0; 4];
        for c in text.chars() {
            let escaped;
            let piece = match c {
                '\t' => "\t",
                c if c.is_control() => {
                    escaped = c.escape_default().to_string();
                    &escaped
                }
                c => c.encode_utf8(&mut utf8),
            };
            if piece.len() > self.left {
                self.left = 0;
                break;
            }
            self.left -= piece.len();
            self.bytes.extend_from_slice(piece.as_bytes());
        }
        Ok(())
    }
}

/// Writes a line for developers: `debug!(log, "text {}", value)`.
#[macro_export]
macro_rules! debug {
    ($log:expr, $($text:tt)+) => { $log.write($crate::Level::Debug, format_args!($($text)+)) };
}

/// Writes a line about the life cycle: `info!(log, "text {}", value)`.
#[macro_export]
macro_rules! info {
    ($log:expr, $($text:tt)+) => { $log.write($crate::Level::Info, format_args!($($text)+)) };
}

/// Writes a line about something we acted on: `warning!(log, "text {}", value)`.
#[macro_export]
macro_rules! warning {
    ($log:expr, $($text:tt)+) => { $log.write($crate::Level::Warning, format_args!($($text)+)) };
}

/// Writes a line on which somebody must act: `error!(log, "text {}", value)`.
#[macro_export]
macro_rules! error {
    ($log:expr, $($text:tt)+) => { $log.write($crate::Level::Error, format_args!($($text)+)) };
}

/// Writes a line on which somebody must act now: `critical!(log, "text {}", value)`.
#[macro_export]
macro_rules! critical {
    ($log:expr, $($text:tt)+) => { $log.write($crate::Level::Critical, format_args!($($text)+)) };
}
