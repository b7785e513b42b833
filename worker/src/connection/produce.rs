//! Responses whose body follows its head over many turns: made by a producer, or taken from a file.
//!
//! - A producer goes on only while the client takes what it made: [`OUTPUT_HIGH_BYTES`] and one pipe may wait.
//! - A file goes by sendfile in bounded pieces per turn. Reading it may wait for the disk, which holds up the whole
//!   worker: what is served this way belongs on a local disk, or in a proxy.
//! - A body that turns out too long is cut at its Content-Length; one that turns out too short, or fails, ends the connection.

use std::borrow::Cow;
use std::io;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll};

use http1::{BodyWriter, Encoder, Exchange, Finish, ResponseError, Stamp};
use scoreboard::Counter;

use super::{
    Connection, FILE_BYTES_PER_TURN_MAX, FILE_COPIED_BYTES_MAX, Handling, Incoming, Label,
    OUTPUT_HIGH_BYTES, Sending, State, Streaming, Work,
};
use crate::access::reason;
use crate::core::{Core, Tag};
use crate::executor::TaskWaker;
use crate::panics;
use crate::response::{Body, Response};

/// What is known of a request whose response has a body to come.
pub(super) struct Asked {
    pub(super) exchange: Exchange,
    pub(super) since: u64,
    pub(super) label: Label,
    pub(super) tag: Tag,
    pub(super) body: Option<Incoming>,
}

impl Connection {
    /// Puts the head of `response` into the output; its body follows.
    pub(super) fn begin_body(&mut self, mut response: Response, asked: Asked, core: &mut Core) {
        core.let_go();
        let Asked { exchange, since, label, tag, mut body } = asked;
        // What the client wants is kept apart from what it is told: it decides how the connection ends.
        let mut told = exchange;
        told.keep_alive &= !core.drain.says_close() && !response.is_last;
        if let Some(body) = body.as_mut().filter(|body| !body.decoder.is_done()) {
            if body.has_reader() {
                // After the head of the response it could not be said any more.
                if std::mem::take(&mut body.awaits_continue) {
                    self.output.obtain().extend_from_slice(http1::CONTINUE);
                }
            } else {
                body.channel = None;
                body.deadline = None;
                told.keep_alive &= body.is_small();
            }
        }
        let content = std::mem::take(&mut response.body);
        let length = match &content {
            Body::File(file) => Some(file.len),
            _ => None,
        };
        self.give_id(&mut response);
        self.record_fields(&response, core);
        let out = self.output.obtain();
        let writer = match encode_head(out, told, core.date.stamp(), &response, length) {
            Ok(writer) => writer,
            Err(error) => {
                let title = (label.method(), label.path());
                core.report(title.0, title.1, &error);
                core.end(content);
                let refused = Response::error(500);
                let status = self.answer(refused, exchange, body, tag, title, core);
                return core.answered(tag, status);
            }
        };
        self.ends_response = writer.ends_with_connection();
        let status = response.status;
        let work = match content {
            Body::Stream(stream) => {
                let stream = *stream;
                let mut producer = Some(stream.producer);
                if !writer.sends_body() {
                    core.end(producer.take()); // For HEAD and the like nothing is produced.
                }
                Work::Streaming(Box::new(Streaming {
                    producer,
                    pipe: stream.pipe,
                    writer,
                    status,
                    sent: 0,
                    failure: None,
                }))
            }
            Body::File(file) => {
                let is_copied = !core.kernel.settings.sendfile || file.len <= FILE_COPIED_BYTES_MAX;
                let (file, from) = (file.file, file.at);
                let sending = Sending { file, from, at: from, writer, status, is_copied };
                Work::Sending(Box::new(sending))
            }
            // Whole bodies are answered elsewhere.
            Body::Empty | Body::Static(_) | Body::Buffer(_) => return,
        };
        if writer.sends_body() && length.is_none_or(|length| FILE_COPIED_BYTES_MAX < length) {
            self.stream.bound_unsent();
        }
        self.state_deadline = match &work {
            Work::Streaming(_) => core.after(core.limits.request),
            Work::Answering(_) | Work::Sending(_) => None,
        };
        self.state = State::Handling(Handling { work, exchange, since, label, tag, body });
        self.poll_producer(core);
    }

    /// Lets the producer of the body in hand go on, if there is one.
    pub(super) fn poll_producer(&mut self, core: &mut Core) {
        let key = self.task_key();
        let State::Handling(handling) = &mut self.state else { return };
        let Work::Streaming(streaming) = &mut handling.work else { return };
        let Some(producer) = &mut streaming.producer else { return };
        let (inside, waker) = self.waker.get_or_insert_with(|| TaskWaker::new(&core.queue, key));
        inside.before_poll();
        core.has_asked = true;
        streaming.pipe.borrow_mut().set_reader(None);
        let mut context = Context::from_waker(waker);
        let polled = panics::catch(|| producer.as_mut().poll(&mut context));
        streaming.pipe.borrow_mut().set_reader(Some(waker.clone()));
        core.let_go();
        // The head is out: hints are too late.
        core.kernel.interim.borrow_mut().clear();
        let ended = match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(Ok(()))) => Ok(()),
            Ok(Poll::Ready(Err(error))) if error.is_refusal() => {
                // Such as a body that was cut off: before the head it would have been the answer.
                streaming.failure = Some(reason::ABORTED);
                Ok(())
            }
            Ok(Poll::Ready(Err(error))) => Err(error.into_cause()),
            Err(panic) => Err(cause_of(&panic)),
        };
        // The end of the producer is the application's code too.
        let producer = streaming.producer.take();
        let dropped = panics::catch(|| drop(producer)).map_err(|panic| cause_of(&panic));
        if let Err(cause) = ended.and(dropped) {
            streaming.failure = Some(reason::HANDLER_ERROR);
            core.report(handling.label.method(), handling.label.path(), &*cause);
        }
    }

    /// Moves what there is of the body in hand to the output, as far as that has room.
    pub(super) fn pump(&mut self, core: &mut Core) {
        if OUTPUT_HIGH_BYTES <= self.output_left() {
            return;
        }
        let State::Handling(handling) = &mut self.state else { return };
        match &mut handling.work {
            Work::Answering(_) => (),
            Work::Streaming(_) => self.pump_stream(core),
            Work::Sending(sending) if sending.is_copied => self.copy_file(core),
            Work::Sending(_) => (),
        }
    }

    fn pump_stream(&mut self, core: &mut Core) {
        let State::Handling(handling) = &mut self.state else { return };
        let Work::Streaming(streaming) = &mut handling.work else { return };
        let bytes = streaming.pipe.borrow_mut().take();
        if !bytes.is_empty() {
            self.state_deadline = core.after(core.limits.request);
            let out = self.output.obtain();
            let surplus = streaming.writer.write(out, &bytes);
            streaming.sent += (bytes.len() - surplus) as u64;
            if surplus != 0 {
                core.warn_body(&handling.label, "is longer than its Content-Length: it was cut");
                // It has all it can have.
                core.end(streaming.producer.take());
            }
        }
        if streaming.producer.is_some() {
            return;
        }
        let (writer, status) = (streaming.writer, streaming.status);
        let ends_in_reset = streaming.failure.is_some() && self.ends_response;
        let finish = if streaming.failure.is_some() {
            Finish::Truncated { missing: 0 }
        } else {
            let trailers = streaming.pipe.borrow_mut().trailers();
            let trailers: Vec<(&str, &[u8])> =
                trailers.iter().map(|(name, value)| (&**name, value.as_bytes())).collect();
            writer.finish_with(self.output.obtain(), &trailers)
        };
        if let Finish::Truncated { missing: 1.. } = finish {
            core.warn_body(
                &handling.label,
                "is shorter than its Content-Length: cut the connection",
            );
        }
        self.conclude(finish, status, core);
        if ends_in_reset {
            self.stream.reset_on_close();
            self.output.release();
            self.written = 0;
            self.state = State::Dead;
        }
    }

    /// Copies the next piece of a file to the output.
    fn copy_file(&mut self, core: &mut Core) {
        let State::Handling(handling) = &mut self.state else { return };
        let Work::Sending(sending) = &mut handling.work else { return };
        let left = usize::try_from(sending.writer.remaining().unwrap_or(0)).unwrap_or(usize::MAX);
        let piece = left.min(core.scratch.len());
        let read = loop {
            match sending.file.read_at(&mut core.scratch[..piece], sending.at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                other => break other,
            }
        };
        let (count, status) = (read.as_ref().map_or(0, |&count| count), sending.status);
        sending.at += count as u64;
        sending.writer.write(self.output.obtain(), &core.scratch[..count]);
        let is_short = count == 0 && piece != 0;
        if is_short {
            core.warn_body(&handling.label, "comes from a file that shrank or cannot be read");
        }
        if is_short || count == left {
            let finish = sending.writer.finish(self.output.obtain());
            self.conclude(finish, status, core);
        } else {
            core.queue.push(self.task_key()); // The rest follows in the next round.
        }
    }

    /// Sends the file in hand past the output, as far as the client takes it and this turn allows.
    pub(super) fn send_file(&mut self, core: &mut Core) {
        let mut budget = FILE_BYTES_PER_TURN_MAX;
        loop {
            let State::Handling(handling) = &mut self.state else { return };
            let Work::Sending(sending) = &mut handling.work else { return };
            if sending.is_copied {
                return;
            }
            let left = sending.writer.remaining().unwrap_or(0);
            let status = sending.status;
            if left == 0 {
                let finish = sending.writer.finish(self.output.obtain());
                return self.conclude(finish, status, core);
            }
            if !self.is_writable {
                return self.await_client(core);
            }
            if budget == 0 {
                return core.queue.push(self.task_key());
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(budget);
            match self.stream.send_file(&sending.file, &mut sending.at, count) {
                Ok(0) => {
                    core.warn_body(&handling.label, "comes from a file that shrank");
                    let finish = sending.writer.finish(self.output.obtain());
                    return self.conclude(finish, status, core);
                }
                Ok(sent) => {
                    core.block.add(Counter::BytesOut, sent as u64);
                    sending.writer.sent(sent as u64);
                    budget = budget.saturating_sub(sent);
                    self.give(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if is_unfit(&error) => {
                    sending.is_copied = true;
                    return core.queue.push(self.task_key());
                }
                Err(_) => return self.abandon(core),
            }
        }
    }

    /// All of the response is in the output, or as much of it as there will be.
    fn conclude(&mut self, finish: Finish, status: u16, core: &mut Core) {
        let State::Handling(handling) = std::mem::replace(&mut self.state, State::Dead) else {
            return;
        };
        let Handling { work, exchange, since, label, tag, body } = handling;
        let sent = work.progress().map_or(0, |(_, sent)| sent);
        let reason = match (&finish, &work) {
            (Finish::Truncated { .. }, Work::Streaming(streaming)) => {
                streaming.failure.unwrap_or(reason::HANDLER_ERROR)
            }
            (Finish::Truncated { .. }, _) => reason::HANDLER_ERROR,
            _ => "",
        };
        self.record_answer(status, sent, reason, tag.route);
        if let Err(panic) = panics::catch(|| drop(work)) {
            core.report(label.method(), label.path(), &*cause_of(&panic));
        }
        let now = sys::clock::monotonic();
        core.count(tag, status, now.saturating_sub(since));
        let keeps = exchange.keep_alive && finish == Finish::KeepAlive;
        let after = match body {
            Some(body) if !body.decoder.is_done() => {
                let skipping = Connection::skipping(body).filter(|_| keeps);
                Some(skipping.unwrap_or(State::Finishing { lingers: true }))
            }
            _ => None,
        };
        let is_skipped = !matches!(after, Some(State::Finishing { .. }));
        let finish = if keeps && is_skipped { Finish::KeepAlive } else { Finish::Close };
        self.follow(after, finish, exchange.keep_alive, core);
    }
}

/// Whether sendfile cannot read this file, while reading it may work.
fn is_unfit(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

fn cause_of(panic: &panics::Caught) -> Box<dyn std::error::Error> {
    panic.text().into()
}

/// Encodes the head of a response whose body follows; `length`: if that is known. On an error `out` is as it was.
fn encode_head(
    out: &mut Vec<u8>,
    exchange: Exchange,
    stamp: &Stamp,
    response: &Response,
    length: Option<u64>,
) -> Result<BodyWriter, ResponseError> {
    let mut encoder = Encoder::new(out, exchange, stamp, response.status)?;
    for (name, value) in &response.fields {
        // The length of a file is known better here.
        if length.is_none() || !name.eq_ignore_ascii_case("content-length") {
            encoder.field(name, value.as_bytes())?;
        }
    }
    if let Some(content_type) = &response.content_type {
        let content_type: &Cow<'static, str> = content_type;
        encoder.field("Content-Type", content_type.as_bytes())?;
    }
    Ok(match length {
        Some(length) => encoder.length(length),
        None => encoder.chunked(),
    })
}
