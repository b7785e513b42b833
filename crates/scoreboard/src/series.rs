//! Request durations kept apart by method, route and status.
//!
//! A table of open addressing per process, whose only writer is the worker. A key is written after its route, so a
//! reader that sees the key sees the route too. What finds no place is counted in one last series for all the rest.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Histogram;
use crate::layout::{
    RETIRED_SERIES_MAX, SERIES_DURATIONS, SERIES_KEY, SERIES_MAX, SERIES_ROUTE, SERIES_WORDS,
};
use crate::words;

/// Places looked at before a series counts as having none.
const PROBES_MAX: usize = 16;

/// Name of the route of requests that no route took.
pub const ROUTE_OTHER: &str = "_other";

/// A request method, one of nine or any other: clients must not be able to make up series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Verb(u8);

impl Verb {
    const NAMES: [&'static str; 10] =
        ["_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

    /// Any method that is none of the nine, or none at all.
    pub const OTHER: Verb = Verb(0);

    /// GET, by far the most frequent.
    pub const GET: Verb = Verb(1);
    /// POST.
    pub const POST: Verb = Verb(3);

    /// The one of this name.
    #[must_use]
    pub fn of(method: &[u8]) -> Verb {
        match method {
            b"GET" => Verb::GET,
            b"POST" => Verb::POST,
            _ => {
                let place = Verb::NAMES.iter().position(|name| name.as_bytes() == method);
                Verb(place.unwrap_or(0) as u8)
            }
        }
    }

    /// Its name; `_OTHER` for all that are none of the nine.
    #[must_use]
    pub fn name(self) -> &'static str {
        Verb::NAMES[usize::from(self.0) % Verb::NAMES.len()]
    }
}

/// What is known of a request when it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its method.
    pub verb: Verb,
    /// Number of its route within this process; 0 for none.
    pub route: u16,
    /// The route's pattern, such as `/users/{id}`, or [`ROUTE_OTHER`].
    pub pattern: &'a str,
    /// The status of the answer.
    pub status: u16,
}

/// Durations of the requests with one method, route and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The method.
    pub verb: Verb,
    /// The route's pattern, cut at [`crate::ROUTE_BYTES_MAX`] bytes.
    pub route: String,
    /// The status; 0 for the series of all that found no place.
    pub status: u16,
    /// The durations.
    pub durations: Histogram,
}

/// Never 0, which means "no series".
const TAKEN: u64 = 1 << 63;

fn key(call: &Call<'_>) -> u64 {
    TAKEN | u64::from(call.verb.0) << 32 | u64::from(call.route) << 16 | u64::from(call.status)
}

/// Counts requests in the table of their process.
pub(crate) fn count(table: &[AtomicU64], call: &Call<'_>, duration_ns: u64, count: u64) {
    let series = place(table, call);
    let bump = |word: usize, more: u64| {
        let word = &series[word];
        word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    };
    bump(SERIES_DURATIONS, duration_ns.wrapping_mul(count));
    bump(SERIES_DURATIONS + Histogram::word(duration_ns), count);
}

fn place<'a>(table: &'a [AtomicU64], call: &Call<'_>) -> &'a [AtomicU64] {
    let key = key(call);
    // Fibonacci hashing: the upper bits of the product are the well-mixed ones.
    let start = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
    for probe in 0..PROBES_MAX {
        // The last place is that of all the rest.
        let place = (start + probe) % (SERIES_MAX - 1);
        let series = &table[place * SERIES_WORDS..][..SERIES_WORDS];
        match series[SERIES_KEY].load(Ordering::Relaxed) {
            found if found == key => return series,
            0 => {
                words::put_text(&series[SERIES_ROUTE..], call.pattern.as_bytes());
                series[SERIES_KEY].store(key, Ordering::Release);
                return series;
            }
            _ => (),
        }
    }
    rest(table, SERIES_MAX)
}

fn rest(table: &[AtomicU64], series_max: usize) -> &[AtomicU64] {
    let series = &table[(series_max - 1) * SERIES_WORDS..][..SERIES_WORDS];
    if series[SERIES_KEY].load(Ordering::Relaxed) == 0 {
        words::put_text(&series[SERIES_ROUTE..], ROUTE_OTHER.as_bytes());
        series[SERIES_KEY].store(TAKEN, Ordering::Release);
    }
    series
}

/// Reads a table, its empty places left out.
pub(crate) fn read(table: &[AtomicU64]) -> impl Iterator<Item = Series> {
    table.chunks_exact(SERIES_WORDS).filter_map(read_one)
}

/// Reads the series of the dead, which lie side by side. What was never written is not looked at: it costs no memory.
pub(crate) fn read_retired(table: &[AtomicU64]) -> impl Iterator<Item = Series> {
    // The one for all the rest is the last, and is written only when the others are.
    table.chunks_exact(SERIES_WORDS).map_while(read_one)
}

fn read_one(series: &[AtomicU64]) -> Option<Series> {
    let key = series[SERIES_KEY].load(Ordering::Acquire);
    (key != 0).then(|| Series {
        verb: Verb((key >> 32) as u8),
        route: words::text(&series[SERIES_ROUTE..]),
        status: key as u16,
        durations: Histogram::load(&series[SERIES_DURATIONS..SERIES_ROUTE]),
    })
}

/// Adds series of a dead process to those of all the dead. Numbers of routes mean nothing there: patterns do.
pub(crate) fn retire(retired: &[AtomicU64], dead: impl Iterator<Item = Series>) {
    for series in dead {
        let route = &series.route.as_bytes()[..series.route.len().min(crate::ROUTE_BYTES_MAX)];
        let key = TAKEN | u64::from(series.verb.0) << 32 | u64::from(series.status);
        add(retired_place(retired, key, route), &series.durations);
    }
}

fn retired_place<'a>(retired: &'a [AtomicU64], key: u64, route: &[u8]) -> &'a [AtomicU64] {
    let mut places = retired.chunks_exact(SERIES_WORDS).take(RETIRED_SERIES_MAX - 1);
    let found = places.find(|place| match place[SERIES_KEY].load(Ordering::Relaxed) {
        0 => {
            words::put_text(&place[SERIES_ROUTE..], route);
            place[SERIES_KEY].store(key, Ordering::Release);
            true
        }
        found => found == key && words::text(&place[SERIES_ROUTE..]).as_bytes() == route,
    });
    found.unwrap_or_else(|| rest(retired, RETIRED_SERIES_MAX))
}

fn add(series: &[AtomicU64], durations: &Histogram) {
    let sum = u64::try_from(durations.sum.as_nanos()).unwrap_or(u64::MAX);
    let words = &series[SERIES_DURATIONS..SERIES_ROUTE];
    for (word, more) in words.iter().zip([sum].into_iter().chain(durations.counts)) {
        word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

/// Series that a reader keeps apart, whatever workers wrote; what is beyond goes into one.
const SHOWN_MAX: usize = 2 * RETIRED_SERIES_MAX;

/// Adds `more` to `all`, series by series.
pub(crate) fn merge(all: &mut Vec<Series>, more: impl Iterator<Item = Series>) {
    for series in more {
        let is_same = |known: &&mut Series| {
            known.verb == series.verb
                && known.status == series.status
                && known.route == series.route
        };
        let has_room = all.len() < SHOWN_MAX;
        match all.iter_mut().find(is_same) {
            Some(known) => known.durations.add(&series.durations),
            None if has_room => all.push(series),
            None => {
                if let Some(last) = all.last_mut() {
                    (last.verb, last.status) = (Verb::OTHER, 0);
                    ROUTE_OTHER.clone_into(&mut last.route);
                    last.durations.add(&series.durations);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_clients_fall_into_ten() {
        for name in Verb::NAMES {
            assert_eq!(Verb::of(name.as_bytes()).name(), name);
        }
        assert_eq!(Verb::of(b"BREW"), Verb::OTHER);
        assert_eq!(Verb::of(b"get"), Verb::OTHER);
    }
}
