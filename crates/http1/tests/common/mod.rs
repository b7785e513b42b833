//! A connection without a server: what http1 makes of a stream of bytes, however it was cut.

#![allow(dead_code, reason = "each test uses its part")]

use std::fmt::Write as _;

use http1::{
    BodyDecoder, FieldStorage, Framing, Head, HeadError, HeaderMap, Parsed, Progress, Rules,
    parse_head,
};

/// Reads a fixture: line ends of the file count for nothing, escapes stand for bytes.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes().filter(|&byte| byte != b'\n');
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits = [rest.next(), rest.next()]
                    .map(|digit| (digit.expect("two digits") as char).to_digit(16));
                bytes.push((digits[0].expect("a digit") << 4 | digits[1].expect("a digit")) as u8);
            }
            other => panic!("unknown escape {other:?}"),
        }
    }
    bytes
}

/// Changes `rules` as a fixture's `rules` line says, such as `request_line=10 header_map=refuse`.
pub fn apply(rules: &mut Rules, line: &str) {
    for setting in line.split_whitespace() {
        let (name, value) = setting.split_once('=').expect("name=value");
        match name {
            "request_line" => {
                rules.limits.request_line_bytes_max = value.parse().expect("a number")
            }
            "fields" => rules.limits.fields_max = value.parse().expect("a number"),
            "field" => rules.limits.field_bytes_max = value.parse().expect("a number"),
            "header_map" => {
                rules.policy.header_map = match value {
                    "drop" => HeaderMap::Drop,
                    "refuse" => HeaderMap::Refuse,
                    "dangerous" => HeaderMap::Dangerous,
                    other => panic!("unknown header_map {other}"),
                }
            }
            "forwarder" => rules.policy.forwarder_headers.push(value.as_bytes().into()),
            "unconventional_method" => {
                rules.policy.permit_unconventional_http_method = value == "yes"
            }
            "https_target" => rules.policy.permit_https_target = value == "yes",
            other => panic!("unknown rule {other}"),
        }
    }
}

/// What was made of the bytes so far: one block of lines per request, and how it ended.
pub struct Reader<'r> {
    rules: &'r Rules,
    buf: Vec<u8>,
    progress: Progress,
    fields: FieldStorage,
    body: Option<(BodyDecoder, Vec<u8>)>,
    transcript: String,
    is_refused: bool,
}

impl<'r> Reader<'r> {
    pub fn new(rules: &'r Rules) -> Self {
        Reader {
            rules,
            buf: Vec::new(),
            progress: Progress::default(),
            fields: FieldStorage::new(),
            body: None,
            transcript: String::new(),
            is_refused: false,
        }
    }

    /// Whether nothing is outstanding: no part of a head or body, and no refusal.
    pub fn is_between_requests(&self) -> bool {
        self.buf.is_empty() && self.body.is_none() && !self.is_refused
    }

    pub fn feed(&mut self, bytes: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(bytes);
        while !self.is_refused && !self.buf.is_empty() {
            let before = (self.buf.len(), self.body.is_some());
            if self.body.is_some() {
                self.read_body()
            } else {
                self.read_head()
            }
            if before == (self.buf.len(), self.body.is_some()) {
                break;
            }
        }
        self
    }

    fn read_head(&mut self) {
        let len = match parse_head(&self.buf, self.rules, &mut self.progress, &mut self.fields) {
            Ok(Parsed::Partial) => return,
            Ok(Parsed::Complete(head)) => {
                describe(&head, &mut self.transcript);
                if !head.framing().is_empty() {
                    self.body =
                        Some((BodyDecoder::new(head.framing(), &self.rules.limits), Vec::new()));
                }
                head.len()
            }
            Err(error) => return self.refuse(error.status(), error.reason()),
        };
        self.progress = Progress::default();
        self.buf.drain(..len);
    }

    fn read_body(&mut self) {
        let Some((decoder, content)) = &mut self.body else { return };
        let step = match decoder.decode(&self.buf) {
            Ok(step) => step,
            Err(error) => {
                assert_eq!(decoder.decode(b"\r\n"), Err(error), "an error is final");
                return self.refuse(error.status(), error.reason());
            }
        };
        assert!(step.data.end <= step.consumed && step.consumed <= self.buf.len());
        content.extend_from_slice(&self.buf[step.data]);
        self.buf.drain(..step.consumed);
        if step.done {
            let _ = writeln!(self.transcript, "body \"{}\"", content.escape_ascii());
            for field in decoder.trailers() {
                let _ = writeln!(self.transcript, "trailer {}", show_field(field));
            }
            self.body = None;
        }
    }

    fn refuse(&mut self, status: u16, reason: &str) {
        let _ = writeln!(self.transcript, "refused {status} {reason}");
        self.is_refused = true;
    }

    /// The whole story, with how it stands at the end.
    pub fn transcript(&self) -> String {
        let end = match (&self.body, self.is_refused) {
            (_, true) => return self.transcript.clone(),
            (Some(_), _) => "in a body",
            (None, _) if self.buf.is_empty() => return self.transcript.clone(),
            (None, _) => "in a head",
        };
        format!("{}{end}\n", self.transcript)
    }
}

fn show_field(field: http1::Field<'_>) -> String {
    format!("{}: {}", field.name.escape_ascii(), field.value.escape_ascii())
}

/// All that a head says, in a few lines.
pub fn describe(head: &Head<'_>, text: &mut String) {
    let _ = write!(text, "{} \"{}\"", head.method(), head.path().escape_ascii());
    if let Some(query) = head.query() {
        let _ = write!(text, " query \"{}\"", query.escape_ascii());
    }
    let _ = write!(text, " {}", head.version().as_str());
    if let Some(host) = head.host() {
        let _ = write!(text, " host \"{}\"", host.escape_ascii());
    }
    match head.framing() {
        Framing::None => (),
        Framing::Length(length) => drop(write!(text, " length {length}")),
        Framing::Chunked => text.push_str(" chunked"),
    }
    text.push_str(if head.keep_alive() { " keep-alive" } else { " close" });
    if head.expect_continue() {
        text.push_str(" expects-continue");
    }
    if let Some(upgrade) = head.upgrade() {
        let _ = write!(text, " upgrade \"{}\"", upgrade.escape_ascii());
    }
    text.push('\n');
    for field in head.fields().iter() {
        let _ = writeln!(text, "  {}", show_field(field));
    }
}

/// What a fresh parser says of `raw`: the head in words, `None` for "more is needed", or the refusal.
pub fn verdict(raw: &[u8], rules: &Rules) -> Result<Option<String>, HeadError> {
    let mut fields = FieldStorage::new();
    match parse_head(raw, rules, &mut Progress::default(), &mut fields)? {
        Parsed::Partial => {
            assert!(raw.len() < rules.limits.head_bytes_max(), "a read buffer would have no bound");
            Ok(None)
        }
        Parsed::Complete(head) => {
            let mut text = String::new();
            describe(&head, &mut text);
            Ok(Some(text))
        }
    }
}

/// Checks that however `raw` is cut, the story is the same, and returns it.
#[track_caller]
pub fn check_every_split(raw: &[u8], rules: &Rules) -> String {
    let whole = Reader::new(rules).feed(raw).transcript();
    let mut one_by_one = Reader::new(rules);
    for byte in raw.chunks(1) {
        one_by_one.feed(byte);
    }
    assert_eq!(one_by_one.transcript(), whole, "byte by byte: {}", raw.escape_ascii());
    for cut in 0..raw.len() {
        let halves = Reader::new(rules).feed(&raw[..cut]).feed(&raw[cut..]).transcript();
        assert_eq!(halves, whole, "cut at {cut}: {}", raw.escape_ascii());
    }
    check_prefixes(raw, rules);
    whole
}

/// Checks that every prefix of a head is partial or has the same verdict as the whole.
#[track_caller]
pub fn check_prefixes(raw: &[u8], rules: &Rules) {
    let want = verdict(raw, rules);
    for cut in 0..raw.len() {
        let early = verdict(&raw[..cut], rules);
        assert!(
            early == Ok(None) || early == want,
            "cut at {cut}: {early:?}, not {want:?}: {}",
            raw.escape_ascii()
        );
    }
}
