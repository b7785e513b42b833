//! What a client sees on the wire: requests in any shape, answers and refusals.

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{PATIENCE, bundled, example, start, until};

const PIPELINED: usize = 16;

#[test]
fn json_is_answered_with_every_field_that_is_due() {
    let worker = start(bundled(), |_| ());
    let mut client = worker.connect();
    for _ in 0..3 {
        let reply = client.get("/json").expect(200);
        assert_eq!(reply.body, br#"{"message":"Hello, World!"}"#);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("content-length"), Some("27"));
        assert_eq!(reply.header("server"), Some("monoceros"));
        let date = reply.header("date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
        assert_eq!(reply.header("connection"), None);
    }
    drop(client);
    worker.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order_wherever_they_are_cut() {
    let worker = start(example("features"), |_| ());
    let requests: String =
        (0..PIPELINED).map(|n| format!("GET /hello/{n} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    let check = |client: &mut common::Client| {
        for n in 0..PIPELINED {
            assert_eq!(client.reply().expect(200).text(), format!("Hello, {n}!\n"));
        }
    };
    let mut client = worker.connect();
    client.send(&requests);
    check(&mut client);
    for cut in (1..requests.len()).step_by(7) {
        client.send(&requests[..cut]);
        // A moment, so that the parts arrive apart; nothing depends on whether they do.
        std::thread::sleep(Duration::from_micros(200));
        client.send(&requests[cut..]);
        check(&mut client);
    }
    drop(client);
    worker.stop();
}

#[test]
fn slow_and_quick_pipelined_requests_keep_their_order() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    client.send("GET /sleep/50 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello/b HTTP/1.1\r\nHost: a\r\n\r\nGET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().text(), "slept\n");
    assert_eq!(client.reply().text(), "Hello, b!\n");
    assert_eq!(client.reply().text(), "slept\n");
    drop(client);
    worker.stop();
}

#[test]
fn a_slow_handler_holds_nobody_else_up() {
    let worker = start(example("features"), |_| ());
    let mut slow = worker.connect();
    slow.send("GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(worker.get("/hello/you").text(), "Hello, you!\n");
    slow.stream.set_nonblocking(true).unwrap();
    assert!(slow.stream.peek(&mut [0]).is_err(), "the slow answer came first");
    slow.stream.set_nonblocking(false).unwrap();
    assert_eq!(slow.reply().text(), "slept\n");
    drop(slow);
    worker.stop();
}

#[test]
fn pipelined_slow_requests_hold_nobody_else_up() {
    const SLOW: usize = 40;
    const TAKES_MS: usize = 50;
    let worker = start(example("features"), |_| ());
    // Alike to the byte, and each of its own.
    for differ in [false, true] {
        let requests: String = (0..SLOW)
            .map(|n| {
                let query = if differ { n } else { 0 };
                format!("GET /block/{TAKES_MS}?{query} HTTP/1.1\r\nHost: a\r\n\r\n")
            })
            .collect();
        let mut greedy = worker.connect();
        greedy.send(&requests);
        // It has said its last: all that it asked is answered nevertheless.
        greedy.half_close();
        // The first answer does not wait for the last.
        let began = Instant::now();
        greedy.reply().expect(200);
        for _ in 0..5 {
            worker.get("/hello/you").expect(200);
        }
        let took = began.elapsed();
        assert!(took < Duration::from_millis((SLOW * TAKES_MS / 2) as u64), "{took:?}");
        for _ in 1..SLOW {
            assert_eq!(greedy.reply().expect(200).text(), "blocked\n");
        }
        assert_eq!(greedy.rest(), "");
    }
    worker.stop();
}

#[test]
fn paths_and_queries_are_decoded_for_handlers() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    let reply = client.get("/hello/J%C3%BCrgen%20B?greeting=Gr%C3%BC%C3%9F+Gott").expect(200);
    assert_eq!(reply.text(), "Gr\u{fc}\u{df} Gott, J\u{fc}rgen B!\n");
    drop(client);
    worker.stop();
}

#[test]
fn head_is_get_without_the_body() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    client.send(
        "HEAD /hello/you HTTP/1.1\r\nHost: a\r\n\r\nGET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let head = client.head_reply().expect(200);
    assert_eq!(head.header("content-length"), Some("12"));
    assert_eq!(head.header("x-method"), Some("HEAD"));
    assert_eq!(client.reply().text(), "Hello, you!\n");
    drop(client);
    worker.stop();
}

#[test]
fn bodies_of_both_framings_arrive_whole_however_they_are_cut() {
    let worker = start(example("features"), |_| ());
    let length = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world";
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    let mut client = worker.connect();
    for request in [length, chunked] {
        for cut in (0..request.len()).step_by(3) {
            client.send(&request[..cut]);
            std::thread::sleep(Duration::from_micros(200));
            client.send(&request[cut..]);
            // What follows at once is the next request, not the body.
            client.send("GET /hello/next HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.reply().expect(200).text(), "hello world");
            assert_eq!(client.reply().expect(200).text(), "Hello, next!\n");
        }
    }
    drop(client);
    worker.stop();
}

#[test]
fn a_large_body_streams_through_an_asynchronous_handler() {
    let worker = start(example("features"), |settings| settings.limit_request_body = 8 << 20);
    let mut client = worker.connect();
    let bytes = 5 << 20;
    client.send(&format!("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n"));
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..bytes / piece.len() {
        client.stream.write_all(&piece).unwrap();
    }
    assert_eq!(client.reply().expect(200).text(), format!("{bytes}\n"));
    client.send("POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.reply().expect(200).text(), "3\n");
    drop(client);
    worker.stop();
}

#[test]
fn a_client_that_expects_it_is_asked_for_its_body() {
    let worker = start(example("features"), |_| ());
    for path in ["/echo", "/count"] {
        let mut client = worker.connect();
        client.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        ));
        client.reply().expect(100);
        client.send("ok");
        client.reply().expect(200);
    }
    // Refused or not wanted: the final answer comes at once, and the connection closes.
    for (path, length, status) in
        [("/echo", 1 << 20, 413), ("/ignore", 2, 200), ("/nowhere", 2, 404)]
    {
        let mut client = worker.connect();
        client.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        ));
        let reply = client.reply().expect(status);
        assert!(reply.closes(), "{}", reply.head);
        client.half_close();
        assert_eq!(client.rest(), "");
    }
    worker.stop();
}

#[test]
fn a_body_that_is_cut_short_is_never_handled() {
    let worker = start(example("features"), |_| ());
    for path in ["/echo", "/hello/x"] {
        let mut client = worker.connect();
        client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfour"));
        client.half_close();
        let rest = client.rest();
        assert!(!rest.contains("200 OK"), "{path}: {rest}");
    }
    // The bytes that came are not taken for a request of the next client either.
    worker.get("/hello/after").expect(200);
    worker.stop();
}

#[test]
fn an_unread_body_is_never_taken_for_a_request() {
    let worker = start(example("features"), |_| ());
    let inner = "GET /hello/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for path in ["/ignore", "/nowhere", "/hello/x"] {
        let mut client = worker.connect();
        client.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ));
        client.send("GET /hello/after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.reply();
        assert_eq!(client.reply().expect(200).text(), "Hello, after!\n");
        assert_eq!(client.rest(), "");
    }
    worker.stop();
}

#[test]
fn an_unread_body_that_is_too_long_ends_the_connection() {
    let worker = start(example("features"), |settings| settings.limit_request_body = 0);
    let mut client = worker.connect();
    client.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    client.stream.write_all(&[b'x'; 10_000]).unwrap();
    let reply = client.reply().expect(200);
    assert!(reply.closes());
    // The answer survives although much of the body was never read.
    client.half_close();
    assert_eq!(client.rest(), "");
    worker.stop();
}

#[test]
fn every_refusal_has_its_status_and_closes_where_it_must() {
    let worker = start(example("features"), |settings| settings.limit_request_fields = 10);
    let long = "x".repeat(9000);
    let many: String = (0..11).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"
                .to_owned(),
            400,
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n".to_owned(),
            400,
        ),
        (format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 30), 413),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(),
            501,
        ),
        ("GET / HTTP/3.7\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
    ];
    for (request, status) in cases {
        let mut client = worker.connect();
        client.send(&request);
        let reply = client.reply();
        assert_eq!(reply.status, status, "{:.60}", request.escape_debug());
        assert!(reply.closes(), "{}", reply.head);
        client.half_close();
        assert_eq!(client.rest(), "");
    }
    // These leave the connection usable.
    let mut client = worker.connect();
    client.get("/nowhere").expect(404);
    client.send("PUT /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().expect(405).header("allow"), Some("DELETE, OPTIONS, POST"));
    client.send("OPTIONS /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().expect(204).header("allow"), Some("DELETE, OPTIONS, POST"));
    client.get("/refuse").expect(403);
    worker.await_log("[WARNING] Invalid request from ip=127.0.0.1: ");
}

#[test]
fn a_chunked_body_over_the_limit_is_413() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    for _ in 0..3 {
        client.send(&chunk);
    }
    let reply = client.reply().expect(413);
    assert!(reply.closes());
    worker.stop();
}

#[test]
fn a_mistake_in_a_handler_is_500_and_harms_nobody() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    for path in ["/panic", "/panic/later", "/fail", "/inject"] {
        let reply = client.get(path).expect(500);
        assert_eq!(reply.header("set-cookie"), None);
        assert!(!reply.text().contains("mistake"), "the client learns nothing of it");
        client.get("/hello/again").expect(200);
    }
    worker.await_log(
        "[ERROR] Error handling request GET /panic: panic at worker/examples/features.rs:",
    );
    worker.await_log(
        "[ERROR] Error handling request GET /panic/later: panic at worker/examples/features.rs:",
    );
    worker.await_log("[ERROR] Error handling request GET /fail: No such file or directory");
    worker.await_log("[ERROR] Error handling request GET /inject: invalid response field value");
    assert!(worker.is_running());
}

#[test]
fn a_handler_that_panics_at_its_end_harms_nobody() {
    let worker = start(example("features"), |settings| {
        settings.request_timeout = Some(Duration::from_millis(200));
        settings.write_timeout = Duration::from_millis(200);
    });
    let pid = worker.pid();
    let task = "/panic/at/the/end";
    let stream = "/panic/at/the/end/of/stream";
    let request = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    // Its time is over, before and after the head of its response.
    let mut client = worker.connect();
    client.get(task).expect(504);
    client = worker.connect();
    client.send(&request("GET", &format!("{stream}/5")));
    client.head_reply().expect(200);
    assert_eq!(client.rest(), "xxxxx");
    // It has written too much, or is not wanted at all.
    client = worker.connect();
    client.send(&request("GET", &format!("{stream}/11")));
    assert_eq!(client.reply().expect(200).text(), "xxxxxxxxxx");
    client.send(&request("HEAD", &format!("{stream}/5")));
    client.head_reply().expect(200);
    // The client is gone: with a reset, or by taking nothing.
    for path in [task.to_owned(), format!("{stream}/5")] {
        let mut gone = worker.connect();
        gone.send(&request("GET", &path));
        worker.get("/hello/you").expect(200);
        gone.reset();
    }
    until(
        || 6 <= worker.log().matches("[ERROR] A handler's end failed: panic at worker/ex").count(),
        || worker.log(),
    );
    client.get("/hello/you").expect(200);
    assert!(worker.is_running() && worker.pid() == pid);
}

#[test]
fn hints_of_a_task_that_belongs_to_no_request_reach_nobody() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    for _ in 0..10 {
        client.get("/hints/of/a/task").expect(200);
        let mut other = worker.connect();
        other.get("/sleep/1").expect(200);
        client.get("/hello/you").expect(200);
    }
    drop(client);
    worker.stop();
}

#[test]
fn a_field_that_the_response_has_once_is_sent_once() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    let reply = client.get("/typed/twice").expect(200);
    let types: Vec<_> =
        reply.head.lines().filter(|line| line.to_lowercase().starts_with("content-type")).collect();
    assert_eq!(types, ["Content-Type: application/problem+json"]);
    drop(client);
    worker.stop();
}

#[test]
fn a_response_says_which_protocol_it_wants_instead() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    let reply = client.get("/upgrade").expect(426);
    assert_eq!(reply.header("upgrade"), Some("chat/2"));
    assert_eq!(reply.header("connection"), Some("upgrade"));
    assert_eq!(reply.header("proxy-authenticate"), None, "it goes with 407 alone");
    // The connection is kept.
    client.get("/hello/you").expect(200);
    drop(client);
    worker.stop();
}

#[test]
fn refusals_of_head_have_no_content() {
    let worker = start(example("features"), |settings| {
        settings.header_timeout = Duration::from_millis(200);
        settings.body_timeout = Duration::from_millis(200);
        settings.forwarded_allow_ips = vec!["127.0.0.1".to_owned()];
    });
    for (request, status) in [
        ("HEAD /hello/you HTTP/1.1\r\n\r\n", 400),
        ("\r\nHEAD /hello/you HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("HEAD /hello/you HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
        ("HEAD /hello/you HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("HEAD /hello/you HTTP/1.1\r\nHost: a", 408),
        ("HEAD /hello/you HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx", 408),
        ("HEAD /hello/you HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413),
        ("HEAD /hello/you HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n?\r\n", 400),
        (
            "HEAD /hello/you HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n",
            400,
        ),
    ] {
        let mut client = worker.connect();
        client.send(request);
        let reply = client.head_reply();
        assert_eq!(reply.status, status, "{request:?}");
        client.half_close();
        assert_eq!(client.rest(), "", "after the head of {status} to {request:?}");
    }
}

#[test]
fn closing_is_said_and_done_when_either_side_asks() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    assert!(client.get("/close").closes());
    assert_eq!(client.rest(), "");
    let mut old = worker.connect();
    old.send("GET /hello/old HTTP/1.0\r\n\r\n");
    old.reply().expect(200);
    assert_eq!(old.rest(), "");
    let mut kept = worker.connect();
    kept.send("GET /hello/old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(kept.reply().expect(200).header("connection"), Some("keep-alive"));
    kept.get("/hello/again").expect(200);
    // A client that has said its last still gets its answer.
    let mut half = worker.connect();
    half.send("GET /sleep/20 HTTP/1.1\r\nHost: a\r\n\r\n");
    half.half_close();
    assert_eq!(half.reply().expect(200).text(), "slept\n");
    assert_eq!(half.rest(), "");
    drop(kept);
    worker.stop();
}

#[test]
fn work_on_other_threads_wakes_the_loop() {
    let worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    for _ in 0..20 {
        client.get("/thread").expect(200);
    }
    drop(client);
    worker.stop();
}

#[test]
fn the_date_changes_with_the_seconds() {
    let worker = start(bundled(), |_| ());
    let mut client = worker.connect();
    let first = client.get("/json").header("date").unwrap().to_owned();
    until(
        || client.get("/json").header("date") != Some(&first),
        || format!("the date is {first} for {PATIENCE:?}"),
    );
    drop(client);
    worker.stop();
}
