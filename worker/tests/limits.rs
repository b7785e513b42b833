//! Time and space: slow, silent, greedy and too many clients.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{PATIENCE, example, start, until};
use shared::settings::Settings;

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
fn an_empty_line_is_not_the_beginning_of_a_request() {
    // Old clients send one behind a body.
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\r\n";
    let worker = start(example("features"), |settings| {
        settings.header_timeout = SHORT;
        settings.keepalive = 4 * SHORT;
    });
    let mut client = worker.connect();
    client.send(post);
    client.reply().expect(200);
    std::thread::sleep(2 * SHORT);
    client.get("/hello/you").expect(200);
    // Nor does it make an idle connection one that is owed an answer.
    client.send(post);
    client.reply().expect(200);
    assert_eq!(client.rest(), "");
    // Another one is too much, however late it comes.
    let mut client = worker.connect();
    client.send(post);
    client.reply().expect(200);
    client.send("\r\n");
    client.reply().expect(400);
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
fn the_time_of_a_handler_does_not_run_while_it_waits_for_its_client() {
    let worker = start(example("features"), |settings| {
        settings.request_timeout = Some(SHORT);
        settings.body_timeout = 3 * SHORT;
    });
    let head = "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 15000\r\n\r\n";
    // It comes steadily, and takes longer than a handler may.
    let (mut steady, began) = (worker.connect(), Instant::now());
    steady.send(head);
    for _ in 0..15 {
        steady.send(&"x".repeat(1000));
        std::thread::sleep(SHORT / 6);
    }
    assert!(2 * SHORT < began.elapsed());
    assert_eq!(steady.reply().expect(200).text(), "15000\n");
    // It does not come: that is the client's doing, not the handler's.
    let mut silent = worker.connect();
    silent.send(head);
    silent.reply().expect(408);
    worker.stop();
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

/// Reads `bytes` in all, a piece and then a pause; returns how many came.
fn read_slowly(client: &mut common::Client, bytes: usize, pause: Duration) -> usize {
    let mut piece = vec![0; 64 * 1024];
    let mut read = 0;
    while read < bytes {
        match client.stream.read(&mut piece) {
            Ok(count @ 1..) => read += count,
            _ => break,
        }
        std::thread::sleep(pause);
    }
    read
}

#[test]
fn the_keep_alive_time_begins_when_the_client_has_the_answer() {
    const BYTES: usize = 12_000_000;
    let worker = start(example("features"), |settings| settings.keepalive = SHORT);
    // More than the kernel holds, read in far more than the keep-alive time: whole answers, pipelined ones, and a
    // request that is half there meanwhile.
    for requests in [
        format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /big/{} HTTP/1.1\r\nHost: a\r\n\r\n", BYTES / 100).repeat(100),
        format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\nGET /hello/y"),
    ] {
        let mut client = worker.connect();
        client.send(&requests);
        let began = Instant::now();
        let read = read_slowly(&mut client, BYTES, Duration::from_millis(5));
        assert!(BYTES <= read, "{read} of {BYTES} bytes after {:?}", began.elapsed());
        assert!(2 * SHORT < began.elapsed(), "it was read too quickly: {:?}", began.elapsed());
    }
    // Once it has all, the time runs.
    let mut client = worker.connect();
    client.get("/big/100000").expect(200);
    let began = Instant::now();
    assert_eq!(client.rest(), "");
    assert!(SHORT / 2 < began.elapsed() && began.elapsed() < PATIENCE / 2);
}

#[test]
fn a_response_on_its_way_outlives_a_body_that_nobody_waits_for() {
    const BYTES: usize = 12_000_000;
    let worker = start(example("features"), |settings| settings.body_timeout = SHORT);
    let mut client = worker.connect();
    // The body, which the handler does not read, never comes whole: the answer does.
    client.send(&format!(
        "POST /big/{BYTES} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf"
    ));
    let read = read_slowly(&mut client, BYTES, Duration::from_millis(5));
    assert!(BYTES <= read, "{read} of {BYTES} bytes");
}

#[test]
fn a_response_on_its_way_outlives_a_request_behind_it_that_is_cut_off() {
    const BYTES: usize = 12_000_000;
    let worker = start(example("features"), |_| ());
    for rest in ["POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf", "POST /ec"] {
        let mut client = worker.connect();
        client.send(&format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n{rest}"));
        client.half_close();
        let read = read_slowly(&mut client, BYTES, Duration::from_millis(1));
        assert!(BYTES <= read, "{read} of {BYTES} bytes before {rest:?}");
    }
    worker.stop();
}

#[test]
fn the_time_for_a_body_does_not_run_while_its_client_reads_an_answer() {
    const BYTES: usize = 12_000_000;
    let worker = start(example("features"), |settings| settings.body_timeout = SHORT);
    // The client is asked for its body behind the answer before.
    for path in ["/echo", "/count"] {
        let mut client = worker.connect();
        client.send(&format!(
            "GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n\
             POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        ));
        let began = Instant::now();
        let read = read_slowly(&mut client, BYTES - 1_000_000, Duration::from_millis(5));
        assert!(2 * SHORT < began.elapsed(), "it was read too quickly: {:?}", began.elapsed());
        // What is left of the answer, and the question.
        let mut left = Vec::new();
        while !left.ends_with(b"HTTP/1.1 100 Continue\r\n\r\n") {
            let mut piece = [0; 64 * 1024];
            let count = client.stream.read(&mut piece).unwrap();
            assert_ne!(count, 0, "the end after {} bytes", read + left.len());
            left.extend_from_slice(&piece[..count]);
        }
        client.send("body");
        client.reply().expect(200);
    }
    worker.stop();
}

#[test]
fn without_a_keep_alive_time_every_response_says_close_and_is_whole() {
    const BYTES: usize = 4_000_000;
    let worker = start(example("features"), |settings| settings.keepalive = Duration::ZERO);
    let path = format!("/big/{BYTES}");
    for (path, request) in [
        ("/hello/you", "GET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("/sleep/1", "GET /sleep/1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (&path, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")),
    ] {
        let mut client = worker.connect();
        client.send(&request);
        std::thread::sleep(SHORT / 10);
        let reply = client.reply().expect(200);
        assert!(reply.closes(), "{path}: {}", reply.head);
        client.half_close();
        assert_eq!(client.rest(), "");
    }
    let mut old = worker.connect();
    old.send("GET /hello/old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(old.reply().expect(200).header("connection"), None);
    old.half_close();
    assert_eq!(old.rest(), "");
    worker.stop();
}

#[test]
fn a_client_that_reads_steadily_is_not_one_that_takes_nothing() {
    const BYTES: usize = 6_000_000;
    const RATE: f64 = 1_000_000.0;
    // The kernel's memory for one client alone takes longer to be read than the limit is.
    let worker = start(example("features"), |settings| {
        settings.write_timeout = Duration::from_secs(1);
    });
    let mut client = worker.connect();
    client.send(&format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let began = Instant::now();
    let mut piece = vec![0; 16 * 1024];
    let mut read = 0;
    while read < BYTES {
        let count = client.stream.read(&mut piece).unwrap();
        assert_ne!(count, 0, "the end after {read} bytes, {:?}", began.elapsed());
        read += count;
        let due = Duration::from_secs_f64(read as f64 / RATE);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

/// Asks for `path` on a connection whose kernel has hardly any memory for what comes.
fn ask_with_little_room(worker: &common::Worker, path: &str) -> TcpStream {
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let client = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::setsockopt(&client, sockopt::RcvBuf, &4096).unwrap();
    socket::connect(client.as_raw_fd(), &SockaddrStorage::from(worker.address)).unwrap();
    let mut client = TcpStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    client
}

/// Reads so much at a time, with pauses, for as long as `most` or until the end; returns how long that was.
fn sip(mut client: TcpStream, bytes: usize, pause: Duration, most: Duration) -> Duration {
    let (began, mut piece) = (Instant::now(), vec![0; bytes]);
    while began.elapsed() < most && matches!(client.read(&mut piece), Ok(1..)) {
        std::thread::sleep(pause);
    }
    began.elapsed()
}

/// Has `check` look at a long response of each kind: one that is there whole, one that is made, a file.
fn with_long_responses(
    change: impl Fn(&mut Settings),
    check: impl Fn(&common::Worker, &str) + Sync,
) {
    const BYTES: u64 = 100_000_000;
    static FOLDERS: AtomicU32 = AtomicU32::new(0);
    let number = FOLDERS.fetch_add(1, Relaxed);
    let folder = format!("monoceros-limits-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::File::create(folder.join("long")).unwrap().set_len(BYTES).unwrap();
    let features = start(example("features"), &change);
    let files = format!("BODIES_FILES={}", folder.display());
    let (bodies, _) = common::begin_with(example("bodies"), &change, &[&files]);
    std::thread::scope(|scope| {
        scope.spawn(|| check(&features, &format!("/big/{BYTES}")));
        scope.spawn(|| check(&bodies, &format!("/stream/{BYTES}")));
        scope.spawn(|| check(&bodies, "/static/long"));
    });
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_not_cut() {
    // Slower than the kernel says "writable" again within the limit.
    let change = |settings: &mut Settings| settings.write_timeout = Duration::from_secs(1);
    with_long_responses(change, |worker, path| {
        let (pause, most) = (Duration::from_millis(100), Duration::from_secs(4));
        let lasted = sip(ask_with_little_room(worker, path), 2500, pause, most);
        assert!(most <= lasted, "{path} was cut after {lasted:?}");
    });
}

#[test]
fn a_client_that_takes_a_little_again_and_again_is_cut_by_the_smallest_rate() {
    let (pause, most) = (Duration::from_millis(5), Duration::from_secs(4));
    for (rate, is_cut) in [(200_000, true), (0, false)] {
        let change = |settings: &mut Settings| {
            settings.write_timeout = Duration::from_secs(1);
            settings.write_rate_min = rate;
        };
        with_long_responses(change, |worker, path| {
            let lasted = sip(ask_with_little_room(worker, path), 100, pause, most);
            assert_eq!(lasted < most, is_cut, "{path} lasted {lasted:?}, smallest rate {rate}");
        });
    }
}

#[test]
fn a_request_line_without_limit_has_one_all_the_same() {
    let worker = start(example("features"), |settings| settings.limit_request_line = 0);
    let ask = |bytes: usize| {
        let mut client = worker.connect();
        let name = "x".repeat(bytes);
        client.send(&format!("GET /hello/{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.reply()
    };
    assert_eq!(ask(100_000).expect(200).body.len(), "Hello, !\n".len() + 100_000);
    ask(1 << 20).expect(414);
}

#[test]
fn an_upload_that_is_refused_is_read_on_so_that_the_answer_arrives() {
    const BYTES: usize = 20_000_000;
    let worker = start(example("features"), |settings| settings.linger_timeout = SHORT);
    let mut client = worker.connect();
    client.send(&format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n"));
    // Longer in all than it may be silent, and it looks at the answer only when it has sent everything.
    let piece = vec![b'x'; BYTES / 50];
    for _ in 0..50 {
        client.stream.write_all(&piece).unwrap();
        std::thread::sleep(SHORT / 10);
    }
    client.reply().expect(413);
    // Silent now, it is let go.
    assert_eq!(client.rest(), "");
    drop(client);
    // A drain waits less long.
    let mut worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    client.get("/close").expect(200);
    let began = Instant::now();
    worker.signal(common::Signal::SIGTERM);
    worker.wait();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
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
