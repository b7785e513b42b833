//! A shared connection: down and waiting, connecting, or up with a [`Pipeline`] on its socket.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event;

use crate::backoff::Backoff;
use crate::cancels::Order;
use crate::common::{Common, Happened, chain, earlier};
use crate::config::Prepare;
use crate::connect::{Attempt, Progress, Session};
use crate::driver::Driver;
use crate::error::{Error, Kind};
use crate::inbox::Inbox;
use crate::opening::Route;
use crate::pipeline::{Broken, Pipeline};
use crate::secure::Secure;
use crate::socket::Socket;
use crate::statement::{Column, Inner as Statement, Shape};

/// Replies that are waited for before the loop is woken, if so many are due. Not more: until the program reads, the
/// kernel may acknowledge late, and a server's TCP sends no more than ten small packets ahead of that.
const REPLIES_PER_WAKE: usize = 8;

/// Most bytes that are waited for before the loop is woken.
const LOW_WATER_BYTES_MAX: usize = 4096;

/// How long replies wait for others before they are read all the same: those behind them may be slow ones.
const LOW_WATER_WAIT: Duration = Duration::from_millis(1);

/// A larger out-buffer is given back once it is empty.
const OUT_BYTES_KEPT: usize = 256 * 1024;

pub(crate) struct Link {
    place: usize,
    token: Token,
    stage: Stage,
    backoff: Backoff,
    /// The reason that was last told, until a connection comes up.
    told: Option<String>,
    /// What a query is told while the link is not up.
    why_down: Error,
    /// Whether the first attempt is concluded.
    pub settled: bool,
}

enum Stage {
    Waiting { until: Instant },
    Connecting(Box<Attempt>),
    Up(Box<Up>),
    Closed,
}

/// A session and what is going on on it.
pub(crate) struct Up {
    socket: Socket,
    route: Route,
    pub pipeline: Pipeline,
    inbox: Inbox,
    driver: Driver,
    lookups: Vec<Lookup>,
    since: Instant,
    /// No request is overdue before this.
    deadline: Option<Instant>,
    /// Whether something was asked or answered since it was last decided how many replies to wait for.
    has_moved: bool,
    /// When to look at the socket although the loop was not woken.
    look_at: Option<Instant>,
}

/// tokio-postgres finds out what types PostgreSQL has not built in.
struct Lookup {
    statement: Rc<Statement>,
    answer: Pin<Box<dyn Future<Output = Result<tokio_postgres::Statement, tokio_postgres::Error>>>>,
}

impl Link {
    pub fn new(place: usize, token: Token, now: Instant) -> Link {
        Link {
            place,
            token,
            stage: Stage::Waiting { until: now },
            backoff: Backoff::default(),
            told: None,
            why_down: Error::new(Kind::Unavailable, "the database is not connected yet"),
            settled: false,
        }
    }

    #[inline]
    pub fn up(&mut self) -> Result<&mut Up, Error> {
        match &mut self.stage {
            Stage::Up(up) => Ok(up),
            _ => Err(self.why_down.clone()),
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up(_))
    }

    /// Whether it is being connected, or will be tried again.
    pub fn is_coming(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. } | Stage::Connecting(_))
    }

    pub fn in_flight(&self) -> usize {
        if let Stage::Up(up) = &self.stage { up.pipeline.in_flight() } else { 0 }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting { until } => Some(*until),
            Stage::Connecting(attempt) => Some(attempt.deadline()),
            Stage::Up(up) => earlier(up.deadline, up.look_at),
            Stage::Closed => None,
        }
    }

    /// The loop is about to wait: says how much the server is to have sent before it is woken.
    pub fn before_wait(&mut self, now: Instant) {
        if let Stage::Up(up) = &mut self.stage {
            up.set_low_water(now);
        }
    }

    pub fn on_ready(&mut self, event: &Event, now: Instant, common: &mut Common) {
        match &mut self.stage {
            Stage::Connecting(_) => self.go_on_connecting(now, common),
            Stage::Up(up) => {
                let mut result = Ok(());
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    result = up.read(event.is_read_closed() || event.is_error(), now, common);
                }
                if result.is_ok() && event.is_writable() {
                    result = up.write();
                }
                if let Err(why) = result {
                    self.lose(&why, now, common);
                }
            }
            Stage::Waiting { .. } | Stage::Closed => (),
        }
    }

    /// Sends what was asked since the last time.
    pub fn flush(&mut self, now: Instant, common: &mut Common) {
        if let Stage::Up(up) = &mut self.stage
            && let Err(why) = up.flush(now, common)
        {
            self.lose(&why, now, common);
        }
    }

    pub fn on_deadline(&mut self, now: Instant, common: &mut Common) {
        if let Stage::Up(up) = &mut self.stage
            && up.look_at.is_some_and(|at| at <= now)
        {
            // If anything is there, the kernel now says so.
            up.look_at = None;
            if let Err(error) = up.socket.set_low_water(1) {
                return self.lose(&lost(error), now, common);
            }
        }
        match &mut self.stage {
            Stage::Waiting { until } if *until <= now => self.begin_connecting(now, common),
            Stage::Connecting(attempt) if attempt.deadline() <= now => {
                self.go_on_connecting(now, common)
            }
            Stage::Up(up) if up.deadline.is_some_and(|at| at <= now) => {
                match up.pipeline.expire(now, &mut common.requests) {
                    Ok(next) => up.deadline = next,
                    Err(()) => {
                        let (route, bytes) = (up.route.clone(), up.driver.cancel_request());
                        common.cancels.push(Order { route, bytes });
                        let limit = common.config.query_timeout;
                        let what = format!(
                            "the server did not answer for {limit:?}; the connection was dropped"
                        );
                        self.lose(&Error::new(Kind::Unavailable, what), now, common);
                    }
                }
            }
            _ => (),
        }
    }

    /// Ends the session; nothing more will be asked.
    pub fn close(&mut self, common: &mut Common) {
        let why = Error::new(Kind::Unavailable, "the database handle is closed");
        if let Stage::Up(up) = &mut self.stage {
            up.fail_all(&why, common);
            // Terminate; that it may not reach the server is of no consequence.
            let _ = up.socket.write(b"X\0\0\0\x04");
        }
        self.stage = Stage::Closed;
        self.why_down = why;
        self.settled = true;
    }

    fn begin_connecting(&mut self, now: Instant, common: &mut Common) {
        let attempt = Attempt::new(&common.config, &common.registry, self.token, now);
        self.stage = Stage::Connecting(Box::new(attempt));
        self.go_on_connecting(now, common);
    }

    fn go_on_connecting(&mut self, now: Instant, common: &mut Common) {
        let Stage::Connecting(attempt) = &mut self.stage else { return };
        match attempt.go_on(now) {
            Progress::Pending => (),
            Progress::Up(session) => self.rise(*session, now, common),
            Progress::Failed(why) => {
                self.settled = true;
                common.requests.tally.counters.connect_failures += 1;
                let retry_in = self.backoff.after_failure();
                self.why_down =
                    Error::because(Kind::Unavailable, "the database is not reachable", &why);
                let reason = chain(&why);
                if self.told.as_ref() != Some(&reason) {
                    self.told = Some(reason);
                    common.happened.push(Happened::ConnectFailed { why, retry_in });
                }
                self.stage = Stage::Waiting { until: now + retry_in };
            }
        }
    }

    fn rise(&mut self, session: Session, now: Instant, common: &mut Common) {
        let Session { socket, driver, route, unread } = session;
        self.settled = true;
        self.told = None;
        common.sessions += 1;
        common.requests.tally.counters.connects += 1;
        common.happened.push(Happened::Connected {
            server: route.address.to_string(),
            version: driver.version.clone(),
            tls: socket.secure().map(Secure::version),
        });
        let config = &common.config;
        let named = config.prepare == Prepare::Named;
        let pipeline =
            Pipeline::new(self.place, common.sessions, named, config.statements_max.max(1), now);
        let inbox = Inbox::new(unread);
        let lookups = Vec::new();
        let mut up = Box::new(Up {
            socket,
            route,
            pipeline,
            inbox,
            driver,
            lookups,
            since: now,
            deadline: None,
            has_moved: true,
            look_at: None,
        });
        // Something may have arrived between the last read and now.
        let result = up.read(true, now, common);
        self.stage = Stage::Up(up);
        if let Err(why) = result {
            self.lose(&why, now, common);
        }
    }

    fn lose(&mut self, why: &Error, now: Instant, common: &mut Common) {
        let Stage::Up(mut up) = std::mem::replace(&mut self.stage, Stage::Closed) else { return };
        let lost =
            Error::because(Kind::Unavailable, "the connection to the database was lost", why);
        up.fail_all(&lost, common);
        common.happened.push(Happened::Lost(why.clone()));
        self.why_down = lost;
        let wait = self.backoff.after_loss(up.since, now);
        drop(up);
        self.stage = Stage::Waiting { until: now + wait };
        if wait == Duration::ZERO {
            self.begin_connecting(now, common);
        }
    }
}

impl Up {
    /// The connection is over: everybody who waits is told why.
    fn fail_all(&mut self, why: &Error, common: &mut Common) {
        self.pipeline.fail_all(why, &mut common.requests);
        for lookup in self.lookups.drain(..) {
            lookup.statement.not_learned(why.clone(), &mut common.requests.woken);
        }
    }

    /// Reads until the socket is empty, which a read that does not fill the buffer says; `to_end`: until it says so
    /// itself, for the server's last words.
    fn read(&mut self, to_end: bool, now: Instant, common: &mut Common) -> Result<(), Error> {
        loop {
            self.take(now, common)?;
            let space = self.inbox.space();
            let room = space.len();
            let read = self.socket.read(space);
            match read.map_err(|error| self.ended(Some(error)))? {
                None => return self.after_read(common),
                Some(0) => return Err(self.ended(None)),
                Some(count) => {
                    self.inbox.filled(count);
                    if count < room && !to_end {
                        self.take(now, common)?;
                        return self.after_read(common);
                    }
                }
            }
        }
    }

    /// Why the connection ended: the server's last words if there were any.
    fn ended(&mut self, error: Option<std::io::Error>) -> Error {
        match (self.pipeline.report.last_words.take(), error) {
            (Some(sql), _) => Error::farewell("the server closed the connection", sql),
            (None, Some(error)) => lost(error),
            (None, None) => Error::new(Kind::Unavailable, "the server closed the connection"),
        }
    }

    fn take(&mut self, now: Instant, common: &mut Common) -> Result<(), Error> {
        let mut wire = self.driver.wire.0.borrow_mut();
        let taken =
            self.pipeline.take(self.inbox.bytes(), &mut wire.inbound, &mut common.requests, now);
        self.inbox.took(taken.map_err(broken)?);
        Ok(())
    }

    fn after_read(&mut self, common: &mut Common) -> Result<(), Error> {
        self.has_moved = true;
        let report = &mut self.pipeline.report;
        if let Some(why) = report.pooler.take() {
            common.happened.push(Happened::Pooler(why));
        }
        if std::mem::take(&mut report.driver_fed) || !report.unknown.is_empty() {
            self.drive(common)?;
        }
        Ok(())
    }

    /// Several replies with one wake-up: the server sends each by itself, since each query has its own Sync.
    ///
    /// Every change is a system call, so what is nearly right stays, and anything while nothing is due: the end of the
    /// connection wakes the loop all the same.
    fn set_low_water(&mut self, now: Instant) {
        if !self.socket.has_low_water() || !std::mem::take(&mut self.has_moved) {
            return;
        }
        self.look_at = None;
        if self.pipeline.is_idle() {
            return;
        }
        let mut wanted = 1;
        if self.pipeline.in_flight() >= REPLIES_PER_WAKE {
            self.look_at = Some(now + LOW_WATER_WAIT);
            let each = self.pipeline.reply_bytes();
            let bytes = (each * REPLIES_PER_WAKE - each / 2).min(LOW_WATER_BYTES_MAX);
            wanted = u32::try_from(bytes).unwrap_or(1);
            let known = self.socket.low_water();
            if known <= wanted && wanted / 2 <= known {
                return;
            }
        }
        if self.socket.set_low_water(wanted).is_err() {
            // A socket that cannot be told this is no good; seen when its time comes.
            self.look_at = Some(now);
        }
    }

    /// Lets tokio-postgres work: it takes replies, and may ask for more.
    fn drive(&mut self, common: &mut Common) -> Result<(), Error> {
        for statement in std::mem::take(&mut self.pipeline.report.unknown) {
            let (client, asked) = (Rc::clone(&self.driver.client), Rc::clone(&statement));
            let answer = Box::pin(async move { client.prepare(asked.sql()).await });
            self.lookups.push(Lookup { statement, answer });
        }
        loop {
            if let Some(error) = self.driver.poll() {
                return Err(error);
            }
            let mut context = self.driver.context();
            self.lookups.retain_mut(|lookup| match lookup.answer.as_mut().poll(&mut context) {
                Poll::Pending => true,
                Poll::Ready(Ok(found)) => {
                    lookup.statement.learned(shape(&found), &mut common.requests.woken);
                    false
                }
                Poll::Ready(Err(error)) => {
                    let error = Error::from_driver("cannot look up the statement's types", error);
                    lookup.statement.not_learned(error, &mut common.requests.woken);
                    false
                }
            });
            let asked = self.driver.wire.0.borrow_mut().outbound.split();
            self.pipeline.ask_for_driver(&asked, Duration::MAX);
            if !self.driver.wants_poll() {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, now: Instant, common: &mut Common) -> Result<(), Error> {
        if self.driver.wants_poll() {
            self.drive(common)?;
        }
        self.pipeline.release_held(&mut common.requests);
        if let Some(at) = self.pipeline.date(now, common.config.query_timeout) {
            self.deadline = earlier(self.deadline, Some(at));
            self.has_moved = true;
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        let Pipeline { out, sent, .. } = &mut self.pipeline;
        if *sent == out.len() {
            return Ok(());
        }
        *sent += self.socket.write(&out[*sent..]).map_err(lost)?;
        if *sent == out.len() {
            out.clear();
            *sent = 0;
            if out.capacity() > OUT_BYTES_KEPT {
                *out = bytes::BytesMut::new();
            }
        }
        Ok(())
    }
}

fn shape(found: &tokio_postgres::Statement) -> Shape {
    let column = |column: &tokio_postgres::Column| Column {
        name: column.name().into(),
        kind: column.type_().clone(),
    };
    Shape { params: found.params().to_vec(), columns: found.columns().iter().map(column).collect() }
}

fn lost(error: std::io::Error) -> Error {
    Error::with_source(Kind::Unavailable, "the connection broke", error)
}

fn broken(why: Broken) -> Error {
    match why {
        Broken::Malformed(what) => {
            Error::new(Kind::Unavailable, format!("the server broke the protocol: {what}"))
        }
        Broken::Farewell(sql) => Error::farewell("the server closed the connection", sql),
        Broken::NotShared(what) => Error::new(Kind::Unavailable, what),
    }
}
