//! Lines of the access log, as operators and their programs read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use logging::access::{Clock, Format, Outcome, Subject, What, Writer};

#[derive(Default)]
struct Request {
    parts: Vec<(What, &'static [u8])>,
    fields: Vec<(&'static str, &'static [u8])>,
}

impl Subject for Request {
    fn part(&self, what: What) -> Option<Cow<'_, [u8]>> {
        self.parts.iter().find(|(known, _)| *known == what).map(|&(_, value)| Cow::Borrowed(value))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.fields.iter().rev();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }
}

fn request() -> Request {
    Request {
        parts: vec![
            (What::Peer, b"192.0.2.7"),
            (What::PeerPort, b"4711"),
            (What::Client, b"203.0.113.9"),
            (What::Method, b"GET"),
            (What::Target, b"/a%20b?x=1"),
            (What::Path, b"/a%20b"),
            (What::Query, b"x=1"),
            (What::Protocol, b"HTTP/1.1"),
            (What::Scheme, b"https"),
            (What::Host, b"example.com"),
            (What::RequestId, b"abc"),
        ],
        fields: vec![
            ("User-Agent", b"curl/8"),
            ("X-Twice", b"first"),
            ("x-twice", b"last"),
            ("Authorization", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("Content-Type", b"text/plain"),
        ],
    }
}

const OUTCOME: Outcome<'_> = Outcome {
    status: 200,
    sent: 27,
    received: 5,
    nanoseconds: 1_234_567_890,
    reason: "",
    route: "/a{*rest}",
};

fn line(format: &str, request: &Request, outcome: &Outcome<'_>) -> String {
    let format = Format::new(format);
    let mut clock = Clock::default();
    clock.set(UNIX_EPOCH + Duration::from_millis(1_795_344_222_123));
    let (mut captured, mut out) = (Vec::new(), Vec::new());
    format.capture(request, &Writer { pid: 42, worker: 1, generation: 3 }, &mut captured);
    let field = |name: &str| name.eq_ignore_ascii_case("x-answer").then_some(&b"4\"2"[..]);
    format.capture_response(field, &mut captured);
    format.finish(&captured, outcome, &clock, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_default_is_gunicorns() {
    let default = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;
    let got = line(default, &request(), &OUTCOME);
    let (before, rest) = got.split_once(" [").unwrap();
    let (time, after) = rest.split_once("] ").unwrap();
    assert_eq!(before, "192.0.2.7 - Aladdin");
    assert_eq!(time.len(), "22/Nov/2026:10:43:42 +0000".len());
    assert_eq!(after, r#""GET /a%20b?x=1 HTTP/1.1" 200 27 "-" "curl/8""#);
}

#[test]
fn every_atom_has_its_value() {
    for (atom, want) in [
        ("h", "192.0.2.7"),
        ("l", "-"),
        ("u", "Aladdin"),
        ("r", "GET /a%20b?x=1 HTTP/1.1"),
        ("m", "GET"),
        ("U", "/a b"),
        ("q", "x=1"),
        ("H", "HTTP/1.1"),
        ("s", "200"),
        ("B", "27"),
        ("b", "27"),
        ("f", "-"),
        ("a", "curl/8"),
        ("T", "1"),
        ("M", "1234"),
        ("D", "1234567"),
        ("L", "1.234567"),
        ("p", "<42>"),
        ("{X-TWICE}i", "last"),
        ("{absent}i", "-"),
        ("{X-Answer}o", r#"4\"2"#),
        ("{absent}o", "-"),
        ("{raw_uri}e", "/a%20b?x=1"),
        ("{REMOTE_ADDR}e", "192.0.2.7"),
        ("{REMOTE_PORT}e", "4711"),
        ("{HTTP_X_TWICE}e", "last"),
        ("{CONTENT_TYPE}e", "text/plain"),
        ("{wsgi.url_scheme}e", "https"),
        ("{HOME}e", "-"),
        ("{client}x", "203.0.113.9"),
        ("{request_id}x", "abc"),
        ("{trace_id}x", "-"),
        ("{scheme}x", "https"),
        ("{host}x", "example.com"),
        ("{reason}x", "-"),
        ("{route}x", "/a{*rest}"),
        ("{received}x", "5"),
        ("{timestamp}x", "2026-11-22T10:43:42.123Z"),
        ("{worker}x", "1"),
        ("{generation}x", "3"),
        ("unknown", "-"),
    ] {
        assert_eq!(
            line(&format!("<%({atom})s>"), &request(), &OUTCOME),
            format!("<{want}>"),
            "{atom}"
        );
    }
}

#[test]
fn order_width_and_percent_signs_are_pythons() {
    let got = line("%(s)d|%(s)6s|%(s)-6s|%(s)06d|%(m).2s|100%%|%(h)s|%(b)s", &request(), &OUTCOME);
    assert_eq!(got, "200|   200|200   |000200|GE|100%|192.0.2.7|27");
    let got = line("%({a}o)s %({x-answer}o)s %(s)s %({X-ANSWER}o)s", &request(), &OUTCOME);
    assert_eq!(got, r#"- 4\"2 200 4\"2"#);
    let quick = Outcome { nanoseconds: 42_000, ..OUTCOME };
    assert_eq!(line("%(L)s %(T)s", &request(), &quick), "0.000042 0");
}

#[test]
fn no_client_can_forge_a_line() {
    let mut hostile = request();
    hostile.fields.push(("Referer", b"x\" 200 1\n10.0.0.1 - - \\\x1b[2J\xe9"));
    let got = line(r#""%(f)s""#, &hostile, &OUTCOME);
    assert_eq!(got, r#""x\" 200 1\x0a10.0.0.1 - - \\\x1b[2J\xe9""#);
    // A width that ends within what stands for one byte leaves that out: half of it would quote what follows.
    hostile.fields.push(("Referer", b"aa\"\xe9"));
    for (format, want) in [
        (r#""%(f).2s""#, r#""aa""#),
        (r#""%(f).3s""#, r#""aa""#),
        (r#""%(f).4s""#, r#""aa\"""#),
        (r#""%(f).7s""#, r#""aa\"""#),
        (r#""%(f)-6.3s""#, r#""aa    ""#),
        (r#""%(f).8s""#, r#""aa\"\xe9""#),
    ] {
        assert_eq!(line(format, &hostile, &OUTCOME), want, "{format}");
    }
    // Decoding a path brings back nothing that was encoded for a reason.
    hostile.parts.insert(0, (What::Path, b"/%0a%22%00%"));
    assert_eq!(line("%(U)s", &hostile, &OUTCOME), r#"/\x0a\"\x00%"#);
}

#[test]
fn json_has_the_usual_names_and_leaves_out_what_is_not_there() {
    let mut odd = request();
    odd.fields.push(("user-agent", b"a\"\\\n\xff"));
    let got = line("json", &odd, &Outcome { reason: "client_abort", status: 499, ..OUTCOME });
    assert_eq!(
        got,
        "{\"timestamp\":\"2026-11-22T10:43:42.123Z\",\"http.request.method\":\"GET\",\"url.scheme\":\"https\",\
         \"url.path\":\"/a%20b\",\"url.query\":\"x=1\",\"http.route\":\"/a{*rest}\",\"http.response.status_code\":499,\
         \"http.server.request.duration\":1.234567,\"http.request.body.size\":5,\"http.response.body.size\":27,\
         \"client.address\":\"203.0.113.9\",\"network.peer.address\":\"192.0.2.7\",\"network.protocol.version\":\"1.1\",\
         \"user_agent.original\":\"a\\\"\\\\\\u000a\\u00ff\",\"http.request.id\":\"abc\",\"error.type\":\"client_abort\",\
         \"process.pid\":42,\"worker\":1,\"generation\":3}"
    );
    let got = line("ecs", &request(), &OUTCOME);
    assert!(
        got.starts_with("{\"@timestamp\":") && got.ends_with("\"ecs.version\":\"8.11.0\"}"),
        "{got}"
    );
    assert!(got.contains("\"event.duration\":1234567890,") && !got.contains("error"), "{got}");
}

#[test]
fn a_request_that_was_not_understood_has_a_line_too() {
    let odd = Request {
        parts: vec![(What::Peer, b"192.0.2.7"), (What::RawLine, b"GET\t/\x01")],
        fields: vec![],
    };
    let got = line(
        r#"%(h)s "%(r)s" %(m)s %(s)s %({reason}x)s"#,
        &odd,
        &Outcome { status: 400, reason: "bad_request", ..OUTCOME },
    );
    assert_eq!(got, r#"192.0.2.7 "GET\x09/\x01" - 400 bad_request"#);
    assert_eq!(line("%(h)s %(r)s", &Request::default(), &OUTCOME), " -");
}

#[test]
fn lines_keep_a_limit_and_are_whole_all_the_same() {
    const MOST: usize = 4096;
    let default = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;
    let sized = |format: &str, request: &Request| {
        let writer = Writer { pid: u32::MAX, worker: 1, generation: 3 };
        let format = Format::new(format).of(&writer).within(MOST);
        let mut clock = Clock::default();
        clock.set(UNIX_EPOCH + Duration::from_millis(1_795_344_222_123));
        let (mut captured, mut out) = (Vec::new(), Vec::new());
        format.capture(request, &writer, &mut captured);
        let field = |_: &str| Some(&[b'x'; 5000][..]);
        format.capture_response(field, &mut captured);
        format.finish(&captured, &OUTCOME, &clock, &mut out);
        String::from_utf8(out).unwrap()
    };
    for filler in
        [&[b'a'; 8000][..], &[b'"'; 8000], &[0xff; 8000], "\u{2028}é".repeat(1600).as_bytes()]
    {
        let long: &'static [u8] = Box::leak(filler.to_vec().into_boxed_slice());
        let mut hostile = request();
        for what in [What::Target, What::Path, What::Query, What::Host] {
            hostile.parts.insert(0, (what, long));
        }
        hostile.fields.extend([("User-Agent", long), ("Referer", long)]);
        for format in [default, "%({x}o)s %(a)s %({y}o)s %({x}i)1024s"] {
            let line = sized(format, &hostile);
            assert!(line.len() < MOST, "{}: {line}", line.len());
        }
        assert!(
            sized(default, &hostile).ends_with('"') && !sized(default, &hostile).ends_with(r#"\""#)
        );
        for format in ["json", "ecs"] {
            let line = sized(format, &hostile);
            assert!(line.len() < MOST, "{}: {line}", line.len());
            assert!(
                line.ends_with('}') && line.contains(r#","process.pid":4294967295,"#),
                "{line}"
            );
        }
    }
    // One that fits is as it was, though a value is longer than its share.
    let mut long = request();
    long.fields.push(("User-Agent", &[b'a'; 2000]));
    assert!(sized(default, &long).contains(&"a".repeat(2000)));
}
