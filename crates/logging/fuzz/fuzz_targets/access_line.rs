//! A line of the access log: whatever the format and whatever a client sent, it is one line of visible ASCII, or one object of
//! JSON, and no value ends a quotation.
//!
//! The input is cut at bytes of 0xfe: the format, then what the request says.

#![no_main]

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use logging::access::{Clock, Format, Outcome, Subject, What, Writer};

/// Every part and every field is one of these in turn; an empty one is not there.
struct Request<'a>(Vec<&'a [u8]>);

impl Request<'_> {
    fn get(&self, number: usize) -> Option<&[u8]> {
        self.0.get(number % self.0.len().max(1)).copied().filter(|part| !part.is_empty())
    }
}

impl Subject for Request<'_> {
    fn part(&self, what: What) -> Option<Cow<'_, [u8]>> {
        self.get(what as usize).map(Cow::Borrowed)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.get(name.len())
    }
}

const OUTCOME: Outcome<'_> = Outcome {
    status: 200,
    sent: 27,
    received: 5,
    nanoseconds: 1_234_567_890,
    reason: "aborted",
    route: "/a{*rest}",
};

/// How a line is made.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// What it says of its writer is known before.
    OfWriter,
    /// And it has a bound.
    Within,
}

/// What a pipe takes at once.
const LINE_BYTES_MAX: usize = 4096;

fn line(format: &str, request: &Request<'_>, kind: Kind) -> Vec<u8> {
    let writer = Writer { pid: 42, worker: 1, generation: 3 };
    let format = Format::new(format);
    let format = match kind {
        Kind::Plain => format,
        Kind::OfWriter => format.of(&writer),
        Kind::Within => format.of(&writer).within(LINE_BYTES_MAX),
    };
    let mut clock = Clock::default();
    clock.set(UNIX_EPOCH + Duration::from_millis(1_795_344_222_123));
    let (mut captured, mut out) = (Vec::new(), Vec::new());
    format.capture(request, &writer, &mut captured);
    format.capture_response(|name| request.get(name.len() + 1), &mut captured);
    format.finish(&captured, &OUTCOME, &clock, &mut out);
    // What was cut off is an empty value, not a fault.
    format.finish(&captured[..captured.len() / 2], &OUTCOME, &clock, &mut Vec::new());
    out
}

/// How many quotations a line has, with nothing but a space between them; `None`: it is something else.
fn quotations(line: &[u8]) -> Option<usize> {
    let (mut count, mut bytes) = (0, line.iter());
    loop {
        (bytes.next() == Some(&b'"')).then_some(())?;
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()?),
                b'"' => break,
                _ => (),
            }
        }
        count += 1;
        match bytes.next() {
            Some(b' ') => (),
            None => return Some(count),
            Some(_) => return None,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|&byte| byte == 0xfe);
    let format = parts.next().unwrap_or_default();
    // What an operator writes into a format is his own.
    let format: String = format
        .iter()
        .filter(|byte| (b' '..=b'~').contains(byte))
        .map(|&byte| char::from(byte))
        .collect();
    let request = Request(parts.collect());
    for format in [format.as_str(), "%(h)s %(u)s %(t)s %(r)s %(U)s %({x}o)s %(D)s"] {
        let line = line(format, &request, Kind::Plain);
        assert!(
            matches!(format, "json" | "ecs")
                || line.iter().all(|byte| (b' '..=b'~').contains(byte))
        );
        assert_eq!(line, self::line(format, &request, Kind::OfWriter), "{format}");
    }
    let quoted = r#""%(r)s" "%(a).7s" "%(u).3s" "%(U)-9.8s" "%({x}o).2s" "%(q)s""#;
    for kind in [Kind::Plain, Kind::Within] {
        let line = line(quoted, &request, kind);
        assert_eq!(quotations(&line), Some(6), "{}", line.escape_ascii());
        assert!(kind != Kind::Within || line.len() < LINE_BYTES_MAX);
    }
    let pairs = [("json", Kind::OfWriter), ("json", Kind::Within), ("ecs", Kind::Within)];
    for (format, kind) in pairs {
        let line = line(format, &request, kind);
        assert!(kind != Kind::Within || line.len() < LINE_BYTES_MAX);
        let object: serde_json::Value = serde_json::from_slice(&line).expect("an object of JSON");
        assert_eq!(object["process.pid"], 42);
        let text = std::str::from_utf8(&line).expect("UTF-8");
        let ends_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        assert!(!text.contains(ends_line), "{text}");
    }
});
