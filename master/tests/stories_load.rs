//! Everything that may happen to a server, under load of every kind: nothing is lost.
//!
//! The clients never retry: a request that is refused, reset, late, cut or answered with another status is a failure.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

mod support;

use std::net::TcpListener;
use std::time::Duration;

use support::upgradable::{Upgradable, signal};
use testkit::load::Failure;
use testkit::{Load, Mode, Report, Running, Server, Signal, TempDir, is_alive, wait_until};

/// Longest wait for one reload, one drain or one batch of answers: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

/// Clients without a pause: more than the workers, so that every worker always has work.
const SATURATING: Mode = Mode::KeepAlive { pause: Duration::ZERO };

/// Clients whose connections are mostly idle, as a browser's or a proxy's are.
const IDLING: Mode = Mode::KeepAlive { pause: Duration::from_millis(40) };

fn start(args: &[&str]) -> Server {
    let server = Server::start(env!("CARGO_BIN_EXE_master"), args);
    server.wait_for_log("Ready workers=", BOUND);
    server
}

/// Reloads `count` times, each time after the one before is complete and some requests were answered.
fn reload(server: &Server, count: usize, load: &Running) {
    for _ in 0..count {
        let mark = server.log_mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
        load.wait_for(20, BOUND);
    }
}

/// The loads of the matrix: a rate, or as many requests as there are answers; and whether connections are kept.
const LOADS: [Mode; 6] = [
    Mode::OpenLoop { rate: 300.0 },
    Mode::OpenLoopKept { rate: 300.0 },
    Mode::OpenLoop { rate: 450.0 },
    Mode::OpenLoopKept { rate: 450.0 },
    Mode::CloseEach,
    SATURATING,
];

/// What happens; it returns when that is over.
type Happening = fn(&mut Stage);

/// The events of the matrix that leave a server behind, by name.
const EVENTS: [(&str, Happening); 5] = [
    ("HUP", Stage::hup),
    ("HUP with an application that cannot boot", Stage::hup_with_a_broken_app),
    ("TTIN, TTOU", Stage::more_and_fewer),
    ("USR2 with a program that cannot boot", Stage::usr2_with_a_broken_program),
    ("USR2", Stage::usr2),
];

/// Requests answered before an event and after it: enough for every client to have had its turn.
const ANSWERS: u64 = 100;

/// A server with three workers, and the master that leads it now.
struct Stage {
    upgradable: Upgradable,
    master: u32,
}

impl Stage {
    fn new() -> Stage {
        let upgradable = Upgradable::start(&["--workers", "3", "--keep-alive", "75"]);
        let master = upgradable.server.pid();
        Stage { upgradable, master }
    }

    /// Sends a signal and waits for its line in the log.
    fn send(&self, number: Signal, line: &str) {
        let mark = self.upgradable.server.log_mark();
        signal(self.master, number);
        self.upgradable.server.wait_for_log_since(mark, line, 1, BOUND);
    }

    fn hup(&mut self) {
        for _ in 0..3 {
            self.send(Signal::SIGHUP, "Reloaded generation=");
        }
    }

    fn hup_with_a_broken_app(&mut self) {
        self.upgradable.replace("worker", "#!/bin/sh\nexit 3\n");
        self.send(Signal::SIGHUP, "Reload failed");
        self.upgradable.restore("worker");
    }

    fn more_and_fewer(&mut self) {
        for _ in 0..2 {
            self.send(Signal::SIGTTIN, "Worker ready");
            self.send(Signal::SIGTTOU, "Worker exited");
        }
    }

    fn usr2_with_a_broken_program(&mut self) {
        self.upgradable.replace("master", "#!/bin/sh\nexit 1\n");
        self.send(Signal::SIGUSR2, "Upgrade failed");
        self.upgradable.restore("master");
    }

    fn usr2(&mut self) {
        let old = self.master;
        signal(old, Signal::SIGUSR2);
        self.master = self.upgradable.successor_of(old);
        if old == self.upgradable.server.pid() {
            self.upgradable.server.wait_for_exit(BOUND);
        }
        wait_until("the old master's end", BOUND, || !is_alive(old));
    }
}

/// The load of one cell of the matrix, under way.
fn begin(server: &Server, mode: Mode) -> Running {
    let clients = if matches!(mode, Mode::CloseEach | SATURATING) { 6 } else { 32 };
    let mut load = Load::get(server.endpoint(), "/json", mode).clients(clients);
    // Far beyond what a restart takes: a request that waits is none that is lost.
    load.limit = BOUND;
    load.duration(5 * BOUND).start()
}

#[track_caller]
fn check_cell(event: &str, mode: Mode, report: &Report) {
    let cell = format!("{event} × {mode:?}: {report}");
    assert_eq!(report.failed(), 0, "requests were lost: {cell}");
    // Each would have been another request to send again, had one been on its way.
    assert_eq!(report.idle_closes, 0, "closed without a word: {cell}");
    assert!(2 * ANSWERS <= report.answered, "too little load to tell: {cell}");
}

#[test]
fn nothing_is_lost_whatever_happens_under_whatever_load() {
    for mode in LOADS {
        let mut stage = Stage::new();
        for (name, happen) in EVENTS {
            let load = begin(&stage.upgradable.server, mode);
            load.wait_for(ANSWERS, BOUND);
            happen(&mut stage);
            load.wait_for(ANSWERS, BOUND);
            check_cell(name, mode, &load.stop());
        }
        let load = begin(&stage.upgradable.server, mode);
        load.wait_for(2 * ANSWERS, BOUND);
        signal(stage.master, Signal::SIGTERM);
        wait_until("the end of the server", BOUND, || !is_alive(stage.master));
        let mut report = load.stop();
        // Sent after the stop: refused, which is the right answer then. Whatever was sent before has its own.
        report.failures.remove(&Failure::Refused);
        check_cell("TERM", mode, &report);
        let expected = ["Reload failed", "Upgrade failed", "exited with code 3"];
        stage.upgradable.server.assert_log_clean(&expected);
    }
}

#[test]
fn a_restart_beside_a_held_listener_loses_nothing_under_whatever_load() {
    for mode in LOADS {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let start = || {
            let copy = listener.try_clone().expect("a copy");
            let builder = Server::builder(env!("CARGO_BIN_EXE_master")).listener(copy);
            let server = builder.args(["--workers", "3"]).start();
            server.wait_for_log("Ready workers=", BOUND);
            server
        };
        let mut server = start();
        let load = begin(&server, mode);
        load.wait_for(ANSWERS, BOUND);
        server.stop();
        server.assert_log_clean(&[]);
        let mut server = start();
        load.wait_for(ANSWERS, BOUND);
        check_cell("restart", mode, &load.stop());
        server.stop();
    }
}

#[test]
fn twenty_reloads_lose_nothing_over_kept_connections() {
    let mut server = start(&["--workers", "3", "--keep-alive", "75"]);
    let body = [b'x'; 3_000];
    let loads = [
        Load::get(server.endpoint(), "/json", SATURATING).clients(6),
        Load::get(server.endpoint(), "/json", IDLING).clients(16),
        // The bundled application takes no POST: its refusal is the answer, and the body has to be read past.
        Load::post(server.endpoint(), "/json", &body, IDLING).clients(8).expecting(&[405]),
    ];
    let running = loads.map(|load| load.duration(5 * BOUND).start());
    reload(&server, 20, &running[1]);
    for running in running {
        let report = running.stop();
        report.assert_nothing_lost(100);
        assert!(report.announced_closes > 0, "every generation says goodbye: {report}");
        assert_eq!(report.idle_closes, 0, "a close in silence is a request lost by luck: {report}");
    }
    server.assert_log_clean(&[]);
    server.stop();
}

#[test]
fn reloads_lose_nothing_over_a_unix_socket() {
    let dir = TempDir::new();
    let bind = format!("unix:{}", dir.join("app.sock").display());
    let builder = Server::builder(env!("CARGO_BIN_EXE_master")).without_bind();
    let mut server = builder.args(["--bind", &bind, "--workers", "3"]).start();
    server.wait_for_log("Ready workers=", BOUND);
    let loads = [
        Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(6),
        Load::get(server.endpoint(), "/json", IDLING).clients(8),
    ];
    let running = loads.map(|load| load.duration(5 * BOUND).start());
    reload(&server, 10, &running[1]);
    for running in running {
        running.stop().assert_nothing_lost(100);
    }
    server.assert_log_clean(&[]);
    server.stop();
    assert!(!dir.join("app.sock").exists(), "the path goes with its server");
}

#[test]
fn a_killed_worker_loses_only_what_it_had_in_hand() {
    for mode in [Mode::CloseEach, SATURATING] {
        let mut server = start(&["--workers", "3"]);
        let load = Load::get(server.endpoint(), "/json", mode).clients(12);
        let load = load.duration(5 * BOUND).start();
        let mut in_hand = 0;
        for _ in 0..8 {
            let mark = server.log_mark();
            let victim = server.wait_for_workers(3, BOUND)[0];
            // Halted first, so that what it has cannot change between the look and the end.
            signal(victim, Signal::SIGSTOP);
            wait_until("a halt", BOUND, || testkit::process_state(victim) == Some('T'));
            in_hand += connections_of(victim);
            signal(victim, Signal::SIGKILL);
            server.wait_for_log_since(mark, "Worker ready", 1, BOUND);
            load.wait_for(50, BOUND);
        }
        let report = load.stop();
        for failure in [Failure::Refused, Failure::Timeout] {
            assert_eq!(report.failures.get(&failure), None, "queues outlive workers: {report}");
        }
        // A kept connection whose worker died between two requests is found closed, and nothing is lost.
        let lost = report.failed() + report.idle_closes;
        assert!(lost <= in_hand, "{mode:?}: {in_hand} in hand, {report}");
        server.assert_log_clean(&["was sent SIGKILL"]);
        server.stop();
    }
}

/// Number of TCP connections that a process holds.
fn connections_of(pid: u32) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("it lives");
    let connections: Vec<&str> = table
        .lines()
        .skip(1)
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        // 0A: it listens.
        .filter(|fields| fields[3] != "0A")
        .map(|fields| fields[9])
        .collect();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let is_connection = |target: &std::path::PathBuf| {
        let name = target.to_string_lossy();
        let inode = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| connections.contains(&inode))
    };
    targets.filter(is_connection).count() as u64
}

#[test]
fn s15_a_worker_that_hangs_delays_only_what_it_had_in_hand() {
    let mut server = start(&["--workers", "3", "--timeout", "2"]);
    let clients = 6;
    let load = Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(clients);
    let load = load.duration(5 * BOUND).start();
    load.wait_for(100, BOUND);
    let mark = server.log_mark();
    let victim = server.workers()[1];
    let pid = nix::unistd::Pid::from_raw(i32::try_from(victim).expect("a pid"));
    nix::sys::signal::kill(pid, Signal::SIGSTOP).expect("it lives");
    // New connections go to those who answer, long before anybody notices.
    load.wait_for(200, Duration::from_millis(1_900));
    server.wait_for_log_since(mark, &format!("WORKER TIMEOUT (pid:{victim})"), 1, BOUND);
    server.wait_for_log_since(mark, "Worker ready", 1, BOUND);
    testkit::wait_until("the end of the hanging worker", BOUND, || !testkit::is_alive(victim));
    load.wait_for(100, BOUND);
    let report = load.stop();
    assert!(report.failed() <= clients as u64, "{report}");
    assert_eq!(server.wait_for_workers(3, BOUND).len(), 3);
    server.assert_log_clean(&["WORKER TIMEOUT", "Killing worker"]);
    server.stop();
}

#[test]
fn workers_of_a_killed_master_answer_what_is_queued_and_leave() {
    let mut server = start(&["--workers", "3"]);
    let family = server.workers();
    let load = Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(8);
    let load = load.duration(BOUND).start();
    load.wait_for(200, BOUND);
    server.signal(Signal::SIGKILL);
    server.wait_for_exit(BOUND);
    testkit::wait_until("the workers' end", BOUND, || {
        family.iter().all(|&pid| !testkit::is_alive(pid))
    });
    let report = load.stop();
    // A crash of the master may reset handshakes in flight; nobody may be left waiting for an answer.
    assert_eq!(report.failures.get(&testkit::load::Failure::Timeout), None, "{report}");
    assert_eq!(report.failures.get(&testkit::load::Failure::ShortBody), None, "{report}");
}
