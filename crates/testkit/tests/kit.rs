//! The test kit itself: a client that overlooks failures would make every other test worthless.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use testkit::load::Failure;
use testkit::{Endpoint, Load, Mode, Nginx, Postgres, Shutdown, TempDir, http};

/// Serves each connection with a script of answers, one per request; then closes. `None` resets the connection.
fn serve(script: &'static [Option<&'static [u8]>]) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let endpoint = Endpoint::Tcp(listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            std::thread::spawn(move || {
                for answer in script {
                    let mut request = Vec::new();
                    let mut buffer = [0; 4096];
                    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                        match connection.read(&mut buffer) {
                            Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                            _ => return,
                        }
                    }
                    match answer {
                        Some(bytes) if connection.write_all(bytes).is_ok() => (),
                        _ => return,
                    }
                }
            });
        }
    });
    endpoint
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OK_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

fn load(endpoint: &Endpoint, mode: Mode) -> Load {
    let mut load = Load::get(endpoint, "/", mode).clients(2).duration(Duration::from_secs(20));
    load.requests_max = 20;
    load.limit = Duration::from_millis(300);
    load
}

const KEEP_ALIVE: Mode = Mode::KeepAlive { pause: Duration::ZERO };

#[test]
fn every_way_to_fail_is_counted_under_its_name() {
    let refused = Endpoint::Tcp(([127, 0, 0, 1], testkit::free_port()).into());
    let cases: [(Endpoint, Failure); 5] = [
        (refused, Failure::Refused),
        (serve(&[None]), Failure::Reset),
        (serve(&[Some(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")]), Failure::ShortBody),
        (
            serve(&[Some(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")]),
            Failure::BadStatus,
        ),
        (serve(&[Some(b"220 mail.example ESMTP\r\n\r\n")]), Failure::Other),
    ];
    for (endpoint, failure) in cases {
        let report = load(&endpoint, Mode::CloseEach).run();
        assert_eq!(report.failures.get(&failure), Some(&20), "{failure:?}: {report}");
        assert_eq!((report.answered, report.failed()), (0, 20), "{failure:?}: {report}");
        assert!(!report.details.is_empty());
    }
    let silent = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let endpoint = Endpoint::Tcp(silent.local_addr().expect("bound"));
    let mut load = load(&endpoint, Mode::CloseEach);
    load.requests_max = 2;
    assert_eq!(load.run().failures.get(&Failure::Timeout), Some(&2));
}

#[test]
fn a_connection_cut_without_announcement_is_a_failure_and_an_announced_one_is_none() {
    // Three requests per connection; the third is read and then cut.
    let report = load(&serve(&[Some(OK), Some(OK), None]), KEEP_ALIVE).run();
    assert_eq!(report.failures.get(&Failure::Reset), Some(&6), "{report}");
    assert_eq!(report.answered, 14, "{report}");

    let report = load(&serve(&[Some(OK), Some(OK_CLOSE)]), KEEP_ALIVE).clients(1).run();
    report.assert_nothing_lost(20);
    assert_eq!((report.announced_closes, report.connections), (10, 10), "{report}");

    // Closed in silence while it idles: no request was lost.
    let pause = Mode::KeepAlive { pause: Duration::from_millis(50) };
    let report = load(&serve(&[Some(OK), Some(OK)]), pause).run();
    report.assert_nothing_lost(20);
    assert!(report.idle_closes >= 8, "{report}");
}

#[test]
fn the_open_loop_keeps_its_rate_and_counts_waiting_as_latency() {
    let mut load = load(&serve(&[Some(OK_CLOSE)]), Mode::OpenLoop { rate: 200.0 });
    load.requests_max = 100;
    let report = load.run();
    report.assert_nothing_lost(100);
    assert!((0.49..5.0).contains(&report.elapsed.as_secs_f64()), "{report}");
    assert!(report.latency(0.5) <= report.latency(0.99));
}

#[test]
fn the_open_loop_can_keep_its_connections() {
    let mode = Mode::OpenLoopKept { rate: 200.0 };
    let mut load = load(&serve(&[Some(OK), Some(OK_CLOSE)]), mode).clients(1);
    load.requests_max = 20;
    let report = load.run();
    report.assert_nothing_lost(20);
    assert_eq!((report.announced_closes, report.connections), (10, 10), "{report}");
    assert!(0.09 < report.elapsed.as_secs_f64(), "{report}");
}

#[test]
fn responses_are_read_in_every_framing() {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    let response = http::get(&serve(&[Some(CHUNKED)]), "/").expect("whole");
    assert_eq!((response.status, response.text()), (200, "abcde"));
    assert_eq!(response.header("TRANSFER-encoding"), Some("chunked"));
    const UNTIL_CLOSE: &[u8] = b"HTTP/1.0 404 Not Found\r\n\r\nnothing here";
    let response = http::get(&serve(&[Some(UNTIL_CLOSE)]), "/").expect("whole");
    assert_eq!((response.status, response.text()), (404, "nothing here"));
    let head = http::request(
        &serve(&[Some(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")]),
        "HEAD",
        "/",
        &[],
        b"",
    );
    assert_eq!(head.expect("whole").body, b"");
    let both = http::exchange(&serve(&[Some(OK)]), b"GET / HTTP/1.1\r\n\r\n").expect("closed");
    assert_eq!(both, OK);
}

#[test]
fn a_cluster_starts_stops_and_comes_back_where_it_was() {
    if !Postgres::is_available() {
        return;
    }
    let mut postgres = Postgres::start();
    postgres.sql("create table t (n int); insert into t values (42)");
    let (unix, tcp) = (postgres.url_unix(), postgres.url_tcp());
    postgres.stop(Shutdown::Immediate);
    assert_eq!(postgres.pid(), None);
    postgres.resume();
    assert_eq!((postgres.url_unix(), postgres.url_tcp()), (unix, tcp));
    assert_eq!(postgres.sql("select 1 + 1"), "2");
    postgres.restart();
    assert_eq!(postgres.sql("select 'x'"), "x");
}

#[test]
fn nginx_forwards_to_a_server_and_is_gone_afterwards() {
    if !Nginx::is_available() {
        return;
    }
    let upstream = serve(&[Some(OK_CLOSE)]);
    let mut nginx = Nginx::start(&format!(
        "server {{ listen 127.0.0.1:{{port}}; location / {{ proxy_pass http://{upstream}; }} }}"
    ));
    nginx.reload();
    assert_eq!(http::get(&nginx.endpoint(), "/").expect("forwarded").text(), "ok");
    testkit::wait_until("a line in the access log", Duration::from_secs(10), || {
        nginx.access_log().contains("GET / ")
    });
    nginx.stop();
    assert!(http::get(&nginx.endpoint(), "/").is_err());
}

#[test]
fn directories_vanish_with_their_test() {
    let dir = TempDir::new();
    let script = dir.script("hello", "#!/bin/sh\necho hello\n");
    let output = std::process::Command::new(&script).output().expect("executable");
    assert_eq!(output.stdout, b"hello\n");
    let path = dir.path().to_owned();
    drop(dir);
    assert!(!path.exists());
}
