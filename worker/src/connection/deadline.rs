//! What happens to a connection by the passing of time.

use std::time::Instant;

use http1::{Exchange, Refusal};
use scoreboard::Counter;

use super::{Connection, Handling, State, Verdict, Work};
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
        [self.state_deadline, self.write_deadline, body].into_iter().flatten().min()
    }

    /// Ends whatever has taken too long.
    pub(crate) fn on_deadline(&mut self, core: &mut Core) -> Verdict {
        let now = core.now();
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if is_due(self.write_deadline) {
            // It does not take what it asked for: no answer would reach it.
            core.block.add(Counter::RefusedWriteTimeout, 1);
            self.record_stall(core);
            return Verdict::Close;
        }
        if let State::Handling(handling) = &mut self.state
            && let Some(body) = &mut handling.body
            && is_due(body.deadline)
        {
            body.deadline = None;
            if let Some(channel) = &body.channel {
                if channel.borrow_mut().room() == 0 || !body.is_wanted() {
                    // The client waits for the handler, not the other way round.
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
            State::Preface
            | State::Head { is_idle: true }
            | State::Skipping { .. }
            | State::Lingering
            | State::Dead => {
                return Verdict::Close;
            }
            State::Finishing { .. } => (),
            State::Hosted(_) => self.is_overdue(core),
            State::Head { is_idle: false } => {
                core.block.add(Counter::RefusedHeaderTimeout, 1);
                let input = std::mem::take(&mut self.input);
                self.record_raw(&input, core);
                self.refuse(Refusal::new(408, ""), Exchange::UNKNOWN, reason::HEADER_TIMEOUT, core);
            }
            State::Gathering(gathering) => {
                let tag = gathering.tag;
                self.refuse_body(BodyError::TimedOut, Exchange::UNKNOWN, tag, core);
            }
            // The file waits for the client alone, whose time is measured by what it takes.
            State::Handling(Handling { work: Work::Sending(_), .. }) => (),
            State::Handling(Handling { work: Work::Streaming(_), .. })
                if self.output_left() != 0 =>
            {
                self.state_deadline = core.after(core.limits.request);
            }
            State::Handling(Handling { work: Work::Streaming(streaming), label, tag, .. }) => {
                // Its head is out: all that can be said is that there will be no more.
                core.warn_timed_out(label.method(), label.path());
                let (status, sent, tag) = (streaming.status, streaming.sent, *tag);
                core.answered(tag, status);
                self.record_answer(status, sent, reason::REQUEST_TIMEOUT, tag.route);
                self.state = State::Finishing { lingers: false };
            }
            State::Handling(_) => {
                if let State::Handling(Handling { label, tag, exchange, .. }) =
                    std::mem::replace(&mut self.state, State::Dead)
                {
                    self.time_out(label.method(), label.path(), tag, exchange, core);
                }
            }
        }
        self.advance(core)
    }

    /// Says that there is no answer in time.
    pub(super) fn time_out(
        &mut self,
        method: &[u8],
        path: &[u8],
        tag: Tag,
        exchange: Exchange,
        core: &mut Core,
    ) {
        core.warn_timed_out(method, path);
        core.answered(tag, 504);
        let exchange = Exchange { keep_alive: false, ..exchange };
        self.refuse(Refusal::new(504, ""), exchange, reason::REQUEST_TIMEOUT, core);
    }

    /// The worker has begun to drain: a connection at rest may wait less long.
    pub(crate) fn on_drain(&mut self, core: &Core) {
        if let (State::Head { .. }, Some(deadline)) = (&self.state, self.state_deadline) {
            self.state_deadline = Some(core.drain.idle_deadline(deadline));
        }
    }
}
