//! Twenty of everything, under load of every kind: nothing is lost.
//!
//! The clients never retry: a request that is refused, reset, late, cut or answered with another status is a failure.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::time::Duration;

use testkit::{Load, Mode, Server, Signal, TempDir};

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
fn reload(server: &Server, count: usize, load: &testkit::Running) {
    for _ in 0..count {
        let mark = server.log_mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
        load.wait_for(20, BOUND);
    }
}

#[test]
fn twenty_reloads_lose_nothing_with_a_connection_per_request() {
    let mut server = start(&["--workers", "3"]);
    let open = Load::get(server.endpoint(), "/json", Mode::OpenLoop { rate: 300.0 }).clients(32);
    let closed = Load::get(server.endpoint(), "/plaintext", Mode::CloseEach).clients(6);
    let (open, closed) = (open.duration(5 * BOUND).start(), closed.duration(5 * BOUND).start());
    reload(&server, 20, &open);
    let (open, closed) = (open.stop(), closed.stop());
    open.assert_nothing_lost(400);
    closed.assert_nothing_lost(400);
    server.assert_log_clean(&[]);
    server.wait_for_workers(3, BOUND);
    server.stop();
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
fn twenty_more_and_twenty_fewer_workers_lose_nothing() {
    let mut server = start(&["--workers", "2"]);
    let open = Load::get(server.endpoint(), "/json", Mode::OpenLoop { rate: 300.0 }).clients(32);
    let loads = [
        open,
        Load::get(server.endpoint(), "/plaintext", Mode::CloseEach).clients(4),
        Load::get(server.endpoint(), "/json", SATURATING).clients(4),
    ];
    let running = loads.map(|load| load.duration(5 * BOUND).start());
    for _ in 0..20 {
        let mark = server.log_mark();
        server.signal(Signal::SIGTTIN);
        server.wait_for_log_since(mark, "Worker ready", 1, BOUND);
        server.signal(Signal::SIGTTOU);
        server.wait_for_log_since(mark, "Worker exited", 1, BOUND);
        running[0].wait_for(20, BOUND);
    }
    for running in running {
        running.stop().assert_nothing_lost(400);
    }
    assert_eq!(server.workers().len(), 2);
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
fn a_stop_answers_everything_that_was_sent_before_it() {
    for mode in [Mode::CloseEach, IDLING] {
        let mut server = start(&["--workers", "3"]);
        let load = Load::get(server.endpoint(), "/json", mode).clients(8).duration(BOUND).start();
        load.wait_for(200, BOUND);
        server.signal(Signal::SIGTERM);
        let status = server.wait_for_exit(BOUND);
        assert_eq!(status.code(), Some(0), "{}", server.log_text());
        let report = load.stop();
        // After the end of the server, refusals are the right answer; nothing else ever is.
        let refused = report.failures.get(&testkit::load::Failure::Refused).copied().unwrap_or(0);
        assert_eq!(report.failed(), refused, "{mode:?}: {report}");
        server.assert_log_clean(&[]);
    }
}

#[test]
fn a_killed_worker_loses_only_what_it_had_in_hand() {
    let mut server = start(&["--workers", "3"]);
    let clients = 6;
    let load = Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(clients);
    let load = load.duration(5 * BOUND).start();
    let kills = 8;
    for _ in 0..kills {
        let mark = server.log_mark();
        let workers = server.wait_for_workers(3, BOUND);
        let victim = nix::unistd::Pid::from_raw(i32::try_from(workers[0]).expect("a pid"));
        nix::sys::signal::kill(victim, Signal::SIGKILL).expect("it lives");
        server.wait_for_log_since(mark, "Worker ready", 1, BOUND);
        load.wait_for(50, BOUND);
    }
    let report = load.stop();
    for failure in [testkit::load::Failure::Refused, testkit::load::Failure::Timeout] {
        assert_eq!(report.failures.get(&failure), None, "queues outlive workers: {report}");
    }
    assert!(report.failed() <= (kills * clients) as u64, "{report}");
    server.assert_log_clean(&["was sent SIGKILL"]);
    server.stop();
}

#[test]
fn a_worker_that_hangs_delays_only_what_it_had_in_hand() {
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
