//! Which connections a full worker can do without, and since when.

use std::time::{Duration, Instant};

use super::{Connection, Stage, State};
use crate::core::Core;

/// Who asks for nothing, or is in no hurry, for less long than this is not made to make way.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// The same for whoever has a request in hand: a moment's trouble of a network is not to end it.
const SLOW_MIN: Duration = Duration::from_secs(3);

/// How easily a connection can be done without, the most dispensable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dispensable {
    /// It has its last answer.
    Ended,
    /// It was kept for another request.
    Kept,
    /// It has not sent anything yet.
    Silent,
    /// A part of a head has come.
    Dripping,
    /// Its body comes more slowly than it must.
    Trickling,
    /// It takes its response more slowly than it must.
    Stalled,
}

impl Connection {
    /// How easily it can be done without, and since when; `None` while something goes on.
    ///
    /// A request that its handler is at work on is never given up, nor is one whose client keeps up the least rates of the
    /// settings.
    pub(crate) fn dispensable(&mut self, core: &Core) -> Option<(Dispensable, Instant)> {
        let (dispensable, since) = self.idle_since(core)?;
        let least = if dispensable < Dispensable::Trickling { IDLE_MIN } else { SLOW_MIN };
        (since + least <= core.now()).then_some((dispensable, since))
    }

    fn idle_since(&mut self, core: &Core) -> Option<(Dispensable, Instant)> {
        if !self.is_writable && (self.output_left() != 0 || self.is_long()) {
            return Some((Dispensable::Stalled, self.stalled_since(core)?));
        }
        if self.output_left() != 0 {
            return None;
        }
        let idle = match &self.state {
            State::Lingering { .. } => Dispensable::Ended,
            State::Head(Stage::Idle) => Dispensable::Kept,
            State::Head(Stage::New) | State::Preface => Dispensable::Silent,
            State::Head(Stage::Arriving) => Dispensable::Dripping,
            State::Gathering(_) | State::Skipping { .. } => {
                return self.trickling_since(self.state_deadline, core);
            }
            State::Handling(handling) => {
                let body = handling.body.as_ref().filter(|body| body.is_awaited())?;
                return self.trickling_since(body.deadline, core);
            }
            _ => return None,
        };
        Some((idle, self.since))
    }

    /// Each byte of a body puts its deadline off, up to the whole `body_timeout`: what is missing of that is how long it has
    /// been too slow.
    fn trickling_since(
        &self,
        deadline: Option<Instant>,
        core: &Core,
    ) -> Option<(Dispensable, Instant)> {
        Some((Dispensable::Trickling, deadline?.checked_sub(core.limits.body?)?))
    }
}
