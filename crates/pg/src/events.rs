//! What an operator should read about: told to a listener, since this crate writes no log.

use std::time::Duration;

use crate::Error;

/// Hears of what happens to the connections. Each call is worth one log line; repetitions are left out.
///
/// Called from inside the driving methods of [`crate::Database`], never while a query is being encoded.
pub trait Events {
    /// A connection is up and serves queries; `server` names the host, `version` is what the server calls itself, and
    /// `tls` is the version of TLS, if that is in use.
    fn connected(&self, server: &str, version: &str, tls: Option<&str>);

    /// A connection that was up is gone.
    fn lost(&self, why: &Error);

    /// Connecting failed; the next attempt begins after `retry_in`.
    ///
    /// Called for the first failure and when the reason changes, not for every retry.
    fn connect_failed(&self, why: &Error, retry_in: Duration);

    /// The server no longer knows a prepared statement, or knows it twice (SQLSTATE 26000 or 42P05): a connection
    /// pooler stands in between, and [`crate::Prepare::Unnamed`] is needed. Called once per connection.
    fn pooler_in_the_way(&self, why: &Error);
}

/// Tells nobody.
pub struct NoEvents;

impl Events for NoEvents {
    fn connected(&self, _server: &str, _version: &str, _tls: Option<&str>) {}
    fn lost(&self, _why: &Error) {}
    fn connect_failed(&self, _why: &Error, _retry_in: Duration) {}
    fn pooler_in_the_way(&self, _why: &Error) {}
}
