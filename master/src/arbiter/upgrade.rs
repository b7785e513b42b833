//! USR2: another master program takes over, and nobody notices. Here is the old master's side; the new one's is `follow.rs`.
//!
//! 1. The program now at our path is started with all listeners. It boots its workers and says READY; until then it is
//!    alone in what it does: it takes no pidfile of ours and tells the service manager nothing.
//! 2. `upgrade = auto`: it gets everything and our workers drain. `manual`: both serve until the operator ends one of them.
//! 3. It fails, or takes too long: it is told to stop, or killed, and nothing has changed.
//!
//! While it lives our listeners are shared: they are only let go of, never filtered, shut or unlinked.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use shared::settings::UpgradeManner;
use sys::Signal;
use sys::spawn::Child;

use super::Arbiter;
use super::follow::Predecessor;
use crate::fleet::Stage;
use crate::generation::Listening;
use crate::hooks::Hook;
use crate::upgrade::{self, Heritage, Passing, Purpose};
use crate::upgrade_link::{Heard, Link, Word};

/// Time beyond `graceful_timeout` for a new master that is not wanted; then it is killed.
const DISMISSAL_GRACE: Duration = Duration::from_secs(5);

/// Time between the end of the link to a new master and its own.
const END_GRACE: Duration = Duration::from_secs(1);

/// What is known of other masters.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    successor: Option<Successor>,
    pub(super) predecessor: Option<Predecessor>,
    /// Workers wanted before they were dismissed (WINCH), should the new master leave us alone.
    dismissed: usize,
}

/// The master that is to follow us.
#[derive(Debug)]
struct Successor {
    child: Child,
    link: Link,
    state: State,
    began: Instant,
    /// What it was given, in order.
    passed: Vec<Weak<Listening>>,
    /// Workers wanted when it was started: a later change is passed on.
    target: usize,
    /// What it said of its failure.
    reason: Option<String>,
    /// A stop was asked for that waits for the verdict.
    stop: Option<Stop>,
}

/// Where a new master stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// It reads its settings and boots its workers; given up at `deadline`.
    Booting { deadline: Instant, has_begun: bool },
    /// It serves beside us, until the operator decides.
    Serving { pidfile: Option<PathBuf> },
    /// It failed or is not wanted; killed at `kill_at`.
    Dismissed { kill_at: Instant },
    /// Everything is its own.
    Follows { pidfile: Option<PathBuf> },
}

/// A graceful stop that was asked for while there is a new master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Of this master, by an operator: the new one goes on if it can.
    OfThisMaster,
    /// Of the whole service: both masters go.
    OfTheService,
}

impl Upgrade {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.successor.as_ref()?.state {
            State::Booting { deadline: at, .. } | State::Dismissed { kill_at: at } => Some(at),
            State::Serving { .. } | State::Follows { .. } => None,
        }
    }

    /// What to wait for. A link that is over stays readable, so it is left out.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        let successor = self.successor.as_ref().filter(|successor| !successor.follows());
        let links = successor.map(|successor| &successor.link);
        let links = links.into_iter().chain(self.predecessor.iter().map(|master| &master.link));
        let links = links.filter(|link| link.is_open()).map(AsFd::as_fd);
        links.chain(successor.map(|successor| successor.child.pidfd.as_fd())).collect()
    }

    /// Whether there is a new master whose fate is not decided.
    pub(super) fn is_under_way(&self) -> bool {
        let undecided = |successor: &Successor| {
            matches!(successor.state, State::Booting { .. } | State::Dismissed { .. })
        };
        self.successor.as_ref().is_some_and(undecided)
    }

    /// Whether a new master serves beside us.
    pub(super) fn is_doubled(&self) -> bool {
        matches!(self.successor, Some(Successor { state: State::Serving { .. }, .. }))
    }

    /// Whether a new master has taken over.
    pub(super) fn is_followed(&self) -> bool {
        self.successor.as_ref().is_some_and(Successor::follows)
    }

    /// The pidfile of the master that has taken over.
    pub(super) fn pidfile_of_follower(&self) -> Option<&PathBuf> {
        match &self.successor.as_ref()?.state {
            State::Follows { pidfile } => pidfile.as_ref(),
            _ => None,
        }
    }

    /// The state in a word, for people.
    pub(super) fn name(&self) -> &'static str {
        match self.successor.as_ref().map(|successor| &successor.state) {
            None if self.is_understudy() => "follows another master",
            None => "none",
            Some(State::Booting { .. }) => "booting",
            Some(State::Serving { .. }) => "both serve",
            Some(State::Dismissed { .. }) => "rolling back",
            Some(State::Follows { .. }) => "handed over",
        }
    }

    /// The new master's process id.
    pub(super) fn successor_pid(&self) -> Option<i32> {
        self.successor.as_ref().map(|successor| successor.child.pid.as_raw())
    }
}

impl Successor {
    fn follows(&self) -> bool {
        matches!(self.state, State::Follows { .. })
    }

    fn share(&self, places: impl Fn(usize) -> bool) {
        for (place, listening) in self.passed.iter().enumerate() {
            if let Some(listening) = listening.upgrade() {
                listening.share(places(place));
            }
        }
    }

    fn kill(&self) {
        // That it is gone already is what is wanted.
        let _ = sys::pidfd::send_signal(&self.child.pidfd, Signal::SIGKILL);
    }
}

impl Arbiter {
    /// USR2, or `ctl upgrade`.
    ///
    /// # Errors
    ///
    /// Why not now; it is in the log too.
    pub(super) fn ask_upgrade(&mut self) -> Result<(), String> {
        let obstacle = match () {
            // gunicorn's words.
            () if self.upgrade.successor.is_some() => "USR2 signal ignored. Child exists.",
            () if self.upgrade.is_understudy() => "USR2 signal ignored. Parent exists.",
            () if self.stop.is_some() => "No upgrade: the server is stopping",
            () if !self.is_announced => "No upgrade: the first boot is not over",
            () if self.is_reloading() => "No upgrade: a reload is under way",
            () if self.fleet.target == 0 => "No upgrade: the workers were dismissed",
            () if self.companion.is_some() => {
                "No upgrade: the embedded database is tied to this master; restart the server instead"
            }
            () if std::process::id() == 1 => {
                "No upgrade: this is process 1, whose end is the container's; replace the container instead"
            }
            () => return self.begin_upgrade(),
        };
        self.journal.warning(obstacle);
        Err(obstacle.to_owned())
    }

    fn begin_upgrade(&mut self) -> Result<(), String> {
        let now = self.now();
        self.hook(Hook::PreExec, &[]);
        let Some(generation) = self.generation() else { return Err("nothing serves".to_owned()) };
        let timeout = generation.settings().upgrade_timeout;
        let heritage = Heritage {
            workers: (generation.settings().workers, self.fleet.target),
            pidfile: self.pidfile.as_ref().map(|pidfile| pidfile.path().to_owned()),
            stored: self.manager.kept(),
        };
        let passing: Vec<Passing> = self.passing();
        self.manager.tell_reloading();
        match upgrade::launch(&self.invocation, &passing, &heritage) {
            Ok((child, link)) => {
                let origin = self.invocation.origin.clone().unwrap_or_default();
                self.journal.info(&format!(
                    "Upgrading: booting another master pid={} program={}",
                    child.pid,
                    origin.display()
                ));
                let successor = Successor {
                    child,
                    link,
                    state: State::Booting { deadline: now + timeout, has_begun: false },
                    began: now,
                    passed: passing.iter().map(|one| Rc::downgrade(&one.listening)).collect(),
                    target: self.fleet.target,
                    reason: None,
                    stop: None,
                };
                successor.share(|_| true);
                self.upgrade.successor = Some(successor);
                Ok(())
            }
            Err(error) => {
                let why = format!("cannot start another master: {error}");
                self.report_upgrade_failure(&why, now);
                Err(why)
            }
        }
    }

    /// Everything that another master needs to serve in our place.
    fn passing(&self) -> Vec<Passing> {
        let http = self.generation().map(|generation| generation.listening.clone());
        let all = [
            (Purpose::Http, http.unwrap_or_default()),
            (Purpose::Admin, self.admin.listening()),
            (Purpose::Control, self.control_listening()),
        ];
        all.into_iter()
            .flat_map(|(purpose, group)| {
                group.into_iter().map(move |listening| Passing { purpose, listening })
            })
            .collect()
    }

    /// A graceful stop that has to wait for another master; whether it does.
    pub(super) fn stop_waits_for_upgrade(&mut self, stop: Stop) -> bool {
        let Some(successor) = &mut self.upgrade.successor else { return false };
        match (&successor.state, stop) {
            (State::Follows { .. }, _) => return false,
            (State::Serving { .. }, Stop::OfThisMaster) => {
                self.hand_over();
                return true;
            }
            (State::Booting { .. } | State::Dismissed { .. }, Stop::OfThisMaster) => {
                self.journal.info("The stop waits for the upgrade");
            }
            (_, Stop::OfTheService) => {
                self.journal.info("The stop waits for the new master, which goes first");
            }
        }
        // The service's stop is the stronger one.
        successor.stop = Some(match successor.stop {
            Some(Stop::OfTheService) => Stop::OfTheService,
            _ => stop,
        });
        if stop == Stop::OfTheService && !matches!(successor.state, State::Dismissed { .. }) {
            self.dismiss_successor("the server is to stop");
        }
        true
    }

    /// A quick stop waits for nothing: a new master that does not serve yet goes too, one that does takes over.
    pub(super) fn settle_upgrade_quickly(&mut self) {
        let Some(successor) = &self.upgrade.successor else { return };
        match successor.state {
            State::Serving { .. } => self.hand_over_listeners(),
            State::Booting { .. } => self.dismiss_successor("the server is to stop at once"),
            State::Dismissed { .. } | State::Follows { .. } => (),
        }
    }

    /// Gives up a new master that takes too long, and says READY to an old one when it is time.
    pub(super) fn tend_upgrade(&mut self) {
        self.tell_predecessor();
        let now = self.now();
        if self.upgrade.next_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let Some(successor) = &mut self.upgrade.successor else { return };
        match &mut successor.state {
            State::Booting { .. } => {
                let why = match &successor.reason {
                    Some(reason) => reason.clone(),
                    None if successor.link.is_open() => {
                        "it was not ready within upgrade_timeout".into()
                    }
                    None => "it closed the link to this master".into(),
                };
                self.dismiss_successor(&why);
            }
            State::Dismissed { kill_at } => {
                // Asked again should it hang in the kernel.
                *kill_at = now + DISMISSAL_GRACE;
                successor.kill();
            }
            State::Serving { .. } | State::Follows { .. } => (),
        }
    }

    /// Something came from another master, or one ended.
    pub(super) fn hear_masters(&mut self) {
        self.hear_predecessor();
        let Some(successor) = &mut self.upgrade.successor else { return };
        if successor.follows() {
            return;
        }
        let mut has_let_go = false;
        for heard in successor.link.hear() {
            match (heard, &mut successor.state) {
                (Heard::Word(Word::Begun {}), State::Booting { has_begun, .. }) => {
                    *has_begun = true
                }
                (Heard::Word(Word::Failed { reason }), _) => successor.reason = Some(reason),
                (Heard::Word(Word::Ready { kept, pidfile }), State::Booting { .. }) => {
                    successor.state = State::Serving { pidfile };
                    successor.share(|place| kept.contains(&place));
                    self.successor_is_ready();
                    return;
                }
                (Heard::End, _) => has_let_go = true,
                _ => (),
            }
        }
        let now = self.now();
        let Some(successor) = &mut self.upgrade.successor else { return };
        // Without waiting: is it gone?
        if sys::fd::wait_readable(&successor.child.pidfd, Some(Duration::ZERO)).unwrap_or(false) {
            self.successor_is_gone();
        } else if has_let_go && let State::Booting { deadline, .. } = &mut successor.state {
            // A process that ends lets go of the link a moment before.
            *deadline = (*deadline).min(now + END_GRACE);
        }
    }

    fn successor_is_ready(&mut self) {
        let now = self.now();
        let Some(successor) = &self.upgrade.successor else { return };
        let (pid, stop) = (successor.child.pid, successor.stop);
        let took_ms = now.saturating_duration_since(successor.began).as_millis();
        let manner = self.generation().map(|generation| generation.settings().upgrade);
        if manner != Some(UpgradeManner::Manual) || stop.is_some() {
            return self.hand_over();
        }
        self.journal.info(&format!(
            "Upgrading: both masters serve, end one of them new_pid={pid} took_ms={took_ms}"
        ));
        let status = self.status();
        self.manager.tell(&format!("READY=1\nSTATUS={status}"));
        self.upgrade_concluded(&Ok(format!("both masters serve, the new one is {pid}")));
    }

    /// The new master is ready: everything is its own now, and our workers finish.
    fn hand_over(&mut self) {
        self.hand_over_listeners();
        self.stop_gracefully();
    }

    fn hand_over_listeners(&mut self) {
        let now = self.now();
        let reload = std::mem::take(&mut self.reload.asked_again);
        let Some(successor) = &mut self.upgrade.successor else { return };
        let State::Serving { pidfile } = successor.state.clone() else { return };
        let (pid, began, target) = (successor.child.pid, successor.began, self.fleet.target);
        let workers = (target != successor.target && 0 < target).then_some(target);
        successor.state = State::Follows { pidfile };
        // Only the main process may name another one; from here on that one speaks.
        self.manager.tell(&format!("MAINPID={pid}\nREADY=1"));
        self.manager.fall_silent();
        // Before the new ones come: two of them would tell different things.
        self.leave_admin_to_successor();
        self.let_go_of_control();
        if let Some(successor) = &self.upgrade.successor {
            successor.link.say(&Word::Go { workers, reload });
        }
        let took_ms = now.saturating_duration_since(began).as_millis();
        self.journal.info(&format!(
            "Upgraded: the new master serves, this one leaves new_pid={pid} took_ms={took_ms}"
        ));
        // Our workers have copies of their own for as long as they need them.
        for generation in self.generations.values_mut() {
            generation
                .listening
                .retain(|listening| !listening.is_held_elsewhere() || listening.is_inherited());
        }
        self.upgrade_concluded(&Ok(format!("the new master is {pid}")));
    }

    /// The verdict on a new master that cannot follow: it goes, and nothing has changed.
    fn dismiss_successor(&mut self, why: &str) {
        let now = self.now();
        let graceful = self.fleet.limits.graceful_timeout;
        let Some(successor) = &mut self.upgrade.successor else { return };
        let was = std::mem::replace(
            &mut successor.state,
            State::Dismissed { kill_at: now + graceful + DISMISSAL_GRACE },
        );
        let began = successor.began;
        successor.link.say(&Word::Stop {});
        if matches!(was, State::Booting { has_begun: false, .. }) {
            // It has no workers whose requests would be lost, and may not listen at all.
            successor.kill();
        }
        if let State::Booting { .. } = was {
            self.report_upgrade_failure(why, began);
        }
    }

    /// A new master has ended.
    fn successor_is_gone(&mut self) {
        let now = self.now();
        let Some(successor) = self.upgrade.successor.take() else { return };
        successor.share(|_| false);
        let pid = successor.child.pid;
        match successor.state {
            State::Booting { .. } => {
                let why = match (successor.reason, successor.child.exec_failure()) {
                    (Some(reason), _) => reason,
                    (None, Some((step, error))) => format!("{step}: {error}"),
                    (None, None) => "it ended without giving a reason".to_owned(),
                };
                self.report_upgrade_failure(&why, successor.began);
            }
            State::Serving { .. } => {
                self.journal.info(&format!("The new master has left, this one goes on pid={pid}"));
                if self.fleet.target == 0 && self.stop.is_none() {
                    // Nobody would take what comes.
                    self.fleet.set_target(self.upgrade.dismissed, now);
                }
            }
            State::Dismissed { .. } | State::Follows { .. } => {
                self.journal.info(&format!("The new master has left pid={pid}"));
            }
        }
        if successor.stop.is_some() {
            self.stop_gracefully();
        }
    }

    /// gunicorn's preparation for leaving the field to another master: no workers, but the listeners stay open.
    pub(super) fn dismiss_workers(&mut self) {
        if self.fleet.stage == Stage::Running && self.fleet.was_ever_ready {
            self.journal.info("graceful stop of workers");
            if 0 < self.fleet.target {
                self.upgrade.dismissed = self.fleet.target;
            }
            self.fleet.dismiss_all();
            self.report_status();
        }
    }

    fn report_upgrade_failure(&mut self, why: &str, began: Instant) {
        let took_ms = self.now().saturating_duration_since(began).as_millis();
        let (generation, serving) = (self.fleet.generation, self.fleet.serving());
        self.journal.error(&format!(
            "Upgrade failed, still serving generation={generation} workers={serving} took_ms={took_ms} reason={why}"
        ));
        let status = self.status();
        self.manager.tell(&format!("READY=1\nSTATUS={status}"));
        self.upgrade_concluded(&Err(why.to_owned()));
    }
}
