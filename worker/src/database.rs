//! The worker's database handle: opened from the settings, its events put into the log.

use std::time::Instant;

use shared::settings::Settings;

use crate::log::Log;

/// Begins to connect to the database of the settings.
pub(crate) fn open(
    settings: &Settings,
    log: &Log,
    registry: mio::Registry,
    first_token: usize,
    now: Instant,
) -> pg::Database {
    let url = settings.database.as_deref().unwrap_or("host=/nonexistent user=nobody");
    let mut config = match pg::Config::parse(url) {
        Ok(config) => config,
        Err(error) => {
            log.error(format_args!("Cannot use the database setting: {error}"));
            pg::Config::parse("host=/nonexistent user=nobody").unwrap_or_else(|_| unreachable!())
        }
    };
    config.connect_timeout = settings.database_connect_timeout;
    config.query_timeout = settings.database_query_timeout;
    config.connections = settings.database_connections;
    let tokens = first_token..first_token + config.tokens_needed();
    pg::Database::new(config, registry, tokens, Box::new(pg::NoEvents), now)
}
