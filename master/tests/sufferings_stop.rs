//! What gunicorn's users suffer from when processes end, shown to be gone. The numbers are those of docs/gunicorn.md.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use support::{PATIENCE, Server};

const REQUEST: &[u8] = b"GET /json HTTP/1.1\r\nHost: test\r\n\r\n";

/// Connections that wait to be accepted, each with its request sent: all workers stand still.
fn queue(server: &Server, count: usize) -> Vec<TcpStream> {
    for worker in server.workers() {
        kill(worker, Signal::SIGSTOP).unwrap();
    }
    let address = server.address();
    let connect = |_| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(REQUEST).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Kept connections would keep a stop for as long as they may idle, so each goes with its answer.
#[track_caller]
fn is_answered(mut stream: TcpStream, server: &Server) {
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[test]
fn s04_connections_in_the_queue_are_answered_at_a_stop() {
    let mut server = Server::start(&["--workers", "2", "--keep-alive", "30"]);
    let waiting = queue(&server, 60);
    server.signal(Signal::SIGTERM);
    server.wait_for_line("Handling signal: term");
    for worker in server.workers() {
        kill(worker, Signal::SIGCONT).unwrap();
    }
    waiting.into_iter().for_each(|stream| is_answered(stream, &server));
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    server.check_log();
}

#[test]
fn s14_connections_in_the_queue_survive_the_worker_they_were_meant_for() {
    // A listener for each worker, and half of them lose theirs.
    let mut server = Server::start(&["--workers", "4", "--keep-alive", "30"]);
    server.expect("was sent SIGKILL!");
    let workers = server.workers();
    let waiting = queue(&server, 80);
    for victim in &workers[..2] {
        kill(*victim, Signal::SIGKILL).unwrap();
    }
    server.wait_for_lines("Worker ready", 6);
    for worker in &workers[2..] {
        kill(*worker, Signal::SIGCONT).unwrap();
    }
    waiting.into_iter().for_each(|stream| is_answered(stream, &server));
    server.signal(Signal::SIGTTOU);
    server.wait_for_line("wanted=3");
    server.wait_until("three workers", || server.workers().len() == 3);
    server.stop();
}

#[test]
fn s12_heartbeats_touch_no_disk() {
    let server = Server::start(&["--workers", "2"]);
    for pid in server.workers().into_iter().chain([server.pid()]) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap();
            // Closed meanwhile: not what is looked for.
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let is_harmless = ["socket:", "pipe:", "anon_inode:", "/memfd:", "/dev/null", "/proc/"]
                .iter()
                .any(|kind| target.starts_with(kind));
            assert!(
                is_harmless || target.ends_with("/log"),
                "{pid} has {target} open, which may be on a slow disk"
            );
        }
    }
    // Only the test's own log and settings: nothing was made for the heartbeat.
    let made: Vec<_> = std::fs::read_dir(server.folder.path("")).unwrap().flatten().collect();
    assert_eq!(made.len(), 1, "{made:?}");
    std::thread::sleep(Duration::from_millis(100)); // Some turns of everybody's loop.
    server.stop();
}
