//! What is counted, for the metrics: connections, queries and what became of them, how long they took.

use std::time::Duration;

use crate::error::Kind;

/// Numbers for the metrics. The last three rise and fall, all others only ever grow.
///
/// Queries inside of [`crate::Transaction`] and [`crate::Dedicated`] are tokio-postgres' and not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that came up.
    pub connects: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Queries answered, be it by an error.
    pub queries: u64,
    /// Queries that the server answered with an error.
    pub refused: u64,
    /// Queries, and waits for a connection of one's own, that took too long.
    pub timed_out: u64,
    /// Queries, and wishes for a connection of one's own, turned away because too many waited.
    pub overloaded: u64,
    /// Queries asked while the database was away, or in flight when it went.
    pub unavailable: u64,
    /// Queries sent and not yet answered.
    pub in_flight: u64,
    /// Connections that are up.
    pub up: u64,
    /// Connections that are being made, or will be tried again.
    pub connecting: u64,
}

impl Counters {
    /// Counts queries that failed by this kind of error without an answer.
    #[cold]
    pub(crate) fn failed(&mut self, kind: Kind, queries: usize) {
        let counter = match kind {
            Kind::TimedOut => &mut self.timed_out,
            Kind::Overloaded => &mut self.overloaded,
            Kind::Unavailable => &mut self.unavailable,
            Kind::Sql | Kind::TooLarge | Kind::Encode | Kind::Decode | Kind::RowCount => return,
        };
        *counter += queries as u64;
    }
}

/// How long answered queries took, from being sent to the turn in which their answer was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    bounds_ns: &'static [u64],
    counts: Box<[u64]>,
    sum_ns: u64,
}

impl Durations {
    /// For these upper bounds in nanoseconds, rising; one more bucket takes what is slower.
    pub(crate) fn new(bounds_ns: &'static [u64]) -> Durations {
        let buckets = if bounds_ns.is_empty() { 0 } else { bounds_ns.len() + 1 };
        Durations { bounds_ns, counts: vec![0; buckets].into(), sum_ns: 0 }
    }

    /// Queries per bucket; empty if [`crate::Config::duration_bounds_ns`] is.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Sum of all durations in nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// Counts queries that took this long each.
    #[inline]
    pub(crate) fn add(&mut self, took: Duration, queries: usize) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = match self.bounds_ns.first() {
            Some(&quickest) if took_ns <= quickest => 0,
            _ => self.bounds_ns.partition_point(|&bound| bound < took_ns),
        };
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += queries as u64;
            self.sum_ns = self.sum_ns.wrapping_add(took_ns.wrapping_mul(queries as u64));
        }
    }

    /// Forgets what was counted.
    pub(crate) fn reset(&mut self) {
        self.counts.fill(0);
        self.sum_ns = 0;
    }
}

/// All that one [`crate::Database`] counts.
pub(crate) struct Tally {
    pub counters: Counters,
    pub durations: Durations,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_it_does_not_exceed() {
        let mut durations = Durations::new(&[1_000, 2_000]);
        for (took, queries) in [(0, 1), (1_000, 2), (1_001, 10), (2_000, 20), (2_001, 100)] {
            durations.add(Duration::from_nanos(took), queries);
        }
        assert_eq!(durations.counts(), [3, 30, 100]);
        assert_eq!(durations.sum_ns(), 2_000 + 10_010 + 40_000 + 200_100);
        durations.reset();
        assert_eq!((durations.counts(), durations.sum_ns()), (&[0, 0, 0][..], 0));
        let mut none = Durations::new(&[]);
        none.add(Duration::ZERO, 1);
        assert_eq!((none.counts(), none.sum_ns()), (&[][..], 0));
    }
}
