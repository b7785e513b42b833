//! A request that leaves the loop's thread.

use std::sync::Arc;

use http1::{FieldStorage, Head, Parsed, Progress, Rules, parse_head};
use net::Peer;

use super::HostRequest;
use crate::spool::Spooled;

/// A whole request that owns its bytes, for a thread of a host's.
pub struct Detached {
    head: Vec<u8>,
    rules: Arc<Rules>,
    peer: Peer,
    is_https: bool,
    body: Option<Spooled>,
}

impl Detached {
    pub(super) fn new(request: &mut HostRequest<'_>) -> Detached {
        Detached {
            head: request.raw.to_vec(),
            rules: Arc::clone(request.rules),
            peer: *request.peer,
            is_https: request.is_https,
            body: request.take_body(),
        }
    }

    /// Its head, whose fields are noted in `fields`.
    ///
    /// `None` cannot happen: it was understood before, by the same rules.
    #[must_use]
    pub fn head<'d>(&'d self, fields: &'d mut FieldStorage) -> Option<Head<'d>> {
        match parse_head(&self.head, &self.rules, &mut Progress::default(), fields) {
            Ok(Parsed::Complete(head)) => Some(head),
            _ => None,
        }
    }

    /// Who sent it.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the client came by https, as far as a trusted proxy says so.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Takes its body, if it has one; a second call finds none.
    pub fn take_body(&mut self) -> Option<Spooled> {
        self.body.take()
    }
}
