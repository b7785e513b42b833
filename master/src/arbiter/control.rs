//! What `master ctl` asks for, done by the arbiter; the socket and its clients are in [`crate::control`].

use std::rc::Rc;
use std::time::{Duration, Instant};

use scoreboard::{Counter, Fact, Gauge};
use serde_json::{Value, json};
use shared::settings::{SETTINGS, Settings};
use sys::Signal;

use super::Arbiter;
use super::upgrade::Stop;
use crate::control::frame::Request;
use crate::control::{self, Awaited, ClientId, Control};
use crate::fleet::{Id, Manner, Stage};
use crate::generation::Listening;
use crate::process::Process;

/// The words of every command, for `help`.
pub const COMMANDS: &[(&str, &str)] = &[
    ("status", "the server in a few lines; `show all` adds workers and listeners"),
    ("ready", "whether requests are served; the exit status says it too"),
    ("workers [N|+N|-N]", "the workers, or how many are wanted from now on"),
    ("worker add|remove [N]", "gunicorn's words for the same"),
    (
        "worker kill SLOT|PID [--now]",
        "replaces a worker: its successor is ready first; --now kills it",
    ),
    ("listeners", "addresses and their queues"),
    ("config", "every setting with its source"),
    ("reload [--wait]", "HUP; --wait: the exit status is the outcome"),
    ("upgrade [--wait]", "USR2; --wait: the exit status is the verdict"),
    ("reopen", "USR1: opens the logs again"),
    ("stop [graceful|quick]", "TERM or INT; also called shutdown"),
    ("show all|status|stats|workers|listeners|config", "the same answers, by gunicorn's names"),
    ("help", "this list"),
];

impl Arbiter {
    /// Makes the control socket that `settings` want. That it cannot be made harms nobody.
    pub(super) fn open_control(&mut self, settings: &Settings, passed: &[Rc<Listening>]) {
        let runtime = std::env::var("RUNTIME_DIRECTORY").ok();
        let Some(path) = control::path(settings, runtime.as_deref()) else { return };
        match Control::open(&path, settings.control_socket_mode, passed) {
            Ok(control) => {
                self.control = control;
                self.journal.info(&format!("Control socket listening at {}", path.display()));
            }
            Err(error) => self.journal.info(&format!(
                "No control socket path={} reason={}",
                path.display(),
                super::chain(&error)
            )),
        }
    }

    pub(super) fn control_listening(&self) -> Vec<Rc<Listening>> {
        self.control.listening().cloned().into_iter().collect()
    }

    /// New clients are the other master's from now on.
    pub(super) fn let_go_of_control(&mut self) {
        if let Some(listening) = self.control.take_listening() {
            let address = listening.group.addr().to_string();
            if let Some(listening) = Rc::into_inner(listening) {
                self.close_listening(listening, &address);
            }
        }
    }

    /// Whether new clients are answered here.
    pub(super) fn is_control_open(&self) -> bool {
        !self.upgrade.is_understudy()
    }

    /// Hears every client, and does what one or the other asks.
    pub(super) fn tend_control(&mut self) {
        for (client, request) in self.control.turn(self.is_control_open(), Instant::now()) {
            match request {
                Ok(request) => self.serve_control(client, request),
                Err(why) => self.control.reply(client, Value::Null, Err(why)),
            }
        }
    }

    fn serve_control(&mut self, client: ClientId, request: Request) {
        let words = match request.words() {
            Ok(words) => words,
            Err(why) => return self.control.reply(client, request.id, Err(why)),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (options, words): (Vec<&str>, Vec<&str>) =
            words.into_iter().partition(|word| word.starts_with("--"));
        let waits = options.contains(&"--wait");
        if waits {
            // Before it is asked for: it may have failed by the next line.
            match words.as_slice() {
                ["reload"] => self.control.put_off(
                    client,
                    request.id.clone(),
                    Awaited::Reload { has_begun: false },
                ),
                ["upgrade"] => self.control.put_off(client, request.id.clone(), Awaited::Upgrade),
                _ => (),
            }
        }
        if let Some(outcome) = self.command(&words, &options) {
            self.control.stop_waiting(client);
            self.control.reply(client, request.id, outcome);
        }
    }

    /// Does what the words say. `None`: the answer comes when it is over.
    fn command(&mut self, words: &[&str], options: &[&str]) -> Option<Result<Value, String>> {
        let waits = options.contains(&"--wait");
        Some(match *words {
            ["status" | "stats"] | ["show", "status" | "stats"] => Ok(self.status_value()),
            ["show", "all"] | ["show"] => Ok(self.everything()),
            ["workers"] | ["show", "workers"] => Ok(self.workers_value()),
            ["listeners"] | ["show", "listeners"] => Ok(self.listeners_value()),
            ["config"] => Ok(self.config_value()),
            ["show", "config"] => Ok(self.plain_config_value()),
            ["ready"] => Ok(json!({ "ready": self.is_ready() })),
            ["help"] => {
                let commands =
                    COMMANDS.iter().map(|(words, what)| ((*words).to_owned(), json!(what)));
                Ok(json!({ "commands": commands.collect::<serde_json::Map<_, _>>() }))
            }
            ["workers", number] => self.set_workers(number),
            ["worker", "add"] => self.set_workers("+1"),
            ["worker", "remove"] => self.set_workers("-1"),
            ["worker", "add", number] => self.set_workers(&format!("+{number}")),
            ["worker", "remove", number] => self.set_workers(&format!("-{number}")),
            ["worker", "kill", which] => self.replace_worker(which, options.contains(&"--now")),
            ["reload"] => {
                self.journal.info("Handling ctl: reload");
                match self.ask_reload() {
                    Ok(()) if waits => return None,
                    Ok(()) => Ok(json!({ "message": "reloading" })),
                    Err(why) => Err(why),
                }
            }
            ["upgrade"] => {
                self.journal.info("Handling ctl: upgrade");
                match self.ask_upgrade() {
                    Ok(()) if waits => return None,
                    Ok(()) => Ok(json!({ "message": "upgrading" })),
                    Err(why) => Err(why),
                }
            }
            ["reopen"] => {
                self.journal.info("Handling ctl: reopen");
                self.reopen_logs();
                Ok(json!({ "message": "logs opened again" }))
            }
            ["stop" | "shutdown"] | ["stop" | "shutdown", "graceful"] => {
                self.journal.info("Handling ctl: stop");
                self.ask_graceful_stop(Stop::OfTheService);
                Ok(json!({ "message": "stopping" }))
            }
            ["stop" | "shutdown", "quick"] => {
                self.journal.info("Handling ctl: stop quick");
                self.ask_quick_stop(Signal::SIGINT);
                Ok(json!({ "message": "stopping at once" }))
            }
            _ => Err(format!("no such command: {} (see help)", words.join(" "))),
        })
    }

    /// An upgrade has come to its verdict.
    pub(super) fn upgrade_concluded(&mut self, outcome: &Result<String, String>) {
        let outcome = outcome.clone().map(|message| json!({ "message": message }));
        self.control.conclude(|awaited| awaited == Awaited::Upgrade, &outcome);
    }

    /// A reload is over.
    pub(super) fn reload_concluded(&mut self, outcome: &Result<Value, String>) {
        self.last_reload = match outcome {
            Ok(_) => "succeeded".to_owned(),
            Err(why) => format!("failed: {why}"),
        };
        self.control.conclude(|awaited| awaited == Awaited::Reload { has_begun: true }, outcome);
    }

    /// Nobody waits any longer for what a stop has made impossible.
    pub(super) fn stop_concludes_all(&mut self) {
        self.control.conclude(|_| true, &Err("the server is stopping".to_owned()));
    }

    fn is_ready(&self) -> bool {
        self.is_announced && self.stop.is_none() && 0 < self.fleet.serving()
    }

    fn phase(&self) -> &'static str {
        match () {
            () if self.upgrade.is_followed() => "handed over",
            () if self.stop.is_some() => "stopping",
            () if !self.fleet.was_ever_ready => "starting",
            () if self.is_reloading() => "reloading",
            () if self.upgrade.is_under_way() => "upgrading",
            () => "running",
        }
    }

    fn status_value(&self) -> Value {
        let now = self.now();
        let totals = self.scoreboard.totals();
        let facts = self.scoreboard.master();
        let connections = |gauge| self.scoreboard.gauge(gauge);
        let started = Duration::from_millis(facts.get(Fact::StartedUnixMs));
        let uptime =
            std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(started);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "phase": self.phase(),
            "uptime": uptime.as_secs(),
            "generation": self.fleet.generation,
            "workers_target": self.fleet.target,
            "workers_current": self.fleet.serving(),
            "workers_booting": self.fleet.workers().count().saturating_sub(self.fleet.serving()),
            "workers_leaving": self.fleet.leaving.len(),
            "workers_spawned": facts.get(Fact::Spawns),
            "reloads": facts.get(Fact::ReloadsSucceeded),
            "reloads_failed": facts.get(Fact::ReloadsFailed),
            "last_reload": self.last_reload,
            "reload_ms": self.reload.began.map(|began| millis(now.saturating_duration_since(began))),
            "preloader_pid": self.preloader_pids(),
            "upgrade": self.upgrade.name(),
            "upgrade_pid": self.upgrade.successor_pid(),
            "requests": totals.get(Counter::RequestsDone),
            "connections": connections(Gauge::ConnectionsReading) + connections(Gauge::ConnectionsWriting) + connections(Gauge::ConnectionsIdle),
            "listening": self.generation().map(crate::generation::Generation::addresses),
        })
    }

    /// In gunicorn's arrangement, so that its tool can show it.
    fn everything(&self) -> Value {
        json!({
            "arbiter": self.status_value(),
            "web_workers": self.workers_value()["workers"],
            "web_worker_count": self.fleet.workers().count(),
            "listeners": self.listeners_value()["listeners"],
        })
    }

    fn workers_value(&self) -> Value {
        let mut workers: Vec<(usize, u64, Value)> = self
            .processes
            .iter()
            .filter_map(|(id, process)| {
                Some((process.slot?, id.0, self.worker_value(*id, process)))
            })
            .collect();
        workers.sort_by_key(|(slot, id, _)| (*slot, *id));
        let workers: Vec<Value> = workers.into_iter().map(|(_, _, value)| value).collect();
        json!({ "count": workers.len(), "workers": workers })
    }

    fn worker_value(&self, id: Id, process: &Process) -> Value {
        let now = self.now();
        let leaving = self.fleet.leaving.iter().find(|leaving| leaving.worker.id == id);
        let state = match (leaving.map(|leaving| leaving.manner), process.is_ready) {
            (Some(Manner::Draining { .. }), _) => "draining",
            (Some(Manner::Aborting { .. }), _) => "aborting",
            (Some(Manner::Killed { .. }), _) => "killed",
            (None, true) => "ready",
            (None, false) => "booting",
        };
        let clock = sys::clock::monotonic();
        let since = |then: u64| millis(Duration::from_nanos(clock.saturating_sub(then))) / 1e3;
        let block = process.block.and_then(|block| self.scoreboard.block(block));
        let request = block.and_then(|block| block.request_in_hand());
        let connections = block.map(|block| {
            [Gauge::ConnectionsReading, Gauge::ConnectionsWriting, Gauge::ConnectionsIdle]
                .iter()
                .map(|gauge| block.gauge(*gauge))
                .sum::<u64>()
        });
        json!({
            "slot": process.slot,
            "pid": process.pid().as_raw(),
            "generation": process.generation,
            "state": state,
            "age": id.0,
            "age_s": now.saturating_duration_since(process.since).as_secs(),
            "booted": process.is_ready,
            "aborted": state == "aborting",
            "last_heartbeat": block.map(|block| block.heartbeat()).filter(|beat| *beat != 0).map(since),
            "requests": block.map(|block| block.counters().get(Counter::RequestsDone)),
            "connections": connections,
            "rss": crate::proc::rss(process.pid()),
            "request": request.map(|request| format!("{} {} {:.1}s", request.method, request.path, since(request.since))),
        })
    }

    fn listeners_value(&self) -> Value {
        let http = self.generation().map(|generation| generation.listening.as_slice());
        let all = [
            ("http", http.unwrap_or_default().to_vec()),
            ("admin", self.admin.listening()),
            ("control", self.control_listening()),
        ];
        let listeners: Vec<Value> = all
            .iter()
            .flat_map(|(purpose, group)| {
                group.iter().map(move |listening| (purpose, &listening.group, listening))
            })
            .map(|(purpose, group, listening)| {
                json!({
                    "address": group.addr().to_string(),
                    "type": purpose,
                    "fd": group.shards().first().map(sys::fd::number),
                    "sockets": group.shards().len(),
                    "queued": group.queue_length(),
                    "backlog": group.queue_limit(),
                    "inherited": listening.is_inherited(),
                })
            })
            .collect();
        json!({ "listeners": listeners })
    }

    fn config_value(&self) -> Value {
        let Some(generation) = self.generation() else { return json!({}) };
        let settings: Vec<Value> = SETTINGS
            .iter()
            .filter_map(|setting| {
                let value = generation.loaded.resolved.value(setting.name)?;
                let (name, source) = (setting.name, value.place.to_string());
                Some(json!({ "name": name, "value": value.shown(setting), "source": source }))
            })
            .collect();
        json!({ "settings": settings })
    }

    /// As gunicorn's tool expects it: without sources.
    fn plain_config_value(&self) -> Value {
        let mut plain = serde_json::Map::new();
        if let Some(Value::Array(settings)) =
            self.config_value().get_mut("settings").map(Value::take)
        {
            for mut setting in settings {
                if let Some(name) = setting["name"].as_str().map(str::to_owned) {
                    plain.insert(name, setting["value"].take());
                }
            }
        }
        Value::Object(plain)
    }

    fn set_workers(&mut self, text: &str) -> Result<Value, String> {
        let number = text.trim_start_matches(['+', '-']).parse::<isize>();
        let number = number.map_err(|_| format!("{text:?} is no number of workers"))?;
        let change = match text.as_bytes().first() {
            Some(b'+') => number,
            Some(b'-') => -number,
            _ => number - isize::try_from(self.fleet.target).unwrap_or(isize::MAX),
        };
        if !matches!(self.fleet.stage, Stage::Waiting | Stage::Running) {
            return Err("the server is stopping".to_owned());
        }
        self.journal.info(&format!("Handling ctl: workers {text}"));
        self.change_target(change);
        Ok(
            json!({ "message": format!("{} workers wanted", self.fleet.target), "workers_target": self.fleet.target }),
        )
    }

    fn replace_worker(&mut self, which: &str, at_once: bool) -> Result<Value, String> {
        let number: usize =
            which.parse().map_err(|_| format!("{which:?} is no slot and no pid"))?;
        let is_leaving = |id: Id| self.fleet.leaving.iter().any(|leaving| leaving.worker.id == id);
        let of_slot = |process: &Process| process.slot == Some(number);
        let of_pid = |process: &Process| {
            process.slot.is_some() && usize::try_from(process.pid().as_raw()) == Ok(number)
        };
        let find = |wanted: &dyn Fn(&Process) -> bool| {
            self.processes
                .iter()
                .rfind(|(id, process)| wanted(process) && !is_leaving(**id))
                .map(|(id, _)| *id)
        };
        // gunicorn names a worker by its pid; slots are far smaller numbers.
        let Some(id) = find(&of_slot).or_else(|| find(&of_pid)) else {
            return Err(format!("no worker in slot {number}, nor with that pid"));
        };
        let Some(process) = self.processes.get(&id) else {
            return Err("it has just ended".to_owned());
        };
        let (pid, slot) = (process.pid(), process.slot.unwrap_or_default());
        if at_once {
            process.signal(Signal::SIGKILL);
            self.journal.info(&format!("Handling ctl: worker kill pid={pid} slot={slot} now=true"));
            return Ok(json!({ "message": format!("worker {pid} in slot {slot} was killed") }));
        }
        if !process.is_ready {
            return Err(format!("worker {pid} in slot {slot} boots; --now kills it"));
        }
        self.journal.info(&format!("Autorestarting worker pid={pid} slot={slot} reason=ctl"));
        self.fleet.wear(id);
        Ok(
            json!({ "message": format!("worker {pid} in slot {slot} goes when its successor is ready") }),
        )
    }
}

/// Milliseconds with their fractions cut.
#[allow(clippy::cast_precision_loss)] // Exact for three hundred thousand years.
fn millis(time: Duration) -> f64 {
    time.as_millis() as f64
}
