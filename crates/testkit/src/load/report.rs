//! What a load saw.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Failures described one by one in a report; the rest are only counted.
const DETAILS_MAX: usize = 10;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listened, or a unix socket's queue was full.
    Refused,
    /// The connection ended before the first byte of the response.
    Reset,
    /// Nothing came in time.
    Timeout,
    /// The response has a status that was not expected.
    BadStatus,
    /// The connection ended within the response.
    ShortBody,
    /// The response is not HTTP, or this machine ran out of something.
    Other,
}

/// What a load saw; also a sum of several.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests answered in full with an expected status.
    pub answered: u64,
    /// Failed requests by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// All whole responses by status, expected or not.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections made.
    pub connections: u64,
    /// Connections that the server announced to close.
    pub announced_closes: u64,
    /// Idle connections that the server closed without an announcement.
    pub idle_closes: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// The first few failures in words, each with its time since the start.
    pub details: Vec<String>,
    /// Time of each answered request, in microseconds; sorted.
    pub(crate) latencies_us: Vec<u32>,
}

impl Report {
    /// Number of failed requests.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Answered requests per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Time within which this share of the answered requests was answered; `share` from 0 to 1.
    #[must_use]
    pub fn latency(&self, share: f64) -> Duration {
        let last = self.latencies_us.len().saturating_sub(1);
        let place = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        Duration::from_micros(self.latencies_us.get(place).copied().unwrap_or(0).into())
    }

    /// Panics if any request failed, or fewer than `answered_min` were answered (then nothing was tested).
    #[track_caller]
    pub fn assert_nothing_lost(&self, answered_min: u64) {
        assert!(self.failed() == 0, "requests were lost: {self}");
        assert!(self.answered >= answered_min, "too little load to tell: {self}");
    }

    pub(crate) fn fail(&mut self, failure: Failure, since_start: Duration, detail: &str) {
        *self.failures.entry(failure).or_default() += 1;
        if self.details.len() < DETAILS_MAX {
            self.details.push(format!("{:.3} s: {failure:?}: {detail}", since_start.as_secs_f64()));
        }
    }

    pub(crate) fn answer(&mut self, latency: Duration) {
        self.answered += 1;
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn add(&mut self, other: Report) {
        self.answered += other.answered;
        self.connections += other.connections;
        self.announced_closes += other.announced_closes;
        self.idle_closes += other.idle_closes;
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.details.extend(other.details);
        self.details.truncate(DETAILS_MAX);
        self.latencies_us.extend(other.latencies_us);
    }

    pub(crate) fn finish(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
        self.latencies_us.sort_unstable();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |share| self.latency(share).as_secs_f64() * 1_000.0;
        write!(
            f,
            "{} answered, {} failed {:?}, statuses {:?}, {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms, \
             {} connections, {} announced closes, {} idle closes",
            self.answered,
            self.failed(),
            self.failures,
            self.statuses,
            self.rate(),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            self.connections,
            self.announced_closes,
            self.idle_closes,
        )?;
        for detail in &self.details {
            write!(f, "\n  {detail}")?;
        }
        Ok(())
    }
}
