//! The service manager: what systemd is told, if it started us.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use net::Listener;
use net::notify::Notifier;

use crate::journal::Journal;

/// The service manager, or nobody.
#[derive(Debug)]
pub(super) struct Manager {
    notifier: Option<Notifier>,
    /// What was said and not taken, oldest first, and when it is said again.
    untold: VecDeque<String>,
    retry_at: Instant,
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

/// Messages that wait for room in its queue at most: what is older is outdated, so the oldest is dropped.
const UNTOLD_MAX: usize = 16;

/// Time between two attempts to say what was not taken.
const RETRY_EVERY: Duration = Duration::from_millis(100);

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
            untold: VecDeque::new(),
            retry_at: Instant::now(),
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

    /// Tells it, now or as soon as there is room in its queue, in the order in which it was said.
    pub(super) fn tell(&mut self, message: &str) {
        if self.is_silent || self.notifier.is_none() {
            return;
        }
        if UNTOLD_MAX <= self.untold.len() {
            self.untold.pop_front();
        }
        self.untold.push_back(message.to_owned());
        self.tell_untold();
    }

    /// Says again what was not taken, if it is time. Also after another master began to speak: it was ours to say.
    pub(super) fn retry(&mut self) {
        if !self.untold.is_empty() && self.retry_at <= Instant::now() {
            self.tell_untold();
        }
    }

    /// Says again what was not taken, until it is or `longest` is over: at the very end.
    pub(super) fn retry_within(&mut self, longest: Duration) {
        let until = Instant::now() + longest;
        while !self.untold.is_empty() && Instant::now() < until {
            self.tell_untold();
            if !self.untold.is_empty() {
                std::thread::sleep(RETRY_EVERY.min(longest));
            }
        }
    }

    fn tell_untold(&mut self) {
        let Some(notifier) = &self.notifier else { return };
        while let Some(message) = self.untold.front() {
            let is_full = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
            if notifier.send(message).is_err_and(is_full) {
                self.retry_at = Instant::now() + RETRY_EVERY;
                return;
            }
            // Taken, or it does not listen, which is its own affair.
            self.untold.pop_front();
        }
    }

    /// Time until [`Manager::retry`] has something to do.
    pub(super) fn retry_wait(&self) -> Option<Duration> {
        let waits = !self.untold.is_empty();
        waits.then(|| self.retry_at.saturating_duration_since(Instant::now()))
    }

    /// Tells it that a reload begins; the time tells it which READY belongs to which reload.
    pub(super) fn tell_reloading(&mut self) {
        let usec = sys::clock::monotonic() / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reloading"));
    }

    /// Tells it that the stop has begun and may take up to `longest`.
    pub(super) fn tell_stopping(&mut self, longest: Duration) {
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
            // Not kept for later: this means now.
            if let Some(notifier) = self.notifier.as_ref().filter(|_| !self.is_silent)
                && notifier.send("WATCHDOG=1").is_err()
            {
                *next = now + RETRY_EVERY.min(*every);
            }
        }
    }

    /// Time until the watchdog wants to be fed.
    pub(super) fn watchdog_wait(&self) -> Option<Duration> {
        self.watchdog.map(|(_, next)| next.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use net::notify::Receiver;

    use super::*;

    fn manager(notifier: Option<Notifier>) -> Manager {
        Manager {
            notifier,
            untold: VecDeque::new(),
            retry_at: Instant::now(),
            watchdog: None,
            is_silent: false,
            store_max: 0,
            stored: BTreeMap::new(),
        }
    }

    fn texts(receiver: &Receiver) -> Vec<String> {
        std::iter::from_fn(|| receiver.receive().unwrap()).map(|(_, text)| text).collect()
    }

    #[test]
    fn what_a_full_queue_did_not_take_is_told_later_and_in_order() {
        let receiver = Receiver::open().unwrap();
        let notifier = Notifier::to(receiver.name()).unwrap();
        while notifier.send("STATUS=flood").is_ok() {}
        let mut manager = manager(Some(notifier));
        for message in ["READY=1", "RELOADING=1", "STOPPING=1"] {
            manager.tell(message);
        }
        assert!(manager.retry_wait().is_some());
        // Another master speaks by now; what was said before is told all the same.
        manager.fall_silent();
        manager.tell("STATUS=not ours any more");
        assert!(texts(&receiver).iter().all(|text| text == "STATUS=flood"));
        manager.retry_within(2 * RETRY_EVERY);
        assert_eq!(texts(&receiver), ["READY=1", "RELOADING=1", "STOPPING=1"]);
        assert_eq!(manager.retry_wait(), None);
    }

    #[test]
    fn what_waits_is_bounded_and_the_latest_is_kept() {
        let receiver = Receiver::open().unwrap();
        let notifier = Notifier::to(receiver.name()).unwrap();
        while notifier.send("STATUS=flood").is_ok() {}
        let mut manager = manager(Some(notifier));
        for number in 0..=UNTOLD_MAX {
            manager.tell(&format!("STATUS={number}"));
        }
        assert_eq!(manager.untold.len(), UNTOLD_MAX);
        assert_eq!(manager.untold.back(), Some(&format!("STATUS={UNTOLD_MAX}")));
    }
}
