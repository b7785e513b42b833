//! What the access log is told of a connection's requests.

use std::borrow::Cow;
use std::cell::OnceCell;

use http1::{Exchange, Head};
use logging::access::{Subject, What};
use net::Peer;

use super::{Connection, Stage, State};
use crate::access::{Answered, STATUS_ABORTED, STATUS_CUT, reason};
use crate::core::Core;
use crate::peer::PeerText;
use crate::response::Response;
use crate::via::{Trace, Via, hex, sent_id};

/// Longest part of a request line that is logged of a request that was not understood, in bytes.
const RAW_LINE_BYTES_MAX: usize = 512;

impl Connection {
    /// How the request in hand came here.
    pub(super) fn via<'c>(&'c self, core: &'c Core) -> Via<'c> {
        Via::new(
            &self.peer,
            self.is_trusted,
            self.is_https,
            &core.trust,
            self.request_id.as_deref(),
        )
    }

    /// Finds out how a request came here, gives it its id, and notes it for the log. `false`: its fields contradict
    /// each other about the scheme.
    pub(super) fn admit(&mut self, head: &Head<'_>, core: &mut Core) -> bool {
        let said = if self.is_trusted { core.trust.says_https(head.fields()) } else { Ok(false) };
        let Ok(said) = said else { return false };
        self.is_https = said || head.is_https();
        if core.trust.gives_ids {
            let id = sent_id(head).map(Box::from);
            self.request_id = Some(id.unwrap_or_else(|| core.ids.request_id()));
        }
        if core.access.is_some() {
            self.record(head, core);
        }
        true
    }

    /// Notes a request.
    #[inline(never)]
    fn record(&mut self, head: &Head<'_>, core: &mut Core) {
        let span = core.ids.next();
        let Some(access) = &mut core.access else { return };
        let id = self.request_id.as_deref();
        let via = Via::new(&self.peer, self.is_trusted, self.is_https, &core.trust, id);
        let seen = Seen { head, via, peer_text: &self.peer_text, span, trace: OnceCell::new() };
        access.note(&mut self.ledger, &seen, core.tick);
    }

    /// Notes what could not be understood.
    pub(super) fn record_raw(&mut self, bytes: &[u8], core: &mut Core) {
        let Some(access) = &mut core.access else { return };
        let bytes = bytes.trim_ascii_start();
        let end =
            bytes.iter().position(|&byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let raw = &bytes[..end.min(RAW_LINE_BYTES_MAX)];
        access.note(&mut self.ledger, &Raw { line: raw, peer_text: &self.peer_text }, core.tick);
    }

    /// Notes a handler's answer.
    #[inline]
    pub(super) fn record_response(
        &mut self,
        response: &Response,
        status: u16,
        exchange: Exchange,
        route: u16,
        core: &Core,
    ) {
        if self.ledger.is_none() {
            return;
        }
        self.record_fields(response, core);
        let is_bodiless = exchange.is_head || matches!(status, 204 | 205 | 304);
        let is_replaced = status != response.status;
        let sent = match is_bodiless {
            true => 0,
            // What was sent instead is the last thing in the output.
            false if is_replaced => last_body(&self.output),
            false => response.body.as_bytes().len(),
        };
        let reason = match response.body_error {
            _ if is_replaced || response.cause.is_some() => reason::HANDLER_ERROR,
            Some(error) => reason::of_body(error),
            None => "",
        };
        self.record_answer(status, sent as u64, reason, route);
    }

    /// Notes how the request in hand was answered.
    pub(super) fn record_answer(
        &mut self,
        status: u16,
        sent: u64,
        reason: &'static str,
        route: u16,
    ) {
        if let Some(ledger) = &mut self.ledger {
            ledger.answer(Answered { status, sent, reason, route });
        }
    }

    /// Notes the fields of an answer.
    pub(super) fn record_fields(&mut self, response: &Response, core: &Core) {
        let (Some(ledger), Some(access)) = (&mut self.ledger, &core.access) else { return };
        access.note_fields(ledger, |name| {
            if name.eq_ignore_ascii_case("content-type") {
                return response.content_type.as_deref().map(str::as_bytes);
            }
            let mut all = response.fields.iter().rev();
            all.find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_bytes())
        });
    }

    /// Notes the fields of a head that is in the output from `before` on.
    pub(crate) fn record_head(&mut self, before: usize, core: &Core) {
        let (Some(ledger), Some(access)) = (&mut self.ledger, &core.access) else { return };
        let head = self.output.get(before..).unwrap_or_default();
        access.note_fields(ledger, |name| http1::written_field(head, name));
    }

    /// Notes a refusal; `sent` is what was put into the output.
    pub(super) fn record_refusal(
        &mut self,
        status: u16,
        reason: &'static str,
        before: usize,
        core: &Core,
    ) {
        let (Some(ledger), Some(access)) = (&mut self.ledger, &core.access) else { return };
        let body = last_body(self.output.get(before..).unwrap_or_default());
        access.note_fields(ledger, |_| None);
        ledger.answer(Answered { status, sent: body as u64, reason, route: 0 });
    }

    /// The kernel has taken everything: writes the lines.
    #[inline]
    pub(super) fn write_records(&mut self, core: &mut Core) {
        if let (Some(_), Some(access)) = (&self.ledger, &mut core.access) {
            access.write(&mut self.ledger, &*core.service, core.tick);
        }
    }

    /// The client is gone: what it asked and did not get has its line.
    pub(super) fn record_abort(&mut self, core: &mut Core) {
        self.record_loss(STATUS_ABORTED, reason::ABORTED, core);
    }

    /// The client does not take its answers.
    pub(super) fn record_stall(&mut self, core: &mut Core) {
        self.record_loss(STATUS_ABORTED, reason::WRITE_TIMEOUT, core);
    }

    /// The worker leaves: what it had in hand has its line.
    pub(crate) fn record_cut(&mut self, core: &mut Core) {
        self.record_loss(STATUS_CUT, reason::CUT, core);
    }

    /// Nothing more will come of a head that has begun to arrive.
    pub(super) fn record_unfinished(&mut self, status: u16, reason: &'static str, core: &mut Core) {
        if core.access.is_none()
            || !matches!(self.state, State::Head(Stage::Arriving))
            || self.input.is_empty()
        {
            return;
        }
        let input = std::mem::take(&mut self.input);
        self.record_raw(&input, core);
        if let Some(ledger) = &mut self.ledger {
            ledger.answer(Answered { status, sent: 0, reason, route: 0 });
        }
    }

    fn record_loss(&mut self, status: u16, reason: &'static str, core: &mut Core) {
        self.record_unfinished(status, reason, core);
        let begun = match &self.state {
            State::Handling(handling) => {
                let progress = handling.work.progress();
                progress.map(|(status, sent)| (status, sent, handling.tag.route))
            }
            State::Hosted(_) => self.replied.map(|(status, sent)| (status, sent, 0)),
            _ => None,
        };
        if let Some((status, sent, route)) = begun {
            // Its head went out; what is lost is a part of the body.
            self.record_answer(status, sent, reason, route);
        }
        let unsent = self.output_left();
        if let (Some(ledger), Some(access)) = (&mut self.ledger, &mut core.access) {
            ledger.take_back(unsent);
            let lost = Answered { status, sent: 0, reason, route: 0 };
            access.write_lost(&mut self.ledger, &*core.service, lost, sys::clock::monotonic());
        }
    }
}

/// How many bytes of body the last response in `output` has; none of ours that is written whole has an empty line in it.
fn last_body(output: &[u8]) -> usize {
    output.windows(4).rposition(|end| end == b"\r\n\r\n").map_or(0, |at| output.len() - at - 4)
}

/// A request, as the log sees it.
struct Seen<'r> {
    head: &'r Head<'r>,
    via: Via<'r>,
    peer_text: &'r PeerText,
    span: u64,
    /// Looked for once.
    trace: OnceCell<Option<Trace<'r>>>,
}

impl Seen<'_> {
    fn trace(&self) -> Option<Trace<'_>> {
        *self.trace.get_or_init(|| self.head.field("traceparent").and_then(Trace::parse))
    }
}

impl Subject for Seen<'_> {
    fn part(&self, what: What) -> Option<Cow<'_, [u8]>> {
        let head = self.head;
        Some(match what {
            What::Peer => return peer(self.peer_text),
            What::PeerPort => match self.via.peer {
                Peer::Ip(address) => Cow::Owned(address.port().to_string().into_bytes()),
                Peer::Unix => return None,
            },
            What::Client => match (self.via.client(head)?, self.via.peer) {
                (client, Peer::Ip(address)) if client == address.ip() => {
                    return peer(self.peer_text);
                }
                (client, _) => Cow::Owned(client.to_string().into_bytes()),
            },
            What::Method => Cow::Borrowed(head.method().as_str().as_bytes()),
            What::Target => Cow::Borrowed(head.target()),
            What::Path => Cow::Borrowed(head.path()),
            What::Query => Cow::Borrowed(head.query()?),
            What::Protocol => Cow::Borrowed(head.version().as_str().as_bytes()),
            What::Scheme => Cow::Borrowed(self.via.scheme().as_bytes()),
            What::Host => Cow::Borrowed(head.host()?),
            What::RequestId => Cow::Borrowed(self.via.request_id(head)?.as_bytes()),
            What::TraceId => Cow::Borrowed(self.trace()?.trace_id().as_bytes()),
            What::SpanId => {
                let _ = self.trace()?;
                Cow::Owned(hex(self.span).into_bytes())
            }
            What::RawLine => return None,
        })
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let name = name.as_bytes();
        let mut all = self.head.fields().iter().rev();
        all.find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

/// Something that was not understood, as the log sees it.
struct Raw<'r> {
    line: &'r [u8],
    peer_text: &'r PeerText,
}

impl Subject for Raw<'_> {
    fn part(&self, what: What) -> Option<Cow<'_, [u8]>> {
        match what {
            What::Peer | What::Client => peer(self.peer_text),
            What::RawLine => Some(Cow::Borrowed(self.line)).filter(|line| !line.is_empty()),
            _ => None,
        }
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

fn peer(text: &PeerText) -> Option<Cow<'_, [u8]>> {
    Some(Cow::Borrowed(text.as_bytes())).filter(|text| !text.is_empty())
}
