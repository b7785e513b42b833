//! Behind the real Nginx and the real HAProxy: the right client in the log, no 502, and lines for what died.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::time::Duration;

use testkit::{Endpoint, Haproxy, Load, Mode, Nginx, Server, Signal, TempDir, wait_until};

/// Longest wait for one step: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

/// Peer, named client, scheme, id, request and status.
const FORMAT: &str =
    "%(h)s %({client}x)s %({scheme}x)s %({request_id}x)s \"%(r)s\" %(s)s %({reason}x)s";

fn start(dir: &TempDir, args: &[&str]) -> Server {
    let log = dir.join("access.log").display().to_string();
    let shared = [
        "--access-logfile",
        &log,
        "--access-logformat",
        FORMAT,
        "--workers",
        "2",
        "--keep-alive",
        "75",
    ];
    let server = Server::builder(env!("CARGO_BIN_EXE_master"));
    let server = server.args(shared).args(args.iter().copied()).without_first_request().start();
    server.wait_for_log("Ready workers=", BOUND);
    server
}

fn lines(dir: &TempDir) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("access.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits for a line with this in it.
#[track_caller]
fn line(dir: &TempDir, part: &str) -> String {
    let mut found = None;
    wait_until(&format!("a line with {part}"), BOUND, || {
        found = lines(dir).into_iter().find(|line| line.contains(part));
        found.is_some()
    });
    found.unwrap()
}

#[track_caller]
fn ask(endpoint: &Endpoint, target: &str, fields: &str) -> testkit::http::Response {
    let mut connection = testkit::http::Connection::open(endpoint).unwrap();
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n{fields}Connection: close\r\n\r\n");
    connection.send(request.as_bytes()).unwrap();
    connection.response(false).unwrap()
}

#[test]
fn nginx_names_client_scheme_and_id() {
    if !Nginx::is_available() {
        return;
    }
    let dir = TempDir::new();
    let server = start(&dir, &["--real-ip", "x-forwarded-for", "--request-id"]);
    let upstream = server.endpoint();
    let nginx = Nginx::start(&format!(
        "upstream app {{ server {upstream}; keepalive 8; }}
         server {{
             listen 127.0.0.1:{{port}} proxy_protocol;
             set_real_ip_from 127.0.0.1;
             real_ip_header proxy_protocol;
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                 proxy_set_header X-Forwarded-Proto https;
                 proxy_set_header X-Request-ID $request_id;
             }}
         }}"
    ));
    // Nginx believes the PROXY header; what the client itself says in X-Forwarded-For is not believed by us.
    let mut connection = testkit::http::Connection::open(&nginx.endpoint()).unwrap();
    connection
        .send(
            b"PROXY TCP4 203.0.113.9 198.51.100.2 56324 443\r\n\
              GET /json?x=1 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let answer = connection.response(false).unwrap();
    assert_eq!(answer.status, 200);
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert_eq!(id.len(), 32);
    let want = format!("127.0.0.1 203.0.113.9 https {id} \"GET /json?x=1 HTTP/1.1\" 200 -");
    assert_eq!(line(&dir, "/json?x=1"), want);
}

#[test]
fn haproxy_names_clients_by_its_header_and_its_health_checks_are_answered() {
    if !Haproxy::is_available() {
        return;
    }
    let dir = TempDir::new();
    let server = start(&dir, &["--proxy-protocol", "v2"]);
    let upstream = server.endpoint();
    let haproxy = Haproxy::start(&format!(
        "frontend in
    bind 127.0.0.1:{{port}} accept-proxy
    default_backend app
backend app
    option httpchk GET /plaintext
    http-check send hdr Host check
    server one {upstream} send-proxy-v2 proxy-v2-options crc32c,authority check inter 100ms fall 1 rise 1"
    ));
    // The check is a LOCAL header: the address is HAProxy's own.
    assert_eq!(
        line(&dir, "/plaintext"),
        "127.0.0.1 127.0.0.1 http - \"GET /plaintext HTTP/1.0\" 200 -"
    );
    wait_until("the server is up", BOUND, || haproxy.is_up("one"));
    let mut connection = testkit::http::Connection::open(&haproxy.endpoint()).unwrap();
    connection
        .send(b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\nGET /json HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(connection.response(false).unwrap().status, 200);
    assert_eq!(line(&dir, "2001:"), "2001:db8::7 2001:db8::7 http - \"GET /json HTTP/1.1\" 200 -");
    // The next request on the same connection has the same client.
    connection.send(b"GET /json?2 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(connection.response(false).unwrap().status, 200);
    assert!(line(&dir, "/json?2").starts_with("2001:db8::7 "));
    // Around HAProxy nothing is served.
    assert_eq!(ask(server.endpoint(), "/json", "").status, 400);
    assert!(line(&dir, " 400 ").ends_with("\"GET /json HTTP/1.1\" 400 bad_request"));
}

#[test]
fn a_server_that_says_it_will_stop_is_taken_out_and_no_request_fails() {
    if !Haproxy::is_available() {
        return;
    }
    let (dir, other) = (TempDir::new(), TempDir::new());
    let admin = testkit::free_port();
    let admin_bind = format!("127.0.0.1:{admin}");
    let mut leaving = start(
        &dir,
        &["--proxy-protocol", "v2", "--admin-bind", &admin_bind, "--shutdown-delay", "3"],
    );
    let staying = start(&other, &["--proxy-protocol", "v2"]);
    let haproxy = Haproxy::start(&format!(
        "frontend in
    bind 127.0.0.1:{{port}}
    default_backend app
backend app
    balance roundrobin
    retries 0
    option httpchk GET /readyz
    server leaving {} send-proxy-v2 check port {admin} inter 100ms fall 1 rise 1
    server staying {} send-proxy-v2",
        leaving.endpoint(),
        staying.endpoint()
    ));
    wait_until("the server is up", BOUND, || haproxy.is_up("leaving"));
    let load = Load::get(
        &haproxy.endpoint(),
        "/json",
        Mode::KeepAlive { pause: Duration::from_millis(2) },
    );
    let load = load.clients(8).duration(5 * BOUND).start();
    load.wait_for(200, BOUND);
    leaving.signal(Signal::SIGTERM);
    // Readiness fails first, while everything is still served.
    wait_until("it is taken out", Duration::from_secs(3), || !haproxy.is_up("leaving"));
    leaving.wait_for_exit(BOUND);
    load.wait_for(200, BOUND);
    let report = load.stop();
    assert_eq!(report.statuses.keys().copied().collect::<Vec<_>>(), [200], "{report}");
    report.assert_nothing_lost(200);
    assert!(lines(&dir).iter().any(|line| line.ends_with("\" 200 -")), "it had its share");
}

/// The example application, which cargo builds beside the tests.
fn features() -> String {
    let programs = PathBuf::from(env!("CARGO_BIN_EXE_master"));
    let program = programs.parent().unwrap().join("examples/features");
    assert!(program.exists(), "{} is missing: cargo build -p worker --examples", program.display());
    program.display().to_string()
}

#[track_caller]
fn send_block(server: &Server) -> testkit::http::Connection {
    let mut connection = testkit::http::Connection::open(server.endpoint()).unwrap();
    connection.send(b"GET /block/30000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    connection
}

#[test]
fn a_request_that_dies_with_its_worker_has_its_line() {
    let dir = TempDir::new();
    let server = start(&dir, &["--timeout", "1", &features()]);
    let _waiting = send_block(&server);
    let want = "127.0.0.1 127.0.0.1 - - \"GET /block/30000\" 504 worker_timeout";
    assert_eq!(line(&dir, "/block"), want);
    drop(server);

    let dir = TempDir::new();
    let server = start(&dir, &[&features()]);
    let _waiting = send_block(&server);
    let holder = || server.workers().into_iter().find(|&pid| is_asleep_in_handler(pid));
    wait_until("a worker has it in hand", BOUND, || holder().is_some());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(holder().unwrap()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    let want = "127.0.0.1 127.0.0.1 - - \"GET /block/30000\" 502 worker_died";
    assert_eq!(line(&dir, "/block"), want);
}

/// Whether a worker sleeps other than in its wait for events.
fn is_asleep_in_handler(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    call.contains("nanosleep")
}

#[test]
fn an_access_log_that_cannot_be_opened_stops_the_start() {
    let mut server = Server::builder(env!("CARGO_BIN_EXE_master"))
        .args(["--access-logfile", "/nonexistent/folder/access.log"])
        .spawn();
    assert_eq!(server.wait_for_exit(BOUND).code(), Some(78));
    server.wait_for_log("cannot open accesslog", BOUND);
}
