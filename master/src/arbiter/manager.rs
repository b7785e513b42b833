//! The service manager: what systemd is told, if it started us.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use net::Listener;
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
    /// Descriptors that it keeps for us at most; 0: it keeps none.
    store_max: usize,
    /// Names of what it keeps, with the number of descriptors.
    stored: BTreeMap<String, usize>,
}

/// The watchdog is fed this many times in its interval.
const FEEDS_PER_INTERVAL: u32 = 3;

/// The variable in which systemd (254 and later, or the unit itself) says how many descriptors it keeps.
const STORE: &str = "FDSTORE";

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
            store_max: number(STORE).and_then(|max| usize::try_from(max).ok()).unwrap_or(0),
            stored: BTreeMap::new(),
        }
    }

    /// Takes note of what it kept from an earlier life: names, each as often as there are descriptors.
    pub(super) fn has_kept(&mut self, names: Vec<String>) {
        for name in names {
            *self.stored.entry(name).or_default() += 1;
        }
    }

    /// Names of what it keeps, each as often as there are descriptors.
    pub(super) fn kept(&self) -> Vec<String> {
        let names = self.stored.iter();
        names.flat_map(|(name, count)| std::iter::repeat_n(name.clone(), *count)).collect()
    }

    /// Whether it keeps descriptors for us, and listens to us.
    pub(super) fn has_store(&self) -> bool {
        0 < self.store_max && self.notifier.is_some() && !self.is_silent
    }

    pub(super) fn has_stored(&self, name: &str) -> bool {
        self.stored.contains_key(name)
    }

    /// Has it keep these under `name`: all of them, or none when they do not fit.
    pub(super) fn store(&mut self, name: &str, shards: &[Listener]) {
        let Some(notifier) = self.notifier.as_ref().filter(|_| !self.stored.contains_key(name))
        else {
            return;
        };
        if self.store_max < self.stored.values().sum::<usize>() + shards.len() {
            return;
        }
        let fds: Vec<BorrowedFd<'_>> = shards.iter().map(AsFd::as_fd).collect();
        // FDPOLL: a listener never hangs up, and asking would cost systemd a wake-up per connection.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        // Else its queue is full, and the next turn tries again.
        if notifier.send_with_fds(&message, &fds).is_ok() {
            self.stored.insert(name.to_owned(), shards.len());
        }
    }

    /// Has it forget what is not wanted.
    pub(super) fn remove_from_store(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let Some(notifier) = &self.notifier else { return };
        self.stored.retain(|name, _| {
            is_wanted(name) || notifier.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}")).is_err()
        });
    }

    /// Says nothing from now on: another master does.
    pub(super) fn fall_silent(&mut self) {
        self.is_silent = true;
    }

    /// Speaks from now on.
    pub(super) fn speak_up(&mut self) {
        self.is_silent = false;
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.notifier.is_some()
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
