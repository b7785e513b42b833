//! Signals and what workers say.

use shared::contract::Notice;
use sys::{Pid, Signal};

use super::Arbiter;
use super::upgrade::Stop;
use crate::fleet::{Id, Stage};
use crate::hooks::Hook;

/// The signals that the master takes.
pub(super) const SIGNALS: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCHLD,
];

impl Arbiter {
    pub(super) fn hear_signal(&mut self, signal: Signal, sender: Pid) {
        // gunicorn's words: "Handling signal: hup".
        let name = signal.as_str().trim_start_matches("SIG").to_ascii_lowercase();
        self.journal.info(&format!("Handling signal: {name}"));
        match signal {
            Signal::SIGHUP => {
                // The obstacle is in the log.
                let _ = self.ask_reload();
            }
            Signal::SIGTERM => self.ask_graceful_stop(self.stop_by(sender)),
            Signal::SIGINT | Signal::SIGQUIT => self.ask_quick_stop(signal),
            Signal::SIGTTIN => self.change_target(1),
            Signal::SIGTTOU => self.change_target(-1),
            Signal::SIGUSR1 => self.reopen_logs(),
            Signal::SIGUSR2 => {
                // The obstacle is in the log.
                let _ = self.ask_upgrade();
            }
            // Sent by every terminal that is resized, and gunicorn heeds it only when daemonized.
            Signal::SIGWINCH if self.is_daemon() || self.upgrade.is_doubled() => {
                self.dismiss_workers();
            }
            Signal::SIGWINCH => self.journal.debug("SIGWINCH ignored. Not daemonized"),
            _ => (),
        }
    }

    pub(super) fn change_target(&mut self, change: isize) {
        if !matches!(self.fleet.stage, Stage::Waiting | Stage::Running) {
            self.journal.info("The number of workers stays: the server is stopping");
            return;
        }
        let now = self.now();
        let before = self.fleet.target;
        let wanted = self.fleet.set_target(before.saturating_add_signed(change), now);
        let why = match (before == wanted, change < 0) {
            (false, _) => "",
            (true, true) => " reason=at least one",
            (true, false) => " reason=no more slots",
        };
        self.journal.info(&format!("Number of workers wanted={wanted} before={before}{why}"));
        self.workers_changed(before, wanted);
        self.report_status();
    }

    /// Tells the operator's hook that another number of workers is wanted.
    pub(super) fn workers_changed(&mut self, before: usize, wanted: usize) {
        if before != wanted {
            let facts = [("WORKERS", wanted.to_string()), ("WORKERS_BEFORE", before.to_string())];
            self.hook(Hook::NworkersChanged, &facts);
        }
    }

    fn is_daemon(&self) -> bool {
        self.generation().is_some_and(|generation| generation.settings().daemon)
    }

    /// What a TERM means: an operator's in an upgrade is for one master, a service manager's for the service.
    fn stop_by(&self, sender: Pid) -> Stop {
        if self.manager.is_there() && sender == nix::unistd::getppid() {
            Stop::OfTheService
        } else {
            Stop::OfThisMaster
        }
    }

    pub(super) fn reopen_logs(&mut self) {
        self.journal.reopen();
        // Only to those with a handler: the signal's default is death, and a booting worker may not be so far.
        for (id, process) in &self.processes {
            let has_a_log = process.slot.is_some() || self.admin.ids().any(|admin| admin == *id);
            if has_a_log && process.catches(Signal::SIGUSR1) {
                process.signal(Signal::SIGUSR1);
            }
        }
    }

    pub(super) fn hear_notice(&mut self, sender: Pid, notice: Notice) {
        if self.processes.values().all(|process| process.pid() != sender) {
            // A worker that was just forked: its preloader's word on it came before its own.
            self.hear_preloaders();
        }
        // Anybody on this machine can send here: only our own children are believed.
        let found = self.processes.iter_mut().find(|(_, process)| process.pid() == sender);
        let Some((&id, process)) = found else { return };
        // It knows the protocol, so its silence about READY means that it is not.
        process.ready_at = None;
        if let Some(status) = &notice.status {
            process.status = Some(one_line(status));
        }
        let is_worker = process.slot.is_some();
        if notice.watchdog {
            let now = self.now();
            self.fleet.heard(id, now);
            self.admin_beat(id);
        }
        if notice.ready {
            if is_worker {
                self.worker_is_ready(id);
            } else if !self.preloader_is_ready(id) && !self.admin_is_ready(id) {
                self.companion_is_ready(id);
            }
        }
        if notice.reload && is_worker {
            self.code_changed(id);
        }
    }

    /// A worker has seen the application's code change.
    fn code_changed(&mut self, id: Id) {
        let is_wanted = self.generation().is_some_and(|generation| generation.settings().reload);
        let is_leaving = self.fleet.leaving.iter().any(|leaving| leaving.worker.id == id);
        let process = self.processes.get(&id).filter(|_| is_wanted && !is_leaving);
        // Asked for again already: one more reload answers all.
        let Some(process) = process.filter(|_| !self.reload.asked_again) else { return };
        // gunicorn's words: "Worker reloading: FILE modified".
        let what = process.status.as_deref().unwrap_or("code modified");
        self.journal.info(&format!("Worker reloading: {what}"));
        // The obstacle is in the log.
        let _ = self.ask_reload();
    }
}

/// What a worker says of itself, fit for the log: one line, of bounded length.
fn one_line(text: &str) -> String {
    /// Longest status kept.
    const CHARS_MAX: usize = 500;
    text.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
