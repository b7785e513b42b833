//! What goes to the client: handlers' responses, refusals, and the end of the connection.

use std::borrow::Cow;
use std::io;
use std::task::{Context, Poll};

use http1::{Encoder, Exchange, Finish, Head, HeadError, Refusal, ResponseError, Stamp, Version};
use scoreboard::Counter;

use super::produce::Asked;
use super::{Connection, Handling, Incoming, LINGER_MAX, Label, REQUEST_ID, Stage, State, Work};
use crate::access::reason;
use crate::body::BodyError;
use crate::core::{Core, Tag};
use crate::executor::TaskWaker;
use crate::panics;
use crate::response::{Body, Response};
use crate::service::{Answer, Content};

/// Output from this size on, in bytes, goes to the kernel a little at a time.
const LARGE_OUTPUT_BYTES: usize = 256 * 1024;

impl Connection {
    /// Runs the handler.
    pub(super) fn call(
        &mut self,
        head: &Head<'_>,
        exchange: Exchange,
        content: Content<'_>,
        body: Option<Incoming>,
        core: &mut Core,
    ) {
        let mut tag = Tag::of(head);
        let called = panics::catch(|| core.service.call(head, &self.via(core), content));
        if let Content::Stream { channel, .. } = content {
            // A body that the handler did not take has no reader.
            drop(channel.take());
        }
        let called = called.map(|(route, answer)| {
            tag.route = route;
            answer
        });
        let response = match called {
            Ok(Answer::Now(response)) => response,
            Ok(Answer::Later(task)) => {
                let (since, label) = (core.tick, Label::of(head));
                let work = Work::Answering(task);
                self.send_interim(exchange.version, core);
                self.state = State::Handling(Handling { work, exchange, since, label, tag, body });
                self.state_deadline = core.after(core.limits.request);
                return self.poll(core);
            }
            Err(panic) => panicked(&panic),
        };
        self.send_interim(exchange.version, core);
        let response = match content {
            // The handler was given less than there was.
            Content::Gathered(body) if body.has_failed() => {
                Response::error(507).because("the file of the request's body cannot be read".into())
            }
            _ => response,
        };
        if let Some(cause) = &response.cause {
            core.report(head.method().as_str().as_bytes(), head.path(), cause.as_ref());
        }
        if let Body::Stream(_) | Body::File(_) = response.body {
            let (since, label) = (core.tick, Label::of(head));
            return self.begin_body(response, Asked { exchange, since, label, tag, body }, core);
        }
        let title = (head.method().as_str().as_bytes(), head.path());
        let status = self.answer(response, exchange, body, tag, title, core);
        // Counted when the connection has had its turn: the clock is read once for all its answers.
        core.answered(tag, status);
    }

    /// Polls the handler's task, and answers if it is done.
    pub(super) fn resume(&mut self, core: &mut Core) {
        if let State::Handling(handling) = &self.state {
            core.tick = sys::clock::monotonic();
            let (method, path) = (handling.label.method(), handling.label.path());
            core.hold(method, path, &self.peer_text);
            self.poll(core);
        }
    }

    fn poll(&mut self, core: &mut Core) {
        let key = self.task_key();
        let State::Handling(handling) = &mut self.state else { return };
        let task = match &mut handling.work {
            Work::Answering(task) => task,
            Work::Streaming(_) => return self.poll_producer(core),
            Work::Sending(_) => return core.let_go(),
        };
        let (inside, waker) = self.waker.get_or_insert_with(|| TaskWaker::new(&core.queue, key));
        inside.before_poll();
        core.has_asked = true;
        let mut context = Context::from_waker(waker);
        let polled = panics::catch(|| task.as_mut().poll(&mut context));
        core.let_go();
        let version = handling.exchange.version;
        let response = match polled {
            Ok(Poll::Pending) => {
                if let Some(body) = &mut handling.body
                    && body.awaits_continue
                    && body.is_wanted()
                {
                    body.awaits_continue = false;
                    self.output.obtain().extend_from_slice(http1::CONTINUE);
                }
                return self.send_interim(version, core);
            }
            Ok(Poll::Ready(response)) => response,
            Err(panic) => panicked(&panic),
        };
        self.send_interim(version, core);
        let State::Handling(Handling { work, exchange, since, label, tag, body }) =
            std::mem::replace(&mut self.state, State::Dead)
        else {
            return;
        };
        // The end of the task is the application's code too.
        let response = match panics::catch(|| drop(work)) {
            Ok(()) => response,
            Err(panic) => panicked(&panic),
        };
        if let Some(cause) = &response.cause {
            core.report(label.method(), label.path(), cause.as_ref());
        }
        if let Body::Stream(_) | Body::File(_) = response.body {
            return self.begin_body(response, Asked { exchange, since, label, tag, body }, core);
        }
        let title = (label.method(), label.path());
        let status = self.answer(response, exchange, body, tag, title, core);
        let now = sys::clock::monotonic();
        core.count(tag, status, now.saturating_sub(since));
        core.tick = now;
    }

    /// Passes on the early hints of the handler that just ran.
    fn send_interim(&mut self, version: Version, core: &Core) {
        let mut interim = core.kernel.interim.borrow_mut();
        if interim.is_empty() {
            return;
        }
        // HTTP/1.0 knows no interim responses.
        if version == Version::Http11 {
            self.output.obtain().extend_from_slice(&interim);
        }
        interim.clear();
    }

    /// Puts a whole response into the output and decides what follows; returns the status that was really sent. Method and
    /// path are for the log.
    pub(super) fn answer(
        &mut self,
        mut response: Response,
        mut exchange: Exchange,
        body: Option<Incoming>,
        tag: Tag,
        (method, path): (&[u8], &[u8]),
        core: &mut Core,
    ) -> u16 {
        core.let_go();
        let client_keeps = exchange.keep_alive;
        // Asked this late: the drain may have begun while the handler was at work.
        exchange.keep_alive &= !core.drain.says_close() && !response.is_last;
        let after = match body {
            Some(body) if !body.decoder.is_done() => {
                let skipping = Connection::skipping(body).filter(|_| exchange.keep_alive);
                exchange.keep_alive = skipping.is_some();
                Some(skipping.unwrap_or(State::Finishing { lingers: true }))
            }
            _ => None,
        };
        self.give_id(&mut response);
        let out = self.output.obtain();
        let mut status = response.status;
        let finish = match encode(out, exchange, core.date.stamp(), &response) {
            Ok(finish) => finish,
            Err(error) => {
                core.report(method, path, &error);
                status = 500;
                Refusal::new(500, "").write(out, exchange, core.date.stamp())
            }
        };
        self.record_response(&response, status, exchange, tag.route, core);
        self.follow(after, finish, client_keeps, core);
        status
    }

    /// Adds the request's id to its response, unless the application did.
    pub(super) fn give_id(&mut self, response: &mut Response) {
        if let Some(id) = self.request_id.take() {
            let is_set = |(name, _): &(Cow<'_, str>, _)| name.eq_ignore_ascii_case(REQUEST_ID);
            if !response.fields.iter().any(is_set) {
                response.fields.push((REQUEST_ID.into(), String::from(id).into()));
            }
        }
    }

    /// A response is in the output: `after` is what is to become of an unread rest of its request's body.
    pub(super) fn follow(
        &mut self,
        after: Option<State>,
        finish: Finish,
        client_keeps: bool,
        core: &mut Core,
    ) {
        match (after, finish) {
            (None, Finish::KeepAlive) => self.rest(),
            (Some(after), Finish::KeepAlive) => {
                self.state = after;
                self.state_deadline = core.after(core.limits.body);
            }
            // Whoever asked for the close has nothing more to say; others may be sending already.
            (after, _) => {
                let lingers = after.is_some() || client_keeps || !self.input.is_empty();
                self.state = State::Finishing { lingers };
                self.state_deadline = None;
            }
        }
    }

    /// The connection waits for its next request. The time for it begins when the client has its answer.
    pub(super) fn rest(&mut self) {
        self.state = State::Head(Stage::Answered);
        self.state_deadline = None;
    }

    /// The head of a request broke the rules.
    pub(super) fn refuse_head(&mut self, error: HeadError, bytes: &[u8], core: &mut Core) {
        core.block.add(Counter::RefusedBadRequest, 1);
        core.warn_invalid(&self.peer_text, &error);
        self.record_raw(bytes, core);
        let reason = if matches!(error.status(), 414 | 431) {
            reason::TOO_LARGE
        } else {
            reason::BAD_REQUEST
        };
        let refusal = Refusal::new(error.status(), error.reason());
        self.refuse(refusal, Exchange::of_refused(bytes), reason, core);
    }

    /// Trusted fields contradict each other about the scheme.
    pub(super) fn refuse_scheme(&mut self, head: &Head<'_>, raw: &[u8], core: &mut Core) {
        core.block.add(Counter::RefusedBadRequest, 1);
        core.warn_invalid(&self.peer_text, &"contradictory scheme headers");
        self.record_raw(raw, core);
        let refusal = Refusal::new(400, "contradictory scheme headers");
        let exchange = Exchange { keep_alive: false, ..Exchange::of(head) };
        self.refuse(refusal, exchange, reason::BAD_REQUEST, core);
    }

    /// The body of a request will not be read to its end.
    pub(super) fn refuse_body(
        &mut self,
        error: BodyError,
        mut exchange: Exchange,
        tag: Tag,
        core: &mut Core,
    ) {
        core.block.add(
            match error {
                BodyError::TooLarge => Counter::RefusedTooLarge,
                BodyError::TimedOut => Counter::RefusedBodyTimeout,
                BodyError::Malformed | BodyError::Cut => Counter::RefusedBadRequest,
                BodyError::NotStored => Counter::HandlerErrors,
            },
            1,
        );
        core.let_go();
        core.answered(tag, error.status());
        exchange.keep_alive = false;
        let reason = reason::of_body(error);
        self.refuse(Refusal::new(error.status(), ""), exchange, reason, core);
    }

    /// Says why, and ends the connection.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal<'_>,
        exchange: Exchange,
        reason: &'static str,
        core: &mut Core,
    ) {
        let out = self.output.obtain();
        let before = out.len();
        let _ = refusal.write(out, exchange, core.date.stamp());
        self.record_refusal(refusal.status, reason, before, core);
        self.enter(State::Finishing { lingers: true }, core);
        self.state_deadline = None;
    }

    /// Bytes that wait for the client to take them.
    pub(crate) fn output_left(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes what the client takes; when it has all, closes after the last response, or waits for the next request.
    pub(crate) fn flush(&mut self, core: &mut Core) {
        if !self.flush_output(core) {
            return;
        }
        self.send_file(core);
        // The file may have been the last that was to be sent.
        match &mut self.state {
            State::Head(stage @ Stage::Answered)
                if self.output.is_empty() && !core.share.is_over() =>
            {
                *stage = Stage::Idle;
                self.since = core.now();
                let deadline = self.since + core.limits.keep_alive;
                self.state_deadline = Some(core.drain.idle_deadline(deadline));
            }
            &mut State::Finishing { lingers } => self.finish(lingers, core),
            _ => (),
        }
    }

    /// Writes the output; `true` when nothing of it is left.
    fn flush_output(&mut self, core: &mut Core) -> bool {
        if self.output.is_empty() {
            return true;
        }
        if self.written == 0 && LARGE_OUTPUT_BYTES <= self.output.len() {
            // The kernel says "writable" when a third of its memory for the client is free. Of megabytes that takes a
            // client longer than the write timeout, however steadily it reads.
            self.stream.bound_unsent();
        }
        while self.is_writable && self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => {
                    self.abandon(core);
                    return false;
                }
                Ok(count) => {
                    core.block.add(Counter::BytesOut, count as u64);
                    self.written += count;
                    self.give(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(_) => {
                    self.abandon(core);
                    return false;
                }
            }
        }
        if self.written < self.output.len() {
            self.await_client(core);
            return false;
        }
        self.output.release();
        self.written = 0;
        true
    }

    /// Closes our side after the last response.
    fn finish(&mut self, lingers: bool, core: &mut Core) {
        // A close with unread bytes would send a reset, which may overtake the answer (RFC 9112 §9.6).
        let lingers = lingers || self.is_readable;
        self.state = if lingers && !self.has_ended && self.stream.half_close().is_ok() {
            let until = core.now() + LINGER_MAX;
            self.linger(until, core);
            State::Lingering { until }
        } else {
            State::Dead
        };
    }
}

/// Encodes `response`; on an error `out` is as it was.
fn encode(
    out: &mut Vec<u8>,
    exchange: Exchange,
    stamp: &Stamp,
    response: &Response,
) -> Result<Finish, ResponseError> {
    let body = response.body.as_bytes();
    if response.fields.is_empty()
        && (200..=999).contains(&response.status)
        && let Some(Cow::Borrowed(content_type)) = response.content_type
    {
        http1::respond(out, &exchange, stamp, response.status, content_type, body);
        return Ok(if exchange.keep_alive { Finish::KeepAlive } else { Finish::Close });
    }
    let mut encoder = Encoder::new(out, exchange, stamp, response.status)?;
    for (name, value) in &response.fields {
        encoder.field(name, value.as_bytes())?;
    }
    if let Some(content_type) = &response.content_type {
        encoder.field("Content-Type", content_type.as_bytes())?;
    }
    Ok(encoder.finish(body))
}

/// The answer for a handler that panicked; the client does not learn why.
pub(super) fn panicked(panic: &panics::Caught) -> Response {
    Response::error(500).because(panic.text().into())
}
