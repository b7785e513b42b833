//! Where the database is and how to treat it.

use std::time::Duration;
use std::{error, fmt};

/// Whether statements are prepared by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Once per connection, under a name: the fast way.
    Named,
    /// With every execution, without a name: for transaction poolers that do not follow named statements.
    Unnamed,
}

/// A server (or several to try in turn), how to log in, and the limits.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) server: tokio_postgres::Config,
    /// How statements are prepared. Default: named.
    pub prepare: Prepare,
    /// Limit for reaching one host, logging in included. Default: 5 s, or the URL's `connect_timeout`.
    pub connect_timeout: Duration,
    /// Limit for a query, from being sent to its complete answer. Default: 30 s.
    pub query_timeout: Duration,
    /// Connections shared by all queries, each pipelined. Default: 1.
    pub connections: usize,
    /// Connections for transactions, opened on demand. Default: 4.
    pub transactions_max: usize,
}

impl Config {
    /// Reads a URL (`postgresql://user:password@host:port/database?parameter=value`) or `key=value` pairs.
    ///
    /// # Errors
    ///
    /// The text is malformed or asks for something that is not supported; the password is never part of the error.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let server: tokio_postgres::Config =
            text.parse().map_err(|_| ConfigError { what: "bad URL".into() })?;
        Ok(Config {
            server,
            prepare: Prepare::Named,
            connect_timeout: Duration::from_secs(5),
            query_timeout: Duration::from_secs(30),
            connections: 1,
            transactions_max: 4,
        })
    }

    /// How many event loop tokens [`crate::Database::new`] needs to be handed.
    #[must_use]
    pub fn tokens_needed(&self) -> usize {
        2 * (self.connections + self.transactions_max)
    }
}

/// The database URL is malformed, or asks for something that is not supported.
#[derive(Clone, Debug)]
pub struct ConfigError {
    what: Box<str>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl error::Error for ConfigError {}
