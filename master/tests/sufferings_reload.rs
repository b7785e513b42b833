//! What gunicorn's users suffer from at a reload, shown to be gone. The numbers are those of docs/gunicorn.md.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use support::{Folder, Load, Server, get, master};

/// A program that takes its time before it can serve: an application that imports half the world.
fn slow_program(folder: &Folder, name: &str) -> String {
    let worker = master().with_file_name("worker");
    let script = format!("#!/bin/sh\nsleep 1.5\nexec {}\n", worker.display());
    folder.write_program(name, &script).to_str().unwrap().to_owned()
}

#[test]
fn s01_reload_loses_no_request_however_long_new_workers_boot() {
    let folder = Folder::new();
    let program = slow_program(&folder, "app");
    let server = Server::start_in(folder, &["--workers", "2", &program]);
    let (address, is_over) = (server.address(), Arc::new(AtomicBool::new(false)));
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let client = {
        let (address, is_over, longest) = (address, Arc::clone(&is_over), Arc::clone(&longest));
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                get(&address, "/json").expect("never refused, reset or cut");
                let mut longest = longest.lock().unwrap();
                *longest = longest.max(began.elapsed());
            }
        })
    };
    for round in 1..=2 {
        server.signal(Signal::SIGHUP);
        server.wait_for_lines("Reloaded generation=", round);
    }
    is_over.store(true, Ordering::Relaxed);
    client.join().unwrap();
    let longest = *longest.lock().unwrap();
    assert!(longest < Duration::from_millis(1_400), "somebody waited for a boot: {longest:?}");
    server.wait_until("the old ones' end", || server.workers().len() == 2);
    server.stop();
}

#[test]
fn s02_new_code_that_cannot_boot_leaves_the_service_alone() {
    let folder = Folder::new();
    let worker = master().with_file_name("worker");
    let program = folder.write_program("app", &format!("#!/bin/sh\nexec {}\n", worker.display()));
    let mut server = Server::start_in(folder, &["--workers", "2", program.to_str().unwrap()]);
    server.expect("Reload failed, still serving");
    server.expect("exited with code");
    server.expect("was sent SIGKILL!");
    let load = Load::start(&server.address(), 2, Duration::from_millis(5));

    for (round, code) in [3, 4].into_iter().enumerate() {
        server.folder.write_program("app", &format!("#!/bin/sh\nexit {code}\n"));
        // By a reload …
        server.signal(Signal::SIGHUP);
        server.wait_for_lines("Reload failed, still serving generation=0", round + 1);
        // … by one worker more …
        server.signal(Signal::SIGTTIN);
        server.wait_for_lines("wanted=3 before=2", round + 1);
        server.wait_for_line(&format!("exited with code {code} slot=2"));
        server.signal(Signal::SIGTTOU);
        server.wait_for_lines("wanted=2 before=3", round + 1);
    }
    // … and by the replacement of one that dies.
    kill(server.workers()[0], Signal::SIGKILL).unwrap();
    server.wait_for_line("was sent SIGKILL!");
    let is_retried = |line: &str| line.contains("slot=0") && line.contains("ready=never failures=");
    server.wait_until("its replacement's end", || server.log().lines().any(is_retried));
    get(&server.address(), "/json").expect("the other one serves on");

    server.folder.write_program("app", &format!("#!/bin/sh\nexec {}\n", worker.display()));
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=");
    let (answered, failed) = load.finish();
    let lost: Vec<&String> = failed.iter().filter(|why| why.contains("refused")).collect();
    assert!(lost.is_empty() && failed.len() <= 2 && 20 < answered, "{answered}, {failed:?}");
    server.stop();
}

#[test]
fn s03_a_typo_at_reload_leaves_the_service_alone() {
    let folder = Folder::new();
    folder.write("monoceros.toml", "workers = 2\npidfile = 'm.pid'\n");
    let mut server = Server::start_in(folder, &[]);
    server.expect("Reload failed");
    let before = server.workers();
    for (round, text) in
        ["wrokers = 3", "workers = 0", "workers = [", "database = 'mysql://x'", "certfile = 'a'"]
            .iter()
            .enumerate()
    {
        server.folder.write("monoceros.toml", text);
        server.signal(Signal::SIGHUP);
        server.wait_for_lines("Reload failed", round + 1);
        get(&server.address(), "/json").unwrap();
        let (code, said) = support::run(&server.folder, &["--check-config"]);
        assert_eq!(code, Some(78), "the check sees what the reload sees: {said}");
    }
    assert_eq!(server.workers(), before);
    assert_eq!(server.count("[ERROR]"), 5, "one line each: {}", server.log());
    assert!(
        server
            .log()
            .contains("monoceros.toml:1:1: unknown setting \"wrokers\", did you mean \"workers\"?")
    );
    assert!(server.folder.path("m.pid").exists());
    server.folder.write("monoceros.toml", "workers = 1\npidfile = 'm.pid'\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=");
    server.stop();
}
