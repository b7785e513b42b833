//! What the loop asks of an application: the seam between connections and handlers.
//!
//! - [`crate::App`] is one; a host of another language can be another. It lives on the loop's thread and need not be `Send`.
//! - It is asked about a body only if the request has one, before any byte of it is taken.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;

use http1::Head;

use crate::body::SharedChannel;
use crate::response::Response;
use crate::spool::Spooled;
use crate::via::Via;

/// A request's handler at work; polled on the loop's thread until it has the response.
pub(crate) type Task = Pin<Box<dyn Future<Output = Response>>>;

/// What is to be done with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Gather it, then call; over `bytes_max` it is refused with 413.
    Gather { bytes_max: u64 },
    /// Call at once; the handler takes it piece by piece, or leaves it.
    Stream { bytes_max: u64 },
    /// Call at once; nobody wants the body.
    Ignore,
}

/// What there is of the body when the service is called.
#[derive(Clone, Copy)]
pub(crate) enum Content<'r> {
    /// There is none, or nobody wanted it.
    None,
    /// All of it, in memory or in a file.
    Gathered(&'r Spooled),
    /// It comes through a channel, which the handler may take.
    Stream { channel: &'r RefCell<Option<SharedChannel>>, bytes_max: u64 },
}

/// What became of a call.
pub(crate) enum Answer {
    /// The response is there.
    Now(Response),
    /// It takes a while.
    Later(Task),
}

/// Something that answers requests.
pub(crate) trait Service {
    /// Says what is to be done with the body of a request that has one.
    fn admit(&self, head: &Head<'_>) -> Admission;

    /// Answers a request, or begins to.
    ///
    /// Also says which route took it, 0 if none did.
    fn call(&self, head: &Head<'_>, via: &Via<'_>, content: Content<'_>) -> (u16, Answer);

    /// The pattern of the route with this number, for metrics.
    fn pattern(&self, route: u16) -> &str;
}
