//! The error log.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::{self, Frame, OneLine};
use crate::level::Level;
use crate::queue::Queue;
use crate::sink::{Sink, Target};
use crate::stamp::Stamp;
use crate::syslog::Syslog;

/// Most bytes that wait for a reader; further lines are dropped and counted.
pub const LOG_QUEUE_BYTES_MAX: usize = 256 * 1024;

/// Time between two lines on what syslog did not take.
const LOST_TOLD_EVERY: Duration = Duration::from_secs(10);

/// A log. Copies write to the same one.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// `None`: a descriptor that was handed to us, with no name by which to open it again.
    target: Option<Target>,
    stream: Stream,
    /// Where lines below [`Level::Warning`] go, if elsewhere.
    quiet: Option<Stream>,
    level: Level,
    frame: Frame,
    stamp: Stamp,
    owner: Option<(u32, u32)>,
    syslog: Option<Syslog>,
    /// Lines that did not reach syslog and were not told of yet, and when that is told next.
    lost_to_syslog: u64,
    tell_lost_at: Option<Instant>,
    captures_streams: bool,
}

/// A sink, and what waits for it.
#[derive(Debug)]
struct Stream {
    sink: Sink,
    queue: Queue,
    is_journal: bool,
}

impl Stream {
    fn new(sink: Sink) -> Stream {
        Stream { is_journal: sink.is_journal(), sink, queue: Queue::new(LOG_QUEUE_BYTES_MAX) }
    }

    fn push(&mut self, stamp: &mut Stamp, frame: Frame, level: Level, text: fmt::Arguments<'_>) {
        let Stream { sink, queue, is_journal } = self;
        // Other processes write there too, and no line may come into the middle of another.
        let most = sink.line_bytes_max().unwrap_or(usize::MAX);
        queue.push(|bytes| frame::line(bytes, stamp, frame, *is_journal, most, level, text));
    }

    fn flush(&mut self) {
        self.queue.flush(&self.sink);
    }

    /// Writes what waits until `deadline`; whether everything was written.
    fn flush_by(&mut self, deadline: Instant) -> bool {
        loop {
            self.flush();
            if self.queue.is_empty() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.sink.wait(left) {
                return false;
            }
        }
    }

    /// Once there is room again, the gap in the log is explained.
    fn say_what_was_lost(&mut self, stamp: &mut Stamp, frame: Frame) {
        let dropped = self.queue.dropped();
        if dropped > 0 && self.queue.is_empty() {
            self.queue.forget_dropped();
            let text = format_args!("Log lines lost because the log took no more lines={dropped}");
            self.push(stamp, frame, Level::Warning, text);
            self.flush();
        }
    }
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
            stream: Stream::new(sink),
            quiet: None,
            level: Level::Info,
            frame: Frame::Text,
            stamp: Stamp::default(),
            owner: None,
            syslog: None,
            lost_to_syslog: 0,
            tell_lost_at: None,
            captures_streams: false,
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
            inner.push(level, text);
        }
    }

    /// Writes what waits, as far as there is room. Call it now and then: a reader may have come back.
    pub fn flush(&self) {
        let mut inner = self.lock();
        let Inner { stream, quiet, stamp, frame, syslog, .. } = &mut *inner;
        for stream in quiet.iter_mut().chain([stream]) {
            stream.flush();
            stream.say_what_was_lost(stamp, *frame);
        }
        if let Some(syslog) = syslog {
            syslog.flush();
        }
        inner.say_what_syslog_lost();
    }

    /// Writes what waits before the process ends, for at most `limit`. Returns whether everything was written.
    pub fn flush_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        self.flush();
        let mut inner = self.lock();
        let Inner { stream, quiet, .. } = &mut *inner;
        let is_quiet_written = quiet.as_mut().is_none_or(|quiet| quiet.flush_by(deadline));
        stream.flush_by(deadline) && is_quiet_written
    }

    /// How further lines look.
    pub fn set_frame(&self, frame: Frame) {
        self.lock().frame = frame;
    }

    /// Whether further lines below [`Level::Warning`] go to standard output; only a log on standard error is split.
    ///
    /// # Errors
    ///
    /// Standard output is closed.
    pub fn set_split(&self, is_split: bool) -> io::Result<()> {
        let mut inner = self.lock();
        if !is_split || inner.target != Some(Target::Stderr) {
            inner.quiet = None;
        } else if inner.quiet.is_none() {
            inner.quiet = Some(Stream::new(Sink::open(&Target::Stdout)?));
        }
        Ok(())
    }

    /// Goes on elsewhere.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or not be given to its owner; the log goes on where it was.
    pub fn redirect(&self, target: Target) -> io::Result<()> {
        if self.lock().target.as_ref() == Some(&target) {
            return Ok(());
        }
        self.flush();
        let mut inner = self.lock();
        inner.open_again(&target)?;
        inner.target = Some(target);
        // A split log is one on standard error; whoever wants it there says so again.
        inner.quiet = None;
        Ok(())
    }

    /// Whether this process's standard output and error lead into the log's file, now and when it is opened again.
    ///
    /// Changes nothing for a log that is no file.
    ///
    /// # Errors
    ///
    /// No descriptors left.
    pub fn capture_streams(&self, captures_streams: bool) -> io::Result<()> {
        let mut inner = self.lock();
        inner.captures_streams = captures_streams;
        if captures_streams { inner.stream.sink.capture_streams() } else { Ok(()) }
    }

    /// Opens the file again, by its name: for the signal that follows a rotation. Streams stay as they are.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; the log goes on in the old one.
    pub fn reopen(&self) -> io::Result<()> {
        self.flush();
        let mut inner = self.lock();
        match inner.target.clone() {
            Some(target @ Target::File(_)) => inner.open_again(&target),
            _ => Ok(()),
        }
    }

    /// Gives the file, now and whenever it is reopened, to the user who workers run as.
    ///
    /// # Errors
    ///
    /// `EPERM`: only root gives files away.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        let mut inner = self.lock();
        inner.owner = Some((uid, gid));
        inner.stream.sink.set_owner(uid, gid)
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
            let _ = write!(OneLine::new(&mut bytes), "{text}");
            syslog.send(level, &bytes);
            syslog.flush();
        }
        self.write_to_stream(level, text);
    }

    fn write_to_stream(&mut self, level: Level, text: fmt::Arguments<'_>) {
        let Inner { stream, quiet, stamp, frame, .. } = self;
        let stream = quiet.as_mut().filter(|_| level < Level::Warning).unwrap_or(stream);
        stream.flush();
        stream.say_what_was_lost(stamp, *frame);
        stream.push(stamp, *frame, level, text);
        stream.flush();
    }

    /// Explains gaps in what syslog got, at most once per [`LOST_TOLD_EVERY`], and not to syslog itself.
    fn say_what_syslog_lost(&mut self) {
        let Some(syslog) = &mut self.syslog else { return };
        self.lost_to_syslog += syslog.take_dropped();
        let now = Instant::now();
        if self.lost_to_syslog == 0 || self.tell_lost_at.is_some_and(|at| now < at) {
            return;
        }
        self.tell_lost_at = Some(now + LOST_TOLD_EVERY);
        let lost = std::mem::take(&mut self.lost_to_syslog);
        let text = format_args!("Log lines lost because syslog took no more lines={lost}");
        self.write_to_stream(Level::Warning, text);
    }

    /// Opens `target` in the place of what is open; what still waits there goes to the new one.
    fn open_again(&mut self, target: &Target) -> io::Result<()> {
        let sink = Sink::open(target)?;
        if let Some((uid, gid)) = self.owner {
            sink.set_owner(uid, gid)?;
        }
        if self.captures_streams {
            sink.capture_streams()?;
        }
        self.stream.is_journal = sink.is_journal();
        self.stream.sink = sink;
        self.stream.queue.change_sink();
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
