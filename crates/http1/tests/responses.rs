//! Responses as they go over the wire.

#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use http1::{
    BodyDecoder, Encoder, Exchange, Finish, Framing, Limits, Refusal, ResponseError, Stamp, Version,
};

const KEEP: Exchange =
    Exchange { version: Version::Http11, is_head: false, is_connect: false, keep_alive: true };
const CLOSE: Exchange = Exchange { keep_alive: false, ..KEEP };
const HEAD: Exchange = Exchange { is_head: true, ..KEEP };
const OLD: Exchange = Exchange { version: Version::Http10, ..KEEP };
const OLD_CLOSE: Exchange = Exchange { version: Version::Http10, keep_alive: false, ..KEEP };
const STAMP: &str = "Server: monoceros\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

fn stamp() -> Stamp {
    Stamp::new(b"Sun, 06 Nov 1994 08:49:37 GMT")
}

/// What `write` appends, which must not touch what was there before, without Server and Date.
#[track_caller]
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before".to_vec();
    write(&mut out);
    let text = String::from_utf8(out.split_off(6)).expect("ASCII");
    assert_eq!(out, b"before");
    assert_eq!(text.matches(STAMP).count(), 1, "{text}");
    text.replacen(STAMP, "", 1)
}

fn respond(exchange: Exchange, status: u16) -> String {
    written(|out| http1::respond(out, &exchange, &stamp(), status, "text/plain", b"hello"))
}

#[test]
fn small_response_is_complete() {
    let want = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(respond(KEEP, 200), want);
    assert_eq!(respond(KEEP, 404), want.replace("200 OK", "404 Not Found"));
    assert_eq!(respond(KEEP, 299), want.replace("200 OK", "299 Unknown"));
}

#[test]
fn length_is_right_whatever_its_number_of_digits() {
    for length in [0, 9, 10, 99, 100, 109, 999, 1000, 123_456] {
        let body = vec![b'a'; length];
        let text = written(|out| http1::respond(out, &KEEP, &stamp(), 200, "text/plain", &body));
        assert!(text.contains(&format!("\r\nContent-Length: {length}\r\n\r\n")));
    }
}

#[test]
fn connection_is_said_only_where_the_version_does_not() {
    assert!(!respond(KEEP, 200).contains("Connection"));
    assert!(respond(CLOSE, 200).contains("\r\nConnection: close\r\n"));
    assert!(respond(OLD, 200).contains("\r\nConnection: keep-alive\r\n"));
    assert!(!respond(OLD_CLOSE, 200).contains("Connection"));
}

#[test]
fn head_gets_the_head_of_get() {
    assert_eq!(respond(HEAD, 200), respond(KEEP, 200).replace("\r\n\r\nhello", "\r\n\r\n"));
    let encoded = |exchange, body: &[u8]| {
        written(|out| {
            let mut encoder = Encoder::new(out, exchange, &stamp(), 200).expect("a status");
            encoder.field("Content-Length", b"5").expect("a length");
            assert_eq!(encoder.finish(body), Finish::KeepAlive);
        })
    };
    // An application may leave the body out itself.
    assert_eq!(encoded(HEAD, b""), encoded(KEEP, b"hello").replace("hello", ""));
    let chunked = written(|out| {
        let mut body = Encoder::new(out, HEAD, &stamp(), 200).expect("a status").chunked();
        assert!(!body.sends_body());
        assert_eq!(body.write(out, b"hello"), 0);
        assert_eq!(body.finish(out), Finish::KeepAlive);
    });
    assert_eq!(chunked, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn bodiless_statuses_have_no_body_and_no_length() {
    for status in [204, 304] {
        let text = respond(KEEP, status);
        assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-"), "{text}");
        for chunked in [false, true] {
            let text = written(|out| {
                let mut encoder = Encoder::new(out, KEEP, &stamp(), status).expect("a status");
                encoder.field("Content-Length", b"5").expect("a length");
                let mut body = if chunked { encoder.chunked() } else { encoder.length(5) };
                body.write(out, b"hello");
                assert_eq!(body.finish(out), Finish::KeepAlive);
            });
            assert!(
                text.ends_with("\r\n\r\n")
                    && !text.contains("Content-")
                    && !text.contains("Transfer-"),
                "{text}"
            );
        }
    }
    // A 205 says that it has none (RFC 9110 §15.3.6).
    assert!(respond(KEEP, 205).ends_with("\r\nContent-Length: 0\r\n\r\n"));
    let connect = respond(Exchange { is_connect: true, ..CLOSE }, 200);
    assert!(connect.ends_with("\r\n\r\n") && !connect.contains("Content-"), "{connect}");
}

#[test]
fn body_is_clamped_to_the_declared_length() {
    let text = written(|out| {
        let mut body = Encoder::new(out, KEEP, &stamp(), 200).expect("a status").length(5);
        assert_eq!((body.write(out, b"hel"), body.remaining()), (0, Some(2)));
        assert_eq!(body.write(out, b"lo\r\nHTTP/1.1 200 OK"), 17);
        assert_eq!(body.write(out, b"more"), 4);
        assert_eq!(body.finish(out), Finish::KeepAlive);
    });
    assert!(text.ends_with("\r\nContent-Length: 5\r\n\r\nhello"), "{text}");
    let text = written(|out| {
        let mut encoder = Encoder::new(out, KEEP, &stamp(), 200).expect("a status");
        encoder.field("content-length", b"3").expect("a length");
        let mut body = encoder.chunked();
        assert_eq!(body.write(out, b"hello"), 2);
    });
    assert!(text.ends_with("\r\nContent-Length: 3\r\n\r\nhel"), "{text}");
}

#[test]
fn too_short_a_body_cuts_the_connection() {
    let mut out = Vec::new();
    let mut body = Encoder::new(&mut out, KEEP, &stamp(), 200).expect("a status").length(5);
    body.write(&mut out, b"hel");
    assert_eq!(body.finish(&mut out), Finish::Truncated { missing: 2 });
    let mut body = Encoder::new(&mut out, KEEP, &stamp(), 200).expect("a status").length(5);
    body.sent(5);
    assert_eq!(body.finish(&mut out), Finish::KeepAlive);
}

#[test]
fn chunks_are_framed_and_ended() {
    let text = written(|out| {
        let mut body = Encoder::new(out, KEEP, &stamp(), 200).expect("a status").chunked();
        body.write(out, b"hello");
        // Nothing written is no end.
        body.write(out, b"");
        body.write(out, &[b'x'; 31]);
        assert_eq!(body.finish(out), Finish::KeepAlive);
    });
    let want = format!(
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1f\r\n{}\r\n0\r\n\r\n",
        "x".repeat(31)
    );
    assert!(text.ends_with(&want), "{text}");
}

#[test]
fn http10_gets_no_chunks() {
    let text = written(|out| {
        let mut body = Encoder::new(out, OLD, &stamp(), 200).expect("a status").chunked();
        body.write(out, b"hello");
        assert_eq!(body.finish(out), Finish::Close);
    });
    assert_eq!(text, "HTTP/1.1 200 OK\r\n\r\nhello");
}

#[test]
fn header_injection_is_an_error_and_leaves_nothing() {
    let cases: [(&str, &[u8]); 9] = [
        ("X", b"a\r\nSet-Cookie: b"),
        ("X", b"a\nb"),
        ("X", b"a\rb"),
        ("X", b"a\0b"),
        ("X", b"a\x7fb"),
        ("X\r\nY", b"a"),
        ("X Y", b"a"),
        ("X:", b"a"),
        ("", b"a"),
    ];
    for (name, value) in cases {
        let mut out = b"before".to_vec();
        let mut encoder = Encoder::new(&mut out, KEEP, &stamp(), 200).expect("a status");
        encoder.field("Fine", b"1").expect("a field");
        assert!(encoder.field(name, value).is_err(), "{name:?}: {value:?}");
        drop(encoder);
        assert_eq!(out, b"before");
        assert!(http1::interim(&mut out, 103, &[("Fine", b"1"), (name, value)]).is_err());
        assert_eq!(out, b"before");
    }
}

#[test]
fn invalid_statuses_and_lengths_are_errors() {
    let mut out = Vec::new();
    for status in [0, 99, 100, 103, 199, 1000] {
        assert_eq!(
            Encoder::new(&mut out, KEEP, &stamp(), status).err(),
            Some(ResponseError::Status)
        );
    }
    let mut encoder = Encoder::new(&mut out, KEEP, &stamp(), 200).expect("a status");
    for length in ["", "+5", "-1", "5, 5", "0x5", "99999999999999999999"] {
        assert_eq!(
            encoder.field("Content-Length", length.as_bytes()).err(),
            Some(ResponseError::ContentLength)
        );
    }
    encoder.field("Content-Length", b"5").expect("a length");
    assert_eq!(encoder.field("Content-Length", b"6").err(), Some(ResponseError::ContentLength));
}

#[test]
fn fields_of_the_connection_are_not_the_applications() {
    let text = written(|out| {
        let mut encoder = Encoder::new(out, KEEP, &stamp(), 200).expect("a status");
        for name in [
            "Server",
            "DATE",
            "transfer-encoding",
            "Keep-Alive",
            "TE",
            "Trailers",
            "Upgrade",
            "Proxy-Authenticate",
        ] {
            encoder.field(name, b"chunked").expect("a field");
        }
        encoder.field("X-Kept", b" spaces go ").expect("a field");
        assert_eq!(encoder.finish(b""), Finish::KeepAlive);
    });
    assert_eq!(text, "HTTP/1.1 200 OK\r\nX-Kept: spaces go\r\nContent-Length: 0\r\n\r\n");
    let text = written(|out| {
        let mut encoder = Encoder::new(out, KEEP, &stamp(), 200).expect("a status");
        encoder.field("Connection", b"x-thing, Close").expect("a field");
        assert_eq!(encoder.finish(b""), Finish::Close);
    });
    assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

#[test]
fn fields_of_the_connection_go_with_the_statuses_that_demand_them() {
    let with = |status, version, keep_alive| {
        written(|out| {
            let exchange = Exchange { version, keep_alive, ..KEEP };
            let mut encoder = Encoder::new(out, exchange, &stamp(), status).expect("a status");
            encoder.field("Upgrade", b"chat/2").expect("a field");
            encoder.field("Proxy-Authenticate", b"Basic").expect("a field");
            encoder.finish(b"");
        })
    };
    let text = with(426, Version::Http11, true);
    assert!(text.contains("\r\nUpgrade: chat/2\r\n") && !text.contains("Basic"), "{text}");
    assert!(text.ends_with("\r\nConnection: upgrade\r\n\r\n"), "{text}");
    for (version, keep_alive, other) in [
        (Version::Http11, false, "Connection: close\r\n"),
        (Version::Http10, true, "Connection: keep-alive\r\n"),
    ] {
        let text = with(426, version, keep_alive);
        assert!(text.ends_with(&format!("\r\n{other}Connection: upgrade\r\n\r\n")), "{text}");
    }
    let text = with(407, Version::Http11, true);
    assert!(text.contains("\r\nProxy-Authenticate: Basic\r\n"), "{text}");
    assert!(!text.contains("chat") && !text.contains("upgrade"), "{text}");
}

#[test]
fn what_is_known_of_a_refused_request_is_that_head_gets_no_content() {
    for (bytes, is_head) in [
        (&b"HEAD / HTTP/1.1\r\n"[..], true),
        (b"\r\nHEAD /", true),
        (b"HEAD", false),
        (b"HEADER / HTTP/1.1", false),
        (b"GET / HTTP/1.1", false),
        (b"\r\n", false),
        (b"", false),
    ] {
        assert_eq!(Exchange::of_refused(bytes), Exchange { is_head, ..Exchange::UNKNOWN });
    }
}

#[test]
fn refusals_are_framed_and_close() {
    let text = written(|out| {
        let finish = Refusal::new(400, "missing Host").write(out, Exchange::UNKNOWN, &stamp());
        assert_eq!(finish, Finish::Close);
    });
    assert_eq!(
        text,
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 30\r\n\
         Connection: close\r\n\r\n400 Bad Request: missing Host\n"
    );
    let text = written(|out| {
        let refusal = Refusal { allow: Some("GET, HEAD, OPTIONS"), ..Refusal::new(405, "") };
        assert_eq!(refusal.write(out, KEEP, &stamp()), Finish::KeepAlive);
    });
    assert!(
        text.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n")
            && text.ends_with("\r\n\r\n405 Method Not Allowed\n")
    );
    let text = written(|out| {
        let refusal = Refusal { retry_after: Some(1), ..Refusal::new(503, "database is away") };
        refusal.write(out, HEAD, &stamp());
    });
    assert!(text.contains("\r\nRetry-After: 1\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    // Even one that cannot be written as asked is written.
    let text = written(|out| {
        Refusal { allow: Some("GET\r\nX: y"), ..Refusal::new(405, "") }.write(out, CLOSE, &stamp());
    });
    assert!(text.starts_with("HTTP/1.1 405 ") && !text.contains("X: y"), "{text}");
}

#[test]
fn interim_responses_have_no_framing() {
    let mut out = Vec::new();
    http1::interim(&mut out, 103, &[("Link", b"</a.css>; rel=preload"), ("Content-Length", b"5")])
        .expect("fields");
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    assert_eq!(http1::interim(&mut out, 200, &[]), Err(ResponseError::Status));
    assert_eq!(http1::interim(&mut out, 101, &[]), Err(ResponseError::Status));
}

/// Whatever an application says, another parser finds one response whose body is what was written.
#[test]
fn responses_are_read_back_whole() {
    let mut random = fastrand::Rng::with_seed(9110);
    for _ in 0..5000 {
        let mut exchange = [KEEP, CLOSE, HEAD, OLD, OLD_CLOSE][random.usize(..5)];
        exchange.is_head &= random.bool();
        let status = [200, 201, 204, 205, 304, 404, 500, 599][random.usize(..8)];
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, exchange, &stamp(), status).expect("a status");
        let mut data: Vec<u8> = (0..random.usize(..400)).map(|_| random.u8(..)).collect();
        for _ in 0..random.usize(..4) {
            let name: String =
                (0..random.usize(..3)).map(|_| random.char('\0'..'\u{80}')).collect();
            let value: Vec<u8> = (0..random.usize(..5)).map(|_| random.u8(..)).collect();
            let _ = encoder.field(&name, &value);
        }
        let writer = random.u8(..3);
        let finish = match writer {
            0 => encoder.finish(&data),
            _ => {
                let mut body =
                    if writer == 1 { encoder.chunked() } else { encoder.length(data.len() as u64) };
                let mut rest = data.as_slice();
                while !rest.is_empty() {
                    let (piece, tail) = rest.split_at(random.usize(1..=rest.len()));
                    body.write(&mut out, piece);
                    rest = tail;
                }
                body.finish(&mut out)
            }
        };
        if matches!(status, 204 | 205 | 304) || exchange.is_head {
            data.clear();
        }

        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let head = response.parse(&out).expect("a response").unwrap();
        assert_eq!(response.code, Some(status));
        let value = |name: &str| {
            response
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .map(|header| header.value)
        };
        let length = value("content-length")
            .map(|text| std::str::from_utf8(text).expect("ASCII").parse().expect("a number"));
        let framing = match (value("transfer-encoding"), length) {
            _ if exchange.is_head || matches!(status, 204 | 304) => Framing::None,
            (Some(coding), None) => {
                assert_eq!(coding, b"chunked");
                Framing::Chunked
            }
            (None, Some(length)) => Framing::Length(length),
            (None, None) => {
                assert_eq!(
                    (finish, exchange.version),
                    (Finish::Close, Version::Http10),
                    "ends with the connection"
                );
                Framing::Length((out.len() - head) as u64)
            }
            (Some(_), Some(_)) => panic!("both framings"),
        };
        let mut decoder = BodyDecoder::new(framing, &Limits::default());
        let (mut at, mut seen) = (head, Vec::new());
        while !decoder.is_done() {
            let step = decoder.decode(&out[at..]).expect("a body");
            assert!(step.consumed != 0 || step.done, "a body that ends");
            seen.extend_from_slice(&out[at..][step.data]);
            at += step.consumed;
        }
        assert_eq!((at, seen), (out.len(), data));
    }
}

#[test]
fn fields_of_a_head_that_was_written_are_found_again() {
    let mut out = b"what was there before\r\nX-Id: 0\r\n".to_vec();
    let before = out.len();
    let mut encoder = Encoder::new(&mut out, KEEP, &stamp(), 200).expect("a status");
    encoder.field("x-id", b"1").expect("valid");
    assert!(encoder.has("X-ID") && !encoder.has("X-Other") && !encoder.has("X"));
    encoder.field("X-Id", b"2: b").expect("valid");
    let _ = encoder.length(5);
    let head = &out[before..];
    assert_eq!(http1::written_field(head, "X-Id"), Some(&b"2: b"[..]));
    assert_eq!(http1::written_field(head, "content-length"), Some(&b"5"[..]));
    assert_eq!(http1::written_field(head, "HTTP/1.1 200 OK"), None);
}
