//! Wear: when a worker is to be replaced although nothing is wrong with it.
//!
//! The limits are chosen when the worker is spawned, each with its own share of chance, so that workers that were spawned
//! together are not worn out together. Whoever finds a worker worn reports it to the fleet, which replaces one at a time.

use std::fmt;
use std::time::{Duration, Instant};

use shared::settings::Settings;

/// What a worker is used up by. `None`: it is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wear {
    requests: Option<u64>,
    until: Option<Instant>,
    rss: Option<u64>,
}

/// Why a worker is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It answered `max_requests`.
    Requests,
    /// It reached `max_worker_lifetime`.
    Lifetime,
    /// It grew beyond `max_worker_rss`.
    Memory,
}

/// Largest share by which a lifetime is stretched at random.
const LIFETIME_JITTER: f64 = 0.1;

impl Wear {
    /// The limits of a worker spawned at `now`; `random` is from 0 to 1.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant, random: f64) -> Wear {
        let requests = (0 < settings.max_requests).then(|| {
            let jitter = (settings.max_requests_jitter as f64 * random).round() as u64;
            settings.max_requests as u64 + jitter
        });
        let lifetime = Settings::limit(settings.max_worker_lifetime);
        let lifetime = lifetime
            .map(|lifetime| lifetime.mul_f64(1.0 + LIFETIME_JITTER * random.clamp(0.0, 1.0)));
        Wear {
            requests,
            until: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
            rss: (0 < settings.max_worker_rss).then_some(settings.max_worker_rss),
        }
    }

    /// Whether it may ever be worn.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        *self != Wear::default()
    }

    /// Whether it is worn; memory is asked for only when it matters.
    #[must_use]
    pub fn reached(
        &self,
        requests: u64,
        now: Instant,
        rss: impl FnOnce() -> Option<u64>,
    ) -> Option<Reason> {
        if self.requests.is_some_and(|limit| limit <= requests) {
            return Some(Reason::Requests);
        }
        if self.until.is_some_and(|until| until <= now) {
            return Some(Reason::Lifetime);
        }
        self.rss.filter(|limit| rss().is_some_and(|rss| *limit < rss)).map(|_| Reason::Memory)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Requests => "max_requests",
            Reason::Lifetime => "max_worker_lifetime",
            Reason::Memory => "max_worker_rss",
        })
    }
}

/// How often wear is looked at: it is never urgent.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_counts_and_none_is_none() {
        let now = Instant::now();
        let settings = Settings {
            max_requests: 100,
            max_requests_jitter: 50,
            max_worker_lifetime: Duration::from_secs(10),
            max_worker_rss: 1000,
            ..Settings::default()
        };
        let wear = Wear::new(&settings, now, 1.0);
        assert_eq!(wear.reached(149, now, || Some(1000)), None);
        assert_eq!(wear.reached(150, now, || None), Some(Reason::Requests));
        assert_eq!(wear.reached(0, now + Duration::from_millis(10_900), || None), None);
        assert_eq!(
            wear.reached(0, now + Duration::from_millis(11_001), || None),
            Some(Reason::Lifetime)
        );
        assert_eq!(wear.reached(0, now, || Some(1001)), Some(Reason::Memory));
        let never = Wear::new(&Settings::default(), now, 1.0);
        assert!(!never.is_limited());
        assert_eq!(
            never.reached(u64::MAX, now + Duration::from_secs(1 << 30), || Some(u64::MAX)),
            None
        );
    }
}
