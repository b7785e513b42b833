//! What a small request and its answer cost without any I/O, in nanoseconds each: `cargo bench -p http1`.

#![allow(clippy::print_stdout, missing_docs, reason = "a benchmark prints")]

use std::hint::black_box;
use std::time::Instant;

use http1::{Exchange, FieldStorage, Parsed, Progress, Rules, Stamp, parse_head, respond};

const PLAIN: &[u8] =
    b"GET /plaintext HTTP/1.1\r\nHost: tfb-server\r\nAccept: text/plain,text/html;q=0.9,\
    application/xhtml+xml;q=0.9,application/xml;q=0.8,*/*;q=0.7\r\nConnection: keep-alive\r\n\r\n";
const BROWSER: &[u8] = b"GET /static/app.js?v=12 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; \
    Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: */*\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.org/\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nSec-Fetch-Dest: script\r\nSec-Fetch-Mode: no-cors\r\n\
    Sec-Fetch-Site: same-origin\r\nIf-None-Match: \"5f3c-1a2b3c4d\"\r\nPriority: u=2\r\n\r\n";

/// Short rounds and many: the best one was left alone by everything else on the machine.
const ROUNDS: u32 = 10_000;
const REPEATS: u32 = 400;

fn measure(name: &str, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..REPEATS {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
    }
    println!("{name:24} {best:7.1} ns");
}

fn main() {
    let rules = Rules::default();
    let mut fields = FieldStorage::new();
    for (name, head) in [("head, 3 fields", PLAIN), ("head, 13 fields", BROWSER)] {
        measure(name, || {
            let parsed = parse_head(black_box(head), &rules, &mut Progress::default(), &mut fields);
            assert!(matches!(black_box(parsed), Ok(Parsed::Complete(_))));
        });
    }
    for (name, head) in [("httparse, 3 fields", PLAIN), ("httparse, 13 fields", BROWSER)] {
        measure(name, || {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut headers);
            assert!(black_box(request.parse(black_box(head))).is_ok());
        });
    }
    let Ok(Parsed::Complete(head)) =
        parse_head(PLAIN, &rules, &mut Progress::default(), &mut fields)
    else {
        return;
    };
    let exchange = Exchange::of(&head);
    let stamp = Stamp::new(b"Sun, 06 Nov 1994 08:49:37 GMT");
    let mut out = Vec::with_capacity(4096);
    measure("response, 27 bytes", || {
        out.clear();
        let body = black_box(b"{\"message\":\"Hello, World!\"}");
        respond(&mut out, black_box(&exchange), &stamp, 200, "application/json", body);
        black_box(&out);
    });
}
