//! The seam for hosts: programs of another language that answer requests on the loop's thread.
//!
//! - A host is called when a request is whole: a client that sends slowly never holds it.
//! - It takes a request only while it has capacity. Others wait, unparsed or whole, in the order in which they came, and
//!   no connection is accepted meanwhile: another worker may have the time.
//! - Its response is framed, clamped and validated here ([`Responder`]); what is wrong with it is an error of the host's.
//! - Between two pieces of a response the loop may turn, for other clients' bytes and the heartbeat.
//! - A host may answer on threads of its own: it detaches the request, says [`Progress::Pending`], and is resumed when
//!   its thread has something to say. The loop then watches over what the threads are at ([`Host::slowest`]).

mod detached;
mod gate;
mod preload;
mod responder;
mod run;

use std::sync::Arc;

use http1::{Head, Rules};
use net::Peer;

pub use detached::Detached;
pub(crate) use gate::Gate;
pub use preload::{Next, Preloader};
pub(crate) use responder::{FilePart, Reply};
pub use responder::{HostError, Responder};
pub use run::{HostBoot, run_host};

use crate::service::{Admission, Answer, Content, Service};
use crate::spool::Spooled;
use crate::via::Via;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The response is complete, or given up.
    Done,
    /// There is more: the host is resumed in the next turn in which the client has room for it.
    More,
    /// The host wakes [`HostRequest::waker`] when there is more.
    Pending,
}

/// Names a request that is in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub(crate) usize);

/// A whole request. It lives as long as the call.
pub struct HostRequest<'r> {
    pub(crate) id: RequestId,
    pub(crate) head: &'r Head<'r>,
    /// The head's bytes, and by which rules they were understood.
    pub(crate) raw: &'r [u8],
    pub(crate) rules: &'r Arc<Rules>,
    pub(crate) peer: &'r Peer,
    pub(crate) is_https: bool,
    pub(crate) body: Option<Spooled>,
    pub(crate) waker: &'r mut dyn FnMut() -> std::task::Waker,
}

impl<'r> HostRequest<'r> {
    /// Its name in [`Host::resume`] and [`Host::cancel`].
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Its head: fields in wire order, as they were sent.
    #[must_use]
    pub fn head(&self) -> &'r Head<'r> {
        self.head
    }

    /// Who sent it.
    #[must_use]
    pub fn peer(&self) -> &'r Peer {
        self.peer
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

    /// The request as an object that another thread can have, its body included.
    #[must_use]
    pub fn detach(&mut self) -> Detached {
        Detached::new(self)
    }

    /// A waker for [`Progress::Pending`], good on any thread.
    pub fn waker(&mut self) -> std::task::Waker {
        (self.waker)()
    }
}

/// A request that a thread of the host's is at, perhaps after its client has gone.
#[derive(Clone, Debug)]
pub struct AtWork {
    /// `CLOCK_MONOTONIC` in nanoseconds when it was handed over.
    pub since: u64,
    /// The same, when it moved last; `None`: it waits for its client, which is not the thread's fault.
    pub still_since: Option<u64>,
    /// Its method.
    pub method: String,
    /// Its path, as much of it as is shown.
    pub path: Vec<u8>,
    /// Who sent it.
    pub peer: Peer,
}

/// Something that answers whole requests, on the loop's thread or on threads of its own.
pub trait Host {
    /// Whether [`Host::call`] may be called now.
    fn has_capacity(&self) -> bool;

    /// Answers a request, or begins to.
    fn call(&mut self, request: HostRequest<'_>, responder: &mut Responder<'_>) -> Progress;

    /// Goes on with a response: its client has taken what there was, or its waker was woken.
    fn resume(&mut self, id: RequestId, responder: &mut Responder<'_>) -> Progress;

    /// The client of a response that is not complete is gone, or has waited for too long.
    fn cancel(&mut self, id: RequestId);

    /// The loop is about to sleep.
    fn before_park(&mut self);

    /// The loop is awake.
    fn after_park(&mut self);

    /// A quick stop was asked for: the worker is about to end.
    fn interrupted(&mut self) {}

    /// Logs are opened anew: a file may have been rotated away.
    fn reopen_logs(&mut self) {}

    /// Whether it answers on threads of its own. Asked once.
    fn has_threads(&self) -> bool {
        false
    }

    /// How many requests its threads are at, those included whose response is complete.
    fn at_work(&self) -> usize {
        0
    }

    /// The request that has stood still for the longest on one of its threads. Asked a few times a second.
    ///
    /// `now` is `CLOCK_MONOTONIC` in nanoseconds.
    fn slowest(&mut self, now: u64) -> Option<AtWork> {
        let _ = now;
        None
    }
}

/// Stands for the service of a worker that has a host: it has no routes.
pub(crate) struct NoRoutes {
    /// Largest body of a request, in bytes.
    pub(crate) body_bytes_max: u64,
}

impl Service for NoRoutes {
    fn admit(&self, _: &Head<'_>) -> Admission {
        Admission::Gather { bytes_max: self.body_bytes_max }
    }

    fn call(&self, _: &Head<'_>, _: &Via<'_>, _: Content<'_>) -> (u16, Answer) {
        (0, Answer::Now(crate::response::Response::error(404)))
    }

    fn pattern(&self, _: u16) -> &str {
        ""
    }
}
