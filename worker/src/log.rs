//! The error log, as the worker and its handlers use it.

use std::fmt;
use std::time::Duration;

use logging::{Frame, Level, Syslog, Target};
use scoreboard::{Block, Counter};
use shared::settings::{LogFormat, LogLevel, Settings, SyslogPlan};

/// Longest wait for the log to take its last lines.
const LAST_LINES_WAIT_MAX: Duration = Duration::from_secs(1);

/// The error log: gunicorn's frame, one event a line. Never blocks.
#[derive(Clone, Debug)]
pub struct Log {
    /// `None`: it cannot be opened, not even standard error; there is nowhere to say so.
    log: Option<logging::Log>,
    /// Where lines of consequence are counted.
    block: Option<Block<'static>>,
}

impl Log {
    /// The log of the settings, or standard error if that cannot be opened.
    pub(crate) fn open(settings: &Settings) -> Log {
        let log = match settings.errorlog.as_deref() {
            None | Some("-") => Log::to_stderr(),
            Some(path) => match logging::Log::open(Target::File(path.into())) {
                Ok(log) => Log { log: Some(log), block: None },
                Err(error) => {
                    let log = Log::to_stderr();
                    log.error(format_args!("Cannot open the error log {path}: {error}"));
                    log
                }
            },
        };
        if let Some(inner) = &log.log {
            inner.set_level(level(settings.loglevel));
            inner.set_frame(match settings.log_format {
                LogFormat::Text => Frame::Text,
                LogFormat::Json => Frame::Json,
            });
            // A failure leaves the lines together, and what is printed where the master's goes.
            let _ = inner.set_split(settings.log_split);
            let _ = inner.capture_streams(settings.capture_output);
            if let Some(syslog) = settings.error_syslog().and_then(|plan| log.syslog(&plan)) {
                inner.set_syslog(Some(syslog));
            }
        }
        log
    }

    /// A way to syslog; that there is none is reported.
    pub(crate) fn syslog(&self, plan: &SyslogPlan) -> Option<Syslog> {
        match Syslog::open(&plan.address, plan.facility, &plan.name) {
            Ok(syslog) => Some(syslog),
            Err(error) => {
                self.error(format_args!("Cannot log to syslog at {}: {error}", plan.address));
                None
            }
        }
    }

    pub(crate) fn to_stderr() -> Log {
        Log { log: logging::Log::open(Target::Stderr).ok(), block: None }
    }

    /// The same log, its lines counted in `block`.
    pub(crate) fn counted_in(self, block: Block<'static>) -> Log {
        Log { block: Some(block), ..self }
    }

    /// Writes a line on which someone must act.
    pub fn error(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Error, text);
    }

    /// Writes a line about something the program acted on by itself.
    pub fn warning(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Warning, text);
    }

    /// Writes a line about the life cycle.
    pub fn info(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Info, text);
    }

    /// Writes a line for developers.
    pub fn debug(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Debug, text);
    }

    fn write(&self, level: Level, text: fmt::Arguments<'_>) {
        let counter = match level {
            Level::Debug | Level::Info => None,
            Level::Warning => Some(Counter::LogWarning),
            Level::Error => Some(Counter::LogError),
            Level::Critical => Some(Counter::LogCritical),
        };
        if let (Some(block), Some(counter)) = (self.block, counter) {
            block.add_from_any_thread(counter, 1);
        }
        if let Some(log) = &self.log {
            log.write(level, text);
        }
    }

    /// Writes lines as they are given to `write`, at the level of an error, without counting them: an application's own.
    pub fn application(&self, text: &str) {
        self.application_at(40, text);
    }

    /// As [`Log::application`], at a level by Python's numbers: 10 is for developers, 50 the gravest.
    pub fn application_at(&self, level: u32, text: &str) {
        let level = match level {
            0..20 => Level::Debug,
            20..30 => Level::Info,
            30..40 => Level::Warning,
            40..50 => Level::Error,
            50.. => Level::Critical,
        };
        if let Some(log) = &self.log {
            for line in text.lines() {
                log.write(level, format_args!("{line}"));
            }
        }
    }

    /// Opens the file again, after a rotation.
    pub(crate) fn reopen(&self) {
        if let Some(log) = &self.log
            && let Err(error) = log.reopen()
        {
            self.error(format_args!("Cannot open the error log again: {error}"));
        }
    }

    /// Writes what waits, if there is room again.
    pub(crate) fn flush(&self) {
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    /// Writes what waits before the process ends.
    pub(crate) fn finish(&self) {
        if let Some(log) = &self.log {
            let _ = log.flush_within(LAST_LINES_WAIT_MAX);
        }
    }
}

fn level(setting: LogLevel) -> Level {
    match setting {
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warning => Level::Warning,
        LogLevel::Error => Level::Error,
        LogLevel::Critical => Level::Critical,
    }
}
