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
    DatabaseQueryFailures,
}

impl Counter {
    /// Every counter, in the order of its word.
    pub const ALL: [Counter; 21] = [
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
        Counter::DatabaseQueryFailures,
    ];
    /// Words that are folded: the counters, then the histogram of request durations.
    pub(crate) const COUNT: usize = Counter::ALL.len() + Histogram::WORDS;

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

/// Request durations: how many fell into each bucket (not cumulated), and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Counts per bucket of [`LATENCY_BOUNDS_NS`]; the last one has no upper bound.
    pub counts: [u64; LATENCY_BOUNDS_NS.len() + 1],
    /// Sum of all durations.
    pub sum: Duration,
}

impl Histogram {
    const BUCKETS: usize = LATENCY_BOUNDS_NS.len() + 1;
    /// The buckets, then the sum in nanoseconds.
    const WORDS: usize = Histogram::BUCKETS + 1;
    pub(crate) const SUM: usize = Counter::ALL.len() + Histogram::BUCKETS;

    /// Word, from the first counter on, of the bucket for this duration.
    pub(crate) fn word(duration_ns: u64) -> usize {
        Counter::ALL.len() + LATENCY_BOUNDS_NS.partition_point(|&bound| bound < duration_ns)
    }
}

/// A reading of all counters: of one worker, or a sum of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    words: [u64; Counter::COUNT],
}

impl Counters {
    /// Nothing happened yet.
    pub const ZERO: Counters = Counters { words: [0; Counter::COUNT] };

    /// Reads one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.words[counter as usize]
    }

    /// Reads the durations of requests.
    #[must_use]
    pub fn durations(&self) -> Histogram {
        let mut counts = [0; Histogram::BUCKETS];
        counts.copy_from_slice(&self.words[Counter::ALL.len()..Histogram::SUM]);
        Histogram { counts, sum: Duration::from_nanos(self.words[Histogram::SUM]) }
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
        let first = Counter::ALL.len();
        assert_eq!(Histogram::word(0), first);
        assert_eq!(Histogram::word(100_000), first);
        assert_eq!(Histogram::word(100_001), first + 1);
        assert_eq!(Histogram::word(u64::MAX), first + LATENCY_BOUNDS_NS.len());
    }
}
