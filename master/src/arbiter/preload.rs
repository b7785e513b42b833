//! Preloaders: for each generation that wants one, a process that has loaded the application and forks the workers.
//!
//! - A worker that was asked for is *awaited*. For the fleet it boots from then on, under the id that its process will
//!   have: time-outs, back-off, canaries and drains hold for it whether the preloader still loads, forks, or is gone.
//! - A preloader lives for as long as its generation may need another worker. Its end harms no worker that is there;
//!   the next one that is wanted brings a new preloader.
//! - Workers are forked as our own children. For that we adopt orphans, only while a preloader has a wish to answer.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use scoreboard::Fact;
use shared::preload::{Answer, MESSAGE_BYTES_MAX, Wish};
use sys::pidfd::Exit;
use sys::spawn::Child;
use sys::{Pid, Signal, pidfd, sibling};

use super::Arbiter;
use super::departure::{how_it_ended, why_no_boot};
use crate::fleet::{ABORT_GRACE, Departure, Id, Manner, Stage as FleetStage};
use crate::proc::Facts;
use crate::process::{PreloaderOrders, Process, lifeline};

/// Wishes that one preloader has to answer at a time; the others wait here.
const WISHES_MAX: usize = 16;

/// Answers taken from one preloader in one turn.
const ANSWERS_PER_TURN_MAX: usize = 64;

/// Time that a preloader has to end after TERM; after as long again from KILL on, a stop goes on without it.
const END_MAX: Duration = Duration::from_secs(2);

/// The preloaders, and the workers that they are to make.
#[derive(Debug, Default)]
pub(super) struct Preloaders {
    /// By generation.
    running: BTreeMap<u32, Preloader>,
    awaited: Vec<Awaited>,
    /// Whether we adopt orphans now.
    adopts: bool,
}

#[derive(Debug)]
struct Preloader {
    id: Id,
    channel: OwnedFd,
    /// It closed its end of the channel: its own end is near, or it is of no use and gets KILL then.
    useless_at: Option<Instant>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It loads the application.
    Booting,
    /// It forks.
    Ready,
    /// It was told to go, and gets KILL at `kill_at`. `is_asked`: it had done nothing wrong.
    Ending { is_asked: bool, kill_at: Instant },
    /// It got KILL, and should be gone by `gone_at`.
    Killed { gone_at: Instant },
}

/// A worker without a process.
#[derive(Debug)]
struct Awaited {
    id: Id,
    generation: u32,
    slot: usize,
    block: Option<usize>,
    lifeline: UnixStream,
    /// The worker's end of the lifeline; gone with the wish.
    theirs: Option<OwnedFd>,
}

impl Awaited {
    fn was_wished_for(&self) -> bool {
        self.theirs.is_none()
    }
}

impl Preloaders {
    /// What to wait for: answers.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let speaks = |preloader: &&Preloader| preloader.useless_at.is_none();
        self.running.values().filter(speaks).map(|preloader| preloader.channel.as_fd())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let ends = self.running.values().filter_map(|preloader| match preloader.stage {
            Stage::Ending { kill_at: at, .. } | Stage::Killed { gone_at: at } => Some(at),
            Stage::Booting | Stage::Ready => preloader.useless_at,
        });
        ends.min()
    }

    /// The generations that have one.
    pub(super) fn generations(&self) -> impl Iterator<Item = u32> {
        self.running.keys().copied()
    }

    /// The processes.
    pub(super) fn ids(&self) -> impl Iterator<Item = Id> {
        self.running.values().map(|preloader| preloader.id)
    }

    fn of(&mut self, id: Id) -> Option<(u32, &mut Preloader)> {
        let found = self.running.iter_mut().find(|(_, preloader)| preloader.id == id);
        found.map(|(generation, preloader)| (*generation, preloader))
    }
}

impl Arbiter {
    /// Asks for a worker; returns the id that its process will have.
    ///
    /// # Errors
    ///
    /// There is no preloader, and none can be spawned.
    pub(super) fn ask_for_worker(
        &mut self,
        slot: usize,
        generation: u32,
        block: Option<usize>,
        now: Instant,
    ) -> io::Result<Id> {
        let (lifeline, theirs) = lifeline()?;
        if !self.preloaders.running.contains_key(&generation) {
            self.spawn_preloader(generation, now)?;
        }
        let id = self.next_id();
        let theirs = Some(theirs);
        self.preloaders.awaited.push(Awaited { id, generation, slot, block, lifeline, theirs });
        Ok(id)
    }

    fn spawn_preloader(&mut self, generation: u32, now: Instant) -> io::Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (channel, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let scoreboard = self.scoreboard.as_fd();
        let orders = PreloaderOrders { generation, channel: theirs.as_fd(), scoreboard };
        let process = self.spawn_application(generation, None, Some(orders), now)?;
        let (id, pid) = (self.next_id(), process.pid());
        self.journal.info(&format!("Booting preloader with pid: {pid} generation={generation}"));
        self.processes.insert(id, process);
        self.preloaders
            .running
            .insert(generation, Preloader { id, channel, useless_at: None, stage: Stage::Booting });
        Ok(())
    }

    /// A process said READY; whether it is a preloader.
    pub(super) fn preloader_is_ready(&mut self, id: Id) -> bool {
        let now = self.now();
        let Some((generation, preloader)) = self.preloaders.of(id) else { return false };
        if preloader.stage == Stage::Booting
            && let Some(process) = self.processes.get(&id)
        {
            preloader.stage = Stage::Ready;
            let (pid, boot_ms) =
                (process.pid(), now.saturating_duration_since(process.since).as_millis());
            self.journal.info(&format!(
                "Preloader ready pid={pid} generation={generation} boot_ms={boot_ms}"
            ));
        }
        true
    }

    /// Takes in what preloaders have answered.
    pub(super) fn hear_preloaders(&mut self) {
        let now = self.now();
        let mut heard = Vec::new();
        for (generation, preloader) in &mut self.preloaders.running {
            for _ in 0..ANSWERS_PER_TURN_MAX {
                let mut buffer = [0; MESSAGE_BYTES_MAX];
                // An error is a lack of descriptors or memory: what waits is read the next time.
                let Ok(Some(received)) = sys::message::receive(&preloader.channel, &mut buffer)
                else {
                    break;
                };
                if received.length == 0 {
                    preloader.useless_at.get_or_insert(now + END_MAX);
                    break;
                }
                let text = String::from_utf8_lossy(&buffer[..received.length]);
                if let Some(answer) = Answer::parse(&text) {
                    heard.push((*generation, answer, received.fds));
                }
            }
        }
        for (generation, answer, fds) in heard {
            self.hear_answer(generation, answer, fds, now);
        }
    }

    fn hear_answer(&mut self, generation: u32, answer: Answer, fds: Vec<OwnedFd>, now: Instant) {
        let is_meant = |awaited: &Awaited| {
            awaited.id == Id(answer.number)
                && awaited.generation == generation
                && awaited.was_wished_for()
        };
        let Some(index) = self.preloaders.awaited.iter().position(is_meant) else { return };
        let awaited = self.preloaders.awaited.swap_remove(index);
        let pidfd = fds.into_iter().next();
        let (Ok(pid), Some(pidfd)) = (answer.outcome, pidfd) else {
            let errno = answer.outcome.err().unwrap_or_default();
            let why = io::Error::from_raw_os_error(errno).to_string();
            return self.lose(vec![awaited], None, &format!("a worker could not be forked: {why}"));
        };
        let pid = Pid::from_raw(pid);
        // The application runs there: it must not make us signal somebody else's process.
        let is_known = self.processes.values().any(|process| process.pid() == pid);
        if is_known || pidfd::pid(&pidfd) != Some(pid) || !pidfd::is_child(&pidfd) {
            return self.lose(vec![awaited], None, "a worker ended as it was forked");
        }
        let child = Child { pid, pidfd, exec_error: None };
        let place = (awaited.slot, generation);
        let process = Process::forked(child, awaited.lifeline, place, awaited.block, now);
        let leaving = self.fleet.leaving.iter().find(|leaving| leaving.worker.id == awaited.id);
        match leaving.map(|leaving| leaving.manner) {
            Some(Manner::Draining { .. }) => process.signal(Signal::SIGTERM),
            Some(Manner::Aborting { .. } | Manner::Killed { .. }) => {
                process.signal(Signal::SIGKILL);
            }
            None => (),
        }
        self.introduce_worker(awaited.id, process, now);
    }

    /// Sends wishes, takes back those that nobody has any more, and ends preloaders that are not needed.
    pub(super) fn tend_preloaders(&mut self) {
        let now = self.now();
        self.take_back_wishes(now);
        let needed = |generation: u32| {
            self.fleet.stage != FleetStage::Stopping
                && (generation == self.fleet.generation
                    || Some(generation) == self.reload.candidate
                    || self.preloaders.awaited.iter().any(|one| one.generation == generation))
        };
        let mut ends = Vec::new();
        for (generation, preloader) in &self.preloaders.running {
            match preloader.stage {
                Stage::Booting | Stage::Ready if !needed(*generation) => {
                    ends.push((*generation, Signal::SIGTERM));
                }
                Stage::Booting | Stage::Ready => {
                    if preloader.useless_at.is_some_and(|at| at <= now) {
                        ends.push((*generation, Signal::SIGKILL));
                    }
                }
                Stage::Ending { kill_at, .. } if kill_at <= now => {
                    ends.push((*generation, Signal::SIGKILL));
                }
                Stage::Ending { .. } | Stage::Killed { .. } => (),
            }
        }
        for (generation, signal) in ends {
            self.end_preloader(generation, signal, now);
        }
        self.send_wishes();
    }

    /// A worker that was told to go before it had a process.
    fn take_back_wishes(&mut self, now: Instant) {
        let told: Vec<(Id, Manner)> = self
            .fleet
            .leaving
            .iter()
            .map(|leaving| (leaving.worker.id, leaving.manner))
            .filter(|(id, _)| self.preloaders.awaited.iter().any(|awaited| awaited.id == *id))
            .collect();
        for (id, manner) in told {
            let is_it = |awaited: &Awaited| awaited.id == id;
            let Some(index) = self.preloaders.awaited.iter().position(is_it) else { continue };
            let awaited = self.preloaders.awaited.swap_remove(index);
            if !awaited.was_wished_for() {
                self.lose(vec![awaited], None, "it was not needed any more");
                continue;
            }
            if let Manner::Killed { .. } = manner {
                // Its preloader does not answer.
                self.end_preloader(awaited.generation, Signal::SIGKILL, now);
            }
            self.preloaders.awaited.push(awaited);
        }
    }

    fn send_wishes(&mut self) {
        let Preloaders { running, awaited, adopts } = &mut self.preloaders;
        for (generation, preloader) in running {
            if preloader.stage != Stage::Ready || preloader.useless_at.is_some() {
                continue;
            }
            let its = |one: &&mut Awaited| one.generation == *generation;
            let open = awaited.iter_mut().filter(its).filter(|one| one.was_wished_for()).count();
            let waiting = awaited.iter_mut().filter(its).filter(|one| !one.was_wished_for());
            for one in waiting.take(WISHES_MAX.saturating_sub(open)) {
                // Before the first worker can be an orphan.
                if !std::mem::replace(adopts, true)
                    && let Err(error) = sibling::adopt_orphans(true)
                {
                    self.journal.error(&format!("Cannot adopt workers error={error:?}"));
                }
                let Some(theirs) = one.theirs.as_ref() else { continue };
                let wish = Wish { number: one.id.0, slot: one.slot, block: one.block };
                let text = wish.text();
                // A failure: its queue is full, or its end is about to be reported. Sent again in the next turn.
                if sys::message::send(&preloader.channel, None, text.as_bytes(), &[theirs.as_fd()])
                    .is_ok()
                {
                    one.theirs = None;
                }
            }
        }
        if *adopts && !awaited.iter().any(Awaited::was_wished_for) {
            // Orphans of the applications' own are not for us.
            *adopts = false;
            let _ = sibling::adopt_orphans(false);
        }
    }

    /// Ends a preloader: by TERM because it is not needed, by ABRT or KILL because it stands still.
    fn end_preloader(&mut self, generation: u32, signal: Signal, now: Instant) {
        let Some(preloader) = self.preloaders.running.get_mut(&generation) else { return };
        preloader.stage = match signal {
            _ if matches!(preloader.stage, Stage::Killed { .. }) => return,
            Signal::SIGKILL => Stage::Killed { gone_at: now + END_MAX },
            Signal::SIGABRT => Stage::Ending { is_asked: false, kill_at: now + ABORT_GRACE },
            _ => Stage::Ending { is_asked: true, kill_at: now + END_MAX },
        };
        if let Some(process) = self.processes.get(&preloader.id) {
            if signal == Signal::SIGKILL {
                let pid = process.pid();
                self.journal
                    .warning(&format!("Killing preloader pid={pid} generation={generation}"));
            }
            process.signal(signal);
        }
    }

    /// The worker `id` took too long to boot and has no process: its preloader is what stands still.
    pub(super) fn abort_preloader_of(&mut self, id: Id, now: Instant) {
        let awaited = self.preloaders.awaited.iter().find(|awaited| awaited.id == id);
        let Some(generation) = awaited.map(|awaited| awaited.generation) else { return };
        let Some(preloader) = self.preloaders.running.get(&generation) else { return };
        if matches!(preloader.stage, Stage::Ending { .. } | Stage::Killed { .. }) {
            // For another of its workers.
            return;
        }
        if let Some(process) = self.processes.get(&preloader.id) {
            let (pid, facts) = (process.pid(), Facts::of(process.pid()));
            let boot_s = now.saturating_duration_since(process.since).as_secs();
            self.journal.critical(&format!(
                "PRELOADER TIMEOUT (pid:{pid}) generation={generation} age_s={boot_s} reason=boot_timeout{facts}"
            ));
        }
        self.end_preloader(generation, Signal::SIGABRT, now);
    }

    /// A process ended; whether it was a preloader. The workers that it owed are lost.
    pub(super) fn preloader_ended(
        &mut self,
        id: Id,
        process: &Process,
        ended: Option<Exit>,
    ) -> bool {
        let now = self.now();
        let Some((generation, _)) = self.preloaders.of(id) else { return false };
        let Some(preloader) = self.preloaders.running.remove(&generation) else { return false };
        let (pid, how) = (process.pid(), how_it_ended(ended));
        let age_s = now.saturating_duration_since(process.since).as_secs();
        let line = format!("Preloader (pid:{pid}) {how} generation={generation} age_s={age_s}");
        let (lost, kept) = std::mem::take(&mut self.preloaders.awaited)
            .into_iter()
            .partition(|awaited| awaited.generation == generation);
        self.preloaders.awaited = kept;
        let why = match preloader.stage {
            Stage::Booting => why_no_boot(process, ended),
            _ => format!("the preloader {how}"),
        };
        match preloader.stage {
            Stage::Ending { is_asked: true, .. } => self
                .journal
                .info(&format!("Preloader exited pid={pid} generation={generation} age_s={age_s}")),
            Stage::Ready => self.journal.warning(&format!(
                "{line} workers serve on, the next one brings another preloader"
            )),
            // Why has been said before.
            Stage::Killed { .. } => self.journal.info(&format!("{line} by=master")),
            Stage::Booting | Stage::Ending { .. } => {
                let failures = lost.iter().map(|one: &Awaited| self.failures(one.slot)).max();
                let reason = process.exec_failure.as_ref().or(process.status.as_ref());
                let reason = reason.map(|reason| format!(" reason={reason:?}")).unwrap_or_default();
                let line = format!("{line}{reason}");
                self.journal.repeated_error(failures.unwrap_or(0) + 1, &line);
            }
        }
        self.lose(lost, ended, &why);
        self.forget_generations();
        true
    }

    /// Workers that will have no process.
    fn lose(&mut self, lost: Vec<Awaited>, ended: Option<Exit>, why: &str) {
        let now = self.now();
        let before = self.fleet.reload;
        for awaited in lost {
            if let Some(block) = awaited.block {
                self.scoreboard.release(block, 0);
            }
            let slot = awaited.slot;
            let departure = self.fleet.exited(awaited.id, now, fastrand::f64());
            let Some((_, Departure::BootFailed { retry_in, failures })) = departure else {
                continue;
            };
            self.scoreboard.master().count(Fact::ExitsBoot);
            self.note_failed_boot(ended);
            self.fail_as_successor(why);
            let retry = retry_in.map_or_else(String::new, |retry| {
                format!(" retry_in_s={:.1}", retry.as_secs_f64())
            });
            // The cause is told once, by whoever knows it; a fork that failed has no other line than this.
            let line = format!("No worker slot={slot} failures={failures}{retry} reason={why:?}");
            if ended.is_some() {
                self.journal.debug(&line)
            } else {
                self.journal.repeated_error(failures, &line)
            }
        }
        self.reload_may_have_failed(before, why);
        self.announce_boot();
    }

    /// At a stop, when all workers are gone: whether the preloaders are too, or will not be.
    pub(super) fn preloaders_have_left(&mut self) -> bool {
        let now = self.now();
        let is_given_up = |preloader: &Preloader| matches!(preloader.stage, Stage::Killed { gone_at } if gone_at <= now);
        self.preloaders.running.values().all(is_given_up)
    }

    /// The pids of the preloaders, for people.
    pub(super) fn preloader_pids(&self) -> Option<String> {
        let pids: Vec<String> = self
            .preloaders
            .ids()
            .filter_map(|id| Some(self.processes.get(&id)?.pid().to_string()))
            .collect();
        (!pids.is_empty()).then(|| pids.join(","))
    }
}
