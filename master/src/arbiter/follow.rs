//! A master that is to follow another one: the new one's side of an upgrade. The old one's is `upgrade.rs`.
//!
//! Until it is promoted it is the understudy: its listeners are the old master's too, its pidfile is `FILE.2`, the service
//! manager does not hear it, and it neither answers `ctl` nor shows metrics. It is promoted when the old one says so, or ends.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use shared::contract::Order;
use shared::exit;
use sys::Signal;

use super::Arbiter;
use super::upgrade::Upgrade;
use crate::fleet::{Manner, SLOTS_MAX, Stage};
use crate::generation::{Generation, Listening};
use crate::process::Process;
use crate::upgrade::{Passing, Purpose};
use crate::upgrade_link::{Heard, Link, Word};

/// Longest wait of a promoted master's stop for the old one, which still finishes requests.
const PREDECESSOR_WAIT_MAX: Duration = Duration::from_secs(60);

/// The master that we follow.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) link: Link,
    /// What it passed, in its order.
    passed: Vec<Passing>,
    stage: Following,
    /// Our stop waits for its end no longer than this.
    wait_until: Option<Instant>,
}

/// How far we have come in following it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Following {
    /// We boot.
    Booting,
    /// It was told that we are ready.
    Ready,
    /// Everything is ours; it finishes its requests.
    Promoted,
}

impl Predecessor {
    pub(super) fn new(link: Link, passed: Vec<Passing>) -> Predecessor {
        Predecessor { link, passed, stage: Following::Booting, wait_until: None }
    }
}

/// Those of `passed` that are for `purpose`.
pub(super) fn passed_for(passed: &[Passing], purpose: Purpose) -> Vec<Rc<Listening>> {
    let wanted = passed.iter().filter(|passing| passing.purpose == purpose);
    wanted.map(|passing| Rc::clone(&passing.listening)).collect()
}

impl Upgrade {
    /// At start: with the master that started us to be followed, if it did.
    pub(super) fn following(predecessor: Option<Predecessor>) -> Upgrade {
        let mut upgrade = Upgrade::default();
        upgrade.predecessor = predecessor;
        upgrade
    }

    /// Whether we are still to follow another master.
    pub(super) fn is_understudy(&self) -> bool {
        self.predecessor.as_ref().is_some_and(|master| master.stage != Following::Promoted)
    }

    /// Whether we boot for another master, which does not know yet how that ends.
    fn is_on_trial(&self) -> bool {
        self.predecessor.as_ref().is_some_and(|master| master.stage == Following::Booting)
    }
}

impl Arbiter {
    /// Ours in gunicorn's log lines.
    pub(super) fn master_name(&self) -> &'static str {
        if self.upgrade.is_understudy() { "Master.2" } else { "Master" }
    }

    /// The number of workers to begin with: the old master's, unless the settings say something new.
    pub(super) fn workers_after(settings: usize, (asked, wanted): (usize, usize)) -> usize {
        if settings == asked && 0 < wanted { wanted } else { settings }.min(SLOTS_MAX)
    }

    /// Tells the old master that we are ready, when every slot is served.
    pub(super) fn tell_predecessor(&mut self) {
        let is_ready = self.fleet.stage == Stage::Running && self.fleet.is_settled();
        if !self.upgrade.is_on_trial() || !is_ready || self.stop.is_some() {
            return;
        }
        let used = self.used_listening();
        let pidfile =
            self.generation().and_then(|generation| generation.settings().pidfile.clone());
        let pidfile = pidfile.and_then(|path| std::path::absolute(path).ok());
        let Some(master) = &mut self.upgrade.predecessor else { return };
        let is_used =
            |passing: &Passing| used.iter().any(|one| Rc::ptr_eq(one, &passing.listening));
        let places = master.passed.iter().enumerate();
        let kept = places.filter(|(_, passing)| is_used(passing)).map(|(place, _)| place).collect();
        // What we do not use is the old one's alone again; its workers are the last to take from it.
        master.stage = Following::Ready;
        master.link.say(&Word::Ready { kept, pidfile });
        master.passed.retain(is_used);
        self.set_title_now();
    }

    fn used_listening(&self) -> Vec<Rc<Listening>> {
        let http =
            self.generation().into_iter().flat_map(|generation| generation.listening.clone());
        http.chain(self.admin.listening()).chain(self.control_listening()).collect()
    }

    pub(super) fn hear_predecessor(&mut self) {
        let Some(master) = &mut self.upgrade.predecessor else { return };
        for heard in master.link.hear() {
            match heard {
                Heard::Word(Word::Go { workers, reload }) => self.take_over(workers, reload),
                Heard::Word(Word::Stop {}) => {
                    self.step_back("The old master does not want to be followed")
                }
                Heard::Word(_) => (),
                Heard::End => self.predecessor_is_gone(),
            }
        }
    }

    fn predecessor_is_gone(&mut self) {
        if self.upgrade.is_understudy() && self.stop.is_none() {
            // It let go, or it died: either way it is our turn.
            self.take_over(None, false);
        }
        self.upgrade.predecessor = None;
        // A wake-up of a listener may have died with its workers: ours look for themselves.
        for process in self.processes.values().filter(|process| process.is_ready) {
            process.order(Order::ReArm);
        }
    }

    /// The old master is out of the way.
    fn take_over(&mut self, workers: Option<usize>, reload: bool) {
        let Some(master) = &mut self.upgrade.predecessor else { return };
        if master.stage == Following::Promoted {
            return;
        }
        master.stage = Following::Promoted;
        for passing in master.passed.drain(..) {
            passing.listening.share(false);
        }
        let pidfile =
            self.generation().and_then(|generation| generation.settings().pidfile.clone());
        if let (Some(pidfile), Some(path)) = (&mut self.pidfile, pidfile)
            && let Err(error) = pidfile.rename(&path)
        {
            let path = path.display();
            self.journal
                .error(&format!("Cannot take over the pidfile path={path} error={error:?}"));
        }
        self.journal.subdue(false);
        // gunicorn's words.
        self.journal.info("Master has been promoted.");
        self.set_title_now();
        self.manager.speak_up();
        let now = self.now();
        if let Some(workers) = workers
            && 0 < self.fleet.target
        {
            self.fleet.set_target(workers, now);
        }
        if self.is_announced && self.fleet.stage == Stage::Running {
            let status = self.status();
            self.manager.tell(&format!("READY=1\nSTATUS={status}"));
        }
        if reload {
            // That it has to wait is in the log.
            let _ = self.ask_reload();
        }
    }

    /// Something went wrong while we boot for another master: it goes on alone.
    pub(super) fn fail_as_successor(&mut self, why: &str) {
        if self.upgrade.is_on_trial() && self.stop.is_none() {
            if let Some(master) = &self.upgrade.predecessor {
                master.link.say_failed(why);
            }
            self.step_back(&format!("Not following the old master reason={why}"));
        }
    }

    /// Leaves the field to the old master. Requests in hand are finished; who still boots has none.
    fn step_back(&mut self, why: &str) {
        self.journal.info(why);
        if self.stop.is_some() {
            return;
        }
        self.stop_gracefully_with(exit::WORKER_BOOT);
        let now = self.now();
        let is_unready = |process: &Process| process.slot.is_some() && !process.is_ready;
        for (id, process) in self.processes.iter().filter(|(_, process)| is_unready(process)) {
            process.signal(Signal::SIGKILL);
            self.fleet.told(*id, Manner::Killed { since: now }, now, 0.0);
        }
    }

    /// Whether our own end has to wait for the old master's: with ours a service manager ends everybody.
    pub(super) fn waits_for_predecessor(&mut self) -> bool {
        let now = self.now();
        match &mut self.upgrade.predecessor {
            Some(master) if master.stage == Following::Promoted && self.manager.is_there() => {
                now < *master.wait_until.get_or_insert(now + PREDECESSOR_WAIT_MAX)
            }
            _ => false,
        }
    }

    pub(super) fn set_title_now(&self) {
        if let Some(generation) = self.generation() {
            self.set_title(generation);
        }
    }

    /// Whether `generation` can be served from the listeners that were passed.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) fn fits(generation: &Generation) -> Result<(), String> {
        let is_sharded = |listening: &Rc<Listening>| 1 < listening.group.shards().len();
        if generation.app().is_foreign && generation.listening.iter().any(is_sharded) {
            // It would read from the first listener only, and the others' connections would wait for ever.
            return Err(
                "a program after `--` takes one listener per address: that needs a restart".into(),
            );
        }
        Ok(())
    }
}

/// Where an understudy's pidfile lies: beside the one that the old master has, as gunicorn's.
pub(super) fn understudys(path: &Path, old: Option<&Path>) -> PathBuf {
    let is_taken = old.is_some() && std::path::absolute(path).ok().as_deref() == old;
    if !is_taken {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".2");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_number_of_workers_wins_over_signals() {
        assert_eq!(Arbiter::workers_after(3, (3, 5)), 5);
        assert_eq!(Arbiter::workers_after(4, (3, 5)), 4);
        assert_eq!(Arbiter::workers_after(3, (3, 0)), 3);
    }

    #[test]
    fn only_the_old_masters_own_pidfile_is_left_to_it() {
        assert_eq!(
            understudys(Path::new("/r/m.pid"), Some(Path::new("/r/m.pid"))),
            Path::new("/r/m.pid.2")
        );
        assert_eq!(
            understudys(Path::new("/r/n.pid"), Some(Path::new("/r/m.pid"))),
            Path::new("/r/n.pid")
        );
        assert_eq!(understudys(Path::new("/r/m.pid"), None), Path::new("/r/m.pid"));
    }
}
