//! What is counted: names of the words, and sums of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets in nanoseconds; one more bucket takes what is slower.
pub const LATENCY_BOUNDS_NS: [u64; 19] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];

/// Something that only grows while a worker lives. Busy time is in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Counter {
    ConnectionsAccepted,
    RequestsStarted,
    RequestsDone,
    Responses1xx,
    Responses2xx,
    Responses3xx,
    Responses4xx,
    Responses5xx,
    RefusedBadRequest,
    RefusedHeaderTimeout,
    RefusedBodyTimeout,
    RefusedWriteTimeout,
    RefusedTooLarge,
    RequestsAborted,
    BytesIn,
    BytesOut,
    BusyNanoseconds,
    DatabaseConnects,
    DatabaseConnectFailures,
    DatabaseQueries,
    DatabaseRefused,
    DatabaseTimeouts,
    DatabaseOverloads,
    DatabaseUnavailable,
    LogCritical,
    LogError,
    LogWarning,
    /// Errors of handlers, panics included; each is an error line too.
    HandlerErrors,
    /// Written by the master when the worker has ended; of the living, `/proc` knows.
    CpuNanoseconds,
}

impl Counter {
    /// Every counter, in the order of its word.
    pub const ALL: [Counter; 29] = [
        Counter::ConnectionsAccepted,
        Counter::RequestsStarted,
        Counter::RequestsDone,
        Counter::Responses1xx,
        Counter::Responses2xx,
        Counter::Responses3xx,
        Counter::Responses4xx,
        Counter::Responses5xx,
        Counter::RefusedBadRequest,
        Counter::RefusedHeaderTimeout,
        Counter::RefusedBodyTimeout,
        Counter::RefusedWriteTimeout,
        Counter::RefusedTooLarge,
        Counter::RequestsAborted,
        Counter::BytesIn,
        Counter::BytesOut,
        Counter::BusyNanoseconds,
        Counter::DatabaseConnects,
        Counter::DatabaseConnectFailures,
        Counter::DatabaseQueries,
        Counter::DatabaseRefused,
        Counter::DatabaseTimeouts,
        Counter::DatabaseOverloads,
        Counter::DatabaseUnavailable,
        Counter::LogCritical,
        Counter::LogError,
        Counter::LogWarning,
        Counter::HandlerErrors,
        Counter::CpuNanoseconds,
    ];
    pub(crate) const COUNT: usize = Counter::ALL.len();

    /// The counter of responses with this status; outside 100 to 599 it counts as 5xx.
    #[must_use]
    pub fn of_status(status: u16) -> Counter {
        match status / 100 {
            1 => Counter::Responses1xx,
            2 => Counter::Responses2xx,
            3 => Counter::Responses3xx,
            4 => Counter::Responses4xx,
            _ => Counter::Responses5xx,
        }
    }
}

/// Something that rises and falls; worth nothing once its worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Gauge {
    ConnectionsReading,
    ConnectionsWriting,
    ConnectionsIdle,
    DatabaseConnectionsUp,
    DatabaseConnectionsConnecting,
    DatabaseInFlight,
}

impl Gauge {
    /// Every gauge, in the order of its word.
    pub const ALL: [Gauge; 6] = [
        Gauge::ConnectionsReading,
        Gauge::ConnectionsWriting,
        Gauge::ConnectionsIdle,
        Gauge::DatabaseConnectionsUp,
        Gauge::DatabaseConnectionsConnecting,
        Gauge::DatabaseInFlight,
    ];
    pub(crate) const COUNT: usize = Gauge::ALL.len();
}

/// Durations of requests, or of queries: how many fell into each bucket (not cumulated), and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Counts per bucket of [`LATENCY_BOUNDS_NS`]; the last one has no upper bound.
    pub counts: [u64; LATENCY_BOUNDS_NS.len() + 1],
    /// Sum of all durations.
    pub sum: Duration,
}

impl Histogram {
    const BUCKETS: usize = LATENCY_BOUNDS_NS.len() + 1;
    /// The sum in nanoseconds, then the buckets: those of quick requests share its cache line.
    pub(crate) const WORDS: usize = 1 + Histogram::BUCKETS;

    /// No requests.
    pub const ZERO: Histogram = Histogram { counts: [0; Histogram::BUCKETS], sum: Duration::ZERO };

    /// Number of all requests in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Adds `other` to this one.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.wrapping_add(more);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Word, from the sum on, of the bucket for this duration.
    pub(crate) fn word(duration_ns: u64) -> usize {
        1 + LATENCY_BOUNDS_NS.partition_point(|&bound| bound < duration_ns)
    }

    pub(crate) fn load(from: &[AtomicU64]) -> Histogram {
        Histogram::of(from.iter().map(|word| word.load(Ordering::Relaxed)))
    }

    /// From its words: the sum, then the buckets.
    fn of(mut words: impl Iterator<Item = u64>) -> Histogram {
        let sum = Duration::from_nanos(words.next().unwrap_or(0));
        let mut counts = [0; Histogram::BUCKETS];
        counts.iter_mut().zip(words).for_each(|(count, word)| *count = word);
        Histogram { counts, sum }
    }
}

/// A reading of all counters: of one worker, or a sum of many. The durations of database queries are among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    words: [u64; Counters::WORDS],
}

impl Counters {
    /// Nothing happened yet.
    pub const ZERO: Counters = Counters { words: [0; Counters::WORDS] };
    /// One per counter, then the durations of queries.
    pub(crate) const WORDS: usize = Counter::COUNT + Histogram::WORDS;

    /// Reads one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.words[counter as usize]
    }

    /// How long database queries took.
    #[must_use]
    pub fn query_durations(&self) -> Histogram {
        Histogram::of(self.words[Counter::COUNT..].iter().copied())
    }

    pub(crate) fn set(&mut self, counter: Counter, value: u64) {
        self.words[counter as usize] = value;
    }

    /// Adds `other` to this one. Wraps, as counters do: a worker may have written anything.
    pub fn add(&mut self, other: &Counters) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word = word.wrapping_add(*more);
        }
    }

    pub(crate) fn load(from: &[AtomicU64]) -> Counters {
        let mut counters = Counters::ZERO;
        for (word, shared) in counters.words.iter_mut().zip(from) {
            *word = shared.load(Ordering::Relaxed);
        }
        counters
    }

    pub(crate) fn store(&self, into: &[AtomicU64]) {
        for (word, shared) in self.words.iter().zip(into) {
            shared.store(*word, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_and_gauge_stands_in_its_place() {
        for (place, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place, "{counter:?}");
        }
        for (place, gauge) in Gauge::ALL.into_iter().enumerate() {
            assert_eq!(gauge as usize, place, "{gauge:?}");
        }
    }

    #[test]
    fn a_bucket_holds_its_upper_bound() {
        assert_eq!(Histogram::word(0), 1);
        assert_eq!(Histogram::word(100_000), 1);
        assert_eq!(Histogram::word(100_001), 2);
        assert_eq!(Histogram::word(u64::MAX), Histogram::WORDS - 1);
    }
}
