//! Through a real Nginx that keeps connections to us: reloads never show as a 502.
//!
//! Nginx does not send a POST again, so a server that closes a kept connection under one makes it fail.

#![allow(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::{Endpoint, Load, Mode, Nginx, Server, Signal, TempDir};

/// Longest wait for one reload or one batch of answers: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

/// An Nginx in front of `upstream`, without any retries of its own: every fault of ours must show.
fn nginx(upstream: &Endpoint) -> Nginx {
    Nginx::start(&format!(
        "upstream app {{ server {upstream} max_fails=0; keepalive 32; keepalive_timeout 30s; }}
         server {{
             listen 127.0.0.1:{{port}};
             keepalive_requests 1000000;
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_next_upstream off;
             }}
         }}"
    ))
}

/// An application that takes POST.
fn application() -> String {
    example("bodies")
}

/// An application with long answers.
fn features() -> String {
    example("features")
}

fn example(name: &str) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_master"));
    let program = programs.with_file_name("examples").join(name);
    assert!(program.exists(), "{} is missing: cargo build -p worker --examples", program.display());
    program.display().to_string()
}

fn reloads_behind(server: &Server, count: usize) {
    let nginx = nginx(server.endpoint());
    let kept = Mode::KeepAlive { pause: Duration::from_millis(10) };
    let body = [b'x'; 2_000];
    let loads = [
        // Its body is read, and comes back.
        Load::post(&nginx.endpoint(), "/echo", &body, kept).clients(16),
        Load::get(&nginx.endpoint(), "/json", kept).clients(8),
        Load::get(&nginx.endpoint(), "/json", Mode::CloseEach).clients(2),
    ];
    let running = loads.map(|load| load.duration(10 * BOUND).start());
    for _ in 0..count {
        let mark = server.log_mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
        running[0].wait_for(50, BOUND);
    }
    for running in running {
        let report = running.stop();
        assert_eq!(report.statuses.get(&502), None, "{report}\n{}", nginx.error_log());
        report.assert_nothing_lost(200);
    }
    server.assert_log_clean(&[]);
}

#[test]
fn twenty_reloads_behind_nginx_over_tcp_give_no_502() {
    if !Nginx::is_available() {
        return;
    }
    let args = ["--workers", "3", "--keep-alive", "75", &application()];
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    reloads_behind(&server, 20);
    server.stop();
}

#[test]
fn reloads_behind_nginx_over_a_unix_socket_give_no_502() {
    if !Nginx::is_available() {
        return;
    }
    let dir = TempDir::new();
    let bind = format!("unix:{}", dir.join("app.sock").display());
    let builder = Server::builder(env!("CARGO_BIN_EXE_master")).without_bind();
    let args = ["--bind", &bind, "--workers", "3", "--keep-alive", "75", &application()];
    let mut server = builder.args(args).start();
    server.wait_for_log("Ready workers=", BOUND);
    reloads_behind(&server, 10);
    server.stop();
}

/// Reads the rest of a response at about this rate, in bytes per second.
fn read_at(connection: &mut TcpStream, rate: f64, bytes: usize) -> Vec<u8> {
    let began = Instant::now();
    let mut all = Vec::with_capacity(bytes);
    let mut piece = vec![0; 32 * 1024];
    loop {
        match connection.read(&mut piece) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) => panic!("{error} after {} bytes", all.len()),
        }
        let due = Duration::from_secs_f64(all.len() as f64 / rate);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

/// A client of a server that answers with more than sockets hold.
fn download(endpoint: &Endpoint, path: &str) -> TcpStream {
    let Endpoint::Tcp(address) = endpoint else { panic!("{endpoint} is no TCP address") };
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(BOUND)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    stream
}

/// How long the slow client of a story takes for a response; longer than any connection is kept idle there.
const SLOWLY: Duration = Duration::from_secs(5);
/// Far more than the sockets between Nginx, the worker and the client hold.
const LARGE: usize = 24_000_000;

fn is_whole(response: &[u8]) -> bool {
    let head = response.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
    response.starts_with(b"HTTP/1.1 200 ") && response.len() - head == LARGE
}

#[test]
fn a_slow_download_through_nginx_is_whole_during_reloads() {
    if !Nginx::is_available() {
        return;
    }
    // Nginx passes on what comes as its client takes it, so the worker sees the slow client.
    let args = ["--workers", "2", "--keep-alive", "1", &features()];
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    let upstream = server.endpoint();
    let nginx = Nginx::start(&format!(
        "upstream app {{ server {upstream} max_fails=0; keepalive 8; keepalive_timeout 500ms; }}
         server {{
             listen 127.0.0.1:{{port}};
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_next_upstream off;
                 proxy_buffering off;
             }}
         }}"
    ));
    let path = format!("/big/{LARGE}");
    let through = [nginx.endpoint(), server.endpoint().clone()];
    let slow = through.map(|endpoint| {
        let mut client = download(&endpoint, &path);
        let rate = LARGE as f64 / SLOWLY.as_secs_f64();
        std::thread::spawn(move || read_at(&mut client, rate, LARGE))
    });
    for _ in 0..3 {
        let mark = server.log_mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
    }
    for client in slow {
        let response = client.join().expect("it was read");
        assert!(is_whole(&response), "{} bytes\n{}", response.len(), nginx.error_log());
    }
    server.assert_log_clean(&[]);
    server.stop();
}

#[test]
fn a_slow_download_outlasts_a_stop() {
    let args = ["--workers", "2", "--keep-alive", "60", &features()];
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    let mut client = download(server.endpoint(), &format!("/big/{LARGE}"));
    client.peek(&mut [0]).expect("the answer has begun");
    server.signal(Signal::SIGTERM);
    let response = read_at(&mut client, LARGE as f64 / SLOWLY.as_secs_f64(), LARGE);
    assert!(is_whole(&response), "{} bytes", response.len());
    assert_eq!(server.wait_for_exit(BOUND).code(), Some(0));
}

#[test]
fn an_upload_that_is_refused_early_is_no_502() {
    if !Nginx::is_available() {
        return;
    }
    const UPLOAD: usize = 20_000_000;
    let args = ["--workers", "2", "--keep-alive", "75", &application()];
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    let upstream = server.endpoint();
    // Nginx passes the body on as it comes, and its client sends it slowly.
    let nginx = Nginx::start(&format!(
        "upstream app {{ server {upstream} max_fails=0; keepalive 8; keepalive_timeout 30s; }}
         server {{
             listen 127.0.0.1:{{port}};
             client_max_body_size 0;
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_next_upstream off;
                 proxy_request_buffering off;
             }}
         }}"
    ));
    let Endpoint::Tcp(address) = nginx.endpoint() else { panic!("it listens on TCP") };
    for coding in [format!("Content-Length: {UPLOAD}"), "Transfer-Encoding: chunked".to_owned()] {
        let is_chunked = coding.starts_with('T');
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(BOUND)).expect("a socket");
        let head =
            format!("POST /echo HTTP/1.1\r\nHost: a\r\n{coding}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("the head");
        let piece = vec![b'x'; UPLOAD / 100];
        for _ in 0..100 {
            let mut bytes = Vec::with_capacity(piece.len() + 16);
            if is_chunked {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            }
            bytes.extend_from_slice(&piece);
            if is_chunked {
                bytes.extend_from_slice(b"\r\n");
            }
            if stream.write_all(&bytes).is_err() {
                break; // Nginx has had enough: its answer is there.
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // Its close may be a reset; what it said counts.
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 413 "),
            "{coding}: {answer:.200}\n{}",
            nginx.error_log()
        );
    }
    server.assert_log_clean(&[]);
    server.stop();
}
