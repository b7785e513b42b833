//! The worker's database handle: opened from the settings, its events put into the log.

use std::time::{Duration, Instant};

use pg::{Config, ConfigError, Database, Events, NoEvents};
use shared::settings::Settings;

use crate::error::Chain;
use crate::log::Log;

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
    let tokens = first_token..first_token + config.tokens_needed();
    let events = Box::new(Reporter { log: log.clone() });
    Ok(Database::new(config, registry, tokens, events, now))
}

/// A query without limit may take a year, in seconds.
const NO_LIMIT_S: u64 = 365 * 24 * 3600;

/// Puts the database's events into the log.
struct Reporter {
    log: Log,
}

impl Events for Reporter {
    fn connected(&self, server: &str, version: &str) {
        self.log.info(format_args!("Database connected server={server} version={version}"));
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
            .error(format_args!("A connection pooler does not keep prepared statements: {why}"));
    }
}
