//! Another master takes over, or fails to, under load: nothing is lost, and the files say who is who.

#![allow(clippy::expect_used, clippy::unwrap_used)] // In helpers too: a test may panic.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use support::upgradable::{Upgradable, end, signal};
use testkit::{Load, Mode, Server, Signal, TempDir, children_of, is_alive, wait_until};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

const SATURATING: Mode = Mode::KeepAlive { pause: Duration::ZERO };
const IDLING: Mode = Mode::KeepAlive { pause: Duration::from_millis(40) };

/// Every kind of load at once.
fn loads(server: &Server) -> Vec<testkit::Running> {
    let at = server.endpoint();
    let loads = [
        Load::get(at, "/json", Mode::OpenLoop { rate: 300.0 }).clients(32),
        Load::get(at, "/plaintext", Mode::CloseEach).clients(4),
        Load::get(at, "/json", SATURATING).clients(4),
        Load::get(at, "/json", IDLING).clients(12),
    ];
    loads.map(|load| load.duration(5 * BOUND).start()).into()
}

#[test]
fn two_upgrades_lose_nothing_under_any_load() {
    let mut upgradable = Upgradable::start(&["--workers", "3", "--keep-alive", "75"]);
    let running = loads(&upgradable.server);
    running[0].wait_for(50, BOUND);
    let first = upgradable.server.pid();
    upgradable.server.signal(Signal::SIGUSR2);
    let second = upgradable.successor_of(first);
    assert_eq!(upgradable.server.wait_for_exit(BOUND).code(), Some(0));
    running[0].wait_for(50, BOUND);
    signal(second, Signal::SIGUSR2);
    let third = upgradable.successor_of(second);
    wait_until("the end of the second", BOUND, || !is_alive(second));
    running[0].wait_for(50, BOUND);
    for running in running {
        running.stop().assert_nothing_lost(100);
    }
    assert_eq!(children_of(third).len(), 3);
    assert!(!upgradable.dir.join("m.pid.2").exists());
    upgradable.server.assert_log_clean(&[]);
    end(third);
}

#[test]
fn upgrades_that_fail_lose_nothing_and_change_nothing() {
    let mut upgradable = Upgradable::start(&["--workers", "2", "--upgrade-timeout", "2"]);
    let running = loads(&upgradable.server);
    let workers = upgradable.server.workers();
    let why = |count: usize| {
        upgradable.server.signal(Signal::SIGUSR2);
        let line = upgradable.server.wait_for_log_since(0, "Upgrade failed", count, BOUND);
        upgradable.server.wait_for_log_since(0, "Handling signal: usr2", count, BOUND);
        line
    };
    upgradable.replace("master", "#!/bin/sh\nexit 1\n");
    assert!(why(1).contains("it ended without giving a reason"));
    // Hangs before it is a master at all.
    upgradable.replace("master", "#!/bin/sh\nexec sleep 1000\n");
    assert!(why(2).contains("not ready within upgrade_timeout"));
    upgradable.server.wait_for_log("The new master has left", BOUND);
    // A good master, whose workers hang in their boot; then some that cannot.
    upgradable.restore("master");
    upgradable.replace("worker", "#!/bin/sh\nexec sleep 1000\n");
    // `sleep` says nothing and counts as a program that knows no READY only after `--`.
    assert!(why(3).contains("not ready within upgrade_timeout"));
    upgradable.server.wait_for_log_since(0, "The new master has left", 2, BOUND);
    upgradable.replace("worker", "#!/bin/sh\nexit 4\n");
    assert!(why(4).contains("a worker could not boot (code=4)"));
    running[0].wait_for(50, BOUND);
    for running in running {
        running.stop().assert_nothing_lost(50);
    }
    assert_eq!(upgradable.server.workers(), workers, "nothing has changed");
    assert_eq!(upgradable.pid_in("m.pid"), Some(upgradable.server.pid()));
    assert!(!upgradable.dir.join("m.pid.2").exists());
    upgradable.server.assert_log_clean(&["Upgrade failed, still serving"]);
    upgradable.server.stop();
}

#[test]
fn a_stop_before_the_verdict_waits_for_it() {
    // It boots slowly, then serves: the old one drains. Then it fails: the old one stops for real.
    for (script, fails) in [("sleep 1; exec", false), ("sleep 1; exit 1;", true)] {
        let mut upgradable = Upgradable::start(&["--workers", "2"]);
        let real = upgradable.dir.join("real");
        fs::copy(upgradable.dir.join("worker"), &real).unwrap();
        upgradable.replace("worker", &format!("#!/bin/sh\n{script} {} \"$@\"\n", real.display()));
        let running = loads(&upgradable.server);
        let first = upgradable.server.pid();
        upgradable.server.signal(Signal::SIGUSR2);
        upgradable.server.wait_for_log("Upgrading: booting", BOUND);
        upgradable.server.signal(Signal::SIGUSR2);
        upgradable.server.wait_for_log("USR2 signal ignored. Child exists.", BOUND);
        upgradable.server.signal(Signal::SIGTERM);
        upgradable.server.wait_for_log("The stop waits for the upgrade", BOUND);
        if fails {
            assert_eq!(upgradable.server.wait_for_exit(BOUND).code(), Some(0));
            assert_eq!(upgradable.pid_in("m.pid"), None);
            drop(running);
        } else {
            let second = upgradable.successor_of(first);
            assert_eq!(upgradable.server.wait_for_exit(BOUND).code(), Some(0));
            running[0].wait_for(50, BOUND);
            for running in running {
                running.stop().assert_nothing_lost(50);
            }
            end(second);
        }
        upgradable.server.assert_log_clean(&["Child exists.", "Upgrade failed"]);
    }
}

#[test]
fn a_quick_stop_and_a_stop_of_the_service_during_an_upgrade_end_both_masters() {
    for by_signal in [true, false] {
        let mut upgradable = Upgradable::start(&["--workers", "2", "--control-socket", "auto"]);
        let real = upgradable.dir.join("real");
        fs::copy(upgradable.dir.join("worker"), &real).unwrap();
        let slow = format!("#!/bin/sh\nsleep 3; exec {} \"$@\"\n", real.display());
        upgradable.replace("worker", &slow);
        let load = Load::get(upgradable.server.endpoint(), "/json", Mode::CloseEach).clients(4);
        let load = load.start();
        load.wait_for(50, BOUND);
        upgradable.server.signal(Signal::SIGUSR2);
        let line = upgradable.server.wait_for_log("Upgrading: booting another master pid=", BOUND);
        let second: u32 =
            line.split("pid=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        // It has workers under way, so that there is something to clean up.
        wait_until("its workers", BOUND, || children_of(second).len() == 2);
        let family = children_of(second);
        if by_signal {
            upgradable.server.signal(Signal::SIGINT);
        } else {
            let pid = upgradable.server.pid().to_string();
            let mut ctl = std::process::Command::new(upgradable.dir.join("master"));
            ctl.args(["ctl", "--pidfile", upgradable.dir.join("m.pid").to_str().unwrap(), "stop"]);
            assert!(ctl.status().unwrap().success(), "ctl stop of {pid}");
        }
        assert_eq!(upgradable.server.wait_for_exit(BOUND).code(), Some(0));
        wait_until("the end of the new master and its workers", BOUND, || {
            [&[second], &family[..]].concat().iter().all(|&pid| !is_alive(pid))
        });
        let report = load.stop();
        if !by_signal {
            let refused =
                report.failures.get(&testkit::load::Failure::Refused).copied().unwrap_or(0);
            assert_eq!(
                report.failed(),
                refused,
                "what was sent before the stop is answered: {report}"
            );
        }
        // A quick stop may find a request in hand.
        let cut: &[&str] = if by_signal { &["Connections cut at the end"] } else { &[] };
        upgradable.server.assert_log_clean(&[&["Upgrade failed"], cut].concat());
    }
}

#[test]
fn gunicorns_ritual_forwards_and_back() {
    let mut upgradable = Upgradable::start(&["--workers", "2", "--upgrade", "manual"]);
    let running = loads(&upgradable.server);
    let first = upgradable.server.pid();
    let begin = |count| {
        upgradable.server.signal(Signal::SIGUSR2);
        upgradable.server.wait_for_log_since(0, "both masters serve", count, BOUND);
        let second = upgradable.pid_in("m.pid.2").expect("gunicorn's second pidfile");
        assert_eq!(upgradable.pid_in("m.pid"), Some(first));
        second
    };
    // Back: the old workers go, then come again; the new master drains only.
    let second = begin(1);
    let title = fs::read(format!("/proc/{second}/cmdline")).unwrap();
    assert!(String::from_utf8_lossy(&title).contains("master.2"), "{title:?}");
    upgradable.server.signal(Signal::SIGWINCH);
    upgradable.server.wait_for_workers(0, BOUND);
    running[0].wait_for(50, BOUND);
    upgradable.server.signal(Signal::SIGHUP);
    upgradable.server.wait_for_workers(2, BOUND);
    upgradable.server.wait_for_log("Reloaded generation=1", BOUND);
    end(second);
    upgradable.server.wait_for_log("The new master has left, this one goes on", BOUND);
    assert!(!upgradable.dir.join("m.pid.2").exists());
    running[0].wait_for(50, BOUND);
    // Forwards.
    let second = begin(2);
    upgradable.server.signal(Signal::SIGWINCH);
    upgradable.server.wait_for_workers(0, BOUND);
    upgradable.server.signal(Signal::SIGTERM);
    assert_eq!(upgradable.server.wait_for_exit(BOUND).code(), Some(0));
    upgradable.server.wait_for_log("Master has been promoted.", BOUND);
    assert_eq!(upgradable.successor_of(first), second);
    assert!(!upgradable.dir.join("m.pid.2").exists());
    running[0].wait_for(50, BOUND);
    for running in running {
        running.stop().assert_nothing_lost(100);
    }
    upgradable.server.assert_log_clean(&[]);
    end(second);
}

#[test]
fn a_dismissed_master_comes_back_when_the_new_one_dies() {
    let mut upgradable = Upgradable::start(&["--workers", "2", "--upgrade", "manual"]);
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.wait_for_log("both masters serve", BOUND);
    let second = upgradable.pid_in("m.pid.2").unwrap();
    upgradable.server.signal(Signal::SIGWINCH);
    upgradable.server.wait_for_workers(0, BOUND);
    signal(second, Signal::SIGKILL);
    upgradable.server.wait_for_workers(2, BOUND);
    assert_eq!(upgradable.server.get("/json").status, 200);
    upgradable.server.stop();
}

#[test]
fn addresses_and_workers_may_change_with_the_program() {
    let dir = TempDir::new();
    let (kept, dropped, added) =
        (dir.join("kept.sock"), dir.join("dropped.sock"), dir.join("added.sock"));
    let settings = dir.join("settings.toml");
    let write = |workers: u32, sockets: [&PathBuf; 2]| {
        let [one, two] = sockets.map(|path| path.display().to_string());
        let text =
            format!("workers = {workers}\nbind = ['127.0.0.1:0', 'unix:{one}', 'unix:{two}']\n");
        fs::write(&settings, text).unwrap();
    };
    write(2, [&kept, &dropped]);
    let file = settings.display().to_string();
    let mut upgradable = Upgradable::with(&["--config", &file], |builder| builder.without_bind());
    let endpoints = upgradable.server.endpoints().to_vec();
    let on_dropped = Load::get(&endpoints[2], "/json", Mode::CloseEach).clients(2).start();
    let on_kept = Load::get(&endpoints[1], "/json", Mode::CloseEach).clients(2);
    let mut running = loads(&upgradable.server);
    running.push(on_kept.duration(5 * BOUND).start());
    running[0].wait_for(50, BOUND);
    write(4, [&kept, &added]);
    let first = upgradable.server.pid();
    upgradable.server.signal(Signal::SIGUSR2);
    let second = upgradable.successor_of(first);
    assert_eq!(upgradable.server.wait_for_exit(BOUND).code(), Some(0));
    assert_eq!(children_of(second).len(), 4);
    assert!(kept.exists() && added.exists());
    assert!(!dropped.exists(), "a dropped path goes with the old master");
    testkit::http::get(&added.as_path().into(), "/json").unwrap();
    running[0].wait_for(50, BOUND);
    for running in running {
        running.stop().assert_nothing_lost(50);
    }
    // What came after the end is refused, which is right; nothing was cut.
    let report = on_dropped.stop();
    let refused = report.failures.get(&testkit::load::Failure::Refused).copied().unwrap_or(0);
    assert_eq!(report.failed(), refused, "{report}");
    upgradable.server.assert_log_clean(&[]);
    end(second);
    assert!(!kept.exists() && !added.exists());
}

#[test]
fn listeners_of_a_service_manager_are_handed_on() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held = listener.try_clone().unwrap();
    let mut upgradable =
        Upgradable::with(&["--workers", "2"], |builder| builder.listener(listener));
    let running = loads(&upgradable.server);
    running[0].wait_for(50, BOUND);
    let first = upgradable.server.pid();
    upgradable.server.signal(Signal::SIGUSR2);
    let second = upgradable.successor_of(first);
    assert_eq!(upgradable.server.wait_for_exit(BOUND).code(), Some(0));
    running[0].wait_for(50, BOUND);
    for running in running {
        running.stop().assert_nothing_lost(50);
    }
    upgradable.server.assert_log_clean(&[]);
    end(second);
    drop(held);
}
