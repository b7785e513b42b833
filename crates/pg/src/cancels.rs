//! Asking a server to cancel what a session is doing: a connection of its own, sixteen bytes, no answer.

use std::time::Instant;

use mio::Token;

use crate::common::{Common, earlier};
use crate::socket::{Address, Socket};

/// Requests to cancel under way at a time; more are forgotten, which costs the server the rest of a query.
pub(crate) const CANCELS_MAX: usize = 4;

pub(crate) struct Cancels {
    slots: [Option<Cancel>; CANCELS_MAX],
    first_token: usize,
}

struct Cancel {
    socket: Socket,
    bytes: Vec<u8>,
    deadline: Instant,
    sent: bool,
}

/// What is to be sent, and where.
pub(crate) struct Order {
    pub address: Address,
    pub bytes: Vec<u8>,
}

impl Cancels {
    pub fn new(first_token: usize) -> Cancels {
        Cancels { slots: Default::default(), first_token }
    }

    /// Begins what was ordered.
    pub fn begin(&mut self, now: Instant, common: &mut Common) {
        for Order { address, bytes } in common.cancels.drain(..) {
            let Some(index) = self.slots.iter().position(Option::is_none) else { continue };
            // Nothing depends on it: a server that cannot be reached has nothing to cancel.
            if let Ok(socket) =
                Socket::connect(&address, Token(self.first_token + index), &common.registry)
            {
                let deadline = now + common.config.connect_timeout;
                self.slots[index] = Some(Cancel { socket, bytes, deadline, sent: false });
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
        match self.socket.is_connected() {
            Ok(false) => return false,
            Ok(true) => (),
            Err(_) => return true,
        }
        if !self.sent {
            // So few bytes go at once or not at all.
            self.sent = true;
            if self.socket.write(&self.bytes).is_err() {
                return true;
            }
        }
        // The server closes it when it has acted; closing earlier could reset what it has not read.
        !matches!(self.socket.read(&mut [0; 16]), Ok(None))
    }
}
