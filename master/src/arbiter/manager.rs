//! The service manager: what systemd is told, if it started us.

use std::time::{Duration, Instant};

use net::notify::Notifier;

use crate::journal::Journal;

/// The service manager, or nobody.
#[derive(Debug)]
pub(super) struct Manager {
    notifier: Option<Notifier>,
    /// How often the watchdog is fed, and when next.
    watchdog: Option<(Duration, Instant)>,
    /// Another master is the one that it listens to.
    is_silent: bool,
}

/// The watchdog is fed this many times in its interval.
const FEEDS_PER_INTERVAL: u32 = 3;

impl Manager {
    /// Finds the manager in the environment.
    pub(super) fn from_env(journal: &Journal) -> Manager {
        let notifier = Notifier::from_env().unwrap_or_else(|error| {
            journal.warning(&format!("Cannot talk to the service manager error={error:?}"));
            None
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let interval = number("WATCHDOG_USEC").filter(|usec| is_ours && 0 < *usec);
        let interval = interval.filter(|_| notifier.is_some()).map(Duration::from_micros);
        Manager {
            notifier,
            watchdog: interval.map(|interval| (interval / FEEDS_PER_INTERVAL, Instant::now())),
            is_silent: false,
        }
    }

    /// Says nothing from now on: another master does.
    pub(super) fn fall_silent(&mut self) {
        self.is_silent = true;
    }

    /// Speaks from now on.
    pub(super) fn speak_up(&mut self) {
        self.is_silent = false;
    }

    /// Tells it. That it does not listen is its own affair.
    pub(super) fn tell(&self, message: &str) {
        if let Some(notifier) = self.notifier.as_ref().filter(|_| !self.is_silent) {
            let _ = notifier.send(message);
        }
    }

    /// Tells it that a reload begins; the time tells it which READY belongs to which reload.
    pub(super) fn tell_reloading(&self) {
        let usec = sys::clock::monotonic() / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reloading"));
    }

    /// Tells it that the stop has begun and may take up to `longest`.
    pub(super) fn tell_stopping(&self, longest: Duration) {
        let usec = longest.as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={usec}\nSTATUS=stopping"));
    }

    /// Feeds the watchdog when it is due. Called by the loop alone, so that it means something.
    pub(super) fn feed_watchdog(&mut self) {
        let now = Instant::now();
        if let Some((every, next)) = &mut self.watchdog
            && *next <= now
        {
            *next = now + *every;
            self.tell("WATCHDOG=1");
        }
    }

    /// Time until the watchdog wants to be fed.
    pub(super) fn watchdog_wait(&self) -> Option<Duration> {
        self.watchdog.map(|(_, next)| next.saturating_duration_since(Instant::now()))
    }
}
