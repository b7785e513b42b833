//! The handle that the loop drives and tasks ask.

use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use mio::event::Event;
use postgres_types::ToSql;

use crate::connect::TIMEOUT_MAX;
use crate::engine::{Core, WaitForLane};
use crate::error::Kind;
use crate::rows::{Answer, Pooled, Record, Replies, Rows, Unit};
use crate::statement::Shape;
use crate::{
    Config, Counters, Dedicated, Durations, Error, Events, Prepare, Statement, Transaction, encode,
};

/// The database, as one thread sees it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Database {
    core: Rc<Core>,
    /// `Duration::MAX`: as configured.
    timeout: Duration,
    named: bool,
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
        let named = config.prepare == Prepare::Named;
        let core = Core::new(config, registry, tokens, events, now);
        Database { core, timeout: Duration::MAX, named }
    }

    /// Takes a readiness event of the loop; `false` if its token is not one of ours.
    pub fn on_ready(&self, event: &Event, now: Instant) -> bool {
        self.core.on_ready(event, now)
    }

    /// Sends what was asked for since the last call: one write per connection.
    ///
    /// To be called once a turn, after the tasks have run and before waiting. It may wake tasks.
    pub fn flush(&self, now: Instant) {
        self.core.flush(now);
    }

    /// When [`Database::on_deadline`] wants to be called. To be called before each wait for events: it also has the
    /// kernel wake the loop for several replies at once, if many are due.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.core.next_deadline(now)
    }

    /// Does what is due: queries and connection attempts that took too long, the next attempt, idle connections.
    ///
    /// May be called at any time; it may wake tasks.
    pub fn on_deadline(&self, now: Instant) {
        self.core.on_deadline(now);
    }

    /// Whether a query would be sent now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.core.is_up()
    }

    /// Whether the first attempt to connect is concluded, by success or failure.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.core.is_settled()
    }

    /// The numbers for the metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.counters()
    }

    /// How long queries took since the last call, if [`Config::duration_bounds_ns`] says what is of interest.
    pub fn take_durations(&self, into: impl FnOnce(&Durations)) {
        self.core.take_durations(into);
    }

    /// The same database with another limit for queries asked through the returned handle.
    ///
    /// It ends the wait of these queries only; a server that is stuck is judged by the limit of the query that it
    /// is busy with.
    #[must_use]
    pub fn with_query_timeout(&self, timeout: Duration) -> Database {
        Database { timeout: timeout.min(TIMEOUT_MAX), ..self.clone() }
    }

    /// A statement for this text; asks nothing of the server yet. Keep it, or ask again: texts are remembered.
    #[must_use]
    pub fn statement(&self, sql: &str) -> Statement {
        self.core.statement(sql)
    }

    /// Sees to it that the statement's parameters and columns are known, so that its first use does not wait.
    ///
    /// # Errors
    ///
    /// The server refused it, or is not there.
    pub async fn prepare(&self, statement: &Statement) -> Result<(), Error> {
        self.shape(statement).await.map(drop)
    }

    async fn shape(&self, statement: &Statement) -> Result<Rc<Shape>, Error> {
        if let Some(shape) = statement.0.shape() {
            return Ok(shape);
        }
        // Rare, and large: not within every query's future.
        Box::pin(self.learn(statement)).await
    }

    async fn learn(&self, statement: &Statement) -> Result<Rc<Shape>, Error> {
        let mut waited = false;
        let inner = &statement.0;
        std::future::poll_fn(|context| {
            if let Some(shape) = inner.shape() {
                return Poll::Ready(Ok(shape));
            }
            if !inner.is_learning() {
                if waited && let Some(why) = inner.failure() {
                    return Poll::Ready(Err(why));
                }
                let timeout = self.timeout;
                if let Err(why) = self.core.ask(|pipeline, _| pipeline.parse(inner, timeout)) {
                    return Poll::Ready(Err(why));
                }
                inner.begin_learning();
            }
            waited = true;
            inner.wait(context.waker());
            Poll::Pending
        })
        .await
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
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows, Error> {
        let shape = self.shape(statement).await?;
        let slot = self.core.ask(|pipeline, requests| {
            pipeline.ask(&statement.0, &shape, params, self.timeout, requests)
        })?;
        drop(shape);
        Rows::new(self.core.pooled(self.core.wait(slot).await?))
    }

    /// Runs a query that returns exactly one row.
    ///
    /// # Errors
    ///
    /// As [`Database::query`]; also another number of rows.
    pub async fn query_one(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Record, Error> {
        let record = self.query_opt(statement, params).await?;
        record.ok_or_else(|| Error::new(Kind::RowCount, "no row came, one was expected"))
    }

    /// Runs a query that returns at most one row.
    ///
    /// # Errors
    ///
    /// As [`Database::query`]; also more than one row.
    pub async fn query_opt(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Record>, Error> {
        Record::new(self.query(statement, params).await?)
    }

    /// Runs a command and returns how many rows it changed.
    ///
    /// # Errors
    ///
    /// As [`Database::query`].
    pub async fn execute(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        Ok(self.query(statement, params).await?.affected())
    }

    /// Begins a batch: many queries sent together, each on its own (its own Sync: one that fails harms no other).
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch { database: self, answer: self.core.pooled(self.core.fresh()) }
    }

    /// Waits for a connection of its own and begins a transaction on it.
    ///
    /// # Errors
    ///
    /// The database is not there, too many wait already, or none was free in time.
    pub async fn transaction(&self) -> Result<Transaction, Error> {
        Transaction::begin(self.own_connection(true).await?).await
    }

    /// Waits for a connection of its own: for `COPY`, `LISTEN`, several statements in one text.
    ///
    /// # Errors
    ///
    /// As [`Database::transaction`].
    pub async fn dedicated(&self) -> Result<Dedicated, Error> {
        self.own_connection(false).await
    }

    async fn own_connection(&self, reusable: bool) -> Result<Dedicated, Error> {
        let ticket = self.core.ask_lane()?;
        let held = WaitForLane { core: &self.core, ticket }.await?;
        Ok(Dedicated::new(held, reusable, &self.core))
    }

    /// Says goodbye to the server and closes every connection; later queries fail. What is in flight fails too.
    pub fn close(&self) {
        self.core.close();
    }
}

/// Queries to be sent together.
pub struct Batch<'d> {
    database: &'d Database,
    answer: Pooled,
}

impl Batch<'_> {
    /// Adds a query. Waits only if the statement was never prepared before; nothing is sent until [`Batch::send`].
    ///
    /// # Errors
    ///
    /// The statement cannot be prepared, or a parameter does not fit it; the batch is as it was before.
    pub async fn push(
        &mut self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        let shape = self.database.shape(statement).await?;
        let Answer { asked, units, .. } = self.answer.answer_mut();
        encode::query(&statement.0, &shape, self.database.named, params, asked)?;
        units.push(Unit { end: asked.len(), ..Unit::new(Rc::clone(&statement.0)) });
        Ok(())
    }

    /// Adds a query for each of `params`: as [`Batch::push`] for each, but for less, since whether it has to wait is seen
    /// once for all. The parameters of a query are of one type here.
    ///
    /// # Errors
    ///
    /// The statement cannot be prepared, or some parameter does not fit it; the batch is as it was before.
    pub async fn push_all<P: ToSql + Sync, const N: usize>(
        &mut self,
        statement: &Statement,
        params: impl IntoIterator<Item = [P; N]>,
    ) -> Result<(), Error> {
        let shape = self.database.shape(statement).await?;
        let Answer { asked, units, .. } = self.answer.answer_mut();
        let before = (asked.len(), units.len());
        for params in params {
            let params = params.each_ref();
            if let Err(why) =
                encode::query(&statement.0, &shape, self.database.named, &params, asked)
            {
                asked.truncate(before.0);
                units.truncate(before.1);
                return Err(why);
            }
            units.push(Unit { end: asked.len(), ..Unit::new(Rc::clone(&statement.0)) });
        }
        Ok(())
    }

    /// The number of queries in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answer.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends all and waits for all answers.
    ///
    /// Dropping the future discards the answers; queries that were sent take effect all the same.
    ///
    /// # Errors
    ///
    /// Only what befalls the whole: no database, or the deadline. A query's own error is in its answer.
    pub async fn send(self) -> Result<Replies, Error> {
        let Batch { database, mut answer } = self;
        if answer.len() == 0 {
            return Ok(Replies::new(answer));
        }
        let core = &database.core;
        let asked = std::mem::take(answer.answer_mut());
        let slot =
            core.ask(|pipeline, requests| pipeline.send(asked, database.timeout, requests))?;
        drop(answer);
        Ok(Replies::new(core.pooled(core.wait(slot).await?)))
    }
}
