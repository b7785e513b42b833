//! The Nginx sites of `deploy/`, in front of a real server: as shipped, but for addresses and paths.

#![allow(clippy::expect_used, reason = "a test's helpers are tests")]

use std::time::Duration;

use testkit::{Nginx, Server, TempDir, http};

/// Longest wait for the server: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

const COMMON: &str = include_str!("../../deploy/nginx/common.conf");
const UNIX: &str = include_str!("../../deploy/nginx/monoceros-unix.conf");
const TCP: &str = include_str!("../../deploy/nginx/monoceros-tcp.conf");

/// Replaces what differs between this test and a real machine; what is not found means that the site has changed.
fn with(site: &str, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(site.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the site no longer says {from:?}");
        text.replace(from, to)
    })
}

/// Answers while the server runs, a page of its own while it is away, and answers again.
fn serves_and_survives(
    site: &str,
    upstream: (&str, &str),
    bind: &str,
    path: impl Fn(&Server) -> String,
) {
    let start = || {
        let builder = Server::builder(env!("CARGO_BIN_EXE_master")).without_bind();
        builder.args(["--bind", bind, "--workers", "1", "--keep-alive", "75"]).start()
    };
    let mut server = start();
    let address = path(&server);
    let site = with(
        site,
        &[
            (upstream.0, &format!("server {address} {}", upstream.1)),
            ("listen 80", "listen 127.0.0.1:{port}"),
            ("example.com", "localhost"),
            ("include snippets/monoceros.conf;", COMMON),
        ],
    );
    let nginx = Nginx::start(&site);
    let page = http::get(&nginx.endpoint(), "/json").expect("an answer");
    assert_eq!((page.status, page.text()), (200, r#"{"message":"Hello, World!"}"#));
    assert!(page.header("date").is_some());

    server.stop();
    let page = http::get(&nginx.endpoint(), "/json").expect("an answer");
    assert_eq!(page.status, 503, "{}", page.head);
    assert_eq!(page.header("retry-after"), Some("1"));
    assert_eq!(page.header("content-type"), Some("application/json"));

    if bind.starts_with("unix:") {
        let mut server = start();
        testkit::wait_until("the server's return behind Nginx", BOUND, || {
            http::get(&nginx.endpoint(), "/json").is_ok_and(|page| page.status == 200)
        });
        server.stop();
    }
}

#[test]
fn site_with_a_unix_socket() {
    let dir = TempDir::new();
    let socket = format!("unix:{}", dir.join("app.sock").display());
    let upstream = ("server unix:/run/monoceros.sock max_fails=0", "max_fails=0");
    serves_and_survives(UNIX, upstream, &socket, |_| socket.clone());
}

#[test]
fn site_with_tcp() {
    let upstream =
        ("server 127.0.0.1:8080 max_fails=2 fail_timeout=2s", "max_fails=2 fail_timeout=2s");
    serves_and_survives(TCP, upstream, "127.0.0.1:0", |server| server.endpoint().tcp().to_string());
}

#[test]
fn site_answers_nobody_who_does_not_know_its_name() {
    let site = with(
        TCP,
        &[("listen 80", "listen 127.0.0.1:{port}"), ("include snippets/monoceros.conf;", COMMON)],
    );
    let nginx = Nginx::start(&site);
    assert!(
        http::get(&nginx.endpoint(), "/json").is_err(),
        "a request for another host was answered"
    );
}
