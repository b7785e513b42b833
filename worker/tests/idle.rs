//! Ten thousand idle connections on one worker: held, answered, and cheap.

#![allow(clippy::unwrap_used)] // A helper that cannot go on fails its test.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{PATIENCE, Worker, bundled, start};

const CONNECTIONS: usize = 10_000;
/// Opened before any of them is spoken to.
const BATCH: usize = 100;
/// Most memory of the worker that one idle connection may hold, in bytes.
const BYTES_EACH_MAX: u64 = 1024;
/// Requests whose time is taken.
const SAMPLES: usize = 2_000;

const REQUEST: &[u8] = b"GET /json HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn ten_thousand_idle_connections_are_held_and_answered_for_less_than_a_kibibyte_each() {
    let allowed = sys::limits::raise_open_files().unwrap();
    if allowed < CONNECTIONS as u64 + 200 {
        println!("skipped: a process may have {allowed} open files only");
        return;
    }
    let worker = start(bundled(), |settings| {
        settings.worker_connections = CONNECTIONS + 100;
        settings.keepalive = Duration::from_secs(600);
        settings.header_timeout = Duration::from_secs(600);
    });
    let mut probe = open(&worker);
    let quiet = latencies(&mut probe);

    let before = private_bytes(&worker);
    let mut all: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
    while all.len() < CONNECTIONS {
        let first = all.len();
        all.extend((0..BATCH).map(|_| open(&worker)));
        // Each has been in use, as it would have been behind a proxy or a browser.
        ask(&mut all[first..]);
    }
    let each = private_bytes(&worker).saturating_sub(before) / CONNECTIONS as u64;
    let beside = latencies(&mut probe);
    println!(
        "{CONNECTIONS} idle connections: {each} bytes each; /json p50 {:?} p99 {:?}, alone p50 {:?} p99 {:?}",
        beside.0, beside.1, quiet.0, quiet.1
    );
    assert!(each < BYTES_EACH_MAX, "an idle connection holds {each} bytes");
    // They are still there, every one.
    for batch in all.chunks_mut(BATCH) {
        ask(batch);
    }
    // The machine may be loaded; an order of magnitude would be a fault of the loop.
    assert!(beside.1 < quiet.1 * 10 + Duration::from_millis(50), "{beside:?} against {quiet:?}");
    drop((all, probe));
    worker.stop();
}

fn open(worker: &Worker) -> TcpStream {
    let stream = TcpStream::connect(worker.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks on all of them, then reads all answers.
fn ask(streams: &mut [TcpStream]) {
    for stream in streams.iter_mut() {
        stream.write_all(REQUEST).unwrap();
    }
    for stream in streams {
        read_answer(stream);
    }
}

fn read_answer(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with(b"}") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count != 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
}

/// Median and 99th percentile of requests one after the other.
fn latencies(stream: &mut TcpStream) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            stream.write_all(REQUEST).unwrap();
            read_answer(stream);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[SAMPLES / 2], times[SAMPLES * 99 / 100])
}

/// What the worker has written to and shares with nobody, in bytes.
fn private_bytes(worker: &Worker) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", worker.pid())).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
