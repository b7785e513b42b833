//! The access log of a worker: what is noted of each request, and when its line is written.
//!
//! - A request is noted when its head is there, for its bytes are gone when it is answered.
//! - Its line is written when the kernel has taken its answer whole, or when it is certain that it will not.
//! - All lines of a turn leave in one write, which never waits.

use std::time::{Duration, SystemTime};

use logging::access::{Clock, Format, Outcome, Subject, Writer};
use logging::{Level, LineBuffer, Syslog, Target};
use shared::settings::Settings;

use crate::log::Log;
use crate::service::Service;

/// Ledgers kept for reuse.
const SPARE_LEDGERS_MAX: usize = 128;
/// Ledgers whose memory has grown beyond this, in bytes, are not kept.
const SPARE_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for a reader at the end of the worker.
const LAST_LINES_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often it is tried to write the last lines.
const LAST_LINES_TRY_EVERY: Duration = Duration::from_millis(10);

/// Why a request did not go as it should, in one word.
pub(crate) mod reason {
    use crate::body::BodyError;

    pub(crate) const ABORTED: &str = "aborted";
    pub(crate) const BAD_REQUEST: &str = "bad_request";
    pub(crate) const TOO_LARGE: &str = "too_large";
    pub(crate) const HEADER_TIMEOUT: &str = "header_timeout";
    pub(crate) const BODY_TIMEOUT: &str = "body_timeout";
    pub(crate) const WRITE_TIMEOUT: &str = "write_timeout";
    pub(crate) const REQUEST_TIMEOUT: &str = "request_timeout";
    pub(crate) const HANDLER_ERROR: &str = "handler_error";
    pub(crate) const FORBIDDEN: &str = "forbidden";
    pub(crate) const CUT: &str = "cut";

    /// Why a body could not be read.
    pub(crate) fn of_body(error: BodyError) -> &'static str {
        match error {
            BodyError::TooLarge => TOO_LARGE,
            BodyError::TimedOut => BODY_TIMEOUT,
            BodyError::Malformed | BodyError::Cut => BAD_REQUEST,
            BodyError::NotStored => HANDLER_ERROR,
        }
    }
}

/// Status in the line of a request whose client went away before there was an answer; Nginx's.
pub(crate) const STATUS_ABORTED: u16 = 499;
/// Status in the line of a request that we left without an answer.
pub(crate) const STATUS_CUT: u16 = 503;

/// The requests of one connection that have no line yet, the one in hand last.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// What was captured of each, one after the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Where its part of the bytes begins.
    start: usize,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    since: u64,
    received: u64,
    answer: Option<Answered>,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// Bytes of the body.
    pub(crate) sent: u64,
    pub(crate) reason: &'static str,
    /// Number of its route.
    pub(crate) route: u16,
}

/// The access log.
pub(crate) struct AccessLog {
    format: Format,
    writer: Writer,
    lines: Option<LineBuffer>,
    syslog: Option<Syslog>,
    /// A line for syslog; kept for its memory.
    line: Vec<u8>,
    clock: Clock,
    /// The clock is set for this turn.
    is_timed: bool,
    #[expect(
        clippy::vec_box,
        reason = "they move between here and connections, which must stay small"
    )]
    spare: Vec<Box<Ledger>>,
}

impl AccessLog {
    /// The log that the settings ask for. One that cannot be opened is reported, and done without.
    pub(crate) fn open(
        settings: &Settings,
        worker: usize,
        generation: u64,
        log: &Log,
    ) -> Option<Box<AccessLog>> {
        let target = match settings.accesslog.as_deref() {
            None | Some("") => None,
            Some("-") => Some(Target::Stdout),
            Some(path) => Some(Target::File(path.into())),
        };
        let lines = target.and_then(|target| match LineBuffer::open(target) {
            Ok(lines) => Some(lines),
            Err(error) => {
                log.error(format_args!("Cannot open the access log: {error}"));
                None
            }
        });
        let syslog = settings.access_syslog().and_then(|plan| log.syslog(&plan));
        if lines.is_none() && syslog.is_none() {
            return None;
        }
        let writer = Writer { pid: std::process::id(), worker, generation };
        let mut format = Format::new(&settings.access_log_format).of(&writer);
        if let Some(most) = lines.as_ref().and_then(LineBuffer::line_bytes_max) {
            format = format.within(most);
        }
        Some(Box::new(AccessLog {
            format,
            writer,
            lines,
            syslog,
            line: Vec::new(),
            clock: Clock::default(),
            is_timed: false,
            spare: Vec::new(),
        }))
    }

    /// Notes a request.
    pub(crate) fn note(
        &mut self,
        ledger: &mut Option<Box<Ledger>>,
        subject: &impl Subject,
        since: u64,
    ) {
        let ledger = ledger.get_or_insert_with(|| self.spare.pop().unwrap_or_default());
        let start = ledger.bytes.len();
        self.format.capture(subject, &self.writer, &mut ledger.bytes);
        ledger.entries.push(Entry { start, since, received: 0, answer: None });
    }

    /// Notes the fields of the answer to the request in hand.
    pub(crate) fn note_fields<'f>(
        &self,
        ledger: &mut Ledger,
        field: impl Fn(&str) -> Option<&'f [u8]>,
    ) {
        if self.format.shows_response_fields() {
            self.format.capture_response(field, &mut ledger.bytes);
        }
    }

    /// Writes the lines of all that were answered; `now` is `CLOCK_MONOTONIC` in nanoseconds.
    pub(crate) fn write(
        &mut self,
        ledger: &mut Option<Box<Ledger>>,
        service: &dyn Service,
        now: u64,
    ) {
        self.write_some(ledger, service, None, now);
    }

    /// Writes the lines of all, for the connection is lost: `lost` is what to say of those that were not answered. An
    /// answer that was not taken has its reason too.
    pub(crate) fn write_lost(
        &mut self,
        ledger: &mut Option<Box<Ledger>>,
        service: &dyn Service,
        lost: Answered,
        now: u64,
    ) {
        self.write_some(ledger, service, Some(lost), now);
    }

    fn write_some(
        &mut self,
        slot: &mut Option<Box<Ledger>>,
        service: &dyn Service,
        lost: Option<Answered>,
        now: u64,
    ) {
        let Some(ledger) = slot else { return };
        if !self.is_timed {
            self.is_timed = true;
            self.clock.set(SystemTime::now());
        }
        let mut done = 0;
        for (index, entry) in ledger.entries.iter().enumerate() {
            let answer = match (entry.answer, lost) {
                (Some(answer), None) => answer,
                (Some(answer), Some(lost)) if answer.reason.is_empty() => {
                    Answered { reason: lost.reason, ..answer }
                }
                (Some(answer), Some(_)) => answer,
                (None, Some(lost)) => lost,
                (None, None) => break,
            };
            done = index + 1;
            let end = ledger.entries.get(done).map_or(ledger.bytes.len(), |next| next.start);
            let outcome = Outcome {
                status: answer.status,
                sent: answer.sent,
                received: entry.received,
                nanoseconds: now.saturating_sub(entry.since),
                reason: answer.reason,
                route: if answer.route == 0 { "" } else { service.pattern(answer.route) },
            };
            let captured = &ledger.bytes[entry.start..end];
            if let Some(lines) = &mut self.lines {
                lines.append(|out| self.format.finish(captured, &outcome, &self.clock, out));
            }
            if let Some(syslog) = &mut self.syslog {
                self.line.clear();
                self.format.finish(captured, &outcome, &self.clock, &mut self.line);
                syslog.send(Level::Info, &self.line);
            }
        }
        if done == ledger.entries.len() {
            self.put_away(slot);
        } else if 0 < done {
            // The one in hand stays.
            let start = ledger.entries[done].start;
            ledger.bytes.drain(..start);
            ledger.entries.drain(..done);
            for entry in &mut ledger.entries {
                entry.start -= start;
            }
        }
    }

    fn put_away(&mut self, slot: &mut Option<Box<Ledger>>) {
        if let Some(mut ledger) = slot.take()
            && self.spare.len() < SPARE_LEDGERS_MAX
            && ledger.bytes.capacity() <= SPARE_BYTES_MAX
        {
            ledger.bytes.clear();
            ledger.entries.clear();
            self.spare.push(ledger);
        }
    }

    /// Writes the lines of this turn.
    pub(crate) fn flush(&mut self) {
        self.is_timed = false;
        if let Some(lines) = &mut self.lines {
            lines.flush();
        }
        if let Some(syslog) = &mut self.syslog {
            syslog.flush();
        }
    }

    /// Opens the file again, after a rotation.
    pub(crate) fn reopen(&mut self, log: &Log) {
        if let Some(lines) = &mut self.lines
            && let Err(error) = lines.reopen()
        {
            log.error(format_args!("Cannot open the access log again: {error}"));
        }
    }

    /// Says what was lost because nobody took it.
    pub(crate) fn report(&mut self, log: &Log) {
        let lost = self.lines.as_mut().map_or(0, LineBuffer::take_dropped)
            + self.syslog.as_mut().map_or(0, Syslog::take_dropped);
        if lost != 0 {
            log.warning(format_args!(
                "Access log lines lost because the log took no more lines={lost}"
            ));
        }
    }

    /// Writes what waits before the process ends.
    pub(crate) fn finish(&mut self, log: &Log) {
        let end = std::time::Instant::now() + LAST_LINES_WAIT_MAX;
        self.flush();
        while self.lines.as_ref().is_some_and(|lines| lines.pending_bytes() != 0)
            && std::time::Instant::now() < end
        {
            std::thread::sleep(LAST_LINES_TRY_EVERY);
            self.flush();
        }
        self.report(log);
    }
}

impl Ledger {
    /// So many bytes of the body of the request in hand have come.
    pub(crate) fn receive(&mut self, bytes: usize) {
        if let Some(entry) = self.entries.last_mut() {
            entry.received += bytes as u64;
        }
    }

    /// The last so many bytes of the answers were not taken: they are not counted as sent. Heads among them make it a
    /// little less than was sent.
    pub(crate) fn take_back(&mut self, bytes: usize) {
        let mut left = bytes as u64;
        for answer in self.entries.iter_mut().rev().filter_map(|entry| entry.answer.as_mut()) {
            let unsent = answer.sent.min(left);
            answer.sent -= unsent;
            left -= unsent;
        }
    }

    /// The request in hand is answered.
    pub(crate) fn answer(&mut self, answer: Answered) {
        if let Some(entry) = self.entries.last_mut()
            && entry.answer.is_none()
        {
            entry.answer = Some(answer);
        }
    }
}
