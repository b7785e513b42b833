//! The worker's database handle: opened from the settings, its events put into the log.

use std::time::{Duration, Instant};

use pg::{Config, ConfigError, Counters, Database, Events, NoEvents, Prepare};
use scoreboard::{Block, Counter, Gauge, LATENCY_BOUNDS_NS};
use shared::settings::{PrepareManner, Settings};

use crate::error::Chain;
use crate::log::Log;

/// Least time between two lines about queries that were given up.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// What stands in for the address where there is no database; nothing ever connects to it.
const NOWHERE: &str = "host=/nonexistent user=nobody";

/// Begins to connect to the database of the settings.
///
/// Without one, or with one that cannot be understood, the handle is closed: every query fails at once, as it does
/// while a database is away, and the worker serves everything else.
pub(crate) fn open(
    settings: &Settings,
    log: &Log,
    registry: mio::Registry,
    first_token: usize,
    now: Instant,
) -> Result<Database, ConfigError> {
    let config = match settings.database.as_deref().map(Config::parse) {
        Some(Ok(config)) => Some(config),
        Some(Err(error)) => {
            log.error(format_args!("Cannot use the setting database: {error}"));
            None
        }
        None => None,
    };
    let Some(mut config) = config else {
        let config = Config::parse(NOWHERE)?;
        let tokens = first_token..first_token + config.tokens_needed();
        let database = Database::new(config, registry, tokens, Box::new(NoEvents), now);
        database.close();
        return Ok(database);
    };
    config.connect_timeout = settings.database_connect_timeout;
    config.query_timeout =
        Settings::limit(settings.database_query_timeout).unwrap_or(Duration::from_secs(NO_LIMIT_S));
    config.connections = settings.database_connections;
    config.prepare = match settings.database_prepare {
        PrepareManner::Named => Prepare::Named,
        PrepareManner::Unnamed => Prepare::Unnamed,
    };
    config.duration_bounds_ns = &LATENCY_BOUNDS_NS;
    let tokens = first_token..first_token + config.tokens_needed();
    let events = Box::new(Reporter { log: log.clone() });
    Ok(Database::new(config, registry, tokens, events, now))
}

/// A query without limit may take a year, in seconds.
const NO_LIMIT_S: u64 = 365 * 24 * 3600;

/// What the scoreboard and the log have heard of the database's counters.
#[derive(Default)]
pub(crate) struct Watch {
    published: Counters,
    /// As they were when the log was last told of failures, and when that was.
    complained: Counters,
    complained_at: Option<Instant>,
}

impl Watch {
    /// Publishes what has changed. What has failed for want of time or room is worth a line, but not one per request.
    pub(crate) fn look(&mut self, database: &Database, block: Block<'_>, log: &Log, now: Instant) {
        let (counters, known) = (database.counters(), &self.published);
        for (counter, value, before) in [
            (Counter::DatabaseConnects, counters.connects, known.connects),
            (Counter::DatabaseConnectFailures, counters.connect_failures, known.connect_failures),
            (Counter::DatabaseQueries, counters.queries, known.queries),
            (Counter::DatabaseRefused, counters.refused, known.refused),
            (Counter::DatabaseTimeouts, counters.timed_out, known.timed_out),
            (Counter::DatabaseOverloads, counters.overloaded, known.overloaded),
            (Counter::DatabaseUnavailable, counters.unavailable, known.unavailable),
        ] {
            block.add(counter, value - before);
        }
        block.set(Gauge::DatabaseInFlight, counters.in_flight);
        block.set(Gauge::DatabaseConnectionsUp, counters.up);
        block.set(Gauge::DatabaseConnectionsConnecting, counters.connecting);
        if counters.queries != known.queries {
            database.take_durations(|durations| {
                block.add_queries(durations.counts(), durations.sum_ns());
            });
        }
        self.published = counters;

        let told = &self.complained;
        let timed_out = counters.timed_out - told.timed_out;
        let overloaded = counters.overloaded - told.overloaded;
        let is_early = self.complained_at.is_some_and(|at| now < at + COMPLAINT_EVERY);
        if timed_out + overloaded > 0 && !is_early {
            log.warning(format_args!(
                "Database queries given up timed_out={timed_out} overloaded={overloaded}"
            ));
            self.complained = counters;
            self.complained_at = Some(now);
        }
    }
}

/// Puts the database's events into the log.
struct Reporter {
    log: Log,
}

impl Events for Reporter {
    fn connected(&self, server: &str, version: &str, tls: Option<&str>) {
        let (key, tls) = if let Some(tls) = tls { (" tls=", tls) } else { ("", "") };
        self.log
            .info(format_args!("Database connected server={server} version={version}{key}{tls}"));
    }

    fn lost(&self, why: &pg::Error) {
        self.log.warning(format_args!("Database connection lost: {}", Chain(why)));
    }

    fn connect_failed(&self, why: &pg::Error, retry_in: Duration) {
        let (why, wait) = (Chain(why), retry_in.as_millis());
        self.log.error(format_args!("Cannot connect to the database: {why} retry_in_ms={wait}"));
    }

    fn pooler_in_the_way(&self, why: &pg::Error) {
        let why = Chain(why);
        self.log
            .error(format_args!("A connection pooler does not keep prepared statements, set database_prepare = \"unnamed\": {why}"));
    }
}
