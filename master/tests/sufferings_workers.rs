//! What gunicorn's users suffer from in workers, shown to be gone. The numbers are those of docs/gunicorn.md.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Folder, PATIENCE, Server, features, get, run};

#[test]
fn s08_a_failed_boot_is_one_clear_end() {
    let folder = Folder::new();
    // Says why, as the contract has it, and leaves.
    let script = "#!/usr/bin/env python3
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'ERRNO=5\\nSTATUS=the database is down', '\\0' + os.environ['NOTIFY_SOCKET'][1:])
sys.exit(3)
";
    let program = folder.write_program("app", script);
    let args = ["-b", "127.0.0.1:0", "-w", "4", "--pid", "m.pid", program.to_str().unwrap()];
    let (code, log) = run(&folder, &args);
    assert_eq!(code, Some(3), "{log}");
    assert_eq!(log.matches("reason=\"the database is down\" ready=never").count(), 4, "{log}");
    assert_eq!(log.matches("Reason: Worker failed to boot.").count(), 1, "{log}");
    assert_eq!(log.matches("Shutting down: Master code=3").count(), 1, "{log}");
    assert!(!log.contains("Traceback") && !log.contains("panicked"), "{log}");
    assert!(!folder.path("m.pid").exists(), "nothing is left behind");
}

#[test]
fn s09_requests_have_a_time_limit_of_their_own() {
    let args = ["--request-timeout", "0.5", "--timeout", "2", "--workers", "1"];
    let mut server = Server::start(&[&args[..], &[features()]].concat());
    server.expect("WORKER TIMEOUT");
    server.expect("Worker aborted with a request in hand");
    server.expect("Request timed out: GET /sleep/60000");
    let address = server.address();
    // One that waits is answered for, and its worker goes on.
    let before = server.workers();
    let began = Instant::now();
    let error = get(&address, "/sleep/60000").unwrap_err().to_string();
    assert!(error.starts_with("HTTP/1.1 504 "), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    get(&address, "/hello/you").unwrap();
    assert_eq!(server.workers(), before);
    // One that holds the loop itself costs its worker.
    let error = get(&address, "/block/60000").expect_err("cut off");
    assert!(began.elapsed() < PATIENCE, "{error}");
    server.wait_for_lines("Worker ready", 2);
    get(&address, "/hello/you").unwrap();
    server.stop();
}

#[test]
fn many_slow_requests_are_not_one_that_hangs() {
    const REQUESTS: usize = 30;
    // All together take far longer than the timeout, each of them far less.
    let server = Server::start(&["--timeout", "1", "--workers", "1", features()]);
    let before = server.workers();
    let request = "GET /block/100 HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut pipelining = TcpStream::connect(server.address()).unwrap();
    pipelining.write_all(request.repeat(REQUESTS).as_bytes()).unwrap();
    let mut others: Vec<_> =
        (0..REQUESTS / 2).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    for other in &mut others {
        other.write_all(request.as_bytes()).unwrap();
    }
    let answered = |stream: &mut TcpStream, count: usize| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        while String::from_utf8_lossy(&text).matches("\r\n\r\nblocked\n").count() < count {
            let read = stream.read(&mut piece).unwrap();
            assert_ne!(read, 0, "the end, after {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&piece[..read]);
        }
    };
    for other in &mut others {
        answered(other, 1);
    }
    answered(&mut pipelining, REQUESTS);
    assert_eq!(server.workers(), before);
    server.stop();
}

#[test]
fn s10_the_log_says_what_a_silent_worker_was_doing() {
    let mut server = Server::start(&["--timeout", "1", features()]);
    server.expect("WORKER TIMEOUT");
    server.expect("Worker aborted with a request in hand");
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /block/60000?secret=1 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let peer = stream.local_addr().unwrap();
    server.wait_for_line("WORKER TIMEOUT (pid:");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("WORKER TIMEOUT")).unwrap();
    for part in ["[CRITICAL]", " silent_s=1", " method=GET path=/block/60000 request_age_s="] {
        assert!(line.contains(part), "{part:?} is missing: {line}");
    }
    // What the kernel says of it, and whose request it was; a query may hold what no log may.
    assert!(line.contains(&format!(" peer={}", peer.ip())), "{line}");
    assert!(line.contains(" process_state=") && !line.contains("secret"), "{line}");
    server.wait_for_lines("Worker ready", 2);
    server.stop();
}

#[test]
fn s11_a_boot_that_hangs_is_noticed_at_start_and_at_reload() {
    let folder = Folder::new();
    // It knows the protocol, so it does not count as ready by merely living.
    let hanging = "#!/usr/bin/env python3
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'STATUS=importing for ever', '\\0' + os.environ['NOTIFY_SOCKET'][1:])
time.sleep(1000)
";
    let program = folder.write_program("app", hanging);
    let program = program.to_str().unwrap();
    let args = ["-b", "127.0.0.1:0", "--boot-timeout", "1", "--timeout", "60"];
    let (code, log) = run(&folder, &[&args[..], &[program]].concat());
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("WORKER TIMEOUT") && log.contains("reason=boot_timeout"), "{log}");

    folder.write_program("app", &format!("#!/bin/sh\nexec {}\n", features()));
    let mut server = Server::start_in(folder, &[&args[2..], &[program]].concat());
    for part in ["WORKER TIMEOUT", "Reload failed", "Killing worker"] {
        server.expect(part);
    }
    server.folder.write_program("app", hanging);
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reload failed, still serving generation=0 workers=1");
    get(&server.address(), "/hello/you").unwrap();
    server.stop();
}

#[test]
fn s13_slow_clients_hold_nobody_up() {
    let args = ["--workers", "1", "--header-timeout", "2", "--write-timeout", "2"];
    let server = Server::start(&[&args[..], &[features()]].concat());
    let address = server.address();
    let open = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // Silent, with half a head, with half a body, and one that asks for much and takes nothing.
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..30 {
        slow.push(open(b""));
        slow.push(open(b"GET /hello/you HTTP/1.1\r\nHost: te"));
        slow.push(open(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf"));
        slow.push(open(b"GET /big/9000000 HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    let began = Instant::now();
    for _ in 0..50 {
        get(&address, "/hello/you").unwrap();
    }
    let each = began.elapsed() / 50;
    assert!(each < Duration::from_millis(200), "the one worker was held up: {each:?}");
    // Half a head is given up with an answer, in time.
    let mut answer = String::new();
    slow[1].read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(slow);
    server.stop();
}

#[test]
fn s17_json_lines_cannot_be_forged() {
    let args = ["--access-logfile", "access", "--access-logformat", "json"];
    let server = Server::start(&[&args[..], &[features()]].concat());
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let agent = r#"x","forged":"yes","y":"\"#;
    let request = format!(
        "GET /hello/%22you%0A?a=\"b\" HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let access = || std::fs::read_to_string(server.folder.path("access")).unwrap_or_default();
    server.wait_until("a line", || access().ends_with('\n'));
    let text = access();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line.get("forged"), None, "{text}");
    let has_agent = |value: &serde_json::Value| value.as_str() == Some(agent);
    assert!(line.as_object().unwrap().values().any(has_agent), "{text}");
    server.stop();
}

#[test]
fn s19_every_request_has_a_line_in_the_access_log() {
    let args = ["--access-logfile", "access", "--request-timeout", "0.3", "--workers", "1"];
    let mut server = Server::start(&[&args[..], &[features()]].concat());
    server.expect("Invalid request from ip=127.0.0.1");
    server.expect("Request timed out");
    let address = server.address();
    get(&address, "/hello/you").unwrap();
    let say = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let rest = |mut stream: TcpStream| {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
    };
    rest(say(b"BROKEN\r\n\r\n")); // Cannot be understood.
    rest(say(b"GET /sleep/60000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")); // Too late.
    drop(say(b"GET /hello/gone HTTP/1.1\r\nHos")); // Goes away in the middle.
    let access = || std::fs::read_to_string(server.folder.path("access")).unwrap_or_default();
    for part in [
        "\"GET /hello/you HTTP/1.1\" 200 ",
        "\" 400 ",
        "\"GET /sleep/60000 HTTP/1.1\" 504 ",
        "\"GET /hello/gone HTTP/1.1\" 499 ",
    ] {
        server.wait_until(part, || access().contains(part));
    }
    assert_eq!(access().lines().count(), 4, "{}", access());
    server.stop();
}
