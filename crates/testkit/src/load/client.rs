//! One client: a thread with at most one connection.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http::{Connection, Response};
use crate::load::{Failure, Mode, Report, Shared};

/// Longest sleep before looking whether the load is over.
const NAP: Duration = Duration::from_millis(20);

pub(crate) struct Client<'a> {
    shared: &'a Shared,
    report: Report,
    /// Kept from the last request, if connections are.
    kept: Option<Connection>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Client<'a> {
        Client { shared, report: Report::default(), kept: None }
    }

    pub(crate) fn run(mut self) -> Report {
        while let Some(number) = self.shared.next() {
            match self.shared.load.mode {
                Mode::OpenLoop { rate } | Mode::OpenLoopKept { rate } => {
                    let due = self.shared.start + Duration::from_secs_f64(number as f64 / rate);
                    if !self.sleep_until(due) {
                        break;
                    }
                    // Counted from the moment it was due: when all clients wait for a slow server, that is its delay.
                    self.request(due);
                }
                Mode::CloseEach => self.request(Instant::now()),
                Mode::KeepAlive { pause } => {
                    if !self.sleep_until(Instant::now() + pause) {
                        break;
                    }
                    self.request(Instant::now());
                }
            }
        }
        self.report
    }

    /// `false`: the load was over first.
    fn sleep_until(&self, due: Instant) -> bool {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if self.shared.is_over() {
                return false;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    fn request(&mut self, since: Instant) {
        let limit = self.shared.load.limit;
        if self.kept.as_ref().is_some_and(Connection::has_news) {
            // Closed while it idled; a request on it was never sent.
            self.kept = None;
            self.report.idle_closes += 1;
        }
        let fresh = self.kept.is_none();
        let connection = match self.kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open_within(&self.shared.load.endpoint, limit),
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => return self.fail(kind_of(&error, true), &error, "connecting"),
        };
        self.report.connections += u64::from(fresh);
        let result = connection
            .send(&self.shared.request)
            .and_then(|()| connection.response(self.shared.to_head));
        let place = if fresh { "on a fresh connection" } else { "on a kept connection" };
        match result {
            Ok(response) => self.respond(&response, since, connection),
            Err(error) => self.fail(kind_of(&error, false), &error, place),
        }
    }

    fn respond(&mut self, response: &Response, since: Instant, mut connection: Connection) {
        *self.report.statuses.entry(response.status).or_default() += 1;
        if self.shared.load.expected.contains(&response.status) {
            self.report.answer(since.elapsed());
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
        } else {
            let line = response.head.lines().next().unwrap_or_default();
            let text = String::from_utf8_lossy(&response.body);
            let detail = format!("{line} {:.80}", text.trim());
            self.fail(Failure::BadStatus, &detail, "");
        }
        let keep_alive = self.shared.load.mode.keeps_connections();
        if keep_alive && response.says_close() {
            self.report.announced_closes += 1;
        }
        if keep_alive && !response.says_close() {
            self.kept = Some(connection);
        } else {
            // Waiting for the server's end leaves TIME_WAIT on its side, so our own ports do not run out.
            let _ = connection.rest();
        }
    }

    fn fail(&mut self, failure: Failure, reason: &dyn std::fmt::Display, place: &str) {
        let detail = format!("{reason} {place}");
        self.report.fail(failure, self.shared.start.elapsed(), &detail);
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
    }
}

fn kind_of(error: &io::Error, connecting: bool) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Failure::Refused,
        io::ErrorKind::WouldBlock if connecting => Failure::Refused,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::Timeout,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => Failure::Reset,
        io::ErrorKind::UnexpectedEof => Failure::ShortBody,
        _ => Failure::Other,
    }
}
