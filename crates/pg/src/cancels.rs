//! Asking a server to cancel what a session is doing: a connection of its own, opened as the session's was, sixteen
//! bytes, no answer.

use std::time::Instant;

use mio::Token;

use crate::common::{Common, earlier};
use crate::opening::{Opening, Route};
use crate::socket::Socket;

/// Requests to cancel under way at a time; more are forgotten, which costs the server the rest of a query.
pub(crate) const CANCELS_MAX: usize = 4;

pub(crate) struct Cancels {
    slots: [Option<Cancel>; CANCELS_MAX],
    first_token: usize,
}

struct Cancel {
    stage: Stage,
    bytes: Vec<u8>,
    deadline: Instant,
}

enum Stage {
    Opening(Opening),
    Sent(Socket),
}

/// What is to be sent, and where.
pub(crate) struct Order {
    pub route: Route,
    pub bytes: Vec<u8>,
}

impl Cancels {
    pub fn new(first_token: usize) -> Cancels {
        Cancels { slots: Default::default(), first_token }
    }

    /// Begins what was ordered.
    pub fn begin(&mut self, now: Instant, common: &mut Common) {
        for Order { route, bytes } in common.cancels.drain(..) {
            let Some(index) = self.slots.iter().position(Option::is_none) else { continue };
            // Nothing depends on it: a server that cannot be reached has nothing to cancel.
            let token = Token(self.first_token + index);
            if let Ok(opening) = Opening::begin(&common.config, route, token, &common.registry) {
                let deadline = now + common.config.connect_timeout;
                self.slots[index] =
                    Some(Cancel { stage: Stage::Opening(opening), bytes, deadline });
                self.on_ready(index);
            }
        }
    }

    pub fn on_ready(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index)
            && let Some(cancel) = slot
            && cancel.is_over()
        {
            *slot = None;
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.slots.iter().flatten().fold(None, |next, cancel| earlier(next, Some(cancel.deadline)))
    }

    pub fn on_deadline(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|cancel| cancel.deadline <= now) {
                *slot = None;
            }
        }
    }
}

impl Cancel {
    fn is_over(&mut self) -> bool {
        if let Stage::Opening(opening) = &mut self.stage {
            match opening.go_on() {
                Ok(None) => return false,
                Ok(Some(mut socket)) => {
                    // So few bytes go at once or not at all.
                    if socket.write(&self.bytes).is_err() {
                        return true;
                    }
                    self.stage = Stage::Sent(socket);
                }
                Err(_) => return true,
            }
        }
        // The server closes it when it has acted; closing earlier could reset what it has not read.
        match &mut self.stage {
            Stage::Opening(_) => false,
            Stage::Sent(socket) => !matches!(socket.read(&mut [0; 16]), Ok(None)),
        }
    }
}
