//! The end of a process: why, what it means, and who has to know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logging::access::Writer;
use scoreboard::{Counter, RequestInHand};
use shared::contract::Order;
use shared::exit;
use sys::Signal;
use sys::pidfd::Exit;

use super::Arbiter;
use crate::fleet::{Departure, Id, Manner};
use crate::generation::Generation;
use crate::hooks::{Hook, worker_facts};
use crate::obituary::End;
use crate::process::Process;

/// Orphans reaped in one turn, as PID 1 of a container.
const ORPHANS_PER_TURN_MAX: usize = 64;

impl Arbiter {
    /// Collects a child that has ended.
    pub(super) fn bury(&mut self, id: Id) {
        let Some(process) = self.processes.get(&id) else { return };
        // Of a process that was reaped, nothing is known any more.
        let cpu = process.block.map_or(Duration::ZERO, |_| crate::proc::cpu_time(process.pid()));
        let ended = match process.reap() {
            Ok(None) => return,
            Ok(Some(exit)) => Some(exit),
            // Reaped by somebody else: how it ended is lost, that it did is not.
            Err(_) => None,
        };
        let request = self.request_in_hand(process);
        let held = process.block.and_then(|block| self.scoreboard.block(block)?.request_in_hand());
        let Some(mut process) = self.processes.remove(&id) else { return };
        process.learn_exec_failure();
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(0);
        let block = process.block.and_then(|block| self.scoreboard.block(block));
        // A program that never wrote into its block did not count either.
        let is_counted = block.is_some_and(|block| block.pid() != 0);
        let last = process.block.map(|block| self.scoreboard.release(block, cpu_ns));
        let requests = last.filter(|_| is_counted).map(|last| last.get(Counter::RequestsDone));
        let Some(slot) = process.slot else {
            if !self.preloader_ended(id, &process, ended) && !self.admin_ended(id, &process, ended)
            {
                self.companion_ended(id, &process, ended);
            }
            return;
        };
        let now = self.now();
        let before = self.fleet.reload;
        let departure = self.fleet.exited(id, now, fastrand::f64());
        let age_s = now.saturating_duration_since(process.since).as_secs();
        let mut details = format!(" slot={slot} age_s={age_s}");
        if let Some(requests) = requests {
            details += &format!(" requests={requests}");
        }
        let is_killed = matches!(ended, Some(Exit::Signal(9, _)));
        if is_killed && !matches!(departure, Some((_, Departure::Asked(_)))) {
            // gunicorn guesses "Perhaps out of memory?"; the kernel counts.
            if let Some(is_oom) = self.oom_kills.is_there_a_new_one() {
                details += &format!(" out_of_memory={is_oom}");
            }
        }
        if let (Some((_, departure)), Some(held)) = (departure, held) {
            self.write_obituary(&process, ended, departure, &held);
        }
        if let Some((_, departure)) = departure {
            self.report_end(&process, ended, departure, &details, &request);
            self.count_exit(&process, ended, departure);
            if let Departure::BootFailed { .. } = departure {
                self.note_failed_boot(ended);
                self.fail_as_successor(&why_no_boot(&process, ended));
            }
        }
        let mut facts = worker_facts(process.pid(), slot, process.generation);
        match ended {
            Some(Exit::Code(code)) => facts.push(("EXIT_CODE", code.to_string())),
            Some(Exit::Signal(number, _)) => facts.push(("EXIT_SIGNAL", number.to_string())),
            None => (),
        }
        self.hook(Hook::ChildExit, &facts);
        self.hook(Hook::WorkerExit, &facts);
        self.reload_may_have_failed(before, "a new worker could not boot");
        // A wake-up of a listener may have died with it: the others look for themselves.
        for process in self.processes.values().filter(|process| process.is_ready) {
            process.order(Order::ReArm);
        }
        self.forget_generations();
        self.announce_boot();
    }

    /// Remembers what kept a worker from getting ready, for the master's exit code.
    pub(super) fn note_failed_boot(&mut self, ended: Option<Exit>) {
        // gunicorn's distinction: an application that cannot be loaded tells more than a worker that died.
        match ended {
            Some(Exit::Code(exit::APP_LOAD)) => self.boot_code = Some(exit::APP_LOAD),
            _ => _ = self.boot_code.get_or_insert(exit::WORKER_BOOT),
        }
    }

    /// The request that a worker had in hand when it died has a line in the access log.
    fn write_obituary(
        &self,
        process: &Process,
        ended: Option<Exit>,
        departure: Departure,
        request: &RequestInHand,
    ) {
        let end = match (departure, ended) {
            // It left in order, and wrote its lines itself.
            (_, Some(Exit::Code(exit::OK))) => return,
            (Departure::Asked(Manner::Aborting { .. }), _) => End::Silent,
            (Departure::Asked(Manner::Killed { .. }), _) => End::Killed,
            _ => End::Died,
        };
        let writer = Writer {
            pid: process.pid().as_raw().unsigned_abs(),
            worker: process.slot.unwrap_or_default(),
            generation: u64::from(process.generation),
        };
        self.journal.obituaries.write(request, writer, end);
    }

    fn report_end(
        &self,
        process: &Process,
        ended: Option<Exit>,
        departure: Departure,
        details: &str,
        request: &str,
    ) {
        let pid = process.pid();
        let how = how_it_ended(ended);
        let why = match (&process.exec_failure, &process.status) {
            (Some(failure), _) => format!(" reason={failure:?}"),
            (None, Some(status))
                if !matches!(departure, Departure::Asked(_)) && !process.is_ready =>
            {
                format!(" reason={status:?}")
            }
            _ => String::new(),
        };
        let line = format!("Worker (pid:{pid}) {how}{details}{why}");
        match departure {
            Departure::Asked(Manner::Draining { .. }) => match ended {
                // A program without a handler dies by the TERM that asked it to drain: its choice.
                Some(Exit::Code(0) | Exit::Signal(15, _)) => {
                    self.journal.info(&format!("Worker exited pid={pid}{details}"));
                }
                // As one that still boots does in a quick stop.
                Some(Exit::Signal(3, _)) if self.is_stopping_quickly() => {
                    self.journal.info(&format!("Worker exited pid={pid}{details}"));
                }
                _ => self.journal.warning(&line),
            },
            Departure::Asked(Manner::Aborting { .. }) => self.journal.info(&line),
            Departure::Asked(Manner::Killed { .. }) => {
                self.journal.info(&format!("{line} by=master"))
            }
            Departure::Crashed { retry_in, failures } => {
                let retry = retry_in.as_secs_f64();
                let line = format!("{line}{request} failures={failures} retry_in_s={retry:.1}");
                self.journal.repeated_error(failures, &line);
            }
            Departure::BootFailed { retry_in: Some(retry_in), failures } => {
                let retry = retry_in.as_secs_f64();
                let line = format!("{line} ready=never failures={failures} retry_in_s={retry:.1}");
                self.journal.repeated_error(failures, &line);
            }
            Departure::BootFailed { retry_in: None, .. } => {
                self.journal.error(&format!("{line} ready=never"));
            }
        }
    }

    /// As PID 1 of a container, orphans of others become our children; nobody else collects them.
    pub(super) fn bury_orphans(&mut self) {
        // One that has ended would hide the orphans behind it.
        self.hooks.tend();
        // One that was forked for us is none, and has been announced before it could end by itself.
        self.hear_preloaders();
        self.tend_reading();
        let mut known = self.hooks.pids();
        known.extend(self.reload.reading.iter().map(|(reader, _)| reader.pid().as_raw()));
        known.extend(self.processes.values().map(|process| process.pid().as_raw()));
        for _ in 0..ORPHANS_PER_TURN_MAX {
            match sys::pidfd::reap_orphan(&|pid| known.contains(&pid.as_raw())) {
                Ok(Some((pid, exit))) => {
                    self.journal.debug(&format!("Reaped an orphan pid={pid} {exit}"))
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Forgets generations that nobody runs any more, and closes the addresses that only they had.
    pub(super) fn forget_generations(&mut self) {
        let used: BTreeSet<u32> = self
            .processes
            .values()
            .filter(|process| process.slot.is_some())
            .map(|process| process.generation)
            .chain([self.fleet.generation])
            .chain(self.reload.candidate)
            .chain(self.preloaders.generations())
            .collect();
        let (kept, gone): (BTreeMap<u32, Generation>, BTreeMap<u32, Generation>) =
            std::mem::take(&mut self.generations)
                .into_iter()
                .partition(|(number, _)| used.contains(number));
        self.generations = kept;
        for (_, generation) in gone {
            self.close(generation);
        }
    }
}

/// The end of a process, for people, in gunicorn's words.
pub(super) fn how_it_ended(ended: Option<Exit>) -> String {
    match ended {
        Some(Exit::Code(code)) => format!("exited with code {code}"),
        Some(Exit::Signal(number, _)) => {
            let name = Signal::try_from(number)
                .map_or_else(|_| number.to_string(), |s| s.as_str().to_owned());
            format!("was sent {name}!")
        }
        None => "ended, and somebody else collected it".to_owned(),
    }
}

/// Why a worker could not boot, in its own words if it had any.
pub(super) fn why_no_boot(process: &Process, ended: Option<Exit>) -> String {
    let how = ended.map_or_else(|| "code=unknown".to_owned(), |exit| exit.to_string());
    match (&process.exec_failure, &process.status) {
        (Some(why), _) | (None, Some(why)) => format!("a worker could not boot: {why} ({how})"),
        (None, None) => format!("a worker could not boot ({how})"),
    }
}
