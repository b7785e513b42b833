//! Stopping: losing nothing when there is time, at once when there is not. The master leaves last.
//!
//! TERM: `shutdown_delay` (all goes on, responses say close) → listeners turn new connections away → `settle_time`
//! (begun ones arrive) → everybody drains, accepting what waits → `graceful_timeout` → KILL.
//! INT, QUIT: everybody quits; a second one shortens what is left to two seconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use shared::contract::Order;
use shared::exit;
use sys::Signal;

use super::Arbiter;
use super::boot::HOOKS_END_MAX;
use super::upgrade::Stop;
use crate::fleet::{Manner, Stage};
use crate::hooks::Hook;

/// Time that is left to workers after a second INT or QUIT, as gunicorn's.
const HURRY: Duration = Duration::from_secs(2);

/// Longest wait for a killed process: one that hangs in the kernel must not keep the master for ever.
const KILLED_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest wait for the service manager to take what it was not told yet, at the very end.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// What is known of the stop under way.
#[derive(Debug)]
pub(super) struct StopBook {
    /// The exit code to leave with.
    code: i32,
    /// Whether it began with INT or QUIT, or was shortened by one.
    is_quick: bool,
    /// When hope for killed processes ends.
    give_up_at: Option<Instant>,
}

impl StopBook {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.give_up_at
    }
}

impl Arbiter {
    pub(super) fn ask_graceful_stop(&mut self, stop: Stop) {
        if self.stop.is_some() {
            self.journal.info("The server is stopping already");
        } else if !self.stop_waits_for_upgrade(stop) {
            self.stop_gracefully();
        }
    }

    pub(super) fn stop_gracefully(&mut self) {
        self.stop_gracefully_with(exit::OK);
    }

    /// Stops gracefully, to leave with `code`.
    pub(super) fn stop_gracefully_with(&mut self, code: i32) {
        if self.stop.is_some() {
            return;
        }
        let now = self.now();
        let (delay, longest) = self.stop_times();
        self.begin_stop(code, false, longest);
        // One that has not said READY may accept already: from the moment it opens its listeners.
        if self.fleet.workers().next().is_none() {
            self.stop_all(now);
        } else if delay.is_zero() || self.upgrade.is_followed() || self.upgrade.is_understudy() {
            // Another master takes what comes; only what it does not have settles.
            self.settle(now);
        } else {
            self.say_close();
            self.fleet.stage = Stage::SayingClose { until: now + delay };
        }
    }

    pub(super) fn ask_quick_stop(&mut self, signal: Signal) {
        self.settle_upgrade_quickly();
        let now = self.now();
        match &mut self.stop {
            None => {
                let graceful = self.fleet.limits.graceful_timeout;
                self.begin_stop(exit::OK, true, graceful);
                self.quit_all(now + graceful);
            }
            Some(stop) => {
                // As a shell reports an end by this signal: the operator insisted.
                if stop.is_quick {
                    stop.code = 128 + signal as i32;
                }
                stop.is_quick = true;
                self.journal.info("Quick shutdown requested");
                self.quit_all(now + HURRY);
            }
        }
    }

    /// Whether workers were sent QUIT.
    pub(super) fn is_stopping_quickly(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.is_quick)
    }

    /// Stops because no worker can boot.
    pub(super) fn halt(&mut self, code: i32) {
        let reason = match code {
            exit::APP_LOAD => "App failed to load.",
            exit::WORKER_BOOT => "Worker failed to boot.",
            _ => "Companion failed to boot.",
        };
        self.fail_as_successor(reason);
        self.journal.error(&format!("Reason: {reason}"));
        let now = self.now();
        self.begin_stop(code, true, self.fleet.limits.graceful_timeout);
        self.quit_all(now + HURRY);
    }

    fn begin_stop(&mut self, code: i32, is_quick: bool, longest: Duration) {
        self.stop = Some(StopBook { code, is_quick, give_up_at: None });
        self.stop_concludes_all();
        // Readiness fails before anything else changes.
        self.publish();
        self.fleet.end_reload();
        self.reload.reading = None;
        self.reload.give_up_lookup();
        self.manager.tell_stopping(longest + KILLED_WAIT_MAX + 2 * self.hooks_end_max());
    }

    /// `shutdown_delay`, and the longest that a graceful stop may take.
    fn stop_times(&self) -> (Duration, Duration) {
        let settings = self.generation().map(|generation| generation.settings());
        let delay = settings.map_or(Duration::ZERO, |settings| settings.shutdown_delay);
        let settle = settings.map_or(Duration::ZERO, |settings| settings.settle_time);
        (delay, delay + settle + self.fleet.limits.graceful_timeout)
    }

    /// From now on every response says `Connection: close`.
    fn say_close(&self) {
        for process in self.processes.values() {
            process.order(Order::SayClose);
        }
    }

    /// Turns new connections away, if nobody else could take them, and lets begun ones arrive.
    pub(super) fn settle(&mut self, now: Instant) {
        self.say_close();
        let settle_time = self.generation().map_or(Duration::ZERO, |g| g.settings().settle_time);
        let mut any = false;
        for listening in self.generations.values().flat_map(|generation| &generation.listening) {
            // The filter is on the socket: whoever else holds it would be deaf with us.
            if self.is_held_outside(listening) || settle_time.is_zero() {
                continue;
            }
            match listening.group.refuse_new() {
                Ok(()) => any |= listening.group.addr().ip().is_some(),
                Err(error) => {
                    let address = listening.group.addr();
                    self.journal.warning(&format!(
                        "Cannot turn connections away address={address} error={error:?}"
                    ));
                }
            }
        }
        // A unix socket has no handshakes on the way.
        let wait = if any { settle_time } else { Duration::ZERO };
        self.fleet.stage = Stage::Settling { until: now + wait };
    }

    /// Tells everybody to finish and go.
    pub(super) fn stop_all(&mut self, now: Instant) {
        let is_last =
            |listening: &std::rc::Rc<crate::generation::Listening>| !listening.is_held_elsewhere();
        let is_last = self.generations.values().flat_map(|g| &g.listening).any(is_last);
        let deadline = now + self.fleet.limits.graceful_timeout;
        for id in self.fleet.stop_all(deadline) {
            let Some(process) = self.processes.get(&id) else { continue };
            if self.upgrade.is_followed() {
                // A client of an address that goes on finds the new master: its connections wait as in any drain.
                self.order_retired(process);
            } else if is_last {
                process.order(Order::Final);
            }
            process.signal(Signal::SIGTERM);
        }
    }

    fn quit_all(&mut self, deadline: Instant) {
        for id in self.fleet.stop_all(deadline) {
            if let Some(process) = self.processes.get(&id) {
                process.signal(Signal::SIGQUIT);
            }
        }
    }

    /// The exit code, once everything is over.
    pub(super) fn is_over(&mut self) -> Option<i32> {
        if self.stop.is_none() && self.fleet.is_hopeless() && self.fleet.leaving.is_empty() {
            self.halt(self.boot_code.unwrap_or(exit::WORKER_BOOT));
        }
        let now = self.now();
        let stop = self.stop.as_mut()?;
        if self.fleet.is_empty() {
            // Both at once: neither needs the other.
            let has_left =
                [self.admin_has_left(), self.companion_has_left(), self.preloaders_have_left()];
            return if has_left == [true; 3] && !self.waits_for_predecessor() {
                self.stop.as_ref().map(|stop| stop.code)
            } else {
                None
            };
        }
        // Killed, all of them, and still there: they hang in the kernel.
        let is_killed = |manner: Manner| matches!(manner, Manner::Killed { .. });
        if !self.fleet.leaving.iter().all(|leaving| is_killed(leaving.manner)) {
            return None;
        }
        let give_up_at = *stop.give_up_at.get_or_insert(now + KILLED_WAIT_MAX);
        if now < give_up_at {
            return None;
        }
        let pids: Vec<String> =
            self.processes.values().map(|process| process.pid().to_string()).collect();
        self.journal.error(&format!(
            "Leaving killed processes behind that do not end pids={}",
            pids.join(",")
        ));
        Some(exit::RUNTIME)
    }

    /// Longest time for the hooks that run at the very end, and for `on_exit` after them.
    fn hooks_end_max(&self) -> Duration {
        let timeout = self.generation().map_or(Duration::ZERO, |g| g.settings().hook_timeout);
        timeout + HOOKS_END_MAX
    }

    /// The last things: sockets, hooks, pidfile, log.
    pub(super) fn leave(mut self, code: i32) -> i32 {
        let settings = self.generation().map(|generation| generation.settings().clone());
        let hooks_end_max = self.hooks_end_max();
        self.hooks.run_to_end(hooks_end_max);
        for (_, generation) in std::mem::take(&mut self.generations) {
            self.close(generation);
        }
        self.leave_admin();
        self.let_go_of_control();
        let line = format!("Shutting down: {}", self.master_name());
        if code == exit::OK {
            self.journal.info(&line)
        } else {
            self.journal.error(&format!("{line} code={code}"))
        }
        if let Some(pidfile) = self.pidfile.take()
            && self.upgrade.pidfile_of_follower().map(PathBuf::as_path) != Some(pidfile.path())
        {
            pidfile.release();
        }
        if let Some(settings) = settings {
            self.hooks.call(&settings, Hook::OnExit, &[("EXIT_CODE", code.to_string())]);
        }
        // A hook of its own: it finds nobody beside it.
        self.hooks.run_to_end(hooks_end_max);
        self.manager.retry_within(LAST_WORDS_MAX);
        self.journal.flush();
        code
    }
}
