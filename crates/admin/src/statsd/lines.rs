//! StatsD's lines, and datagrams of many.

use scoreboard::{Histogram, LATENCY_BOUNDS_NS};

/// Largest datagram: what fits into an Ethernet frame, with room for a tunnel.
pub const DATAGRAM_BYTES_MAX: usize = 1432;

/// Lines that wait to be sent.
pub struct Lines {
    /// With its dot.
    prefix: String,
    /// `|#…`, or nothing.
    tags: String,
    datagrams: Vec<String>,
}

impl Lines {
    pub fn new(prefix: &str, tags: &str) -> Lines {
        let prefix = prefix.trim_end_matches('.');
        Lines {
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}.") },
            tags: if tags.is_empty() { String::new() } else { format!("|#{tags}") },
            datagrams: Vec::new(),
        }
    }

    /// Something that happened `count` times; nothing is said when it did not.
    pub fn counter(&mut self, name: &str, count: u64) {
        if count != 0 {
            self.push(name, &format!("{count}|c|@1.0"));
        }
    }

    pub fn gauge(&mut self, name: &str, value: u64) {
        self.push(name, &format!("{value}|g"));
    }

    pub fn histogram(&mut self, name: &str, value: u64) {
        self.push(name, &format!("{value}|h"));
    }

    /// Durations in milliseconds, one value for each bucket; its sample rate says for how many requests it stands.
    pub fn timers(&mut self, name: &str, durations: &Histogram) {
        for (milliseconds, count) in representatives(durations) {
            let value = format!("{milliseconds:.3}|ms");
            if count == 1 {
                self.push(name, &value);
            } else {
                self.push(name, &format!("{value}|@{}", 1.0 / count as f64));
            }
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        let line = format!("{}{name}:{value}{}", self.prefix, self.tags);
        match self.datagrams.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= DATAGRAM_BYTES_MAX => {
                last.push('\n');
                last.push_str(&line);
            }
            _ => self.datagrams.push(line),
        }
    }

    /// Takes what waits.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.datagrams)
    }
}

/// What `now` has more than `before`.
pub fn difference(now: &Histogram, before: Option<&Histogram>) -> Histogram {
    let Some(before) = before else { return *now };
    let mut counts = now.counts;
    for (count, less) in counts.iter_mut().zip(before.counts) {
        *count = count.saturating_sub(less);
    }
    Histogram { counts, sum: now.sum.saturating_sub(before.sum) }
}

/// For each bucket with requests a duration in milliseconds within it, and their number.
///
/// All are moved by one factor, as far as their buckets let them, so that the mean comes out right.
fn representatives(durations: &Histogram) -> Vec<(f64, u64)> {
    let bound = |place: usize| LATENCY_BOUNDS_NS.get(place).map(|&bound| bound as f64 / 1e6);
    let buckets: Vec<(f64, f64, u64)> = durations
        .counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count != 0)
        .map(|(place, &count)| {
            let least = place.checked_sub(1).and_then(bound).unwrap_or(0.0);
            // The last bucket has no end.
            (least, bound(place).unwrap_or(f64::MAX), count)
        })
        .collect();
    let middle = |&(least, most, _): &(f64, f64, u64)| {
        if most == f64::MAX { least * 2.0 } else { f64::midpoint(least, most) }
    };
    let guessed: f64 = buckets.iter().map(|bucket| middle(bucket) * bucket.2 as f64).sum();
    let factor = durations.sum.as_secs_f64() * 1e3 / guessed;
    let moved = |bucket: &(f64, f64, u64)| (middle(bucket) * factor).clamp(bucket.0, bucket.1);
    buckets.iter().map(|bucket| (moved(bucket), bucket.2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn values_share_datagrams_that_never_grow_too_large() {
        let mut lines = Lines::new("shop.", "env:test");
        for number in 0..200 {
            lines.gauge("gunicorn.workers", number);
        }
        lines.counter("gunicorn.requests", 7);
        lines.counter("gunicorn.never", 0);
        let datagrams = lines.take();
        assert!((2..20).contains(&datagrams.len()), "{}", datagrams.len());
        assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM_BYTES_MAX));
        let all = datagrams.join("\n");
        assert_eq!(all.lines().count(), 201);
        assert_eq!(all.lines().next(), Some("shop.gunicorn.workers:0|g|#env:test"));
        assert_eq!(all.lines().last(), Some("shop.gunicorn.requests:7|c|@1.0|#env:test"));
        assert!(lines.take().is_empty());
    }

    #[test]
    fn timers_stand_for_whole_buckets_and_keep_the_mean() {
        let mut durations = Histogram::ZERO;
        durations.counts[0] = 4;
        durations.counts[5] = 1;
        durations.sum = Duration::from_micros(4 * 60 + 3_600);
        let mut lines = Lines::new("", "");
        lines.timers("t", &durations);
        let text = lines.take().join("\n");
        let (quick, slow) = text.split_once('\n').unwrap();
        assert!(quick.ends_with("|ms|@0.25") && slow.ends_with("|ms"), "{text}");
        let value = |line: &str| line[2..].split('|').next().unwrap().parse::<f64>().unwrap();
        let mean = (4.0 * value(quick) + value(slow)) / 5.0;
        assert!((mean - 0.768).abs() < 0.01, "{text}: {mean}");
        assert!(value(quick) <= 0.1 && (2.5..=5.0).contains(&value(slow)), "{text}");
    }
}
