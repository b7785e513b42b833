//! The arbiter: the loop that keeps workers alive.
//!
//! - One thread; it waits in one `poll` and nowhere else. No lock, no sleep, nothing that can block or panic.
//! - What arrives becomes an `Event`; the fleet changes; its plan is performed. Decisions are in `fleet`, doing is here.
//! - All deadlines are by a clock that stands still while the master itself does, so a stopped master kills nobody.

mod act;
mod admin;
mod boot;
mod companion;
mod control;
mod departure;
mod facts;
mod follow;
mod hear;
mod keep;
mod manager;
mod preload;
mod reload;
mod stop;
mod upgrade;
mod watch;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use net::notify::Receiver;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use scoreboard::Scoreboard;
use shared::contract::Notice;
use shared::settings::Settings;
use sys::signal::SignalFd;
use sys::{Pid, Signal};

use crate::clock::Clock;
use crate::config::{Invocation, Reader};
use crate::control::Control;
use crate::fleet::{Fleet, Id, Limits};
use crate::generation::Generation;
use crate::hooks::{Hook, Hooks};
use crate::journal::Journal;
use crate::lookup::{Addresses, Lookup};
use crate::oom::OomKills;
use crate::pidfile::PidFile;
use crate::process::{Environment, Process};

use admin::Admin;
pub use boot::{Known, StartError};
use companion::Companion;
use manager::Manager;
use preload::Preloaders;
use reload::ReloadBook;
pub use reload::chain;
use stop::StopBook;
use upgrade::Upgrade;
use watch::Watched;

/// Something that happened outside. Deadlines are no events: the plan looks at the clock after every wait.
#[derive(Debug)]
enum Event {
    /// A signal came, from this process as far as we can see it.
    Signal(Signal, Pid),
    /// A process said something.
    Notice(Pid, Notice),
    /// A child ended, or an orphan if there is no id.
    Ended(Option<Id>),
    /// Another master said something, or ended.
    Masters,
}

/// Longest wait: heartbeats are looked at this often, and a systemd watchdog is fed.
const TICK: Duration = Duration::from_secs(1);

/// Notices taken in one turn; the rest wait, so that a chatty worker cannot keep the loop from the others.
const NOTICES_PER_TURN_MAX: usize = 256;

/// Plans performed in one turn. A plan that never comes to rest is a mistake, which must not become an endless loop.
const PLANS_PER_TURN_MAX: usize = 16;

/// Processes with a scoreboard block at one time: slots, their replacements, and drains that take long.
const PROCESSES_MAX: usize = 2 * crate::fleet::SLOTS_MAX;

/// The arbiter.
pub struct Arbiter {
    invocation: Invocation,
    environment: Environment,
    journal: Journal,
    signals: SignalFd,
    receiver: Receiver,
    manager: Manager,
    scoreboard: Scoreboard,
    clock: Clock,
    fleet: Fleet,
    processes: BTreeMap<Id, Process>,
    last_id: u64,
    /// Addresses of the names in the settings.
    found: Addresses,
    preloaders: Preloaders,
    watched: Watched,
    /// The generations that have processes, and the newest.
    generations: BTreeMap<u32, Generation>,
    last_generation: u32,
    companion: Option<Companion>,
    admin: Admin,
    /// When the listeners' queues are looked at again.
    queues_at: Instant,
    hooks: Hooks,
    reload: ReloadBook,
    stop: Option<StopBook>,
    pidfile: Option<PidFile>,
    /// Other masters, before and after us.
    upgrade: Upgrade,
    control: Control,
    /// How the last reload ended, for people.
    last_reload: String,
    /// Whether the first boot is over, for better or worse, and was announced.
    is_announced: bool,
    next_look_for_wear: Instant,
    oom_kills: OomKills,
    /// What kept workers from ever getting ready, for the master's own exit code when none ever does.
    boot_code: Option<i32>,
}

impl Arbiter {
    /// Runs until the server has stopped; returns the exit code.
    pub fn run(mut self) -> i32 {
        loop {
            self.tend_control();
            self.catch_up_on_reload();
            self.tend_lookup();
            self.tend_reading();
            self.listen_for_heartbeats();
            self.look_for_wear();
            self.hear_preloaders();
            self.tend_watch();
            self.act();
            self.tend_preloaders();
            self.tend_companion();
            self.tend_admin();
            self.tend_upgrade();
            self.hooks.tend();
            self.tend_store();
            self.sample_queues(Instant::now());
            self.publish();
            if let Some(code) = self.is_over() {
                return self.leave(code);
            }
            self.manager.feed_watchdog();
            self.manager.retry();
            self.journal.pump();
            for event in self.wait() {
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Signal(signal, sender) => self.hear_signal(signal, sender),
            Event::Notice(sender, notice) => self.hear_notice(sender, notice),
            Event::Ended(Some(id)) => self.bury(id),
            Event::Ended(None) => self.bury_orphans(),
            Event::Masters => self.hear_masters(),
        }
    }

    /// The time by which everything here goes.
    fn now(&self) -> Instant {
        self.clock.at(Instant::now())
    }

    /// Waits until something happens or the next deadline; returns what happened, signals first.
    fn wait(&mut self) -> Vec<Event> {
        let real = Instant::now();
        let now = self.clock.at(real);
        let reader = self.reload.reading.as_ref().map(|(reader, _)| reader);
        let wait = self
            .next_deadline(now)
            .map_or(TICK, |deadline| deadline.saturating_duration_since(now))
            .min(TICK)
            .min(self.manager.watchdog_wait().unwrap_or(TICK))
            .min(self.manager.retry_wait().unwrap_or(TICK))
            .min(self.hooks.longest_wait().unwrap_or(TICK))
            .min(self.reload.lookup().map_or(TICK, Lookup::longest_wait))
            .min(reader.map_or(TICK, Reader::longest_wait));
        // A request that was read already makes no descriptor readable.
        let wait = if self.control.has_more() { Duration::ZERO } else { wait };
        // Rounded up: a deadline half a millisecond away must not become a busy loop.
        let milliseconds = wait.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::ZERO);

        let ids: Vec<Id> = self.processes.keys().copied().collect();
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN),
        ];
        polled.extend(
            self.processes.values().map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)),
        );
        let masters = self.upgrade.descriptors();
        polled.extend(masters.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
        let before_control = polled.len();
        polled.extend(self.control.descriptors(self.is_control_open()));
        // Only to wake up: they are tended in every turn.
        polled.extend(self.hooks.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let lookup = self.reload.lookup().into_iter();
        polled.extend(lookup.map(|lookup| PollFd::new(lookup.as_fd(), PollFlags::POLLIN)));
        polled.extend(self.preloaders.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let read = reader.into_iter().flat_map(Reader::fds);
        polled.extend(read.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let pause = self.clock.sleeps(real, wait);
        // An error is EINTR or a lack of kernel memory: nothing is readable then, and the next turn asks again.
        let _ = poll(&mut polled, timeout);
        let is_ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(polled);
        if let Some(pause) = pause.max(self.clock.wakes(Instant::now())) {
            self.fleet.resumed_at = self.now();
            let pause_s = pause.as_secs();
            // The machine's doing, and nothing is amiss: no warning.
            self.journal.info(&format!("Master was paused, deadlines are moved pause_s={pause_s}"));
        }

        let mut events = Vec::new();
        let mut has_orphans = false;
        if is_ready.first() == Some(&true) {
            for (signal, sender) in self.signals.read() {
                match signal {
                    Signal::SIGCHLD => has_orphans = true,
                    signal => events.push(Event::Signal(signal, sender)),
                }
            }
        }
        if is_ready.get(1) == Some(&true) {
            for _ in 0..NOTICES_PER_TURN_MAX {
                // An error is a lack of kernel memory: what waits is read the next time.
                let Ok(Some((sender, text))) = self.receiver.receive() else { break };
                events.push(Event::Notice(sender, Notice::parse(&text)));
            }
        }
        let masters = is_ready.iter().take(before_control).skip(2 + ids.len());
        if masters.copied().any(|is_ready| is_ready) {
            events.push(Event::Masters);
        }
        let ended = ids.into_iter().zip(is_ready.iter().skip(2)).filter(|(_, ended)| **ended);
        events.extend(ended.map(|(id, _)| Event::Ended(Some(id))));
        // After our own: a dead child hides the orphans behind it until it is collected.
        events.extend(has_orphans.then_some(Event::Ended(None)));
        events
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let graces = self.processes.values().filter_map(|process| process.ready_at);
        let companion = self.companion.as_ref().and_then(Companion::next_deadline);
        self.fleet
            .next_deadline(now)
            .into_iter()
            .chain(graces)
            .chain(companion)
            .chain(self.admin.next_deadline())
            .chain(self.upgrade.next_deadline())
            .chain(self.preloaders.next_deadline())
            .chain(self.watched.next_deadline())
            .chain(self.stop.as_ref().and_then(StopBook::next_deadline))
            .filter(|deadline| now < *deadline)
            .min()
    }

    fn next_id(&mut self) -> Id {
        self.last_id += 1;
        Id(self.last_id)
    }

    /// Runs a hook of the operator's, if there is one.
    fn hook(&mut self, hook: Hook, facts: &[(&str, String)]) {
        if let Some(generation) = self.generations.get(&self.fleet.generation) {
            self.hooks.call(generation.settings(), hook, facts);
        }
    }

    /// The generation that new workers are spawned from. It is kept for as long as it is the fleet's.
    fn generation(&self) -> Option<&Generation> {
        self.generations.get(&self.fleet.generation)
    }
}

/// The limits that `settings` put on workers.
fn limits(settings: &Settings) -> Limits {
    Limits {
        timeout: Settings::limit(settings.timeout),
        // Unset it is the same as `timeout`, which finds the worker silent.
        request_timeout: settings.request_timeout.and_then(Settings::limit),
        boot_timeout: Settings::limit(settings.boot_timeout),
        graceful_timeout: settings.graceful_timeout,
    }
}
