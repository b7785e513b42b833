//! Lines in the access log for requests that died with their worker: nobody else can write them.
//!
//! The scoreboard knows one request of each worker, the one whose code was running. Of others that waited in the same
//! process nothing is known any more.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use logging::access::{Clock, Format, Outcome, Subject, What, Writer};
use logging::{Level, LineBuffer, Syslog, Target};
use scoreboard::RequestInHand;
use shared::settings::Settings;

use crate::lookup::Addresses;

/// The master's end of the access log. Copies write to the same one.
#[derive(Debug, Clone, Default)]
pub struct Obituaries {
    log: Arc<Mutex<Option<AccessLog>>>,
}

#[derive(Debug)]
struct AccessLog {
    /// What the settings said when it was opened.
    target: Option<String>,
    format: Format,
    lines: Option<LineBuffer>,
    syslog: Option<Syslog>,
    clock: Clock,
}

/// How a request came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its worker gave no sign of life for `timeout`.
    Silent,
    /// Its worker was killed because its time was over.
    Killed,
    /// Its worker died by itself.
    Died,
}

impl End {
    /// What the client would have been told.
    fn status(self) -> u16 {
        match self {
            End::Silent => 504,
            End::Killed => 503,
            End::Died => 502,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            End::Silent => "worker_timeout",
            End::Killed => "worker_killed",
            End::Died => "worker_died",
        }
    }
}

impl Obituaries {
    /// Whether the access log that `settings` name can be opened. A file that is missing is made, for its `owner`.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub fn can_open(settings: &Settings, owner: Option<(u32, u32)>) -> io::Result<()> {
        let mut lines = open(target(settings).as_deref())?;
        match (&mut lines, owner) {
            (Some(lines), Some((uid, gid))) => lines.set_owner(uid, gid),
            _ => Ok(()),
        }
    }

    /// Opens the access log that `settings` name, and its syslog at the address that was `found` for it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; then nothing has changed.
    pub fn open(&self, settings: &Settings, found: &Addresses) -> io::Result<()> {
        let target = target(settings);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let known = log.take_if(|log| log.target == target).and_then(|log| log.lines);
        let lines = match known {
            Some(lines) => Some(lines),
            None => open(target.as_deref())?,
        };
        // That it cannot be reached is said by the error log's own attempt.
        let syslog = settings
            .access_syslog()
            .map(|plan| Syslog::open(&found.of_syslog(&plan.address), plan.facility, &plan.name))
            .and_then(Result::ok);
        let format = Format::new(&settings.access_log_format);
        *log = Some(AccessLog { target, format, lines, syslog, clock: Clock::default() });
        Ok(())
    }

    /// Opens the file again, after it was rotated.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; the old one is kept.
    pub fn reopen(&self) -> io::Result<()> {
        self.with_lines(LineBuffer::reopen)
    }

    /// Gives the file to the workers' user, so that workers can open it.
    ///
    /// # Errors
    ///
    /// `EPERM`: only root gives files away.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.with_lines(|lines| lines.set_owner(uid, gid))
    }

    fn with_lines(&self, act: impl FnOnce(&mut LineBuffer) -> io::Result<()>) -> io::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.as_mut().and_then(|log| log.lines.as_mut()).map_or(Ok(()), act)
    }

    /// Writes the line of a request that ended with its worker.
    pub fn write(&self, request: &RequestInHand, writer: Writer, end: End) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = log.as_mut() else { return };
        log.clock.set(SystemTime::now());
        let outcome = Outcome {
            status: end.status(),
            nanoseconds: sys::clock::monotonic().saturating_sub(request.since),
            reason: end.reason(),
            ..Outcome::default()
        };
        let (mut captured, mut line) = (Vec::new(), Vec::new());
        log.format.capture(&Victim(request), &writer, &mut captured);
        log.format.finish(&captured, &outcome, &log.clock, &mut line);
        if let Some(lines) = &mut log.lines {
            lines.append(|out| out.extend_from_slice(&line));
            lines.flush();
        }
        if let Some(syslog) = &mut log.syslog {
            syslog.send(Level::Info, &line);
            syslog.flush();
        }
    }
}

/// Where `settings` want the access log.
fn target(settings: &Settings) -> Option<String> {
    settings.accesslog.clone().filter(|name| !name.is_empty())
}

fn open(target: Option<&str>) -> io::Result<Option<LineBuffer>> {
    match target {
        None => Ok(None),
        Some("-") => LineBuffer::open(Target::Stdout).map(Some),
        Some(path) => LineBuffer::open(Target::File(path.into())).map(Some),
    }
}

/// What the scoreboard knows of a request.
struct Victim<'a>(&'a RequestInHand);

impl Subject for Victim<'_> {
    fn part(&self, what: What) -> Option<Cow<'_, [u8]>> {
        let text = match what {
            What::Peer | What::Client if !self.0.peer.is_empty() => &self.0.peer,
            What::Method => &self.0.method,
            // Without the query, which is not kept.
            What::Path | What::Target => &self.0.path,
            _ => return None,
        };
        Some(Cow::Borrowed(text.as_bytes()))
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }
}
