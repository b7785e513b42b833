//! A host that answers on a thread of its own: time limits, waiting, the drain.

mod common;

use std::time::{Duration, Instant};

use common::{Signal, Worker, example, start};
use sys::pidfd::Exit;

/// A worker whose requests may take so many milliseconds.
fn hosted(request_ms: u64) -> Worker {
    start(example("hosted"), |settings| {
        settings.request_timeout = Some(Duration::from_millis(request_ms));
        settings.accesslog = Some("-".to_owned());
    })
}

#[test]
fn answers_come_from_another_thread_one_after_the_other() {
    let mut worker = hosted(10_000);
    let mut clients: Vec<_> = (0..5).map(|_| worker.connect()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            client.send(
                "GET /whole/5 HTTP/1.1\r\nHost: a\r\n\r\nGET /pieces/5 HTTP/1.1\r\nHost: a\r\n\r\n",
            );
        }
        for client in &mut clients {
            assert_eq!(client.reply().body, b"end\n");
            assert_eq!(client.reply().body, b"piece\npiece\npiece\nend\n");
        }
    }
    worker.signal(Signal::SIGTERM);
    drop(clients);
    assert_eq!(worker.wait(), Exit::Code(0));
}

#[test]
fn who_has_no_answer_in_time_is_told_so_with_the_host_and_before_it() {
    let mut worker = hosted(300);
    let (mut with, mut before) = (worker.connect(), worker.connect());
    // Both are there before the thread is busy: then no connection is accepted.
    with.get("/whole/0");
    before.get("/whole/0");
    with.send("GET /whole/2500 HTTP/1.1\r\nHost: a\r\n\r\n");
    worker.await_log("At work path=/whole/2500");
    before.send("GET /whole/0 HTTP/1.1\r\nHost: a\r\n\r\n");
    let began = Instant::now();
    for client in [&mut with, &mut before] {
        let reply = client.reply();
        assert!(reply.head.starts_with("HTTP/1.1 504 "), "{}", reply.head);
    }
    assert!(began.elapsed() < Duration::from_millis(2_000), "{:?}", began.elapsed());
    worker.await_log("[WARNING] Request timed out: GET /whole/2500");
    worker.await_log("[WARNING] Request timed out: GET /whole/0");
    // The thread comes to its end later, and is of use again.
    assert_eq!(worker.connect().get("/whole/0").body, b"end\n");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Exit::Code(0));
}

#[test]
fn a_response_that_stops_in_its_middle_is_cut_and_one_that_moves_is_not() {
    let worker = hosted(600);
    assert_eq!(worker.connect().get("/pieces/250").body, b"piece\npiece\npiece\nend\n");
    let mut client = worker.connect();
    client.send("GET /pieces/1500 HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = client.rest();
    assert!(all.ends_with("piece\n\r\n"), "{all:?}");
    assert_eq!(all.matches("piece").count(), 1, "{all:?}");
    worker.await_log("[WARNING] Request timed out: GET /pieces/1500");
    // The master's part: its thread is at work for some seconds more.
    drop(worker);
}

#[test]
fn a_drain_waits_for_what_a_thread_is_at_though_its_client_is_gone() {
    let mut worker = hosted(10_000);
    let mut client = worker.connect();
    client.send("GET /pieces/250 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.wait_readable();
    client.reset();
    let began = Instant::now();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Exit::Code(0));
    let took = began.elapsed();
    assert!(Duration::from_millis(400) < took && took < Duration::from_secs(5), "{took:?}");
}
