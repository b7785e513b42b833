//! Time and space: slow, silent, greedy and too many clients.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{PATIENCE, example, start, until};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_slow_head_is_408_however_busily_it_drips() {
    let worker = start(example("features"), |settings| settings.header_timeout = SHORT);
    let mut client = worker.connect();
    let began = Instant::now();
    for byte in
        "GET /hello/you HTTP/1.1\r\nX-Very-Long-Header-Name-To-Drip: abcdefghijklmnopqrstuvwxyz"
            .bytes()
    {
        if client.stream.write_all(&[byte]).is_err() || began.elapsed() > 3 * SHORT {
            break;
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    let reply = client.reply().expect(408);
    assert!(reply.closes());
    assert!(began.elapsed() < PATIENCE / 2);
}

#[test]
fn a_client_that_says_nothing_is_let_go_without_a_word() {
    let worker = start(example("features"), |settings| {
        settings.header_timeout = SHORT;
        settings.keepalive = SHORT;
    });
    let mut silent = worker.connect();
    assert_eq!(silent.rest(), "");
    let mut idle = worker.connect();
    idle.get("/hello/you").expect(200);
    let began = Instant::now();
    assert_eq!(idle.rest(), "");
    assert!(SHORT / 2 < began.elapsed() && began.elapsed() < PATIENCE / 2);
    worker.stop();
}

#[test]
fn a_body_that_stops_coming_is_408() {
    let worker = start(example("features"), |settings| settings.body_timeout = SHORT);
    for path in ["/echo", "/count"] {
        let mut client = worker.connect();
        client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"));
        let reply = client.reply().expect(408);
        assert!(reply.closes(), "{path}");
    }
    // A client that goes away in the middle leaves nothing behind.
    let mut client = worker.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    drop(client);
    worker.get("/hello/you").expect(200);
    worker.stop();
}

#[test]
fn a_handler_that_takes_too_long_is_504() {
    let worker = start(example("features"), |settings| settings.request_timeout = Some(SHORT));
    let mut client = worker.connect();
    client.send("GET /sleep/60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.reply().expect(504);
    assert!(reply.closes());
    worker.await_log("[WARNING] Request timed out: GET /sleep/60000");
}

#[test]
fn a_client_that_does_not_read_is_cut_and_holds_nobody_up() {
    let worker = start(example("features"), |settings| settings.write_timeout = SHORT);
    let mut greedy = worker.connect();
    // Far more answers than any socket buffer takes; what is not taken is not even begun.
    let request = "GET /big/1000000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    greedy.stream.write_all(request.as_bytes()).unwrap();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    for _ in 0..20 {
        worker.get("/hello/you").expect(200);
        assert!(memory() < 50_000, "{} KiB", memory());
    }
    // It is cut: reading on ends before all answers have come.
    std::thread::sleep(2 * SHORT);
    let mut bytes = 0_usize;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = greedy.stream.read(&mut buffer) {
        bytes += count;
    }
    assert!(bytes < 100_000_000, "{bytes}");
    worker.stop();
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let worker = start(example("features"), |settings| settings.write_timeout = SHORT);
    let mut client = worker.connect();
    client.send(&"GET /big/3000000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    for _ in 0..3 {
        // Slower than the write timeout in all, but never silent for so long.
        std::thread::sleep(SHORT / 2);
        assert_eq!(client.reply().expect(200).body.len(), 3_000_000);
    }
    drop(client);
    worker.stop();
}

#[test]
fn more_connections_than_allowed_wait_their_turn() {
    let worker = start(example("features"), |settings| {
        settings.worker_connections = 4;
        settings.keepalive = Duration::from_secs(60);
    });
    let mut first: Vec<_> = (0..4).map(|_| worker.connect()).collect();
    for client in &mut first {
        client.get("/hello/you").expect(200);
    }
    let mut late = worker.connect();
    late.send("GET /hello/late HTTP/1.1\r\nHost: a\r\n\r\n");
    for client in &mut first {
        client.get("/hello/you").expect(200);
    }
    late.stream.set_nonblocking(true).unwrap();
    assert!(late.stream.peek(&mut [0]).is_err(), "there was no room for it");
    late.stream.set_nonblocking(false).unwrap();
    drop(first.pop());
    assert_eq!(late.reply().expect(200).text(), "Hello, late!\n");
    drop((first, late));
    worker.stop();
}

#[test]
fn a_thousand_connections_are_held_and_answered() {
    let worker = start(example("features"), |settings| {
        settings.worker_connections = 2000;
        settings.keepalive = Duration::from_secs(60);
    });
    let _ = sys::limits::raise_open_files();
    let mut clients: Vec<_> = (0..1000).map(|_| worker.connect()).collect();
    for _ in 0..2 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&format!("GET /hello/{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.reply().expect(200).text(), format!("Hello, {n}!\n"));
        }
    }
    drop(clients);
    worker.stop();
}

#[test]
fn connections_that_come_and_go_never_get_each_others_answers() {
    let worker = start(example("features"), |_| ());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let worker = &worker;
            scope.spawn(move || {
                for n in 0..200 {
                    let mut client = worker.connect();
                    let name = thread * 1000 + n;
                    client.send(&format!("GET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello/{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    if n % 3 == 0 {
                        continue; // Gone with its request in hand; the next one takes over its place.
                    }
                    assert_eq!(client.reply().text(), "slept\n");
                    assert_eq!(client.reply().text(), format!("Hello, {name}!\n"));
                }
            });
        }
    });
    let worker = worker;
    until(|| worker.get("/hello/you").status == 200, String::new);
    worker.stop();
}
