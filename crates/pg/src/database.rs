//! The handle that the loop drives and tasks ask.

use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::event::Event;
use postgres_types::ToSql;

use crate::error::Kind;
use crate::rows::{Record, Replies, Rows};
use crate::{Config, Dedicated, Error, Events, Statement, Transaction};

/// Numbers for the metrics; all but `in_flight` only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that came up.
    pub connects: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Queries sent.
    pub queries: u64,
    /// Queries sent and not yet answered.
    pub in_flight: u64,
}

/// The database, as one thread sees it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Database {
    inner: Rc<()>,
}

impl Database {
    /// Begins to connect; returns at once.
    ///
    /// `tokens` must hold at least [`Config::tokens_needed`] and be used by nobody else with `registry`.
    #[must_use]
    pub fn new(
        config: Config,
        registry: mio::Registry,
        tokens: Range<usize>,
        events: Box<dyn Events>,
        now: Instant,
    ) -> Database {
        let _ = (config, registry, tokens, events, now);
        Database { inner: Rc::new(()) }
    }

    /// Takes a readiness event of the loop; `false` if its token is not one of ours.
    pub fn on_ready(&self, event: &Event, now: Instant) -> bool {
        let _ = (event, now);
        false
    }

    /// Sends what was asked for since the last call: one write per connection. To be called once a turn, after the
    /// tasks have run and before waiting.
    pub fn flush(&self, now: Instant) {
        let _ = now;
    }

    /// When [`Database::on_deadline`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Does what is due: queries and connection attempts that took too long, the next attempt, idle connections.
    pub fn on_deadline(&self, now: Instant) {
        let _ = now;
    }

    /// Whether a query would be sent now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        false
    }

    /// Whether the first attempt to connect is concluded, by success or failure.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        true
    }

    /// The numbers for the metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// The same database with another limit for queries asked through the returned handle.
    #[must_use]
    pub fn with_query_timeout(&self, _timeout: Duration) -> Database {
        self.clone()
    }

    /// A statement for this text; asks nothing of the server yet. Keep it, or ask again: texts are remembered.
    #[must_use]
    pub fn statement(&self, sql: &str) -> Statement {
        Statement::new(sql)
    }

    /// Sees to it that the server knows the statement, so that its first use does not wait for that.
    ///
    /// # Errors
    ///
    /// The server refused it, or is not there.
    pub async fn prepare(&self, _statement: &Statement) -> Result<(), Error> {
        Err(self.down())
    }

    /// Runs a query and returns its rows.
    ///
    /// Dropping the future discards the answer; a query that was sent takes effect all the same.
    ///
    /// # Errors
    ///
    /// See [`Error`]; at once if the database is not there.
    pub async fn query(
        &self,
        _statement: &Statement,
        _params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows, Error> {
        Err(self.down())
    }

    /// Runs a query that returns exactly one row.
    ///
    /// # Errors
    ///
    /// As [`Database::query`]; also another number of rows.
    pub async fn query_one(
        &self,
        _statement: &Statement,
        _params: &[&(dyn ToSql + Sync)],
    ) -> Result<Record, Error> {
        Err(self.down())
    }

    /// Runs a query that returns at most one row.
    ///
    /// # Errors
    ///
    /// As [`Database::query`]; also more than one row.
    pub async fn query_opt(
        &self,
        _statement: &Statement,
        _params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Record>, Error> {
        Err(self.down())
    }

    /// Runs a command and returns how many rows it changed.
    ///
    /// # Errors
    ///
    /// As [`Database::query`].
    pub async fn execute(
        &self,
        _statement: &Statement,
        _params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        Err(self.down())
    }

    /// Begins a batch: many queries sent together, each on its own (its own Sync: one that fails harms no other).
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch { database: PhantomData }
    }

    /// Waits for a connection of its own and begins a transaction on it.
    ///
    /// # Errors
    ///
    /// The database is not there, or too many wait already.
    pub async fn transaction(&self) -> Result<Transaction, Error> {
        Err(self.down())
    }

    /// Waits for a connection of its own: for `COPY`, `LISTEN`, several statements in one text.
    ///
    /// # Errors
    ///
    /// As [`Database::transaction`].
    pub async fn dedicated(&self) -> Result<Dedicated, Error> {
        Err(self.down())
    }

    /// Says goodbye to the server and closes every connection; later queries fail. What is in flight fails too.
    pub fn close(&self) {}

    fn down(&self) -> Error {
        let _ = &self.inner;
        Error::new(Kind::Unavailable, "the database is not connected")
    }
}

/// Queries to be sent together.
pub struct Batch<'d> {
    database: PhantomData<&'d Database>,
}

impl Batch<'_> {
    /// Adds a query. Waits only if the statement was never prepared before; nothing is sent until [`Batch::send`].
    ///
    /// # Errors
    ///
    /// The statement cannot be prepared, or a parameter does not fit it.
    pub async fn push(
        &mut self,
        _statement: &Statement,
        _params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        let _ = self.database;
        Err(Error::new(Kind::Unavailable, "the database is not connected"))
    }

    /// Sends all and waits for all answers.
    ///
    /// # Errors
    ///
    /// Only what befalls the whole: no database, or the deadline. A query's own error is in its answer.
    pub async fn send(self) -> Result<Replies, Error> {
        Err(Error::new(Kind::Unavailable, "the database is not connected"))
    }
}
