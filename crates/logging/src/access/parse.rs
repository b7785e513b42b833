//! From the text of a format to its pieces.

use super::{Atom, Format, Limit, Piece, Segment, Style, What, Writer};

/// gunicorn's default.
const DEFAULT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

/// OpenTelemetry's names.
const JSON: &[(&str, Atom)] = &[
    ("timestamp", Atom::Timestamp),
    ("http.request.method", Atom::Subject(What::Method)),
    ("url.scheme", Atom::Subject(What::Scheme)),
    ("url.path", Atom::RawPath),
    ("url.query", Atom::Subject(What::Query)),
    ("http.route", Atom::Route),
    ("http.response.status_code", Atom::Status),
    ("http.server.request.duration", Atom::SecondsExact),
    ("http.request.body.size", Atom::BytesReceived),
    ("http.response.body.size", Atom::BytesSent),
    ("client.address", Atom::Subject(What::Client)),
    ("network.peer.address", Atom::Subject(What::Peer)),
    ("network.protocol.version", Atom::Version),
    ("user_agent.original", Atom::Missing),
    ("http.request.id", Atom::Subject(What::RequestId)),
    ("trace_id", Atom::Subject(What::TraceId)),
    ("span_id", Atom::Subject(What::SpanId)),
    ("error.type", Atom::Reason),
    ("process.pid", Atom::Pid),
    ("worker", Atom::Worker),
    ("generation", Atom::Generation),
];

/// The names of the Elastic Common Schema, where they differ.
const ECS: &[(&str, &str)] = &[
    ("timestamp", "@timestamp"),
    ("http.server.request.duration", "event.duration"),
    ("http.request.body.size", "http.request.body.bytes"),
    ("http.response.body.size", "http.response.body.bytes"),
    ("network.peer.address", "source.address"),
    ("network.protocol.version", "http.version"),
    ("trace_id", "trace.id"),
    ("span_id", "span.id"),
];

impl Default for Format {
    fn default() -> Format {
        Format::new(DEFAULT)
    }
}

impl Format {
    /// Compiles a format: `json`, `ecs`, or text with gunicorn's `%(NAME)s` in it. What is no atom is text; unknown
    /// names show `-`, as under gunicorn.
    #[must_use]
    pub fn new(text: &str) -> Format {
        let mut format = Format { segments: Vec::new(), response_fields: Vec::new(), limit: None };
        if matches!(text, "json" | "ecs") {
            format.members(text == "ecs");
        } else {
            format.template(text);
        }
        format
    }

    /// The same format for one writer: what its lines say of that is known already.
    #[must_use]
    pub fn of(mut self, writer: &Writer) -> Format {
        let segments = std::mem::take(&mut self.segments);
        let mut format = Format { segments: Vec::new(), ..self };
        for segment in segments {
            let (Segment::Early(pieces) | Segment::Late(pieces)) = segment;
            for piece in pieces {
                format.add(match piece {
                    Piece::Atom(atom, style) if style == Style::default() => {
                        match written_by(&atom, writer) {
                            Some(text) => Piece::Literal(text.into_bytes().into()),
                            None => Piece::Atom(atom, style),
                        }
                    }
                    Piece::Member(key, atom) => match written_by(&atom, writer) {
                        Some(text) => Piece::Literal([&*key, text.as_bytes()].concat().into()),
                        None => Piece::Member(key, atom),
                    },
                    piece => piece,
                });
            }
        }
        format
    }

    /// The same format for lines that have at most `line_bytes_max` bytes, as far as its own text leaves room: where what a
    /// client sent would make one longer, each of its values is cut to an equal share.
    #[must_use]
    pub fn within(mut self, line_bytes_max: usize) -> Format {
        let (mut fixed, mut late, mut free) = (1, 0, 0);
        for segment in &self.segments {
            let (Segment::Early(pieces) | Segment::Late(pieces)) = segment;
            for piece in pieces {
                let (text, atom) = match piece {
                    Piece::Literal(text) => (text.len(), None),
                    Piece::Atom(atom, style) => (usize::from(style.width), Some(atom)),
                    Piece::Member(key, atom) => (key.len() + 1, Some(atom)),
                };
                let bounded = match atom {
                    None => 0,
                    // Method, protocol and two spaces.
                    Some(Atom::RequestLine) => 2 * BOUNDED_VALUE_BYTES_MAX + 2,
                    Some(_) => BOUNDED_VALUE_BYTES_MAX,
                };
                let bytes = text + bounded;
                fixed += bytes;
                late += if matches!(segment, Segment::Late(_)) { bytes } else { 0 };
                free += usize::from(atom.is_some_and(is_free));
            }
        }
        let share = line_bytes_max.saturating_sub(fixed) / free.max(1);
        let value_bytes_max = share.max(VALUE_BYTES_MIN);
        let responses = value_bytes_max * self.response_fields.len();
        self.limit = Some(Limit {
            captured_bytes_max: line_bytes_max.saturating_sub(late + responses + value_bytes_max),
            value_bytes_max,
        });
        self
    }

    fn members(&mut self, is_ecs: bool) {
        let mut separator = "{";
        for (name, atom) in JSON {
            let atom = match *name {
                "user_agent.original" => Atom::Header("user-agent".into()),
                "http.server.request.duration" if is_ecs => Atom::Nanoseconds,
                _ => atom.clone(),
            };
            let name = match ECS.iter().find(|(otel, _)| is_ecs && otel == name) {
                Some((_, ecs)) => ecs,
                None => name,
            };
            let quote = if is_number(&atom) { "" } else { "\"" };
            let key = format!("{separator}\"{name}\":{quote}");
            separator = ",";
            self.add(Piece::Member(key.into_bytes().into(), atom));
        }
        let end = if is_ecs { r#","log.level":"info","ecs.version":"8.11.0"}"# } else { "}" };
        self.add(Piece::Literal(end.as_bytes().into()));
    }

    fn template(&mut self, text: &str) {
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            let from = &rest[at..];
            if let Some(after) = from.strip_prefix("%%") {
                literal.push('%');
                rest = after;
            } else if let Some((name, style, after)) = directive(from) {
                self.add(Piece::Literal(std::mem::take(&mut literal).into_bytes().into()));
                let atom = self.atom(name);
                self.add(match atom {
                    // What never changes is text.
                    Atom::Missing if style == Style::default() => Piece::Literal(b"-"[..].into()),
                    atom => Piece::Atom(atom, style),
                });
                rest = after;
            } else {
                literal.push('%');
                rest = &from[1..];
            }
        }
        literal.push_str(rest);
        self.add(Piece::Literal(literal.into_bytes().into()));
    }

    fn atom(&mut self, name: &str) -> Atom {
        if let Some((inner, kind)) = name.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')) {
            return match kind {
                "i" => Atom::Header(inner.into()),
                "o" => {
                    self.response_fields.push(inner.into());
                    Atom::ResponseField
                }
                "e" => environment(inner),
                "x" => extended(inner),
                _ => Atom::Missing,
            };
        }
        match name {
            "h" => Atom::Subject(What::Peer),
            "u" => Atom::User,
            "t" => Atom::Time,
            "r" => Atom::RequestLine,
            "m" => Atom::Subject(What::Method),
            "U" => Atom::Subject(What::Path),
            "q" => Atom::Subject(What::Query),
            "H" => Atom::Subject(What::Protocol),
            "s" => Atom::Status,
            "B" | "b" => Atom::BytesSent,
            "f" => Atom::Header("referer".into()),
            "a" => Atom::Header("user-agent".into()),
            "T" => Atom::Seconds,
            "M" => Atom::Milliseconds,
            "D" => Atom::Microseconds,
            "L" => Atom::SecondsExact,
            "p" => Atom::PidInAngles,
            _ => Atom::Missing,
        }
    }

    fn add(&mut self, piece: Piece) {
        if matches!(&piece, Piece::Literal(text) if text.is_empty()) {
            return;
        }
        let is_late = match &piece {
            // Text goes with whatever stands before it.
            Piece::Literal(_) => matches!(self.segments.last(), Some(Segment::Late(_))),
            Piece::Atom(atom, _) | Piece::Member(_, atom) => is_late(atom),
        };
        if let Piece::Literal(more) = &piece
            && let Some(Segment::Late(pieces) | Segment::Early(pieces)) = self.segments.last_mut()
            && let Some(Piece::Literal(text)) = pieces.last_mut()
        {
            *text = [&**text, &**more].concat().into();
            return;
        }
        match (self.segments.last_mut(), is_late) {
            (Some(Segment::Late(pieces)), true) | (Some(Segment::Early(pieces)), false) => {
                pieces.push(piece)
            }
            (_, true) => self.segments.push(Segment::Late(vec![piece])),
            (_, false) => self.segments.push(Segment::Early(vec![piece])),
        }
    }
}

/// Room for a value that is no client's to choose: the longest are a time, an address and an id.
pub(super) const BOUNDED_VALUE_BYTES_MAX: usize = 48;

/// What is left of each value however long the format's own text is.
const VALUE_BYTES_MIN: usize = 16;

/// Whether a value has the length that somebody else chose.
pub(super) fn is_free(atom: &Atom) -> bool {
    match atom {
        Atom::Subject(what) => !matches!(
            what,
            What::Peer
                | What::PeerPort
                | What::Client
                | What::Protocol
                | What::Scheme
                | What::TraceId
                | What::SpanId
        ),
        Atom::RequestLine
        | Atom::RawPath
        | Atom::User
        | Atom::Header(_)
        | Atom::ResponseField
        | Atom::Route => true,
        _ => false,
    }
}

/// Whether JSON writes a value without quotation marks.
fn is_number(atom: &Atom) -> bool {
    match atom {
        Atom::Pid | Atom::Worker | Atom::Generation => true,
        atom => is_late(atom) && !matches!(atom, Atom::Timestamp | Atom::Route | Atom::Reason),
    }
}

/// What an atom says of the writer, if it does.
fn written_by(atom: &Atom, writer: &Writer) -> Option<String> {
    Some(match atom {
        Atom::Pid => writer.pid.to_string(),
        Atom::PidInAngles => format!("<{}>", writer.pid),
        Atom::Worker => writer.worker.to_string(),
        Atom::Generation => writer.generation.to_string(),
        _ => return None,
    })
}

fn is_late(atom: &Atom) -> bool {
    matches!(
        atom,
        Atom::ResponseField
            | Atom::Time
            | Atom::Timestamp
            | Atom::Status
            | Atom::BytesSent
            | Atom::BytesReceived
            | Atom::Seconds
            | Atom::Milliseconds
            | Atom::Microseconds
            | Atom::Nanoseconds
            | Atom::SecondsExact
            | Atom::Route
            | Atom::Reason
    )
}

/// `%(NAME)`, flags, width, precision, a letter: name, style, and what stands behind.
fn directive(text: &str) -> Option<(&str, Style, &str)> {
    let (name, mut rest) = text.strip_prefix("%(")?.split_once(')')?;
    let mut style = Style::default();
    while let Some(flag @ ('-' | '0' | '#' | ' ' | '+')) = rest.chars().next() {
        style.is_left |= flag == '-';
        style.is_zero |= flag == '0';
        rest = &rest[1..];
    }
    let number = |rest: &mut &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        *rest = after;
        digits.parse::<u16>().unwrap_or(0).min(STYLE_BYTES_MAX)
    };
    style.width = number(&mut rest);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        style.precision = Some(number(&mut rest));
    }
    let rest = rest.strip_prefix(['s', 'd', 'i', 'r', 'a', 'f', 'x', 'u'])?;
    Some((name, style, rest))
}

/// Widest column, in bytes.
const STYLE_BYTES_MAX: u16 = 1024;

/// A variable of WSGI's environment, as far as it comes from the request.
fn environment(name: &str) -> Atom {
    let upper = name.to_ascii_uppercase();
    Atom::Subject(match upper.as_str() {
        "REQUEST_METHOD" => What::Method,
        "RAW_URI" | "REQUEST_URI" => What::Target,
        "PATH_INFO" => What::Path,
        "QUERY_STRING" => What::Query,
        "SERVER_PROTOCOL" => What::Protocol,
        "REMOTE_ADDR" => What::Peer,
        "REMOTE_PORT" => What::PeerPort,
        "WSGI.URL_SCHEME" => What::Scheme,
        "CONTENT_TYPE" | "CONTENT_LENGTH" => return Atom::Header(upper.replace('_', "-").into()),
        _ => {
            return match upper.strip_prefix("HTTP_") {
                Some(header) => Atom::Header(header.replace('_', "-").into()),
                None => Atom::Missing,
            };
        }
    })
}

/// Atoms that gunicorn does not have.
fn extended(name: &str) -> Atom {
    Atom::Subject(match name {
        "client" => What::Client,
        "request_id" => What::RequestId,
        "trace_id" => What::TraceId,
        "span_id" => What::SpanId,
        "scheme" => What::Scheme,
        "host" => What::Host,
        "reason" => return Atom::Reason,
        "route" => return Atom::Route,
        "received" => return Atom::BytesReceived,
        "timestamp" => return Atom::Timestamp,
        "worker" => return Atom::Worker,
        "generation" => return Atom::Generation,
        _ => return Atom::Missing,
    })
}
