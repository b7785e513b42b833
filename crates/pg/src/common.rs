//! What every connection of one [`crate::Database`] shares.

use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Registry;

use crate::cancels::Order;
use crate::config::Config;
use crate::error::Error;
use crate::requests::Requests;

pub(crate) struct Common {
    pub config: Rc<Config>,
    pub registry: Rc<Registry>,
    pub requests: Requests,
    /// To be told when nothing is borrowed any more.
    pub happened: Vec<Happened>,
    /// Bytes that ask the server to cancel what a session does, to be sent over a connection of their own.
    pub cancels: Vec<Order>,
    /// Numbers sessions.
    pub sessions: u64,
}

/// For [`crate::Events`].
pub(crate) enum Happened {
    Connected { server: String, version: Box<str>, tls: Option<&'static str> },
    Lost(Error),
    ConnectFailed { why: Error, retry_in: Duration },
    Pooler(Error),
}

/// The earlier of two deadlines, where there are any.
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// An error with its reasons, in one line: for telling whether the reason has changed.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        text.push_str(": ");
        text.push_str(&reason.to_string());
        source = reason.source();
    }
    text
}
