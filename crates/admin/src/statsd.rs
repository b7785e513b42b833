//! StatsD: gunicorn's names and types, from differences of the scoreboard, many values in a datagram.
//!
//! - Sending is fire and forget: a receiver that is away costs nothing and is found again when it is back.
//! - Durations are known by buckets: each bucket with requests becomes one timer value with a sample rate that stands
//!   for all of them, so placed that the mean is right.

mod lines;
mod target;

use std::io;

use scoreboard::{Counter, Fact, Scoreboard, Series};
use shared::settings::Settings;

use crate::observer::sum;
use lines::Lines;
use target::Target;

/// Sends what happened since the last time.
pub struct Exporter {
    board: &'static Scoreboard,
    target: Target,
    lines: Lines,
    with_backlog: bool,
    known: Known,
}

/// The counters as they were sent last.
#[derive(Default)]
struct Known {
    series: Vec<Series>,
    /// As in [`Exporter::log_lines`].
    log: [u64; 4],
}

impl Exporter {
    /// The exporter that the settings want; `None`: none.
    ///
    /// # Errors
    ///
    /// No socket can be made.
    pub fn from_settings(
        settings: &Settings,
        board: &'static Scoreboard,
    ) -> io::Result<Option<Exporter>> {
        let Some(host) = &settings.statsd_host else { return Ok(None) };
        let mut exporter = Exporter {
            board,
            target: Target::open(host)?,
            lines: Lines::new(
                settings.statsd_prefix.as_deref().unwrap_or_default(),
                settings.dogstatsd_tags.as_deref().unwrap_or_default(),
            ),
            with_backlog: settings.enable_backlog_metric,
            known: Known::default(),
        };
        // What was counted before belongs to a predecessor.
        exporter.differences();
        exporter.lines.take();
        Ok(Some(exporter))
    }

    /// Sends what happened since the last time, and the gauges as they are.
    pub fn send(&mut self) {
        self.differences();
        self.gauges();
        for datagram in self.lines.take() {
            self.target.send(&datagram);
        }
    }

    fn differences(&mut self) {
        let snapshot = self.board.snapshot();
        let mut requests = 0;
        for series in &snapshot.series {
            let known = self.known.series.iter().find(|known| {
                (known.verb, known.status, &known.route)
                    == (series.verb, series.status, &series.route)
            });
            let new = lines::difference(&series.durations, known.map(|known| &known.durations));
            let count = new.count();
            requests = count.wrapping_add(requests);
            if count != 0 {
                let name = format!("gunicorn.request.status.{}", series.status);
                self.lines.counter(&name, count);
                self.lines.timers("gunicorn.request.duration", &new);
            }
        }
        self.lines.counter("gunicorn.requests", requests);
        let log = self.log_lines(&snapshot.totals);
        let names = ["critical", "error", "warning", "exception"];
        for ((name, now), known) in names.iter().zip(log).zip(self.known.log) {
            self.lines.counter(&format!("gunicorn.log.{name}"), now.saturating_sub(known));
        }
        self.known = Known { series: snapshot.series, log };
    }

    /// Lines of the error log by gunicorn's four names, of master and workers.
    fn log_lines(&self, totals: &scoreboard::Counters) -> [u64; 4] {
        let master = self.board.master();
        let exceptions = totals.get(Counter::HandlerErrors);
        [
            totals.get(Counter::LogCritical).wrapping_add(master.get(Fact::LogCriticals)),
            // gunicorn counts what handlers raise as exceptions, and nothing twice.
            totals
                .get(Counter::LogError)
                .wrapping_add(master.get(Fact::LogErrors))
                .saturating_sub(exceptions),
            totals.get(Counter::LogWarning).wrapping_add(master.get(Fact::LogWarnings)),
            exceptions,
        ]
    }

    fn gauges(&mut self) {
        let master = self.board.master();
        let workers = master.get(Fact::Serving).wrapping_add(master.get(Fact::Booting));
        self.lines.gauge("gunicorn.workers", workers);
        if self.with_backlog {
            let waiting = sum(master.listeners().iter().map(|listener| listener.length));
            self.lines.histogram("gunicorn.backlog", waiting);
            self.lines.gauge("gunicorn.socket.backlog", waiting);
        }
    }
}
