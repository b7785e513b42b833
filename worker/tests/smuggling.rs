//! Odd requests, sent to the worker alone and through a real Nginx: both must agree where each request ends.
//!
//! What the application received is compared with what Nginx says that it passed on: one request more would be one that was
//! smuggled past Nginx. Nginx alone may be stricter or more lenient than the worker; what both take, both take alike.

#![allow(clippy::unwrap_used)] // A helper that cannot go on fails its test.

mod common;
#[path = "smuggling/corpus.rs"]
mod corpus;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Client, Worker, example, start, until};
use testkit::{Endpoint, Nginx};

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
    // Nginx takes the authority off an absolute target.
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
    let worker = start(example("bodies"), |settings| {
        settings.keepalive = Duration::from_secs(60);
        settings.header_timeout = Duration::from_secs(2);
        settings.body_timeout = Duration::from_secs(2);
    });
    let proxies = [("b", nginx(worker.address, "on")), ("s", nginx(worker.address, "off"))];
    let address = |nginx: &Nginx| match nginx.endpoint() {
        Endpoint::Tcp(address) => address,
        other => panic!("{other:?}"),
    };
    let ways: Vec<(&str, SocketAddr)> = std::iter::once(("d", worker.address))
        .chain(proxies.iter().map(|(way, nginx)| (*way, address(nginx))))
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
    for (_, nginx) in &proxies {
        for _ in 0..32 {
            let answer = exchange(
                address(nginx),
                b"GET /json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            );
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
        }
    }
    let all = application_saw(&worker);
    let mut taken_by_both = 0;
    for (number, (name, _)) in CORPUS.iter().enumerate() {
        let direct = received(&all, number, "d");
        for (way, nginx) in &proxies {
            let mark = format!("/seen/{number}{way}/");
            let through = received(&all, number, way);
            let passed_on = || -> Vec<String> {
                let log = nginx.access_log();
                log.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
            };
            // Both agree on every request that both took.
            for (ours, theirs) in direct.iter().zip(&through) {
                assert_eq!(ours, theirs, "{name}: {way}");
                taken_by_both += 1;
            }
            // Nothing reached the application that Nginx does not know of.
            let answered =
                || passed_on().iter().filter(|line| line.split('|').nth(1) == Some("200")).count();
            until(
                || answered() == through.len(),
                || format!("{name}: received {through:?}, Nginx passed on {:?}", passed_on()),
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
    println!("{} cases; {taken_by_both} requests taken by both", CORPUS.len());
    assert!(CORPUS.len() / 2 < taken_by_both, "{taken_by_both}: the comparison says little");
}
