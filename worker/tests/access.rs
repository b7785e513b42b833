//! The access log: which requests have a line, and what it says.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Signal, Worker, begin, example, start, until};

/// A log file of the test's own, removed at the end.
struct LogFile(PathBuf);

impl LogFile {
    fn new(name: &str) -> LogFile {
        let name = format!("monoceros-access-{}-{name}", std::process::id());
        LogFile(std::env::temp_dir().join(name))
    }

    fn path(&self) -> String {
        self.0.to_str().unwrap().to_owned()
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// Waits until there are so many lines.
    #[track_caller]
    fn lines(&self, count: usize) -> Vec<String> {
        until(
            || count <= self.read().lines().count(),
            || format!("fewer than {count} lines:\n{}", self.read()),
        );
        let lines: Vec<String> = self.read().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_file(self.0.with_extension("1"));
    }
}

const SHORT: &str = "%(h)s \"%(r)s\" %(s)s %(b)s %({received}x)s %({reason}x)s";

fn logging(file: &LogFile, format: &str) -> Worker {
    start(example("features"), |settings| {
        settings.accesslog = Some(file.path());
        settings.access_log_format = format.to_owned();
        settings.header_timeout = Duration::from_millis(150);
        settings.body_timeout = Duration::from_millis(150);
        settings.request_timeout = Some(Duration::from_millis(300));
    })
}

#[test]
fn the_default_line_is_gunicorns() {
    let file = LogFile::new("default");
    let worker = start(example("features"), |settings| settings.accesslog = Some(file.path()));
    let mut client = worker.connect();
    client.send("GET /hello/you?a=%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: a \"b\"\r\nAuthorization: Basic bWU6eA==\r\n\r\n");
    client.reply().expect(200);
    let line = file.lines(1).remove(0);
    let (before, rest) = line.split_once(" [").unwrap();
    let (time, after) = rest.split_once("] ").unwrap();
    assert_eq!(before, "127.0.0.1 - me");
    assert!(time.ends_with("+0000") && time.len() == 26, "{time}");
    assert_eq!(after, r#""GET /hello/you?a=%22 HTTP/1.1" 200 12 "-" "a \"b\"""#);
    drop(client);
    worker.stop();
}

#[test]
fn every_answer_has_its_line_in_order() {
    let file = LogFile::new("answers");
    let worker = logging(&file, SHORT);
    let mut client = worker.connect();
    // Pipelined: quick, slow, with a body, without one in the answer, unknown.
    client.send(
        "GET /hello/a HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /sleep/20 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\
         POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
         HEAD /hello/a HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for _ in 0..4 {
        client.reply().expect(200);
    }
    client.head_reply().expect(200);
    client.get("/nowhere").expect(404);
    client.send("GET /fail HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.reply().expect(500);
    let lines = file.lines(7);
    let want = [
        r#""GET /hello/a HTTP/1.1" 200 10 0 -"#,
        r#""GET /sleep/20 HTTP/1.1" 200 6 0 -"#,
        r#""POST /echo HTTP/1.1" 200 4 4 -"#,
        r#""POST /count HTTP/1.1" 200"#,
        r#""HEAD /hello/a HTTP/1.1" 200 0 0 -"#,
        r#""GET /nowhere HTTP/1.1" 404 14 0 -"#,
        r#""GET /fail HTTP/1.1" 500 26 0 handler_error"#,
    ];
    for (line, want) in lines.iter().zip(want) {
        assert!(line.starts_with(&format!("127.0.0.1 {want}")), "{line}\nis not\n{want}");
    }
    assert!(lines[3].ends_with(" 3 -"), "{}", lines[3]);
}

#[test]
fn what_went_wrong_has_its_line_and_its_reason() {
    let file = LogFile::new("wrong");
    let worker = logging(&file, SHORT);
    let cases = [
        ("GET / HTTP/9.9\r\n\r\n", r#""GET / HTTP/9.9" 505 "#, "bad_request"),
        ("GET /\"\x01\r\n\r\n", r#""GET /\"\x01" 400 "#, "bad_request"),
        ("GET /hello/a HTTP/1.1\r\nHos", r#""GET /hello/a HTTP/1.1" 408 "#, "header_timeout"),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
            r#""POST /echo HTTP/1.1" 408 "#,
            "body_timeout",
        ),
        // Whether the body is gathered for the handler, or read by it.
        (
            "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
            r#""POST /count HTTP/1.1" 408 "#,
            "body_timeout",
        ),
        (
            "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nz\r\n",
            r#""POST /count HTTP/1.1" 400 "#,
            "bad_request",
        ),
        // A response that cannot be sent: what was sent instead counts.
        (
            "GET /inject HTTP/1.1\r\nHost: a\r\n\r\n",
            r#""GET /inject HTTP/1.1" 500 26 0 "#,
            "handler_error",
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n",
            r#""POST /echo HTTP/1.1" 413 "#,
            "too_large",
        ),
        (
            "GET /sleep/5000 HTTP/1.1\r\nHost: a\r\n\r\n",
            r#""GET /sleep/5000 HTTP/1.1" 504 "#,
            "request_timeout",
        ),
    ];
    for (index, (bytes, want, reason)) in cases.into_iter().enumerate() {
        let mut client = worker.connect();
        client.send(bytes);
        client.half_close_unless(reason.ends_with("timeout"));
        client.rest();
        let line = file.lines(index + 1).pop().unwrap();
        assert!(line.contains(want) && line.ends_with(reason), "{line}\nis not\n{want}…{reason}");
        assert!(
            !line.contains(" 400 0 ") && !line.contains(" 408 0 "),
            "the answer's body counts: {line}"
        );
    }
}

#[test]
fn clients_that_go_away_have_their_line() {
    let file = LogFile::new("gone");
    let worker = logging(&file, SHORT);
    let cases = [
        (
            "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
            r#""POST /count HTTP/1.1" 499 0 0 aborted"#,
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
            r#""POST /echo HTTP/1.1" 499 0 0 aborted"#,
        ),
        // More than the sockets take, and nobody reads: what they took counts.
        ("GET /big/50000000 HTTP/1.1\r\nHost: a\r\n\r\n", r#""GET /big/50000000 HTTP/1.1" 200 "#),
        ("GET /hello/a HTTP/1.1\r\nHos", r#""GET /hello/a HTTP/1.1" 499 0 0 aborted"#),
    ];
    for (index, (bytes, want)) in cases.into_iter().enumerate() {
        let mut client = worker.connect();
        client.send(bytes);
        if bytes.ends_with("\r\n\r\n") {
            // It is in hand: 100, or the beginning of the answer.
            client.wait_readable();
            client.reset();
        } else {
            drop(client);
        }
        let line = file.lines(index + 1).pop().unwrap();
        assert!(line.contains(want) && line.ends_with(" 0 aborted"), "{line}\nis not\n{want}");
        assert!(!line.contains(" 50000000 "), "{line}");
    }
    // Those who never asked have none: an empty line is no request.
    drop(worker.connect());
    let mut silent = worker.connect();
    silent.send("\r\n");
    silent.half_close();
    assert_eq!(silent.rest(), "");
    worker.get("/hello/last").expect(200);
    assert!(file.lines(5)[4].contains("/hello/last"));
}

#[test]
fn a_quick_stop_logs_what_it_cuts() {
    let file = LogFile::new("cut");
    let mut worker = logging(&file, SHORT);
    let mut client = worker.connect();
    client
        .send("GET /hello/a HTTP/1.1\r\nHost: a\r\n\r\nGET /sleep/250 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.reply().expect(200);
    worker.signal(Signal::SIGQUIT);
    worker.wait();
    let lines = file.lines(2);
    assert!(lines[1].ends_with(r#""GET /sleep/250 HTTP/1.1" 503 0 0 cut"#), "{}", lines[1]);
}

#[test]
fn usr1_opens_the_file_again() {
    let file = LogFile::new("rotate");
    let worker = logging(&file, "%(U)s");
    worker.get("/hello/one").expect(200);
    file.lines(1);
    let old = file.0.with_extension("1");
    std::fs::rename(&file.0, &old).unwrap();
    worker.get("/hello/two").expect(200);
    until(
        || std::fs::read_to_string(&old).unwrap().lines().count() == 2,
        || "the old file goes on".into(),
    );
    worker.signal(Signal::SIGUSR1);
    until(|| file.0.exists(), || "the file is not there again".into());
    worker.get("/hello/three").expect(200);
    assert_eq!(file.lines(1), ["/hello/three"]);
    worker.stop();
}

#[test]
fn a_long_line_on_a_pipe_is_cut_so_that_no_other_comes_into_its_middle() {
    let file = LogFile::new("pipe");
    nix::unistd::mkfifo(&file.0, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // For writing too, or opening it would wait for a writer.
    let mut pipe = std::fs::OpenOptions::new().read(true).write(true).open(&file.0).unwrap();
    let worker = logging(&file, r#""%(r)s" %(s)s "%(f)s" "%(a)s""#);
    let mut client = worker.connect();
    let long = "x".repeat(4000);
    client.send(&format!(
        "GET /hello/you HTTP/1.1\r\nHost: a\r\nReferer: {long}\r\nUser-Agent: {long}\r\n\r\n"
    ));
    client.reply().expect(200);
    let mut bytes = [0; 10_000];
    let count = std::io::Read::read(&mut pipe, &mut bytes).unwrap();
    let line = std::str::from_utf8(&bytes[..count]).unwrap();
    assert!(line.ends_with("xx\"\n") && line.contains("xx\" \"xx"), "{line}");
    assert!((2000..=4096).contains(&count), "{count}");
}

#[test]
fn json_names_route_worker_and_trace() {
    let file = LogFile::new("json");
    let worker = logging(&file, "json");
    let mut client = worker.connect();
    client.send(
        "GET /hello/you?x=1 HTTP/1.1\r\nHost: a\r\nX-Request-ID: abc\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
    );
    client.reply().expect(200);
    let line = file.lines(1).remove(0);
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["http.route"], "/hello/{name}");
    assert_eq!(json["url.path"], "/hello/you");
    assert_eq!(json["http.response.status_code"], 200);
    assert_eq!(json["http.request.id"], "abc");
    assert_eq!(json["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(json["span_id"].as_str().unwrap().len(), 16);
    assert_eq!(json["network.peer.address"], "127.0.0.1");
    assert_eq!(json["process.pid"], worker.pid());
    assert!(json["http.server.request.duration"].as_f64().unwrap() < 1.0);
    assert_eq!(json.get("error.type"), None);
}

#[test]
fn a_log_that_cannot_be_opened_is_reported_and_done_without() {
    let (worker, message) = begin(example("features"), |settings| {
        settings.accesslog = Some("/nonexistent/folder/access.log".into());
    });
    assert!(message.contains("READY=1"));
    worker.get("/hello/a").expect(200);
    worker.await_log("Cannot open the access log");
    assert!(!Path::new("/nonexistent").exists());
}

#[test]
fn both_logs_go_to_syslog_when_asked_to() {
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let worker = start(example("features"), |settings| {
        settings.syslog = true;
        settings.syslog_addr = format!("udp://{}", receiver.local_addr().unwrap());
        settings.syslog_facility = "local1".into();
        settings.syslog_prefix = Some("shop".into());
        settings.access_log_format = "%(r)s %(s)s".into();
    });
    worker.get("/hello/a").expect(200);
    let pid = worker.pid();
    // local1 is 17, informational 6.
    let want = |text: &str| {
        let mut bytes = [0; 1000];
        loop {
            let count = receiver.recv(&mut bytes).unwrap();
            if std::str::from_utf8(&bytes[..count]).unwrap() == text {
                break;
            }
        }
    };
    want(&format!("<142>monoceros.shop.access[{pid}]: GET /hello/a HTTP/1.1 200"));
    worker.stop();
    want(&format!("<142>monoceros.shop.error[{pid}]: Worker exiting (pid: {pid})"));
}
