//! What happens to a connection by the passing of time.

use std::time::Instant;

use http1::{Exchange, Refusal};
use scoreboard::Counter;

use super::{Connection, Handling, LINGER_DRAINING, Stage, State, Verdict, Work};
use crate::access::reason;
use crate::body::BodyError;
use crate::core::{Core, Tag};

impl Connection {
    /// When [`Connection::on_deadline`] may have something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let body = match &self.state {
            State::Handling(handling) => handling.body.as_ref().and_then(|body| body.deadline),
            _ => None,
        };
        [self.state_deadline, self.next_look(), body].into_iter().flatten().min()
    }

    /// Ends whatever has taken too long.
    pub(crate) fn on_deadline(&mut self, core: &mut Core) -> Verdict {
        let now = core.now();
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if is_due(self.next_look()) && !self.is_taken_from(core) {
            // It does not take what it asked for: no answer would reach it. In an orderly end the kernel would hold what it
            // has for the client, and wait for it in our place.
            core.block.add(Counter::RefusedWriteTimeout, 1);
            self.record_stall(core);
            self.stream.reset_on_close();
            return Verdict::Close;
        }
        let is_busy = self.output_left() != 0;
        if let State::Handling(handling) = &mut self.state
            && let Some(body) = &mut handling.body
            && is_due(body.deadline)
        {
            body.deadline = None;
            if let Some(channel) = &body.channel {
                if channel.borrow_mut().room() == 0 || !body.is_wanted() || is_busy {
                    // The client waits for the handler, not the other way round; or it has an answer to read.
                    body.deadline = core.after(core.limits.body);
                } else {
                    core.block.add(Counter::RefusedBodyTimeout, 1);
                    // The handler decides what to say; by `?` it is 408.
                    channel.borrow_mut().finish(Err(BodyError::TimedOut));
                    handling.exchange.keep_alive = false;
                }
            }
        }
        if !is_due(self.state_deadline) {
            return Verdict::Keep;
        }
        self.state_deadline = None;
        match &self.state {
            // While an answer is on its way the client has other things to do. What ends that is the write timeout.
            State::Head(Stage::Arriving) if is_busy => {
                self.state_deadline = core.after(core.limits.header);
            }
            State::Gathering(_) if is_busy => {
                self.state_deadline = core.after(core.limits.body);
            }
            State::Skipping { .. } if is_busy => {
                self.state = State::Finishing { lingers: true };
            }
            State::Preface
            | State::Head(Stage::New | Stage::Answered | Stage::Idle)
            | State::Skipping { .. }
            | State::Lingering { .. }
            | State::Dead => {
                return Verdict::Close;
            }
            State::Finishing { .. } => (),
            State::Hosted(_) => self.is_overdue(core),
            State::Head(Stage::Arriving) => {
                core.block.add(Counter::RefusedHeaderTimeout, 1);
                let input = std::mem::take(&mut self.input);
                self.record_raw(&input, core);
                let exchange = Exchange::of_refused(&input);
                self.refuse(Refusal::new(408, ""), exchange, reason::HEADER_TIMEOUT, core);
            }
            State::Gathering(gathering) => {
                let (tag, exchange) = (gathering.tag, gathering.exchange);
                self.refuse_body(BodyError::TimedOut, exchange, tag, core);
            }
            // It waits for its client, who has a time of its own for the body.
            State::Handling(Handling { body: Some(body), .. }) if body.is_awaited() => {
                self.state_deadline = core.after(core.limits.request);
            }
            // The file waits for the client alone, whose time is measured by what it takes.
            State::Handling(Handling { work: Work::Sending(_), .. }) => (),
            State::Handling(Handling { work: Work::Streaming(_), .. }) if is_busy => {
                self.state_deadline = core.after(core.limits.request);
            }
            State::Handling(Handling { work: Work::Streaming(streaming), label, tag, .. }) => {
                // Its head is out: all that can be said is that there will be no more.
                core.warn_timed_out(label.method(), label.path());
                let (status, sent, tag) = (streaming.status, streaming.sent, *tag);
                core.answered(tag, status);
                self.record_answer(status, sent, reason::REQUEST_TIMEOUT, tag.route);
                self.cut();
                self.enter(State::Finishing { lingers: false }, core);
            }
            State::Handling(handling) => {
                core.warn_timed_out(handling.label.method(), handling.label.path());
                let (tag, exchange) = (handling.tag, handling.exchange);
                self.refuse_late(Refusal::new(504, ""), tag, exchange, core);
            }
        }
        self.advance(core)
    }

    /// Says that there is no answer in time.
    pub(super) fn refuse_late(
        &mut self,
        refusal: Refusal<'_>,
        tag: Tag,
        exchange: Exchange,
        core: &mut Core,
    ) {
        core.answered(tag, refusal.status);
        let exchange = Exchange { keep_alive: false, ..exchange };
        self.refuse(refusal, exchange, reason::REQUEST_TIMEOUT, core);
    }

    /// The worker has begun to drain: a connection at rest may wait less long.
    pub(crate) fn on_drain(&mut self, core: &Core) {
        let Some(deadline) = self.state_deadline else { return };
        self.state_deadline = Some(match self.state {
            State::Head(_) => core.drain.idle_deadline(deadline),
            State::Lingering { .. } => deadline.min(core.now() + LINGER_DRAINING),
            _ => return,
        });
    }

    /// The time of a connection that lingers begins, or begins anew.
    pub(super) fn linger(&mut self, until: Instant, core: &Core) {
        self.since = core.now();
        let is_draining = core.drain.is_draining();
        let limit = core.limits.linger;
        let limit = if is_draining { limit.min(LINGER_DRAINING) } else { limit };
        self.state_deadline = Some(until.min(self.since + limit));
    }
}
