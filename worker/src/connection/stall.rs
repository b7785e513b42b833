//! Whether a client takes what waits for it, and how quickly.
//!
//! The kernel says "writable" only when a good part of what it holds was taken: half of what [`Stream::bound_unsent`] grants
//! on TCP, three quarters of its memory on a unix socket. A client may need longer for that than the write timeout, however
//! steadily it reads. So what the kernel still holds is looked at several times before that time is over.
//!
//! [`Stream::bound_unsent`]: crate::stream::Stream::bound_unsent

use std::time::Instant;

use super::Connection;
use crate::core::Core;

/// Looks at what the client has taken within one write timeout: by so much of it a client may be cut too late.
const LOOKS: u32 = 4;

/// A client that does not take all at once.
pub(super) struct Stall {
    /// When it has had its time.
    until: Instant,
    /// When it is looked at next; no later.
    look: Instant,
    /// What the kernel held when it was looked at last.
    unsent: u64,
    /// What the kernel was given since.
    given: u64,
}

impl Connection {
    /// When [`Connection::is_taken_from`] is to be asked.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.stall.as_ref().map(|stall| stall.look)
    }

    /// The kernel was given `bytes` for the client.
    pub(super) fn give(&mut self, bytes: usize) {
        if let Some(stall) = &mut self.stall {
            stall.given += bytes as u64;
        }
    }

    /// Something waits for the client: the kernel takes no more.
    pub(super) fn await_client(&mut self, core: &Core) {
        if self.stall.as_ref().is_none_or(|stall| stall.given != 0) {
            self.take_stock(core);
        }
    }

    /// Looks whether the client takes enough of what waits for it.
    pub(crate) fn is_taken_from(&mut self, core: &Core) -> bool {
        if self.is_writable {
            // It took all. This is found out here and not at once, so that a client that is slow all along does not begin
            // anew with each piece of a response.
            self.stall = None;
            return true;
        }
        self.take_stock(core);
        self.stall.as_ref().is_none_or(|stall| Instant::now() < stall.until)
    }

    /// Since when, in effect, the client has taken nothing of what waits for it.
    pub(super) fn stalled_since(&mut self, core: &Core) -> Option<Instant> {
        self.take_stock(core);
        self.stall.as_ref()?.until.checked_sub(core.limits.write?)
    }

    /// The client earns time by what it has taken since it was looked at.
    fn take_stock(&mut self, core: &Core) {
        let Some(limit) = core.limits.write else { return };
        // Not the loop's time: a host may have been at work since that was read.
        let now = Instant::now();
        let said = self.stream.unsent();
        let stall = self.stall.get_or_insert_with(|| {
            Box::new(Stall { until: now + limit, look: now, unsent: said.unwrap_or(0), given: 0 })
        });
        // A kernel that does not say: what it has taken, the client has.
        let unsent = said.unwrap_or(stall.unsent);
        let taken = (stall.unsent + stall.given).saturating_sub(unsent);
        stall.until = core.limits.write_deadline(stall.until, taken, now + limit);
        stall.look = stall.until.min(now + limit / LOOKS);
        (stall.unsent, stall.given) = (unsent, 0);
    }
}
