//! Where the database is and how to treat it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use std::{error, fmt};

use tokio_postgres::config::{self, LoadBalanceHosts};

use crate::cancels::CANCELS_MAX;
use crate::parameters;
use crate::tls::{self, Tls};

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
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslsni",
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
    pub(crate) tls: Tls,
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
    /// Whom the server's certificate must be for: the host as it was written.
    pub name: Rc<str>,
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
    /// Parameters: those of tokio-postgres, which are named as libpq's, and libpq's `sslmode`, `sslnegotiation`,
    /// `sslrootcert`, `sslcert`, `sslkey`. Without `sslmode` there is no TLS. Without a host: Debian's unix socket
    /// directory if there is one, else localhost.
    ///
    /// # Errors
    ///
    /// The text is malformed or asks for something that is not supported; the password is never part of the error.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let (text, ours) = parameters::take(text, tls::PARAMETERS);
        let server: tokio_postgres::Config =
            text.parse().map_err(|error| ConfigError::new(explain(&error)))?;
        let tls = Tls::new(&ours).map_err(ConfigError::new)?;
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
            tls,
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
        let written = self.server.get_hosts();
        let addresses = self.server.get_hostaddrs().iter().enumerate().map(|(index, &address)| {
            let name = match written.get(index) {
                Some(config::Host::Tcp(name)) => name.as_str().into(),
                Some(config::Host::Unix(_)) | None => address.to_string().into(),
            };
            (Host::Address(address), name)
        });
        let hosts = written.iter().map(|host| match host {
            config::Host::Tcp(name) => match name.parse() {
                Ok(address) => (Host::Address(address), name.as_str().into()),
                Err(_) => (Host::Name(name.clone()), name.as_str().into()),
            },
            config::Host::Unix(path) => (Host::Directory(path.clone()), "".into()),
        });
        let mut hosts: Vec<(Host, Rc<str>)> = if self.server.get_hostaddrs().is_empty() {
            hosts.collect()
        } else {
            addresses.collect()
        };
        if hosts.is_empty() {
            let directory = Path::new(SOCKET_DIRECTORY);
            hosts.push(if directory.is_dir() {
                (Host::Directory(directory.into()), "".into())
            } else {
                (Host::Name("localhost".into()), "localhost".into())
            });
        }
        let ports = self.server.get_ports();
        let port_of = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        let mut targets: Vec<_> = hosts
            .into_iter()
            .enumerate()
            .map(|(index, (host, name))| Target { host, port: port_of(index), name })
            .collect();
        if self.server.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut targets);
        }
        targets
    }
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
    use crate::socket::Address;
    use crate::tls::Way;

    fn error(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn hosts_and_ports() {
        let config =
            Config::parse("postgresql://u:p@h1,[::1]:6000,%2Ftmp%2Fx:6001/db?connect_timeout=2")
                .unwrap();
        let target = |host, port, name: &str| Target { host, port, name: name.into() };
        assert_eq!(
            config.targets(),
            [
                target(Host::Name("h1".into()), 5432, "h1"),
                target(Host::Address("::1".parse().unwrap()), 6000, "::1"),
                target(Host::Directory("/tmp/x".into()), 6001, ""),
            ]
        );
        assert_eq!(config.connect_timeout, Duration::from_secs(2));
        let config = Config::parse("host=/tmp/x user=u dbname=d").unwrap();
        assert_eq!(config.targets(), [target(Host::Directory("/tmp/x".into()), 5432, "")]);
        let config = Config::parse("hostaddr=127.0.0.1 host=name port=1 user=u").unwrap();
        assert_eq!(
            config.targets(),
            [target(Host::Address("127.0.0.1".parse().unwrap()), 1, "name")]
        );
        assert_eq!(Config::parse("user=u").unwrap().targets().len(), 1);
    }

    #[test]
    fn what_may_be_said_of_tls() {
        let tls = |parameters: &str| Config::parse(&format!("postgresql://u@h/d?{parameters}"));
        let tcp = Address::Tcp(([127, 0, 0, 1], 1).into());
        let unix = Address::Unix("/tmp/x".into());
        for (parameters, ways) in [
            ("", &[Way::Plain][..]),
            ("sslmode=", &[Way::Plain]),
            ("sslmode=disable", &[Way::Plain]),
            ("sslmode=allow", &[Way::Plain, Way::Tls]),
            ("sslmode=prefer", &[Way::TlsIfOffered, Way::Plain]),
            ("sslmode=require", &[Way::Tls]),
            ("sslmode=require&sslnegotiation=direct", &[Way::Tls]),
            ("sslmode=verify-ca&sslrootcert=%2Fca.pem", &[Way::Tls]),
            ("sslmode=verify-full", &[Way::Tls]),
            ("sslrootcert=system", &[Way::Tls]),
            ("sslmode=require&sslcert=a&sslkey=b", &[Way::Tls]),
        ] {
            let config = tls(parameters).unwrap();
            assert_eq!(config.tls.ways(&tcp), ways, "{parameters}");
            assert_eq!(config.tls.ways(&unix), [Way::Plain], "{parameters}");
            let is_full = parameters.contains("full") || parameters.contains("system");
            assert_eq!(config.tls.is_named(), is_full, "{parameters}");
        }
        for (parameters, why) in [
            (
                "sslmode=on",
                "sslmode is none of disable, allow, prefer, require, verify-ca, verify-full",
            ),
            ("sslmode=Require", "sslmode is none of"),
            ("sslnegotiation=fast", "sslnegotiation is neither postgres nor direct"),
            ("sslmode=require&sslrootcert=system", "only with sslmode=verify-full"),
            ("sslmode=verify-ca", "sslmode=verify-ca needs sslrootcert=FILE"),
            ("sslrootcert=ca.pem", "sslrootcert without sslmode, which is no TLS here"),
            ("sslnegotiation=direct", "sslnegotiation without sslmode"),
            ("sslmode=prefer&sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require"),
            ("sslmode=require&sslcert=a", "sslcert needs sslkey"),
            ("sslmode=require&sslkey=a", "sslkey needs sslcert"),
            ("sslmode=require&sslcrl=a", "the parameter sslcrl is not supported"),
        ] {
            let error = tls(parameters).unwrap_err().to_string();
            assert!(error.contains(why), "{parameters}: {error}");
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
        assert!(error("postgresql://u@h/d?passfile=x").contains("passfile is not supported"));
        assert!(error("postgresql://u@h:99999/d").contains("port"));
    }
}
