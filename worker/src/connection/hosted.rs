//! A request of a connection whose worker has a host: gathered, perhaps waiting, answered piece by piece.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use http1::{
    BodyWriter, Exchange, Finish, Head, Parsed, Progress as Scan, Refusal, Version, parse_head,
};
use scoreboard::Counter;

use super::{Connection, Gathering, Handling, Label, OUTPUT_HIGH_BYTES, Sending, State, Work};
use crate::access::reason;
use crate::buffer::Buffer;
use crate::core::{Core, Tag};
use crate::executor::{ReadyQueue, TaskKey};
use crate::host::{FilePart, Gate, HostRequest, Progress, Reply, RequestId, Responder};
use crate::panics;
use crate::spool::Spooled;

/// What a client is told to wait, in seconds, whose request did not come to the host.
const RETRY_AFTER_S: u32 = 1;

/// Where a request stands.
pub(super) enum Hosted {
    /// It is whole, and the host has no capacity.
    Waiting(Box<Whole>),
    /// The host is being called.
    InCall,
    /// The host has more to say.
    Running(Box<Running>),
}

impl Hosted {
    /// Whether the host wants to be resumed without anybody waking it.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Hosted::Running(running) if running.goes_on)
    }
}

pub(super) struct Whole {
    head: Buffer,
    body: Option<Spooled>,
}

pub(super) struct Running {
    reply: Reply,
    label: Label,
    /// The host said [`Progress::More`]: each turn has at most one piece of that kind.
    goes_on: bool,
}

/// Wakes the loop up for one connection.
struct HostWaker {
    queue: Arc<ReadyQueue>,
    key: TaskKey,
}

impl Wake for HostWaker {
    fn wake(self: Arc<HostWaker>) {
        self.queue.push(self.key);
    }
}

impl Connection {
    /// The body of a request is there, for the host.
    pub(super) fn is_gathered(&mut self, gathering: Gathering, core: &mut Core) {
        let Gathering { head, body, .. } = gathering;
        self.with_head(&head, core, |connection, parsed, core| {
            let method = parsed.method().as_str().as_bytes();
            core.hold(method, parsed.path(), &connection.peer_text);
            connection.is_whole(parsed, &head, Some(body), core);
        });
    }

    /// Goes on with whatever the request waits for.
    pub(super) fn go_on_hosted(&mut self, core: &mut Core) {
        match &self.state {
            State::Hosted(Hosted::Waiting(_)) => {
                if core.gate.as_mut().is_some_and(|gate| gate.admit(self.token.0))
                    && let State::Hosted(Hosted::Waiting(whole)) =
                        std::mem::replace(&mut self.state, State::Dead)
                {
                    self.state_deadline = None;
                    let Whole { head, body } = *whole;
                    self.with_head(&head, core, |connection, parsed, core| {
                        core.tick = sys::clock::monotonic();
                        let method = parsed.method().as_str().as_bytes();
                        core.hold(method, parsed.path(), &connection.peer_text);
                        connection.call_host(parsed, &head, body, core);
                    });
                }
            }
            State::Hosted(Hosted::Running(_)) if self.output_left() < OUTPUT_HIGH_BYTES => {
                self.resume_host(core);
            }
            _ => (),
        }
    }

    /// The connection ends while a request is in hand.
    pub(super) fn abandon_hosted(&mut self, core: &mut Core) {
        let State::Hosted(hosted) = &self.state else { return };
        let Some(gate) = &mut core.gate else { return };
        match hosted {
            Hosted::Waiting(_) => gate.forget(self.token.0),
            Hosted::Running(_) => {
                if let Some(host) = gate.host() {
                    host.cancel(RequestId(self.token.0));
                }
            }
            Hosted::InCall => (),
        }
        core.wake_waiting();
    }

    /// Parses a head again that was kept.
    fn with_head(
        &mut self,
        raw: &Buffer,
        core: &mut Core,
        act: impl FnOnce(&mut Connection, &Head<'_>, &mut Core),
    ) {
        let mut fields = std::mem::take(&mut core.fields);
        // It parsed before, by the same rules, so anything else cannot happen; the state is then Dead already.
        if let Ok(Parsed::Complete(head)) =
            parse_head(raw, core.rules(self.is_trusted), &mut Scan::default(), &mut fields)
        {
            act(self, &head, core);
        }
        core.fields = fields;
    }

    /// A request is whole: calls the host, or waits for it.
    pub(super) fn is_whole(
        &mut self,
        head: &Head<'_>,
        raw: &[u8],
        body: Option<Spooled>,
        core: &mut Core,
    ) {
        self.state_deadline = None;
        self.replied = None;
        let Some(gate) = &mut core.gate else { return };
        if gate.admit(self.token.0) {
            return self.call_host(head, raw, body, core);
        }
        gate.wait(self.token.0);
        self.state_deadline = core.after(core.limits.request);
        core.let_go();
        let mut copy = Buffer::new();
        copy.extend_from_slice(raw);
        self.state = State::Hosted(Hosted::Waiting(Box::new(Whole { head: copy, body })));
    }

    fn call_host(&mut self, head: &Head<'_>, raw: &[u8], body: Option<Spooled>, core: &mut Core) {
        let mut reply = Reply::new(Exchange::of(head), Tag::of(head), core.tick);
        self.state = State::Hosted(Hosted::InCall);
        let Some(mut host) = core.gate.as_mut().and_then(Gate::take) else { return };
        let id = RequestId(self.token.0);
        let called = panics::catch(|| {
            let (queue, key) = (Arc::clone(&core.queue), self.task_key());
            let mut waker = || Waker::from(Arc::new(HostWaker { queue: Arc::clone(&queue), key }));
            let peer = self.peer;
            let is_https = self.is_https;
            let request_id = self.request_id.clone();
            let proxied = self.proxied.as_deref().copied();
            let rules = Arc::clone(core.rules(self.is_trusted));
            let request = HostRequest {
                id,
                head,
                raw,
                rules: &rules,
                peer: &peer,
                is_https,
                request_id: request_id.as_deref(),
                proxied,
                body,
                waker: &mut waker,
            };
            let called = core.tick;
            let (method, path) = (head.method().as_str().as_bytes(), head.path());
            let reply = &mut reply;
            let mut responder = Responder { connection: self, core, reply, method, path, called };
            host.call(request, &mut responder)
        });
        if let Some(gate) = &mut core.gate {
            gate.put_back(host);
        }
        let progress = self.outcome(called, &mut reply, core);
        self.after_call(progress, reply, core, || Label::of(head));
    }

    fn resume_host(&mut self, core: &mut Core) {
        let State::Hosted(hosted) = &mut self.state else { return };
        let Hosted::Running(running) = std::mem::replace(hosted, Hosted::InCall) else { return };
        let Running { mut reply, label, .. } = *running;
        let Some(mut host) = core.gate.as_mut().and_then(Gate::take) else { return };
        core.tick = sys::clock::monotonic();
        core.hold(label.method(), label.path(), &self.peer_text);
        let id = RequestId(self.token.0);
        let (called, said) = (core.tick, reply.said());
        let resumed = panics::catch(|| {
            let (method, path) = (label.method(), label.path());
            let reply = &mut reply;
            let mut responder = Responder { connection: self, core, reply, method, path, called };
            host.resume(id, &mut responder)
        });
        if let Some(gate) = &mut core.gate {
            gate.put_back(host);
        }
        let progress = self.outcome(resumed, &mut reply, core);
        if reply.said() != said {
            self.state_deadline = None; // It moves: the time runs anew.
        }
        self.after_call(progress, reply, core, || label);
    }

    /// A panic ends the response; one that goes on for a client that is gone is ended, too.
    fn outcome(
        &mut self,
        called: Result<Progress, panics::Caught>,
        reply: &mut Reply,
        core: &mut Core,
    ) -> Progress {
        let is_over = match called {
            Ok(progress) if progress == Progress::Done || !self.is_dead() => return progress,
            Ok(_) => true,
            Err(panic) => {
                core.kernel.log.error(format_args!("The host failed: {}", panic.text()));
                reply.is_cut = true;
                true
            }
        };
        if is_over && let Some(host) = core.gate.as_mut().and_then(Gate::host) {
            host.cancel(RequestId(self.token.0));
        }
        Progress::Done
    }

    fn after_call(
        &mut self,
        progress: Progress,
        reply: Reply,
        core: &mut Core,
        label: impl FnOnce() -> Label,
    ) {
        core.let_go();
        match progress {
            _ if self.is_dead() => (),
            Progress::Done => self.finish_reply(reply, core, label),
            Progress::More | Progress::Pending => {
                if progress == Progress::More {
                    // It holds the loop while it is at work: the master notices when that takes too long.
                    self.state_deadline = None;
                } else if self.state_deadline.is_none() {
                    self.state_deadline = core.after(core.limits.request);
                }
                if progress == Progress::More && self.output_left() < OUTPUT_HIGH_BYTES {
                    core.queue.push(self.task_key());
                }
                let goes_on = progress == Progress::More;
                let running = Running { reply, label: label(), goes_on };
                self.state = State::Hosted(Hosted::Running(Box::new(running)));
            }
        }
        core.wake_waiting();
    }

    /// The host has said its last.
    fn finish_reply(&mut self, mut reply: Reply, core: &mut Core, label: impl FnOnce() -> Label) {
        let Some(writer) = reply.writer.take() else {
            // The host said nothing, or failed before it did.
            let mut exchange = reply.exchange;
            exchange.keep_alive &= !core.drain.says_close();
            let out = self.output.obtain();
            let before = out.len();
            let finish = Refusal::new(500, "").write(out, exchange, core.date.stamp());
            self.record_refusal(500, reason::HANDLER_ERROR, before, core);
            core.block.add(Counter::HandlerErrors, 1);
            reply.status = 500;
            return self.end_reply(&reply, finish, core);
        };
        if let Some(FilePart { file, offset, length }) = reply.file.take()
            && writer.sends_body()
            && !reply.is_cut
        {
            let is_copied =
                !core.kernel.settings.sendfile || length <= super::FILE_COPIED_BYTES_MAX;
            let (from, at, status) = (offset, offset, reply.status);
            let sending = Sending { file, from, at, writer, status, is_copied };
            self.state = State::Handling(Handling {
                work: Work::Sending(Box::new(sending)),
                exchange: reply.exchange,
                since: reply.since,
                label: label(),
                tag: reply.tag,
                body: None,
            });
            return; // The connection's turn goes on with it.
        }
        let finish = if reply.is_cut {
            core.block.add(Counter::HandlerErrors, 1);
            Finish::Truncated { missing: 0 }
        } else {
            reply.finish.unwrap_or_else(|| writer.finish(self.output.obtain()))
        };
        if let Finish::Truncated { missing: 1.. } = finish {
            core.warn_body(&label(), "is shorter than its Content-Length: cut the connection");
        }
        let is_cut = matches!(finish, Finish::Truncated { .. });
        let reason = if is_cut { reason::HANDLER_ERROR } else { "" };
        self.record_answer(reply.status, reply.sent, reason, 0);
        self.end_reply(&reply, finish, core);
    }

    /// The request has waited for the host for too long, or for its next word.
    pub(super) fn is_overdue(&mut self, core: &mut Core) {
        let State::Hosted(hosted) = &self.state else { return };
        match hosted {
            Hosted::InCall => return,
            Hosted::Running(running)
                if running.reply.writer.is_some() && 0 < self.output_left() =>
            {
                // It is the client that takes its time, which is measured elsewhere.
                self.state_deadline = core.after(core.limits.request);
                return;
            }
            Hosted::Waiting(_) | Hosted::Running(_) => self.abandon_hosted(core),
        }
        match std::mem::replace(&mut self.state, State::Dead) {
            State::Hosted(Hosted::Waiting(whole)) => {
                self.with_head(&whole.head, core, |connection, head, core| {
                    core.warn_timed_out(head.method().as_str().as_bytes(), head.path());
                    // It was not begun, so it may be sent again.
                    let refusal =
                        Refusal { retry_after: Some(RETRY_AFTER_S), ..Refusal::new(503, "") };
                    connection.refuse_late(refusal, Tag::of(head), Exchange::of(head), core);
                });
            }
            State::Hosted(Hosted::Running(running)) => {
                let Running { mut reply, label, .. } = *running;
                core.warn_timed_out(label.method(), label.path());
                if reply.writer.is_none() {
                    let refusal = Refusal::new(504, "");
                    return self.refuse_late(refusal, reply.tag, reply.exchange, core);
                }
                // Its head is out: all that can be said is that there will be no more.
                self.record_answer(reply.status, reply.sent, reason::REQUEST_TIMEOUT, 0);
                reply.is_cut = true;
                self.end_reply(&reply, Finish::Truncated { missing: 0 }, core);
            }
            _ => (),
        }
    }

    fn end_reply(&mut self, reply: &Reply, finish: Finish, core: &mut Core) {
        let now = sys::clock::monotonic();
        core.count(reply.tag, reply.status, now.saturating_sub(reply.since));
        core.tick = now;
        if let Finish::Truncated { .. } = finish {
            // An orderly end of a connection would make such a body look whole where that is what ends it.
            if reply.exchange.version == Version::Http10 {
                self.stream.reset_on_close();
            }
            self.state = State::Finishing { lingers: false };
            self.state_deadline = None;
            return;
        }
        self.follow(None, finish, reply.exchange.keep_alive, core);
    }

    /// Nothing can be sent any more.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead)
    }

    /// Our side of the connection; `None` for a unix socket.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }

    /// The id of the request in hand, for its response; once.
    pub(crate) fn take_request_id(&mut self) -> Option<Box<str>> {
        self.request_id.take()
    }

    /// A response's head is in the output.
    pub(crate) fn body_begins(&mut self, status: u16, writer: &BodyWriter) {
        self.ends_response = writer.ends_with_connection();
        self.replied = Some((status, 0));
    }

    /// So many bytes of a response's body are in the output, or were.
    pub(crate) fn body_goes_on(&mut self, sent: u64) {
        if let Some(replied) = &mut self.replied {
            replied.1 = sent;
        }
    }

    /// Where output is written.
    pub(crate) fn output_memory(&mut self) -> &mut Vec<u8> {
        self.output.obtain()
    }

    /// Waits for the client to take output, by means of `wait`; `false`: it took none within `limit`.
    pub(crate) fn wait_for_room(
        &mut self,
        limit: Duration,
        wait: impl FnOnce(BorrowedFd<'_>, Duration) -> bool,
    ) -> bool {
        self.is_writable = wait(self.stream.as_fd(), limit);
        self.is_writable
    }
}
