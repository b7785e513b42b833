//! What comes from the client: heads, bodies, and what becomes of each.

use std::io;

use http1::{BodyDecoder, Exchange, Framing, Head, Parsed, Progress, parse_head};
use scoreboard::Counter;

use super::{Connection, Gathering, Incoming, OUTPUT_HIGH_BYTES, SKIP_BYTES_MAX, Stage, State};
use crate::access::{STATUS_ABORTED, reason};
use crate::body::{BodyError, Channel};
use crate::buffer::Buffer;
use crate::core::{Core, Tag};
use crate::service::{Admission, Content};
use crate::spool::Spooled;
use crate::trailers::Trailers;

impl Connection {
    /// Whether bytes from the client would be of use now. All back-pressure is here.
    pub(super) fn wants_bytes(&self) -> bool {
        match &self.state {
            State::Preface => true,
            State::Head(_) => self.output_left() < OUTPUT_HIGH_BYTES,
            State::Gathering(_) | State::Skipping { .. } | State::Lingering { .. } => true,
            State::Handling(handling) => {
                self.input.is_empty() && handling.body.as_ref().is_some_and(Incoming::has_room)
            }
            State::Hosted(_) | State::Finishing { .. } | State::Dead => false,
        }
    }

    /// Reads once, and feeds what came.
    pub(super) fn read(&mut self, core: &mut Core) {
        let mut scratch = std::mem::take(&mut core.scratch);
        match self.stream.read(&mut scratch) {
            Ok(0) => {
                self.is_readable = false;
                self.has_ended = true;
            }
            Ok(count) => {
                core.block.add(Counter::BytesIn, count as u64);
                // Less than asked for: there is no more, unless the client's end was announced together with it.
                self.is_readable = count == scratch.len() || self.is_ending;
                let bytes = &scratch[..count];
                if self.input.is_empty() {
                    let used = self.feed(bytes, core);
                    if used < count {
                        self.input.obtain().extend_from_slice(&bytes[used..]);
                    }
                } else {
                    self.input.extend_from_slice(bytes);
                    self.consume_input(core);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
            Err(_) => self.abandon(core),
        }
        core.scratch = scratch;
    }

    /// Feeds what waits in `input`.
    pub(super) fn consume_input(&mut self, core: &mut Core) {
        if self.input.is_empty() {
            return;
        }
        let mut input = std::mem::replace(&mut self.input, Buffer::none());
        let used = self.feed(&input, core);
        if used < input.len() {
            input.drain(..used);
            self.input = input;
        }
    }

    /// Takes what the states want from the front of `bytes`; returns how many bytes that was.
    fn feed(&mut self, bytes: &[u8], core: &mut Core) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let step = match &self.state {
                State::Preface => self.feed_preface(rest, core),
                State::Head(_) if OUTPUT_HIGH_BYTES <= self.output_left() => 0,
                State::Head(_) if !core.has_time() => 0,
                State::Head(_) => self.feed_head(rest, core),
                State::Gathering(_) => self.feed_gathering(rest, core),
                State::Handling(_) => self.feed_handler(rest, core),
                State::Hosted(_) => 0, // Pipelined requests wait.
                State::Skipping { .. } => self.feed_skipping(rest),
                // What follows the last request is of no interest, but that its sender may not be through.
                State::Finishing { .. } => {
                    self.state = State::Finishing { lingers: true };
                    rest.len()
                }
                State::Dead => rest.len(),
                &State::Lingering { until } => {
                    self.linger(until, core);
                    rest.len()
                }
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        used
    }

    fn feed_head(&mut self, bytes: &[u8], core: &mut Core) -> usize {
        // Out of `core`, because the head borrows it while the request runs.
        let mut fields = std::mem::take(&mut core.fields);
        let used =
            match parse_head(bytes, core.rules(self.is_trusted), &mut self.progress, &mut fields) {
                Ok(Parsed::Complete(head)) => {
                    self.progress = Progress::default();
                    self.begin_all(&head, bytes, core)
                }
                Ok(Parsed::Partial) => {
                    // The empty line that may precede a request, and follows bodies of old clients, is nobody's first byte.
                    let has_begun = bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
                    if has_begun && !matches!(self.state, State::Head(Stage::Arriving)) {
                        // From its first byte on; a slow sender does not renew it.
                        self.state = State::Head(Stage::Arriving);
                        self.since = core.now();
                        self.state_deadline = core.after(core.limits.header);
                    }
                    0
                }
                Err(error) => {
                    self.refuse_head(error, bytes, core);
                    bytes.len()
                }
            };
        core.fields = fields;
        used
    }

    /// A request's head is at the front of `bytes`: begins it, and those behind it whose heads are the same to the byte.
    /// Returns how many bytes they take.
    ///
    /// A client that pipelines mostly repeats itself, and what was found of a head holds for its repetition: the rules
    /// of a connection never change.
    fn begin_all(&mut self, head: &Head<'_>, bytes: &[u8], core: &mut Core) -> usize {
        let (raw, mut rest) = bytes.split_at(head.len());
        loop {
            self.begin(head, raw, core);
            let is_next =
                matches!(self.state, State::Head(_)) && self.output_left() < OUTPUT_HIGH_BYTES;
            match rest.strip_prefix(raw) {
                Some(behind) if is_next && core.has_time() => rest = behind,
                _ => return bytes.len() - rest.len(),
            }
        }
    }

    /// A request's head is there.
    fn begin(&mut self, head: &Head<'_>, raw: &[u8], core: &mut Core) {
        if !self.admit(head, core) {
            return self.refuse_scheme(head, raw, core);
        }
        core.begin(head, &self.peer_text);
        let exchange = Exchange::of(head);
        if head.framing().is_empty() {
            if core.gate.is_some() {
                return self.is_whole(head, raw, None, core);
            }
            return self.call(head, exchange, Content::None, None, core);
        }
        let decoder = BodyDecoder::new(head.framing(), &core.rules(self.is_trusted).limits);
        let mut incoming = Incoming {
            decoder,
            bytes_left: core.body_bytes_max,
            channel: None,
            awaits_continue: head.expect_continue(),
            deadline: None,
        };
        match core.service.admit(head) {
            Admission::Gather { bytes_max } => {
                if matches!(head.framing(), Framing::Length(length) if bytes_max < length) {
                    return self.refuse_body(BodyError::TooLarge, exchange, Tag::of(head), core);
                }
                if head.expect_continue() {
                    self.output.obtain().extend_from_slice(http1::CONTINUE);
                }
                let mut copy = Buffer::new();
                copy.extend_from_slice(raw);
                let decoder = incoming.decoder;
                let body = Spooled::new();
                self.state = State::Gathering(Box::new(Gathering {
                    head: copy,
                    decoder,
                    body,
                    bytes_max,
                    exchange,
                    tag: Tag::of(head),
                }));
                self.state_deadline = core.after(core.limits.body);
            }
            Admission::Stream { bytes_max } => {
                if matches!(head.framing(), Framing::Length(length) if core.body_bytes_max < length)
                {
                    return self.refuse_body(BodyError::TooLarge, exchange, Tag::of(head), core);
                }
                let channel = Channel::new(&core.queue, self.task_key());
                incoming.channel = Some(channel.clone());
                incoming.deadline = core.after(core.limits.body);
                let offer = std::cell::RefCell::new(Some(channel));
                let content = Content::Stream { channel: &offer, bytes_max };
                self.call(head, exchange, content, Some(incoming), core);
            }
            Admission::Ignore => self.call(head, exchange, Content::None, Some(incoming), core),
        }
    }

    fn feed_gathering(&mut self, bytes: &[u8], core: &mut Core) -> usize {
        let State::Gathering(gathering) = &mut self.state else { return 0 };
        let (tag, exchange) = (gathering.tag, gathering.exchange);
        let step = match gathering.decoder.decode(bytes) {
            Ok(step) => step,
            Err(error) => {
                core.warn_invalid(&self.peer_text, &error);
                self.refuse_body(BodyError::Malformed, exchange, tag, core);
                return bytes.len();
            }
        };
        let (consumed, is_done) = (step.consumed, step.done);
        if gathering.bytes_max < gathering.body.len() + step.data.len() as u64 {
            self.refuse_body(BodyError::TooLarge, exchange, tag, core);
            return bytes.len();
        }
        let count = step.data.len();
        if let Some(ledger) = &mut self.ledger {
            ledger.receive(count);
        }
        let mut stored = gathering.body.put(&bytes[step.data], &core.spool);
        if is_done && stored.is_ok() {
            stored = gathering.body.end(Trailers::of(&gathering.decoder));
        }
        if let Err(error) = stored {
            core.kernel.log.error(format_args!("Cannot store a request body: {error}"));
            self.refuse_body(BodyError::NotStored, exchange, tag, core);
            return bytes.len();
        }
        let before = self.state_deadline;
        self.state_deadline = core.limits.body_deadline(before, count, core.now());
        if is_done {
            let State::Gathering(gathering) = std::mem::replace(&mut self.state, State::Dead)
            else {
                return 0;
            };
            if core.gate.is_some() {
                self.is_gathered(*gathering, core);
            } else {
                self.call_gathered(&gathering, core);
            }
        }
        consumed
    }

    /// The body of a request is there: reads the head again, and runs the handler.
    fn call_gathered(&mut self, gathering: &Gathering, core: &mut Core) {
        let mut fields = std::mem::take(&mut core.fields);
        // It parsed before, by the same rules, so anything else cannot happen; the state is then Dead already.
        if let Ok(Parsed::Complete(head)) = parse_head(
            &gathering.head,
            core.rules(self.is_trusted),
            &mut Progress::default(),
            &mut fields,
        ) {
            core.hold(head.method().as_str().as_bytes(), head.path(), &self.peer_text);
            let exchange = Exchange::of(&head);
            self.call(&head, exchange, Content::Gathered(&gathering.body), None, core);
        }
        core.fields = fields;
    }

    /// Passes body bytes on to the handler that is at work, as far as it has room.
    fn feed_handler(&mut self, bytes: &[u8], core: &mut Core) -> usize {
        let State::Handling(handling) = &mut self.state else { return 0 };
        let Some(body) = &mut handling.body else { return 0 };
        let Some(channel) = body.channel.clone() else { return 0 };
        if body.decoder.is_done() {
            return 0; // Pipelined requests wait.
        }
        let mut channel = channel.borrow_mut();
        let room = channel.room().min(bytes.len());
        if room == 0 {
            return 0;
        }
        body.awaits_continue = false;
        match body.decoder.decode(&bytes[..room]) {
            Ok(step) if body.bytes_left < step.data.len() as u64 => {
                core.block.add(Counter::RefusedTooLarge, 1);
                // The handler decides what to say; by `?` it is 413.
                channel.finish(Err(BodyError::TooLarge));
                body.deadline = None;
                body.channel = None;
                handling.exchange.keep_alive = false;
                0
            }
            Ok(step) => {
                let count = step.data.len();
                if let Some(ledger) = &mut self.ledger {
                    ledger.receive(count);
                }
                if channel.is_awaited() && (count != 0 || step.done) {
                    // The handler has what it waited for: its own time goes on from here.
                    self.state_deadline = core.after(core.limits.request);
                }
                if count != 0 {
                    body.bytes_left -= count as u64;
                    channel.put(&bytes[step.data]);
                }
                body.deadline = core.limits.body_deadline(body.deadline, count, core.now());
                if step.done {
                    body.deadline = None;
                    channel.complete(Trailers::of(&body.decoder));
                }
                step.consumed
            }
            Err(error) => {
                core.warn_invalid(&self.peer_text, &error);
                channel.finish(Err(BodyError::Malformed));
                body.deadline = None;
                body.channel = None;
                // The end of the body is unknown: the answer is the last, and what follows is of no interest.
                handling.exchange.keep_alive = false;
                0
            }
        }
    }

    fn feed_skipping(&mut self, bytes: &[u8]) -> usize {
        let State::Skipping { decoder, left } = &mut self.state else { return 0 };
        match decoder.decode(bytes) {
            Ok(step) => {
                *left = left.saturating_sub(step.consumed as u64);
                let is_too_much = *left == 0;
                if step.done {
                    self.rest();
                } else if is_too_much {
                    self.state = State::Finishing { lingers: true };
                }
                step.consumed
            }
            Err(_) => {
                // It is answered; there is nothing to say to it any more.
                self.state = State::Finishing { lingers: true };
                bytes.len()
            }
        }
    }

    /// The client has said its last: what is begun and cannot be finished ends here.
    pub(super) fn on_end(&mut self, core: &mut Core) {
        match &mut self.state {
            State::Head(_) | State::Preface => {
                self.record_unfinished(STATUS_ABORTED, reason::ABORTED, core);
                self.state = State::Finishing { lingers: false };
            }
            State::Gathering(gathering) => {
                // Answers to what it asked before may be on their way.
                let route = gathering.tag.route;
                core.let_go();
                core.block.add(Counter::RequestsAborted, 1);
                self.record_answer(STATUS_ABORTED, 0, reason::ABORTED, route);
                self.state = State::Finishing { lingers: false };
                self.state_deadline = None;
            }
            State::Hosted(_) => (), // It may still read the answer.
            State::Handling(handling) => {
                // It may still read the answer.
                handling.exchange.keep_alive = false;
                if let Some(body) = &mut handling.body
                    && !body.decoder.is_done()
                    && let Some(channel) = body.channel.take()
                {
                    body.deadline = None;
                    channel.borrow_mut().finish(Err(BodyError::Cut));
                }
            }
            State::Skipping { .. } => self.state = State::Finishing { lingers: false },
            State::Lingering { .. } => self.state = State::Dead,
            State::Finishing { .. } | State::Dead => (),
        }
    }

    /// How an unwanted rest of a body is dealt with: `Some` if it is small enough to be read and dropped.
    pub(super) fn skipping(body: Incoming) -> Option<State> {
        body.is_small().then_some(State::Skipping { decoder: body.decoder, left: SKIP_BYTES_MAX })
    }
}
