//! Where the database is and how to treat it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{error, fmt};

use tokio_postgres::config::{self, LoadBalanceHosts, SslMode};

use crate::cancels::CANCELS_MAX;

/// Used when the URL names no port.
const PORT: u16 = 5432;

/// Where Debian's servers listen; used when the URL names no host.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";

/// Parameters that other clients know and this one does not. Only such a name is repeated in an error: anything
/// else may be part of a password that was not percent-encoded.
const KNOWN_ELSEWHERE: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "keepalives_count",
    "krbsrvname",
    "passfile",
    "pool_max_conns",
    "replication",
    "requirepeer",
    "schema",
    "search_path",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslrootcert",
    "statement_timeout",
];

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
    /// Limit for one address: resolving, connecting and logging in. Default: 5 s, or the URL's `connect_timeout`.
    pub connect_timeout: Duration,
    /// Limit for a query, from being sent to its complete answer. Default: 30 s.
    ///
    /// A request that is overdue fails. If it is the server that is stuck (the query at the head of the connection
    /// takes longer than this by itself), the server is asked to cancel it and the connection is dropped, with
    /// everything that was pipelined behind it; those fail as unavailable.
    pub query_timeout: Duration,
    /// Connections shared by all queries, each pipelined. Default: 1.
    pub connections: usize,
    /// Connections for transactions, opened on demand. Default: 4.
    pub transactions_max: usize,
    /// Statements that one connection keeps prepared; the one not used for longest gives way. Default: 256.
    pub statements_max: usize,
    /// Upper bounds of the buckets in which [`crate::Database::take_durations`] counts, in nanoseconds, rising.
    /// Default: none, nothing is counted.
    pub duration_bounds_ns: &'static [u64],
    /// On TCP, wait for several replies before the loop is woken, if many are due (`SO_RCVLOWAT`). Default: yes.
    ///
    /// The server sends each reply by itself, since each query has its own Sync; every early wake-up costs both
    /// sides. A reply may wait a millisecond for those behind it.
    pub low_water: bool,
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
    /// Of unix sockets.
    Directory(PathBuf),
}

impl Config {
    /// Reads a URL (`postgresql://user:password@host:port/database?parameter=value`) or `key=value` pairs.
    ///
    /// Parameters: those of tokio-postgres, which are named as libpq's. Without a host: Debian's unix socket
    /// directory if there is one, else localhost.
    ///
    /// # Errors
    ///
    /// The text is malformed or asks for something that is not supported; the password is never part of the error.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        if let Some(mode) = tls_mode(text) {
            return Err(ConfigError::without_tls(mode));
        }
        let server: tokio_postgres::Config =
            text.parse().map_err(|error| ConfigError::new(explain(&error)))?;
        if server.get_ssl_mode() == SslMode::Require {
            return Err(ConfigError::without_tls("require"));
        }
        for host in server.get_hosts() {
            if let config::Host::Tcp(name) = host
                && (name.is_empty()
                    || name.contains(['@', '/', ':', '?', '#', ' '])
                        && name.parse::<IpAddr>().is_err())
            {
                let what = "the host is no host name; special characters in a password are written as %40 (@), %2F (/)";
                return Err(ConfigError::new(what));
            }
        }
        let (ports, hosts) =
            (server.get_ports().len(), server.get_hosts().len().max(server.get_hostaddrs().len()));
        if ports > 1 && ports != hosts {
            return Err(ConfigError::new(format!("{ports} ports for {hosts} hosts")));
        }
        Ok(Config {
            connect_timeout: server
                .get_connect_timeout()
                .copied()
                .unwrap_or(Duration::from_secs(5)),
            server,
            prepare: Prepare::Named,
            query_timeout: Duration::from_secs(30),
            connections: 1,
            transactions_max: 4,
            statements_max: 256,
            duration_bounds_ns: &[],
            low_water: true,
        })
    }

    /// How many event loop tokens [`crate::Database::new`] needs to be handed.
    #[must_use]
    pub fn tokens_needed(&self) -> usize {
        self.connections.max(1) + self.transactions_max + CANCELS_MAX
    }

    /// The hosts in the order in which to try them.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let addresses = self.server.get_hostaddrs().iter().map(|&address| Host::Address(address));
        let hosts = self.server.get_hosts().iter().map(|host| match host {
            config::Host::Tcp(name) => match name.parse() {
                Ok(address) => Host::Address(address),
                Err(_) => Host::Name(name.clone()),
            },
            config::Host::Unix(path) => Host::Directory(path.clone()),
        });
        let mut hosts: Vec<_> = if self.server.get_hostaddrs().is_empty() {
            hosts.collect()
        } else {
            addresses.collect()
        };
        if hosts.is_empty() {
            let directory = Path::new(SOCKET_DIRECTORY);
            hosts.push(if directory.is_dir() {
                Host::Directory(directory.into())
            } else {
                Host::Name("localhost".into())
            });
        }
        let ports = self.server.get_ports();
        let port_of = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        let mut targets: Vec<_> = hosts
            .into_iter()
            .enumerate()
            .map(|(index, host)| Target { host, port: port_of(index) })
            .collect();
        if self.server.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut targets);
        }
        targets
    }
}

/// A value of `sslmode` that insists on TLS.
fn tls_mode(text: &str) -> Option<&'static str> {
    let (_, value) = text.rsplit_once("sslmode")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start().trim_start_matches('\'');
    ["require", "verify-ca", "verify-full"].into_iter().find(|mode| {
        value.strip_prefix(mode).is_some_and(|rest| {
            !rest.starts_with(|next: char| next.is_alphanumeric() || next == '-')
        })
    })
}

/// What is wrong with the text, without repeating any of it that could be secret.
fn explain(error: &tokio_postgres::Error) -> String {
    let cause = error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match cause.strip_prefix("unknown option") {
        Some(name) => match KNOWN_ELSEWHERE.iter().find(|known| name.contains(&format!("`{known}`"))) {
            Some(known) => format!("the parameter {known} is not supported"),
            None => "an unknown parameter; special characters in a password are written as %3F (?), %26 (&)".into(),
        },
        None => format!("malformed: {cause}"),
    }
}

/// The database URL is malformed, or asks for something that is not supported.
#[derive(Clone, Debug)]
pub struct ConfigError {
    what: Box<str>,
}

impl ConfigError {
    fn new(what: impl Into<Box<str>>) -> ConfigError {
        ConfigError { what: what.into() }
    }

    fn without_tls(mode: &str) -> ConfigError {
        ConfigError::new(format!(
            "sslmode={mode} needs TLS, which is not built yet; a proxy on this machine that speaks TLS to the server \
             (stunnel, a provider's own) is the way there, without sslmode"
        ))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad database URL: {}", self.what)
    }
}

impl error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn hosts_and_ports() {
        let config =
            Config::parse("postgresql://u:p@h1,[::1]:6000,%2Ftmp%2Fx:6001/db?connect_timeout=2")
                .unwrap();
        let target = |host, port| Target { host, port };
        assert_eq!(
            config.targets(),
            [
                target(Host::Name("h1".into()), 5432),
                target(Host::Address("::1".parse().unwrap()), 6000),
                target(Host::Directory("/tmp/x".into()), 6001),
            ]
        );
        assert_eq!(config.connect_timeout, Duration::from_secs(2));
        let config = Config::parse("host=/tmp/x user=u dbname=d").unwrap();
        assert_eq!(config.targets(), [target(Host::Directory("/tmp/x".into()), 5432)]);
        let config = Config::parse("hostaddr=127.0.0.1 host=name port=1 user=u").unwrap();
        assert_eq!(config.targets(), [target(Host::Address("127.0.0.1".parse().unwrap()), 1)]);
        assert_eq!(Config::parse("user=u").unwrap().targets().len(), 1);
    }

    #[test]
    fn tls_is_refused_in_plain_words() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let what =
                format!("bad database URL: sslmode={mode} needs TLS, which is not built yet; ");
            for url in [
                format!("postgresql://u@h/d?sslmode={mode}"),
                format!("host=h sslmode = '{mode}' user=u"),
            ] {
                let error = error(&url);
                assert!(error.starts_with(&what) && error.contains("proxy"), "{error}");
            }
        }
        for mode in ["prefer", "disable"] {
            assert!(Config::parse(&format!("postgresql://u@h/d?sslmode={mode}")).is_ok());
        }
    }

    #[test]
    fn errors_keep_the_password_to_themselves() {
        for text in [
            "postgresql://u:geheim?x@h/d",
            "postgresql://u:geheim&x=y?geheim=1@h/d",
            "postgresql://u:a@geheim@h/d",
            "postgresql://u:a/geheim@h/d",
            "postgresql://u:geheim@h:port/d",
            "postgresql://u:geheim@h/d?nonsense=1",
            "postgresql://u:geheim@h/d?sslmode=nonsense",
            "host=h password=a geheim user=u",
            "host=h password='geheim user=u",
        ] {
            if let Err(error) = Config::parse(text) {
                assert!(!error.to_string().contains("geheim"), "{text}: {error}");
            }
            let shown = format!("{:?}", Config::parse(text));
            assert!(!shown.contains("geheim"), "{text}: {shown}");
        }
        assert!(error("postgresql://u@h/d?sslrootcert=x").contains("sslrootcert is not supported"));
        assert!(error("postgresql://u@h:99999/d").contains("port"));
    }
}
