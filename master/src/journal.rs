//! The master's error log, in gunicorn's frame.
//!
//! A line is gunicorn's first words where operators search for them, then `key=value`. Lines of a crash loop are thinned
//! out: the first few and then ever fewer, each with its count.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use logging::{Frame, Level, Log, Syslog, Target};
use shared::settings::{LogFormat, LogLevel, Settings};

use crate::config::Loaded;
use crate::lookup::Addresses;
use crate::obituary::Obituaries;

/// Repetitions that are all logged; of later ones only every second, fourth, eighth …
const REPEATED_ALWAYS: u32 = 3;

/// Longest wait for a reader of the log at the very end.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The log.
#[derive(Debug, Clone)]
pub struct Journal {
    log: Log,
    /// Lines of consequence so far, whoever wrote them.
    grave: Rc<Cell<GraveLines>>,
    /// The access log, of which the master writes only what died with a worker.
    pub obituaries: Obituaries,
    /// Nothing of ours is of consequence: somebody else reports it.
    is_subdued: Rc<Cell<bool>>,
}

/// Numbers of lines that were logged.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)] // The names say it.
pub struct GraveLines {
    pub warnings: u64,
    pub errors: u64,
    pub criticals: u64,
}

impl Journal {
    /// Opens the log that `settings` name.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(settings: &Settings, found: &Addresses) -> io::Result<Journal> {
        let journal = Journal {
            log: Log::open(target(settings))?,
            grave: Rc::default(),
            is_subdued: Rc::default(),
            obituaries: Obituaries::default(),
        };
        journal.reconfigure(settings, found);
        Ok(journal)
    }

    /// Whether the logs of `loaded` can be opened. Files that are missing are made, and are the workers' from the start;
    /// where this process logs does not change.
    ///
    /// # Errors
    ///
    /// Which of them cannot, and why.
    pub fn can_follow(&self, loaded: &Loaded) -> Result<(), String> {
        let settings = loaded.settings();
        let owner = loaded.credentials.as_ref().map(|who| (who.uid, who.gid));
        let opened = Log::open(target(settings)).and_then(|log| match owner {
            Some((uid, gid)) => log.set_owner(uid, gid),
            None => Ok(()),
        });
        opened.map_err(|error| {
            let name = settings.errorlog.as_deref().unwrap_or_default();
            format!("cannot open errorlog {name}: {error}")
        })?;
        Obituaries::can_open(settings, owner)
            .map_err(|error| format!("cannot open the access log: {error}"))
    }

    /// Sends what this process and its children print to the log's file, if `settings` ask for it.
    pub fn capture_streams(&self, settings: &Settings) {
        if let Err(error) = self.log.capture_streams(settings.capture_output) {
            self.error(&format!("Cannot capture what is printed error={error:?}"));
        }
    }

    /// Takes over what a reload may change. A name that is not among the `found` ones is looked up, which may take a while.
    pub fn reconfigure(&self, settings: &Settings, found: &Addresses) {
        if let Err(error) = self.log.redirect(target(settings)) {
            self.error(&format!(
                "Cannot open the error log, going on with the old one error={error:?}"
            ));
        }
        self.log.set_frame(match settings.log_format {
            LogFormat::Text => Frame::Text,
            LogFormat::Json => Frame::Json,
        });
        if let Err(error) = self.log.set_split(settings.log_split) {
            self.error(&format!("Cannot log to standard output error={error:?}"));
        }
        self.log.set_level(match settings.loglevel {
            LogLevel::Debug => Level::Debug,
            LogLevel::Info => Level::Info,
            LogLevel::Warning => Level::Warning,
            LogLevel::Error => Level::Error,
            LogLevel::Critical => Level::Critical,
        });
        // An unknown host is the only fault: the address was checked when it was read.
        let syslog = settings.error_syslog().map(|plan| {
            Syslog::open(&found.of_syslog(&plan.address), plan.facility, &plan.name)
                .map_err(|error| format!("Cannot log to syslog at {}: {error}", plan.address))
        });
        match syslog.transpose() {
            Ok(syslog) => self.log.set_syslog(syslog),
            Err(why) => self.error(&why),
        }
    }

    /// Opens the file again, after it was rotated.
    pub fn reopen(&self) {
        if let Err(error) = self.log.reopen() {
            self.error(&format!(
                "Cannot reopen the error log, going on with the old file error={error:?}"
            ));
        }
        if let Err(error) = self.obituaries.reopen() {
            self.error(&format!(
                "Cannot reopen the access log, going on with the old file error={error:?}"
            ));
        }
    }

    /// Gives the file to the workers' user, so that workers can open it again after it was rotated.
    pub fn give_to(&self, uid: u32, gid: u32) {
        if let Err(error) =
            self.log.set_owner(uid, gid).and_then(|()| self.obituaries.give_to(uid, gid))
        {
            self.warning(&format!("Cannot give the logs to the workers' user error={error:?}"));
        }
    }

    /// Writes what waits, as far as somebody reads.
    pub fn pump(&self) {
        self.log.flush();
    }

    /// Writes what waits before the end.
    pub fn flush(&self) {
        self.log.flush_within(FLUSH_MAX);
    }

    /// Whether failures are only remarks: those of a master on trial are reported by the one that it was to follow.
    pub fn subdue(&self, is_subdued: bool) {
        self.is_subdued.set(is_subdued);
    }

    /// For developers.
    pub fn debug(&self, line: &str) {
        self.log.write_line(Level::Debug, line);
    }

    /// The life cycle.
    pub fn info(&self, line: &str) {
        self.log.write_line(Level::Info, line);
    }

    /// We acted.
    pub fn warning(&self, line: &str) {
        self.count(|grave| grave.warnings += 1);
        self.log.write_line(Level::Warning, line);
    }

    /// Someone must act.
    pub fn error(&self, line: &str) {
        if self.is_subdued.get() {
            return self.info(line);
        }
        self.count(|grave| grave.errors += 1);
        self.log.write_line(Level::Error, line);
    }

    /// A worker was lost, or the server is.
    pub fn critical(&self, line: &str) {
        if self.is_subdued.get() {
            return self.info(line);
        }
        self.count(|grave| grave.criticals += 1);
        self.log.write_line(Level::Critical, line);
    }

    /// The life cycle in a crash loop that has come to `failures`.
    pub fn repeated(&self, failures: u32, line: &str) {
        self.log
            .write_line(if is_worth_a_line(failures) { Level::Info } else { Level::Debug }, line);
    }

    /// A failure in a crash loop that has come to `failures`.
    pub fn repeated_error(&self, failures: u32, line: &str) {
        if is_worth_a_line(failures) { self.error(line) } else { self.debug(line) }
    }

    /// Numbers of lines of consequence so far.
    #[must_use]
    pub fn grave_lines(&self) -> GraveLines {
        self.grave.get()
    }

    fn count(&self, change: impl FnOnce(&mut GraveLines)) {
        let mut grave = self.grave.get();
        change(&mut grave);
        self.grave.set(grave);
    }
}

/// Where `settings` want the log.
fn target(settings: &Settings) -> Target {
    match settings.errorlog.as_deref() {
        None | Some("-") => Target::Stderr,
        Some(path) => Target::File(PathBuf::from(path)),
    }
}

fn is_worth_a_line(failures: u32) -> bool {
    failures <= REPEATED_ALWAYS || failures.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_is_logged_ever_more_seldom() {
        let logged: Vec<u32> = (0..40).filter(|failures| is_worth_a_line(*failures)).collect();
        assert_eq!(logged, [0, 1, 2, 3, 4, 8, 16, 32]);
    }
}
