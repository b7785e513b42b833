//! Odd requests, sent to the worker alone, through a real Nginx and through a real HAProxy: all must agree where each request
//! ends.
//!
//! What the application received is compared with what the proxy says that it passed on: one request more would be one that
//! was smuggled past it. A proxy alone may be stricter or more lenient than the worker; what both take, both take alike.

#![allow(clippy::unwrap_used)] // A helper that cannot go on fails its test.

mod common;
#[path = "smuggling/corpus.rs"]
mod corpus;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use common::{Client, Worker, example, start, until};
use testkit::{Endpoint, Haproxy, Nginx};

use corpus::CORPUS;

/// Silence after which a connection has said all it will. Nothing depends on it but what is seen of a slow answer.
const SILENCE: Duration = Duration::from_millis(700);
/// Longest time for one case.
const CASE_MAX: Duration = Duration::from_secs(8);

/// An Nginx that passes everything on over kept connections, and writes down what it passed on.
fn nginx(upstream: SocketAddr, buffering: &str) -> Nginx {
    Nginx::start(&format!(
        "log_format seen '$status|$upstream_status|$request_method|$request_uri|';
         upstream app {{ server {upstream} max_fails=0; keepalive 16; }}
         server {{
             listen 127.0.0.1:{{port}};
             access_log {{dir}}/access.log seen;
             client_header_timeout 2s;
             client_body_timeout 2s;
             underscores_in_headers on;
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_request_buffering {buffering};
                 proxy_next_upstream off;
             }}
         }}"
    ))
}

/// A HAProxy that does the same; `how` is what its frontend is told besides.
struct Balancer {
    haproxy: Haproxy,
    /// Where its log arrives, and what has.
    receiver: UdpSocket,
    seen: RefCell<String>,
}

impl Balancer {
    fn start(upstream: SocketAddr, how: &str) -> Balancer {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let log = receiver.local_addr().unwrap();
        let haproxy = Haproxy::start(&format!(
            "frontend in
    bind 127.0.0.1:{{port}}
    log {log} format raw local0
    log-format '%ST|%s|%HM|%HU|'
    timeout client 2s
    timeout http-request 2s
    {how}
    default_backend app
backend app
    http-reuse always
    retries 0
    server one {upstream}"
        ));
        Balancer { haproxy, receiver, seen: RefCell::default() }
    }

    fn log(&self) -> String {
        let mut line = [0; 8192];
        let mut seen = self.seen.borrow_mut();
        while let Ok(count) = self.receiver.recv(&mut line) {
            seen.push_str(String::from_utf8_lossy(&line[..count]).trim_end());
            seen.push('\n');
        }
        seen.clone()
    }
}

/// What stands in front of the worker.
enum Proxy {
    Nginx(Nginx),
    Haproxy(Balancer),
}

impl Proxy {
    fn address(&self) -> SocketAddr {
        let endpoint = match self {
            Proxy::Nginx(nginx) => nginx.endpoint(),
            Proxy::Haproxy(balancer) => balancer.haproxy.endpoint(),
        };
        match endpoint {
            Endpoint::Tcp(address) => address,
            other => panic!("{other:?}"),
        }
    }

    /// A line for each request: `STATUS|WHAT THE WORKER DID|METHOD|TARGET|`.
    fn log(&self) -> String {
        match self {
            Proxy::Nginx(nginx) => nginx.access_log(),
            Proxy::Haproxy(balancer) => balancer.log(),
        }
    }

    /// Whether a line of its log is of a request that the application answered.
    fn was_answered(&self, line: &str) -> bool {
        let mut parts = line.split('|');
        let (status, worker) = (parts.next(), parts.next());
        match self {
            Proxy::Nginx(_) => worker == Some("200"),
            Proxy::Haproxy(_) => status == Some("200") && worker == Some("one"),
        }
    }
}

/// Sends literal bytes and returns what comes back until silence or the end.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    // A server may have refused before all was sent.
    let _ = stream.write_all(bytes);
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    let end = Instant::now() + CASE_MAX;
    while Instant::now() < end {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            // Silence, or a reset after a refusal.
            Err(_) => break,
        }
    }
    all
}

/// The raw bytes of case `number`, sent by `way`, which its paths say.
fn raw(number: usize, way: &str) -> Vec<u8> {
    CORPUS[number].1.replace("{id}", &format!("{number}{way}")).into_bytes()
}

/// What the application received of a case by one way, without what tells the ways apart.
fn received(all: &[String], number: usize, way: &str) -> Vec<String> {
    let mark = format!("/seen/{number}{way}/");
    let lines = all.iter().filter(|line| line.contains(&mark));
    // Proxies take the authority off an absolute target, or leave it.
    lines.map(|line| line.replace("http://b/", "/").replace(&mark, "/")).collect()
}

fn application_saw(worker: &Worker) -> Vec<String> {
    let reply = Client::to(worker.address).get("/received").expect(200);
    serde_json::from_slice(&reply.body).unwrap()
}

#[test]
fn nginx_and_the_worker_agree_where_every_request_ends() {
    if !Nginx::is_available() {
        println!("skipped: Nginx is missing");
        return;
    }
    let worker = recording();
    agree(&worker, &["on", "off"].map(|how| Proxy::Nginx(nginx(worker.address, how))));
}

#[test]
fn haproxy_and_the_worker_agree_where_every_request_ends() {
    if !Haproxy::is_available() {
        println!("skipped: HAProxy is missing");
        return;
    }
    let worker = recording();
    let hows = ["option http-buffer-request", "option accept-invalid-http-request"];
    agree(&worker, &hows.map(|how| Proxy::Haproxy(Balancer::start(worker.address, how))));
}

/// A worker that remembers what it received.
fn recording() -> Worker {
    start(example("bodies"), |settings| {
        settings.keepalive = Duration::from_secs(60);
        settings.header_timeout = Duration::from_secs(2);
        settings.body_timeout = Duration::from_secs(2);
    })
}

/// Sends the whole corpus to the worker alone and through both proxies, and compares.
#[track_caller]
fn agree(worker: &Worker, proxies: &[Proxy; 2]) {
    let proxies = [("b", &proxies[0]), ("s", &proxies[1])];
    let ways: Vec<(&str, SocketAddr)> = std::iter::once(("d", worker.address))
        .chain(proxies.iter().map(|(way, proxy)| (*way, proxy.address())))
        .collect();
    // All at once, for each waits for silence; through kept connections that others' leftovers would spoil.
    std::thread::scope(|scope| {
        for number in 0..CORPUS.len() {
            for &(way, address) in &ways {
                scope.spawn(move || exchange(address, &raw(number, way)));
            }
        }
    });
    // An ordinary request through each kept connection: what was left in one would be in front of it.
    for (_, proxy) in &proxies {
        for _ in 0..32 {
            let answer = exchange(
                proxy.address(),
                b"GET /json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            );
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
        }
    }
    let all = application_saw(worker);
    let mut taken_by_both = 0;
    for (number, (name, _)) in CORPUS.iter().enumerate() {
        let direct = received(&all, number, "d");
        for (way, proxy) in &proxies {
            let mark = format!("/seen/{number}{way}/");
            let through = received(&all, number, way);
            let passed_on = || -> Vec<String> {
                let log = proxy.log();
                log.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
            };
            // Both agree on every request that both took.
            for (ours, theirs) in direct.iter().zip(&through) {
                assert_eq!(ours, theirs, "{name}: {way}");
                taken_by_both += 1;
            }
            // Nothing reached the application that the proxy does not know of.
            let answered = || passed_on().iter().filter(|line| proxy.was_answered(line)).count();
            until(
                || answered() == through.len(),
                || format!("{name}: received {through:?}, the proxy passed on {:?}", passed_on()),
            );
            for line in passed_on() {
                let status = line.split('|').next().unwrap_or_default().to_owned();
                assert!(!matches!(&*status, "502" | "504"), "{name}: {line}");
            }
        }
        // What is not to be taken apart at all was not.
        if name.starts_with("refused") {
            assert_eq!(direct, [""; 0], "{name}");
        }
        assert!(
            !direct.iter().any(|line| line.contains("smuggled")),
            "{name}: a request was made of a body: {direct:?}"
        );
    }
    // Alone, the worker makes no request of what is none; a proxy that sees one says so.
    let is_smuggled = |line: &str| line.contains("/seen/0/smuggled");
    let smuggled: Vec<&String> = all.iter().filter(|line| is_smuggled(line)).collect();
    let known = || -> usize {
        let of = |proxy: &Proxy| {
            let log = proxy.log();
            log.lines().filter(|line| is_smuggled(line) && proxy.was_answered(line)).count()
        };
        proxies.iter().map(|(_, proxy)| of(proxy)).sum()
    };
    until(|| smuggled.len() == known(), || format!("{smuggled:?}, the proxies know {}", known()));
    assert!(CORPUS.len() / 2 < taken_by_both, "{taken_by_both}: the comparison says little");
}
