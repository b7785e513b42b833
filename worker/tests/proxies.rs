//! Proxies in front: whose word is taken about client and scheme, PROXY headers, ids passed on.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod common;

use std::io::Write;

use common::{Worker, example, start};
use shared::settings::{HeaderMap, ProxyProtocol, RealIp, Settings};

fn features(change: impl FnOnce(&mut Settings)) -> Worker {
    start(example("features"), change)
}

/// The answer to a request for `/via` with these field lines.
#[track_caller]
fn via(worker: &Worker, target: &str, lines: &str) -> String {
    let mut client = worker.connect();
    client.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    client.reply().expect(200).text()
}

#[test]
fn only_trusted_peers_say_that_it_was_https() {
    let trusting = features(|_| ());
    for (lines, want) in [
        ("", "http 127.0.0.1"),
        ("X-Forwarded-Proto: https\r\n", "https 127.0.0.1"),
        ("x-forwarded-proto: http\r\n", "http 127.0.0.1"),
        ("X-Forwarded-Proto: HTTPS\r\n", "http 127.0.0.1"),
        ("X-Forwarded-SSL: on\r\n", "https 127.0.0.1"),
        ("X-Forwarded-Protocol: ssl\r\nX-Forwarded-Proto: https\r\n", "https 127.0.0.1"),
        // Not asked for: the client's address stays the peer's.
        ("X-Forwarded-For: 192.0.2.1\r\n", "http 127.0.0.1"),
    ] {
        assert!(via(&trusting, "/via", lines).starts_with(want), "{lines}");
    }
    assert!(via(&trusting, "https://a/via", "").starts_with("https"));
    assert!(
        via(&trusting, "/via/later", "X-Forwarded-Proto: https\r\n")
            .starts_with("https Some(127.0.0.1)")
    );
    let strangers = features(|settings| settings.forwarded_allow_ips = vec!["10.0.0.0/8".into()]);
    assert!(via(&strangers, "/via", "X-Forwarded-Proto: https\r\n").starts_with("http 127.0.0.1"));
    let mut client = strangers.connect();
    client.send("GET https://a/via HTTP/1.1\r\nHost: a\r\n\r\n");
    client.reply().expect(421);
}

#[test]
fn a_contradiction_about_the_scheme_is_refused() {
    let worker = features(|_| ());
    let mut client = worker.connect();
    client.send(
        "GET /via HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-SSL: off\r\n\r\n",
    );
    assert!(client.reply().expect(400).closes());
    // From strangers these fields mean nothing, so they contradict nothing.
    let worker = features(|settings| settings.forwarded_allow_ips = Vec::new());
    via(&worker, "/via", "X-Forwarded-Proto: https\r\nX-Forwarded-SSL: off\r\n");
}

#[test]
fn the_client_behind_proxies_is_named_when_asked_for() {
    let worker = features(|settings| {
        settings.forwarded_allow_ips = vec!["127.0.0.1".into(), "10.0.0.0/8".into()];
        settings.real_ip = RealIp::XForwardedFor;
    });
    let lines = "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.3\r\n";
    assert!(via(&worker, "/via", lines).starts_with("http 192.0.2.1 "));
    assert!(via(&worker, "/via/later", lines).starts_with("http Some(192.0.2.1) "));
    assert!(via(&worker, "/via", "").starts_with("http 127.0.0.1 "));
    let worker = features(|settings| settings.real_ip = RealIp::Forwarded);
    assert!(
        via(&worker, "/via", "Forwarded: for=\"[2001:db8::1]:9\"\r\n")
            .starts_with("http 2001:db8::1 ")
    );
    let strangers = features(|settings| {
        settings.forwarded_allow_ips = Vec::new();
        settings.real_ip = RealIp::XForwardedFor;
    });
    assert!(via(&strangers, "/via", lines).starts_with("http 127.0.0.1 "));
}

#[test]
fn underscores_follow_the_policy_and_forwarders_may_send_theirs() {
    let echo = |worker: &Worker, name: &str| {
        let mut client = worker.connect();
        client.send(&format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\n{name}: 1\r\nContent-Length: 0\r\n\r\n"
        ));
        client.reply().status
    };
    let refusing = features(|settings| settings.header_map = HeaderMap::Refuse);
    assert_eq!(
        (echo(&refusing, "X_A"), echo(&refusing, "SCRIPT_NAME"), echo(&refusing, "X-A")),
        (400, 200, 200)
    );
    let strict = features(|settings| {
        settings.header_map = HeaderMap::Refuse;
        settings.forwarded_allow_ips = Vec::new();
    });
    assert_eq!(echo(&strict, "SCRIPT_NAME"), 400);
    let lenient = features(|settings| settings.permit_unconventional_http_method = true);
    for (worker, status) in [(&refusing, 400), (&lenient, 405)] {
        let mut client = worker.connect();
        client.send("get /via HTTP/1.1\r\nHost: a\r\n\r\n");
        client.reply().expect(status);
    }
}

#[test]
fn a_proxy_header_names_the_client_of_the_whole_connection() {
    let worker = features(|settings| settings.proxy_protocol = ProxyProtocol::Auto);
    let v1 = &b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"[..];
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x01\x7f\x00\x00\x01\xb8\xe8\x47\x7c\x04\x00\x00";
    let request = b"GET /via HTTP/1.1\r\nHost: a\r\n\r\n";
    for header in [v1, &v2[..]] {
        let whole = [header, request].concat();
        for cut in [1, 5, 12, 16, header.len() - 1, header.len(), header.len() + 3] {
            let mut client = worker.connect();
            client.stream.write_all(&whole[..cut]).unwrap();
            std::thread::yield_now();
            client.stream.write_all(&whole[cut..]).unwrap();
            assert!(
                client.reply().expect(200).text().starts_with("http 192.0.2.1 "),
                "cut at {cut}"
            );
            // And of the next request on it.
            assert!(client.get("/via").expect(200).text().starts_with("http 192.0.2.1 "));
        }
    }
    // A health check of HAProxy: the connection's own address stands.
    let mut client = worker.connect();
    client.stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").unwrap();
    assert!(client.get("/via").expect(200).text().starts_with("http 127.0.0.1 "));
    drop(client);
    worker.stop();
}

#[test]
fn without_a_right_proxy_header_nothing_is_served() {
    let worker = features(|settings| settings.proxy_protocol = ProxyProtocol::V2);
    for bytes in [
        &b"GET /via HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /via HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c",
    ] {
        let mut client = worker.connect();
        client.stream.write_all(bytes).unwrap();
        assert!(client.reply().expect(400).closes());
        client.half_close();
        assert_eq!(client.rest(), "");
    }
    let strangers = features(|settings| {
        settings.proxy_protocol = ProxyProtocol::Auto;
        settings.proxy_allow_ips = vec!["10.0.0.0/8".into()];
    });
    let mut client = strangers.connect();
    client.send("PROXY UNKNOWN\r\nGET /via HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.reply().expect(403).closes());
}

#[test]
fn trust_belongs_to_the_sender_of_a_proxy_header_and_not_to_whom_it_names() {
    let worker = features(|settings| {
        settings.proxy_protocol = ProxyProtocol::V1;
        settings.forwarded_allow_ips = vec!["192.0.2.1".into()];
    });
    let mut client = worker.connect();
    client.send("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    client.send("GET /via HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n");
    assert!(client.reply().expect(200).text().starts_with("http 192.0.2.1 "));
}

#[test]
fn no_field_names_a_client_beyond_the_one_that_a_proxy_header_names() {
    let worker = features(|settings| {
        settings.proxy_protocol = ProxyProtocol::V1;
        settings.forwarded_allow_ips = vec!["127.0.0.1".into(), "10.0.0.0/8".into()];
        settings.real_ip = RealIp::XForwardedFor;
    });
    // A balancer that passes bytes on says who its client is; what that says of others is not believed, unless it is one
    // of ours.
    for (named, want) in [("192.0.2.1", "192.0.2.1"), ("10.0.0.7", "203.0.113.9")] {
        let mut client = worker.connect();
        client.send(&format!("PROXY TCP4 {named} 198.51.100.2 56324 443\r\n"));
        client.send("GET /via HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
        let text = client.reply().expect(200).text();
        assert!(text.starts_with(&format!("http {want} ")), "{named}: {text}");
    }
}

#[test]
fn every_request_has_an_id_when_that_is_asked_for() {
    let worker = features(|settings| settings.request_id = true);
    for path in ["/via", "/via/later"] {
        let mut client = worker.connect();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-ID: A.b_c-9\r\n\r\n"));
        let reply = client.reply().expect(200);
        assert_eq!(reply.header("x-request-id"), Some("A.b_c-9"));
        assert!(reply.text().contains(" A.b_c-9"), "{}", reply.text());
        let mut made = Vec::new();
        for line in ["", "X-Request-ID: a b\r\n", "X-Request-ID: a\"\r\n"] {
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{line}\r\n"));
            let reply = client.reply().expect(200);
            let id = reply.header("x-request-id").unwrap().to_owned();
            assert!(id.len() == 32 && reply.text().contains(&id), "{id}");
            made.push(id);
        }
        made.dedup();
        assert_eq!(made.len(), 3);
    }
    // By default a plain one is there to be seen, and nothing is added.
    let worker = features(|_| ());
    let mut client = worker.connect();
    client.send("GET /via HTTP/1.1\r\nHost: a\r\nX-Request-ID: abc\r\n\r\n");
    let reply = client.reply().expect(200);
    assert!(reply.text().contains(" abc ") && reply.header("x-request-id").is_none());
}

#[test]
fn a_valid_trace_is_there_to_be_passed_on() {
    let worker = features(|_| ());
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert!(
        via(&worker, "/via", &format!("traceparent: 00-{id}-00f067aa0ba902b7-01\r\n"))
            .ends_with(&format!("{id}\n"))
    );
    assert!(
        via(&worker, "/via", &format!("traceparent: 00-{id}-0000000000000000-01\r\n"))
            .ends_with("-\n")
    );
}
