//! Responses that are made while they are sent: framing, back-pressure, failures, early hints.

mod common;

use std::io::Read;
use std::time::{Duration, Instant};

use common::{PATIENCE, Signal, example, start, until};

#[test]
fn a_stream_is_framed_by_what_client_and_handler_say() {
    let worker = start(example("bodies"), |_| ());
    let mut client = worker.connect();
    for bytes in [0, 1, 9_999, 300_000] {
        let reply = client.get(&format!("/stream/{bytes}")).expect(200);
        assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
        assert_eq!(reply.header("content-length"), None);
        assert_eq!(reply.body, vec![b's'; bytes]);
    }
    let reply = client.get("/stream/300000/of/300000").expect(200);
    assert_eq!(reply.header("transfer-encoding"), None);
    assert_eq!(reply.body.len(), 300_000);
    // For HEAD nothing is produced, and the connection goes on.
    client.send("HEAD /stream/1000000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head_reply().expect(200);
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    // Pipelined behind each other.
    client.send(&"GET /stream/100000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5));
    for _ in 0..5 {
        assert_eq!(client.reply().expect(200).body.len(), 100_000);
    }
    // HTTP/1.0 knows no chunks: the end of the connection is the end of the body, kept alive or not.
    let mut old = worker.connect();
    old.send("GET /stream/100000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = old.head_reply().expect(200);
    assert_eq!(head.header("transfer-encoding"), None);
    assert_eq!(head.header("connection"), None);
    assert_eq!(old.rest().len(), 100_000);
    drop(client);
    worker.stop();
}

#[test]
fn pieces_leave_when_they_are_flushed() {
    let worker = start(example("bodies"), |_| ());
    let mut client = worker.connect();
    client.send("GET /ticks/3 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head_reply().expect(200);
    let began = Instant::now();
    assert_eq!(client.take(7), b"2\r\n0\n\r\n");
    let first = began.elapsed();
    assert_eq!(client.take(19), b"2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n");
    assert!(first + Duration::from_millis(35) < began.elapsed(), "they came together");
    drop(client);
    worker.stop();
}

#[test]
fn a_client_that_does_not_read_makes_the_producer_wait() {
    let worker = start(example("bodies"), |settings| {
        settings.write_timeout = Duration::from_millis(300);
    });
    let mut greedy = worker.connect();
    greedy.send("GET /stream/2000000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..20 {
        worker.get("/json").expect(200);
        let rss = worker.resident_kib();
        assert!(rss < 60_000, "{rss} KiB are resident");
    }
    // It is cut when it has taken nothing for the time allowed: the whole never comes.
    std::thread::sleep(Duration::from_millis(800));
    let mut bytes = 0_usize;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = greedy.stream.read(&mut buffer) {
        bytes += count;
    }
    assert!(bytes < 100_000_000, "{bytes}");
    worker.stop();
}

#[test]
fn a_body_longer_than_its_length_is_cut_and_a_shorter_one_ends_the_connection() {
    let worker = start(example("bodies"), |_| ());
    let mut client = worker.connect();
    assert_eq!(client.get("/stream/20000/of/15000").expect(200).body, vec![b's'; 15_000]);
    // What followed is no part of the next response.
    client.get("/json").expect(200);
    worker.await_log(
        "[ERROR] Error handling request GET /stream/20000/of/15000: the body is longer than its Content-Length",
    );
    client.send("GET /stream/10000/of/15000 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head_reply().expect(200);
    assert_eq!(client.rest().len(), 10_000);
    worker.await_log(
        "[ERROR] Error handling request GET /stream/10000/of/15000: the body is shorter than its Content-Length",
    );
    worker.get("/json").expect(200);
}

#[test]
fn a_producer_that_fails_cuts_the_connection_so_that_the_client_knows() {
    let worker = start(example("bodies"), |_| ());
    let mut client = worker.connect();
    client.send("GET /fail/after/5 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head_reply().expect(200);
    // No last chunk.
    assert_eq!(client.rest(), "5\r\nxxxxx\r\n");
    worker.await_log("[ERROR] Error handling request GET /fail/after/5: the source dried up");
    // Where the end of the connection is the end of the body, a reset says that it is none.
    let mut old = worker.connect();
    old.send("GET /fail/after/5 HTTP/1.0\r\n\r\n");
    let mut all = Vec::new();
    assert!(old.stream.read_to_end(&mut all).is_err(), "{all:?}");
    worker.get("/json").expect(200);
}

#[test]
fn a_body_that_ends_early_while_it_is_echoed_is_no_mistake_of_the_handler() {
    let file = std::env::temp_dir().join(format!("monoceros-ends-{}", std::process::id()));
    let worker = start(example("bodies"), |settings| {
        settings.body_timeout = Duration::from_millis(300);
        settings.accesslog = Some(file.to_str().unwrap().to_owned());
        settings.access_log_format = "%(U)s %(s)s %({reason}x)s".to_owned();
    });
    for ends in [true, false] {
        let mut client = worker.connect();
        client.send("POST /echo/stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send("4\r\nabcd\r\n");
        client.head_reply().expect(200);
        client.half_close_unless(!ends);
        // No last chunk, which tells the client.
        assert_eq!(client.rest(), "4\r\nabcd\r\n");
    }
    worker.stop(); // With an empty log: nobody but the client has anything to mend.
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines, "/echo/stream 200 aborted\n".repeat(2));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_producer_that_is_stuck_is_cut_after_the_request_timeout() {
    let worker = start(example("bodies"), |settings| {
        settings.request_timeout = Some(Duration::from_millis(300));
    });
    let mut client = worker.connect();
    let began = Instant::now();
    client.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head_reply().expect(200);
    assert_eq!(client.rest(), "5\r\nfirst\r\n");
    assert!(began.elapsed() < PATIENCE / 2);
    worker.await_log("[WARNING] Request timed out: GET /stuck");
}

#[test]
fn a_response_that_only_the_close_would_end_is_given_up_by_a_reset() {
    const SHORT: Duration = Duration::from_millis(300);
    // Read on to the end: it must not look like the end of the body.
    let is_reset = |client: &mut common::Client| {
        let mut all = Vec::new();
        let end = client.stream.read_to_end(&mut all);
        assert!(end.is_err(), "an orderly end after {} bytes", all.len());
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    };
    let stuck = "GET /stuck HTTP/1.0\r\n\r\n";
    let worker = start(example("bodies"), |settings| settings.request_timeout = Some(SHORT));
    let mut client = worker.connect();
    client.send(stuck);
    is_reset(&mut client);
    let worker = start(example("bodies"), |settings| settings.write_timeout = SHORT);
    let mut client = worker.connect();
    client.send("GET /stream/1000000000 HTTP/1.0\r\n\r\n");
    std::thread::sleep(3 * SHORT); // It takes nothing.
    is_reset(&mut client);
    for signal in [Signal::SIGQUIT, Signal::SIGTERM] {
        let mut worker = start(example("bodies"), |settings| settings.graceful_timeout = SHORT);
        let mut client = worker.connect();
        client.send(stuck);
        client.wait_readable();
        worker.signal(signal);
        is_reset(&mut client);
        worker.wait();
    }
}

#[test]
fn the_access_log_knows_what_of_a_long_response_was_sent() {
    let file = std::env::temp_dir().join(format!("monoceros-long-{}", std::process::id()));
    let worker = start(example("bodies"), |settings| {
        settings.accesslog = Some(file.to_str().unwrap().to_owned());
        settings.access_log_format = "%(r)s %(s)s %(b)s %({reason}x)s".to_owned();
    });
    let mut client = worker.connect();
    client.get("/stream/300000").expect(200);
    client.send("GET /stream/10000/of/15000 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.rest();
    // Who goes away in the middle has a line with what went out; the status was said before.
    let mut gone = worker.connect();
    gone.send("GET /stream/1000000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    gone.head_reply().expect(200);
    drop(gone);
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    until(|| read().lines().count() == 3, || format!("three lines are due:\n{}", read()));
    let text = read();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "GET /stream/300000 HTTP/1.1 200 300000 -");
    assert_eq!(lines[1], "GET /stream/10000/of/15000 HTTP/1.1 200 10000 handler_error");
    let (start, reason) = lines[2].rsplit_once(' ').unwrap();
    let sent = start.strip_prefix("GET /stream/1000000000 HTTP/1.1 200 ").unwrap();
    assert!((1..1_000_000_000).contains(&sent.parse::<u64>().unwrap()), "{sent}");
    assert_eq!(reason, "aborted");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_access_log_counts_what_was_sent_of_an_answer_that_was_cut() {
    const BYTES: u64 = 20_000_000;
    let file = std::env::temp_dir().join(format!("monoceros-cut-{}", std::process::id()));
    let worker = start(example("features"), |settings| {
        settings.accesslog = Some(file.to_str().unwrap().to_owned());
        settings.access_log_format = "%(U)s %(s)s %(b)s %({reason}x)s".to_owned();
    });
    let mut client = worker.connect();
    let request = format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(&format!("GET /big/1000 HTTP/1.1\r\nHost: a\r\n\r\n{request}"));
    client.reply().expect(200);
    client.take(1000);
    client.reset();
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    until(|| read().lines().count() == 2, || format!("two lines are due:\n{}", read()));
    let text = read();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/big/1000 200 1000 aborted");
    let (start, reason) = lines[1].rsplit_once(' ').unwrap();
    let sent = start.strip_prefix(&format!("/big/{BYTES} 200 ")).unwrap();
    assert!((1000..BYTES).contains(&sent.parse::<u64>().unwrap()), "{sent}");
    assert_eq!(reason, "aborted");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn trailers_follow_chunks_and_cannot_be_used_to_inject() {
    let worker = start(example("bodies"), |_| ());
    let mut client = worker.connect();
    client.send("GET /sum HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head_reply().expect(200);
    assert_eq!(client.take(27), b"7\r\ncounted\r\n0\r\nX-Sum: 7\r\n\r\n".as_slice());
    client.get("/inject").expect(500);
    worker.await_log("[ERROR] Error handling request GET /inject: invalid response field value");
    client.get("/json").expect(200);
}

#[test]
fn early_hints_come_before_the_answer_and_never_to_http10() {
    let worker = start(example("bodies"), |_| ());
    let mut client = worker.connect();
    client.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = client.head_reply().expect(103);
    assert_eq!(hints.header("link"), Some("</style.css>; rel=preload; as=style"));
    assert_eq!((hints.header("content-length"), hints.header("server")), (None, None));
    client.reply().expect(200);
    let mut old = worker.connect();
    old.send("GET /hints HTTP/1.0\r\n\r\n");
    old.reply().expect(200);
    drop(client);
    worker.stop();
}
