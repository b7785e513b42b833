//! From a configuration to a session: each host in turn, each address of it, each within the connect deadline.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use crate::certificate;
use crate::common::chain;
use crate::config::{Config, Host, Target};
use crate::driver::{Carrier, Driver, LoggingIn};
use crate::error::{Error, Kind};
use crate::message;
use crate::opening::{self, Opening, Route};
use crate::resolve::Lookup;
use crate::socket::{Address, Socket};
use crate::tls::{self, Way};
use crate::wire::Wire;

/// Largest message accepted before the session is up, in bytes.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A session that is logged in and idle.
pub(crate) struct Session {
    pub socket: Socket,
    pub driver: Driver,
    pub route: Route,
    /// What arrived behind the last message that logging in took.
    pub unread: Vec<u8>,
}

/// What became of an attempt so far.
pub(crate) enum Progress {
    Pending,
    Up(Box<Session>),
    Failed(Error),
}

/// One attempt to get a session, over all hosts.
pub(crate) struct Attempt {
    config: Rc<Config>,
    registry: Rc<Registry>,
    token: Token,
    targets: VecDeque<Target>,
    /// The host whose turn it is, and its addresses.
    name: Rc<str>,
    addresses: VecDeque<Address>,
    /// Other ways to the address that is being tried.
    ways: &'static [Way],
    stage: Stage,
    /// What is being tried, the same for people, and until when.
    trying: Option<Route>,
    server: String,
    deadline: Instant,
    failure: Option<Error>,
}

enum Stage {
    /// The next address is to be tried.
    Next,
    Resolving(Lookup),
    Opening(Box<Opening>),
    LoggingIn {
        socket: Socket,
        wire: Wire,
        future: LoggingIn,
        unread: Vec<u8>,
    },
}

impl Attempt {
    pub fn new(
        config: &Rc<Config>,
        registry: &Rc<Registry>,
        token: Token,
        now: Instant,
    ) -> Attempt {
        Attempt {
            targets: config.targets().into(),
            config: Rc::clone(config),
            registry: Rc::clone(registry),
            token,
            name: "".into(),
            addresses: VecDeque::new(),
            ways: &[],
            stage: Stage::Next,
            trying: None,
            server: String::new(),
            deadline: now,
            failure: None,
        }
    }

    /// When [`Attempt::go_on`] is to be called if nothing else happens.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes as far as it can without waiting.
    pub fn go_on(&mut self, now: Instant) -> Progress {
        loop {
            let step = match std::mem::replace(&mut self.stage, Stage::Next) {
                Stage::Next => match self.next(now) {
                    Some(step) => step,
                    None => {
                        let none = || Error::new(Kind::Unavailable, "no host is configured");
                        return Progress::Failed(self.failure.take().unwrap_or_else(none));
                    }
                },
                Stage::Resolving(lookup) => self.resolve(lookup),
                Stage::Opening(opening) => self.open(opening),
                Stage::LoggingIn { socket, wire, future, unread } => {
                    match log_in(socket, wire, future, unread) {
                        Ok(Ok((socket, driver, unread))) => {
                            let Some(route) = self.trying.take() else { continue };
                            return Progress::Up(Box::new(Session {
                                socket,
                                driver,
                                route,
                                unread,
                            }));
                        }
                        Ok(Err(stage)) => Ok((stage, false)),
                        Err(error) => {
                            // With TLS or without: the other way may be the one that the server lets in.
                            if error.as_sql().is_none_or(|sql| sql.code() != NOT_LET_IN) {
                                self.ways = &[];
                            }
                            Err(error)
                        }
                    }
                }
            };
            match step {
                Ok((stage, true)) => self.stage = stage,
                Ok((stage, false)) if now < self.deadline => {
                    self.stage = stage;
                    return Progress::Pending;
                }
                Ok(_) => {
                    self.ways = &[];
                    let limit = self.config.connect_timeout;
                    self.failed(&Error::new(
                        Kind::TimedOut,
                        format!("no session within {limit:?}"),
                    ));
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Notes a failure behind those of the addresses before it.
    fn failed(&mut self, why: &Error) {
        let before = self.failure.take().map(|failure| chain(&failure) + "; ").unwrap_or_default();
        let what = format!("{before}cannot connect to {}", self.server);
        self.failure = Some(Error::because(Kind::Unavailable, what, why));
    }

    /// Turns to the next way, address or host; `None`: there is none left.
    fn next(&mut self, now: Instant) -> Option<Result<(Stage, bool), Error>> {
        // Another way to the same address is within the same deadline.
        if let Some(route) = &self.trying
            && let Some((&way, others)) = self.ways.split_first()
        {
            self.ways = others;
            return Some(self.begin(Route { way, ..route.clone() }));
        }
        if let Some(address) = self.addresses.pop_front() {
            self.deadline = now + self.config.connect_timeout;
            let (&way, others) = self.config.tls.ways(&address).split_first()?;
            self.server = match &address {
                // Certificates are for names.
                Address::Tcp(found)
                    if way != Way::Plain && *self.name != *found.ip().to_string() =>
                {
                    format!("{} ({address})", self.name)
                }
                _ => address.to_string(),
            };
            self.ways = others;
            return Some(self.begin(Route { address, name: Rc::clone(&self.name), way }));
        }
        let Target { host, port, name } = self.targets.pop_front()?;
        self.name = name;
        self.deadline = now + self.config.connect_timeout;
        Some(match host {
            Host::Address(ip) => {
                self.addresses.push_back(Address::Tcp((ip, port).into()));
                Ok((Stage::Next, true))
            }
            Host::Directory(path) => {
                self.addresses.push_back(Address::Unix(path.join(format!(".s.PGSQL.{port}"))));
                Ok((Stage::Next, true))
            }
            Host::Name(name) => {
                self.server = format!("{name}:{port}");
                Lookup::begin(&name, port, self.token, &self.registry)
                    .map(|lookup| (Stage::Resolving(lookup), true))
                    .map_err(unresolvable)
            }
        })
    }

    fn resolve(&mut self, lookup: Lookup) -> Result<(Stage, bool), Error> {
        match lookup.poll() {
            None => Ok((Stage::Resolving(lookup), false)),
            Some(Ok(found)) => {
                self.addresses.extend(found.into_iter().map(Address::Tcp));
                Ok((Stage::Next, true))
            }
            Some(Err(error)) => Err(unresolvable(error)),
        }
    }

    fn begin(&mut self, route: Route) -> Result<(Stage, bool), Error> {
        self.trying = Some(route.clone());
        let begun = Opening::begin(&self.config, route, self.token, &self.registry);
        begun
            .map(|opening| (Stage::Opening(Box::new(opening)), true))
            .inspect_err(|_| self.ways = &[])
    }

    fn open(&mut self, mut opening: Box<Opening>) -> Result<(Stage, bool), Error> {
        let socket = match opening.go_on() {
            Ok(Some(socket)) => socket,
            Ok(None) => return Ok((Stage::Opening(opening), false)),
            Err(error) => {
                if !opening.has_begun_tls {
                    self.ways = &[];
                }
                return Err(error);
            }
        };
        socket.configure(&self.config.server).map_err(opening::unreachable)?;
        let wire = Wire::default();
        let carrier = match socket.secure() {
            None => Carrier::Plain,
            Some(secure) => {
                Carrier::Tls { end_point: secure.certificate().and_then(certificate::end_point) }
            }
        };
        let future = Driver::log_in(self.config.server.clone(), wire.clone(), carrier);
        Ok((Stage::LoggingIn { socket, wire, future, unread: Vec::new() }, true))
    }
}

type LoggedIn = Result<(Socket, Driver, Vec<u8>), Stage>;

/// Carries bytes between socket and tokio-postgres, one whole message at a time: what arrives behind the last one
/// that it takes is ours.
fn log_in(
    mut socket: Socket,
    wire: Wire,
    mut future: LoggingIn,
    mut unread: Vec<u8>,
) -> Result<LoggedIn, Error> {
    let mut buffer = [0; 4096];
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return result.map(|driver| Ok((socket, driver, unread)));
        }
        let asked = wire.0.borrow_mut().outbound.split();
        if socket.write(&asked).map_err(lost)? < asked.len() {
            return Err(Error::new(Kind::Unavailable, "the server does not read"));
        }
        loop {
            let malformed = |message::Malformed(what)| {
                Error::new(Kind::Unavailable, format!("not PostgreSQL: {what}"))
            };
            if let Some(first) =
                message::first(&unread, LOGIN_MESSAGE_BYTES_MAX).map_err(malformed)?
            {
                let length = first.whole.len();
                wire.0.borrow_mut().inbound.extend_from_slice(first.whole);
                unread.drain(..length);
                break;
            }
            match socket.read(&mut buffer).map_err(lost)? {
                None => return Ok(Err(Stage::LoggingIn { socket, wire, future, unread })),
                Some(0) => {
                    return Err(Error::new(Kind::Unavailable, "the server closed the connection"));
                }
                Some(count) => unread.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn unresolvable(error: std::io::Error) -> Error {
    Error::with_source(Kind::Unavailable, "cannot resolve the host's name", error)
}

fn lost(error: std::io::Error) -> Error {
    match tls::alert(&error) {
        // A server tells what it thinks of a client's certificate when the client's handshake is over.
        Some(why) => why,
        None => {
            Error::with_source(Kind::Unavailable, "the connection was lost while logging in", error)
        }
    }
}

/// The server's code for a user who may not come in at all this way; a wrong password is another.
const NOT_LET_IN: &str = "28000";

/// The longest that anything here may be set to: time beyond it would overflow the clock.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
