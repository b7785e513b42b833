//! Who may enter the host, and who waits for it.

use std::collections::VecDeque;

use super::Host;

/// The host and the connections that wait for it, first come first served.
///
/// Each connection waits with at most one request, so there are never more than connections.
pub(crate) struct Gate {
    /// `None` while it is being called.
    host: Option<Box<dyn Host>>,
    waiting: VecDeque<usize>,
}

impl Gate {
    pub(crate) fn new(host: Box<dyn Host>) -> Gate {
        Gate { host: Some(host), waiting: VecDeque::new() }
    }

    /// Whether a new connection could be served at once.
    pub(crate) fn is_free(&self) -> bool {
        self.waiting.is_empty() && self.host.as_ref().is_some_and(|host| host.has_capacity())
    }

    /// Whether the request of connection `token`, which may be waiting or not, has its turn. If so it waits no longer.
    pub(crate) fn admit(&mut self, token: usize) -> bool {
        if !self.host.as_ref().is_some_and(|host| host.has_capacity()) {
            return false;
        }
        match self.waiting.front() {
            Some(&first) if first == token => self.waiting.pop_front().is_some(),
            Some(_) => false,
            None => true,
        }
    }

    /// Puts a connection at the end of the queue.
    pub(crate) fn wait(&mut self, token: usize) {
        self.waiting.push_back(token);
    }

    /// A waiting connection is gone.
    pub(crate) fn forget(&mut self, token: usize) {
        self.waiting.retain(|&other| other != token);
    }

    /// The connection whose turn it is, if the host has capacity for it.
    pub(crate) fn next(&self) -> Option<usize> {
        let host = self.host.as_ref()?;
        host.has_capacity().then(|| self.waiting.front().copied()).flatten()
    }

    /// The host, for the length of a call.
    pub(crate) fn take(&mut self) -> Option<Box<dyn Host>> {
        self.host.take()
    }

    /// The host is back from a call.
    pub(crate) fn put_back(&mut self, host: Box<dyn Host>) {
        self.host = Some(host);
    }

    /// The host, if it is not being called.
    pub(crate) fn host(&mut self) -> Option<&mut (dyn Host + 'static)> {
        self.host.as_deref_mut()
    }
}
