//! Workers come, die, hang and are replaced; the master survives all of it.

mod support;

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use support::{Folder, Load, PATIENCE, Server, get, run};

#[test]
fn serves_and_stops_with_gunicorns_words() {
    let mut server = Server::start(&["--workers", "2"]);
    assert!(get(&server.address(), "/json").unwrap().ends_with("{\"message\":\"Hello, World!\"}"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    let log = server.log();
    for words in [
        "[INFO] Starting monoceros ",
        "[INFO] Listening at: http://127.0.0.1:",
        "[INFO] Using worker: ",
        "[INFO] Booting worker with pid: ",
        "[INFO] Handling signal: term",
        "[INFO] Shutting down: Master",
    ] {
        assert!(log.contains(words), "{words:?} is missing in:\n{log}");
    }
    server.check_log();
}

#[test]
fn a_backlog_that_the_kernel_caps_is_told() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let more = (most.trim().parse::<u32>().unwrap() + 1).to_string();
    let args = ["--bind", "127.0.0.1:0", "--bind", "unix:m.sock", "--backlog"];
    for (backlog, warnings) in [(more.as_str(), 2), (most.trim(), 0)] {
        let mut server = Server::start(&[&args[..], &[backlog]].concat()[2..]);
        server.expect("The kernel caps the backlog");
        assert_eq!(server.count("The kernel caps the backlog"), warnings, "{}", server.log());
        server.stop();
    }
}

#[test]
fn killed_worker_is_replaced_at_once() {
    let mut server = Server::start(&["--workers", "2"]);
    server.expect("was sent SIGKILL!");
    let first = server.workers();
    kill(first[0], Signal::SIGKILL).unwrap();
    server.wait_for_lines("Worker ready", 3);
    assert!(server.workers().contains(&first[1]) && server.workers().len() == 2);
    assert_eq!(server.count("failures=1 retry_in_s=0.0"), 1);
    server.stop();
}

#[test]
fn silent_worker_is_replaced() {
    let mut server = Server::start(&["--workers", "2", "--timeout", "1"]);
    server.expect("WORKER TIMEOUT");
    server.expect("Killing worker, its time is over");
    let stopped = server.workers()[0];
    kill(stopped, Signal::SIGSTOP).unwrap();
    // Its successor need not wait for its end.
    server.wait_for_lines("Worker ready", 3);
    assert!(
        server.log().contains(&format!("WORKER TIMEOUT (pid:{stopped}) slot=0")),
        "{}",
        server.log()
    );
    server.wait_until("its end", || !server.workers().contains(&stopped));
    assert_eq!(server.count("WORKER TIMEOUT"), 1);
    server.stop();
}

#[test]
fn stopped_master_kills_nobody() {
    let mut server = Server::start(&["--workers", "2", "--timeout", "2"]);
    server.expect("Master was paused");
    let before = server.workers();
    server.signal(Signal::SIGSTOP);
    for worker in &before {
        kill(*worker, Signal::SIGSTOP).unwrap();
    }
    std::thread::sleep(Duration::from_secs(4)); // The pause itself: twice the timeout.
    server.signal(Signal::SIGCONT);
    for worker in &before {
        kill(*worker, Signal::SIGCONT).unwrap();
    }
    server.wait_for_line("Master was paused");
    get(&server.address(), "/json").unwrap();
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn first_boot_that_cannot_succeed_ends_with_gunicorns_codes() {
    for (script, code, reason) in [
        ("exit 3", 3, "Reason: Worker failed to boot."),
        ("exit 4", 4, "Reason: App failed to load."),
        ("kill -9 $$", 3, "Reason: Worker failed to boot."),
    ] {
        let folder = Folder::new();
        let (got, log) = run(&folder, &["-b", "127.0.0.1:0", "-w", "3", "--", "sh", "-c", script]);
        assert_eq!(got, Some(code), "{log}");
        assert!(log.contains(reason), "{log}");
        assert_eq!(log.matches("Booting worker").count(), 3, "each slot once: {log}");
    }
}

#[test]
fn s07_crash_loop_slows_down_and_never_stops_a_server_that_was_ready() {
    let folder = Folder::new();
    // Ready once, then every further worker dies in its boot.
    let script = "#!/bin/sh\nif mkdir once 2>/dev/null; then exec python3 -c '
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b\"READY=1\", \"\\0\" + os.environ[\"NOTIFY_SOCKET\"][1:])
time.sleep(0.5)
os._exit(7)'
fi
exit 9
";
    let program = folder.write_program("app", script);
    let mut server = Server::start_in(folder, &["--", program.to_str().unwrap()]);
    server.expect("exited with code");
    server.wait_for_line("failures=3");
    let log = server.log();
    assert!(log.contains("exited with code 7") && log.contains("exited with code 9"), "{log}");
    assert!(log.contains("failures=1 retry_in_s=0.0"), "{log}");
    server.stop();
}

#[test]
fn more_and_fewer_workers_by_signal_lose_nothing() {
    let server = Server::start(&["--workers", "2"]);
    let load = Load::start(&server.address(), 4, Duration::from_millis(2));
    for round in 1..=5 {
        server.signal(Signal::SIGTTIN);
        server.wait_for_lines("Worker ready", 2 + round);
        assert_eq!(server.workers().len(), 3);
        server.signal(Signal::SIGTTOU);
        server.wait_for_lines("Worker exited", round);
        assert_eq!(server.workers().len(), 2);
    }
    let (answered, failed) = load.finish();
    assert!(failed.is_empty() && 100 < answered, "{answered} answered, failed: {failed:?}");
    server.signal(Signal::SIGTTOU);
    server.wait_for_line("wanted=1 before=2");
    server.signal(Signal::SIGTTOU);
    server.wait_for_line("wanted=1 before=1");
    server.stop();
}

#[test]
fn workers_of_a_killed_master_finish_and_go() {
    let mut server = Server::start(&["--workers", "2"]);
    let (address, workers) = (server.address(), server.workers());
    server.signal(Signal::SIGKILL);
    server.wait_status();
    let is_alive =
        |pid: &nix::unistd::Pid| std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists();
    server.wait_until("the end of the workers", || !workers.iter().any(is_alive));
    assert!(get(&address, "/json").is_err(), "nobody may hold the port without serving it");
}

#[test]
fn quick_stop_does_not_wait_and_a_second_one_insists() {
    let folder = Folder::new();
    // Ignores everything that asks politely.
    let script = "import signal, time
for name in ('TERM', 'QUIT', 'INT'): signal.signal(getattr(signal, 'SIG' + name), signal.SIG_IGN)
time.sleep(1000)";
    let mut server = Server::start_in(folder, &["--", "python3", "-c", script]);
    server.expect("Killing worker, its time is over");
    server.expect("Shutting down: Master code=130");
    server.signal(Signal::SIGINT);
    server.wait_for_line("Handling signal: int");
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait(), Some(130), "{}", server.log());
    server.wait_for_line("Quick shutdown requested");
    server.check_log();
    assert!(PATIENCE > Duration::from_secs(2));
}

#[test]
fn a_request_that_blocks_its_worker_ends_with_it_also_without_a_timeout() {
    let args = ["--workers", "1", "--timeout", "0", "--request-timeout", "1", support::features()];
    let mut server = Server::start(&args);
    server.expect("WORKER TIMEOUT");
    server.expect("Worker aborted with a request in hand");
    let mut client = std::net::TcpStream::connect(server.address()).unwrap();
    client.write_all(b"GET /block/60000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    server.wait_for_line("reason=request_timeout method=GET path=/block/60000 request_age_s=3.");
    server.wait_for_lines("Worker ready", 2);
    get(&server.address(), "/block/1").expect("the next worker answers");
    server.stop();
}
