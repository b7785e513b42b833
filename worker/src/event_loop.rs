//! The worker's loop. One turn: wait → clients → PostgreSQL → tasks → time → heartbeat.
//!
//! - One thread, one wait. Nothing in a turn blocks.
//! - Coalescing is the point: all queries of a turn leave in one write, all pipelined answers of a client in one.
//! - Tokens of connections hold a generation, so that an event for a connection that is gone never meets its successor.
//! - The loop can be stepped ([`EventLoop::turn`]) and waited for (`AsRawFd`), so that another loop can host it.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll as Polled};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use net::{Accepted, Kind, Peer};
use scoreboard::{Counter, Gauge, State};
use shared::contract::Order;
use sys::Signal;
use sys::signal::Caught;
use timer::Timers;

use crate::accept::Shards;
use crate::connection::{Activity, Connection, Readiness, Verdict};
use crate::contract::{Lifeline, Message};
use crate::core::Core;
use crate::drain::Farewell;
use crate::executor::{TaskKey, TaskWaker};
use crate::panics;
use crate::slots::Slots;
use crate::stream::Stream;

/// Time between two heartbeats of an idle worker.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// Events taken from one wait.
const EVENTS_MAX: usize = 1024;
/// Connections taken from one shard after one wake-up, before their siblings in other workers may have the rest.
const ACCEPTS_PER_WAKE_MAX: usize = 8;
/// After a worker was full it accepts again when one in so many places is free: arming costs a system call per shard.
const CAPACITY_SLACK: usize = 16;
/// Connections taken from one shard at the last stop, when nobody else will.
const ACCEPTS_AT_END_MAX: usize = 65_536;
/// A turn that has lasted longer than this, in nanoseconds, takes no further connections.
const TURN_LATE_NS: u64 = 1_000_000;
/// Times that woken tasks are polled in one turn; tasks that wake each other go on in the next.
const TASK_ROUNDS_MAX: usize = 16;

/// Tokens from here on belong to no connection: their upper half is a generation that is never given out.
const SPECIAL: usize = (u32::MAX as usize) << 32;
pub(crate) const ALARM: Token = Token(SPECIAL);
const SIGNALS: Token = Token(SPECIAL + 1);
const LIFELINE: Token = Token(SPECIAL + 2);
/// The shards', then the database's.
pub(crate) const FIRST_SHARD: usize = SPECIAL + 0x1_0000;
pub(crate) const FIRST_DATABASE: usize = SPECIAL + 0x2_0000;

/// A task that belongs to no request.
struct Spawned {
    future: Pin<Box<dyn Future<Output = ()>>>,
    inside: Arc<TaskWaker>,
    waker: std::task::Waker,
}

/// The loop of one worker.
pub(crate) struct EventLoop {
    poll: Poll,
    /// Taken out while a turn goes through them.
    events: Option<Events>,
    core: Core,
    connections: Slots<Connection>,
    spawned: Slots<Spawned>,
    shards: Shards,
    timers: Timers<u32>,
    signals: Caught,
    lifeline: Option<Lifeline>,
    /// Keys of woken tasks, taken from the queue; kept for its memory.
    woken: Vec<TaskKey>,
    /// Shards with connections to be taken in this turn; kept for its memory.
    ready_shards: Vec<usize>,
    /// `CLOCK_MONOTONIC` in nanoseconds when this turn began.
    began: u64,
    /// When the last turn ended; the wait begins there.
    ended: Instant,
    heartbeat_at: Instant,
    /// When the database wants to be called.
    database_due: Option<Instant>,
    /// The last attempt to accept failed.
    accept_fails: bool,
    /// The database's counters as far as the scoreboard has them.
    database_counted: pg::Counters,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    GoOn,
    /// The worker is through with its work.
    Over,
}

impl EventLoop {
    pub(crate) fn new(
        poll: Poll,
        core: Core,
        listeners: Vec<(net::Listener, bool)>,
        signals: Caught,
        lifeline: Option<Lifeline>,
    ) -> io::Result<EventLoop> {
        let now = core.now();
        let registry = poll.registry();
        registry.register(
            &mut SourceFd(&sys::fd::number(&signals)),
            SIGNALS,
            Interest::READABLE,
        )?;
        if let Some(lifeline) = &lifeline {
            lifeline.register(registry, LIFELINE)?;
        }
        Ok(EventLoop {
            poll,
            events: Some(Events::with_capacity(EVENTS_MAX)),
            core,
            connections: Slots::new(),
            spawned: Slots::new(),
            shards: Shards::new(listeners, FIRST_SHARD as u64, now),
            timers: Timers::new(),
            signals,
            lifeline,
            woken: Vec::new(),
            ready_shards: Vec::new(),
            began: 0,
            ended: now,
            heartbeat_at: now,
            database_due: None,
            accept_fails: false,
            database_counted: pg::Counters::default(),
        })
    }

    /// Begins to take connections.
    pub(crate) fn open(&mut self) {
        self.shards.open(&self.poll, self.core.now());
    }

    /// Whether every shard is being waited on.
    pub(crate) fn is_open(&self) -> bool {
        self.shards.is_open()
    }

    /// What the connections share.
    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// One turn. Waits for at most `timeout`; `None` waits for as long as nothing is due.
    ///
    /// # Errors
    ///
    /// The wait failed, which no later turn can mend.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> io::Result<Turn> {
        let Some(mut events) = self.events.take() else { return Ok(Turn::Over) };
        self.wait(&mut events, timeout)?;
        let now = self.core.kernel.clock.update();
        self.began = self.core.kernel.clock.nanoseconds(now);
        self.core.tick = self.began;
        self.core.date.update(now);

        self.attend_to_specials(&events);
        for event in &events {
            self.attend_to_client(event);
        }
        // What the clients asked is on its way while the answers to earlier questions are read.
        self.run_tasks();
        self.flush_database(now);
        for event in events.iter().filter(|event| FIRST_DATABASE <= event.token().0) {
            self.core.kernel.database.on_ready(event, now);
            self.core.has_asked = true;
        }
        self.run_tasks();
        self.flush_database(now);
        self.events = Some(events);

        self.expire(now);
        self.flush_database(now);
        self.beat(now);
        Ok(if self.is_over(now) { Turn::Over } else { Turn::GoOn })
    }

    /// Whether the worker is through; says what it leaves unfinished.
    fn is_over(&self, now: Instant) -> bool {
        let left = self.connections.len();
        let is_over = self.core.drain.is_over(left, now);
        if is_over && left != 0 {
            self.core
                .kernel
                .log
                .warning(format_args!("Connections cut at the end connections={left}"));
        }
        is_over
    }

    /// Sends what tasks asked of the database since the last call, if any did.
    fn flush_database(&mut self, now: Instant) {
        if std::mem::take(&mut self.core.has_asked) {
            self.core.kernel.database.flush(now);
        }
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let wait = if self.core.queue.park() {
            let until = self.next_deadline();
            let wait = until.saturating_duration_since(self.ended);
            timeout.map_or(wait, |timeout| timeout.min(wait))
        } else {
            Duration::ZERO
        };
        let waited = self.poll.poll(events, Some(wait));
        self.core.queue.unpark();
        match waited {
            // A signal: its handler made its descriptor readable.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// When the next thing is due. Never later than the next heartbeat.
    fn next_deadline(&mut self) -> Instant {
        let kernel = &self.core.kernel;
        self.database_due = kernel.database.next_deadline();
        let others = [
            self.timers.next_deadline(),
            kernel.sleeps.borrow().next(),
            self.database_due,
            self.shards.next_deadline(),
            self.core.drain.next_deadline(),
        ];
        others.into_iter().flatten().fold(self.heartbeat_at, Instant::min)
    }

    /// Orders and signals, then new connections: after a TERM none is taken that others could take.
    fn attend_to_specials(&mut self, events: &Events) {
        let mut is_told = false;
        for event in events.iter().filter(|event| SPECIAL <= event.token().0) {
            match event.token() {
                SIGNALS | LIFELINE => is_told = true,
                // Woken tasks are looked for in every turn; the database has its own place in the turn.
                Token(token) if (FIRST_SHARD..FIRST_DATABASE).contains(&token) => {
                    self.ready_shards.push(token - FIRST_SHARD);
                }
                _ => (),
            }
        }
        if is_told {
            self.on_signals();
        }
        while let Some(shard) = self.ready_shards.pop() {
            self.accept_some(shard, ACCEPTS_PER_WAKE_MAX);
        }
    }

    fn attend_to_client(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        // An event for a connection that is gone finds nobody.
        if token < SPECIAL
            && let Some(index) = self.connections.find(token)
        {
            let readiness = Readiness::of(event);
            self.with(index, |connection, core| connection.on_ready(readiness, core));
        }
    }

    /// Lets a connection do something, and draws the consequences.
    fn with(&mut self, index: u32, act: impl FnOnce(&mut Connection, &mut Core) -> Verdict) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        match act(connection, &mut self.core) {
            Verdict::Keep => {
                if let Some(at) = connection.deadline() {
                    self.timers.schedule(index, at);
                }
            }
            Verdict::Close => self.close(index),
        }
    }

    fn close(&mut self, index: u32) {
        let Some(mut gone) = self.connections.remove(index) else { return };
        let core = &mut self.core;
        // A request that was in hand is not any more. It may hold a handler's task, whose end is the application's code.
        if let Err(panic) = panics::catch(|| {
            gone.abandon(core);
            drop(gone);
        }) {
            self.core.kernel.log.error(format_args!("A handler's end failed: {}", panic.text()));
        }
        self.timers.cancel(index);
        let capacity = self.capacity();
        if self.connections.len() < capacity - capacity / CAPACITY_SLACK {
            self.shards.set_full(&self.poll, false);
        }
    }

    /// How many connections may be held at once.
    fn capacity(&self) -> usize {
        self.core.kernel.settings.worker_connections
    }

    /// Takes connections from one shard, as long as there are any, and capacity.
    fn accept_some(&mut self, shard: usize, accepts_max: usize) {
        for _ in 0..accepts_max {
            // At the last stop nobody else would take them.
            if !self.core.drain.is_draining() {
                if self.capacity() <= self.connections.len() {
                    self.shards.set_full(&self.poll, true);
                    return;
                }
                if self.is_late() {
                    return; // What waits is reported again, here or to a worker with more time.
                }
            }
            match self.shards.accept(&self.poll, shard, self.core.now()) {
                Ok(Some((accepted, peer))) => {
                    self.accept_fails = false;
                    self.welcome(accepted, peer);
                }
                Ok(None) => return,
                Err(error) => {
                    // Once for a whole run of failures: they come ten times a second.
                    if !std::mem::replace(&mut self.accept_fails, true) {
                        self.core
                            .kernel
                            .log
                            .error(format_args!("Cannot accept connections: {error}"));
                    }
                    return;
                }
            }
        }
    }

    /// Whether handlers have held this turn up, so that there may be news.
    fn is_late(&self) -> bool {
        TURN_LATE_NS < self.core.tick.saturating_sub(self.began)
    }

    /// A new connection. Its first request has often come along, so it is read from before it is waited for.
    fn welcome(&mut self, accepted: Accepted, peer: Peer) {
        self.core.block.add(Counter::ConnectionsAccepted, 1);
        let stream = match accepted.kind {
            Kind::Tcp => Stream::tcp(accepted.fd),
            Kind::Unix => Stream::unix(accepted.fd),
        };
        let token = Token(self.connections.next_token());
        let index = self.connections.insert(Connection::new(stream, token, peer, &self.core));
        let registry = self.poll.registry();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let verdict = connection.on_accept(registry, &mut self.core);
        self.with(index, |_, _| verdict);
    }

    /// Polls the tasks that were woken, and those that they wake.
    fn run_tasks(&mut self) {
        for _ in 0..TASK_ROUNDS_MAX {
            self.adopt_spawned();
            let mut woken = std::mem::take(&mut self.woken);
            self.core.queue.take(&mut woken);
            if woken.is_empty() {
                self.woken = woken;
                return;
            }
            for key in woken.drain(..) {
                match key {
                    TaskKey::Connection(index) => self.with(index, Connection::on_wake),
                    TaskKey::Spawned(index) => self.poll_spawned(index),
                }
            }
            self.woken = woken;
        }
    }

    /// Gives the tasks that handlers spawned their places, and begins them.
    fn adopt_spawned(&mut self) {
        let spawned = std::mem::take(&mut *self.core.kernel.spawned.borrow_mut());
        for future in spawned {
            let key = TaskKey::Spawned(self.spawned.next_token() as u32);
            let (inside, waker) = TaskWaker::new(&self.core.queue, key);
            waker.wake_by_ref();
            self.spawned.insert(Spawned { future, inside, waker });
        }
    }

    fn poll_spawned(&mut self, index: u32) {
        let Some(spawned) = self.spawned.get_mut(index) else { return };
        spawned.inside.before_poll();
        self.core.has_asked = true;
        let mut context = Context::from_waker(&spawned.waker);
        let polled = panics::catch(|| spawned.future.as_mut().poll(&mut context));
        if let Err(panic) = &polled {
            self.core.kernel.log.error(format_args!("A task failed: {}", panic.text()));
        }
        if !matches!(polled, Ok(Polled::Pending)) {
            self.spawned.remove(index);
        }
    }

    /// Does what is due by now.
    fn expire(&mut self, now: Instant) {
        let (connections, core) = (&mut self.connections, &mut self.core);
        let mut closed = Vec::new();
        self.timers.expire(now, &mut |index| {
            let connection = connections.get_mut(index)?;
            match connection.deadline() {
                Some(at) if at <= now => match connection.on_deadline(core) {
                    Verdict::Keep => connection.deadline(),
                    Verdict::Close => {
                        closed.push(index);
                        None
                    }
                },
                other => other,
            }
        });
        for index in closed {
            self.close(index);
        }
        self.core.kernel.sleeps.borrow_mut().expire(now);
        // As it was before the wait; what has changed since is seen before the next one.
        if self.database_due.is_some_and(|at| at <= now) {
            self.core.kernel.database.on_deadline(now);
            self.core.has_asked = true;
        }
        if self.shards.on_deadline(&self.poll, now) {
            self.sweep(ACCEPTS_PER_WAKE_MAX);
        }
    }

    /// Looks at every shard, woken or not.
    fn sweep(&mut self, accepts_max: usize) {
        for shard in 0..self.shards.len() {
            self.accept_some(shard, accepts_max);
        }
    }

    /// Says "alive", and how busy this turn was.
    fn beat(&mut self, now: Instant) {
        self.ended = Instant::now();
        let ended = self.core.kernel.clock.nanoseconds(self.ended);
        self.core.block.beat(ended);
        self.core.block.add(Counter::BusyNanoseconds, ended.saturating_sub(self.began));
        if self.heartbeat_at <= now {
            self.heartbeat_at = now + HEARTBEAT_EVERY;
            self.publish_gauges();
            self.core.kernel.log.flush();
        }
    }

    fn publish_gauges(&mut self) {
        let mut counts = [0; 3];
        for (_, connection) in self.connections.iter_mut() {
            counts[connection.activity() as usize] += 1;
        }
        let block = self.core.block;
        block.set(Gauge::ConnectionsIdle, counts[Activity::Idle as usize]);
        block.set(Gauge::ConnectionsReading, counts[Activity::Reading as usize]);
        block.set(Gauge::ConnectionsWriting, counts[Activity::Writing as usize]);
        let database = self.core.kernel.database.counters();
        let known = &mut self.database_counted;
        block.add(Counter::DatabaseConnects, database.connects - known.connects);
        block.add(
            Counter::DatabaseConnectFailures,
            database.connect_failures - known.connect_failures,
        );
        block.add(Counter::DatabaseQueries, database.queries - known.queries);
        block.set(Gauge::DatabaseInFlight, database.in_flight);
        block.set(Gauge::DatabaseConnectionsUp, u64::from(self.core.kernel.database.is_up()));
        *known = database;
    }

    fn on_lifeline(&mut self) {
        while let Some(message) = self.lifeline.as_mut().and_then(Lifeline::next) {
            match message {
                Message::Order(Order::ReArm) => {
                    self.shards.re_arm(&self.poll);
                    self.sweep(ACCEPTS_PER_WAKE_MAX);
                }
                Message::Order(Order::SayClose) => self.core.drain.say_close(),
                Message::Order(Order::Final) => self.core.drain.set_final(),
                Message::End => {
                    self.core.kernel.log.warning(format_args!("The master is gone: finishing"));
                    self.core.drain.set_final();
                    self.drain();
                }
            }
        }
    }

    fn on_signals(&mut self) {
        // An order that was given before a signal was sent is carried out before it.
        self.on_lifeline();
        let signals = self.signals.take();
        if signals.contains(Signal::SIGUSR1) {
            self.core.kernel.log.reopen();
        }
        if signals.contains(Signal::SIGTERM) {
            self.drain();
        }
        if signals.contains(Signal::SIGQUIT) || signals.contains(Signal::SIGINT) {
            self.core.drain.quit();
        }
    }

    /// Begins to drain.
    fn drain(&mut self) {
        match self.core.drain.begin(self.core.now()) {
            Farewell::None => return,
            Farewell::CloseListeners => (),
            Farewell::AcceptAllThenClose => self.sweep(ACCEPTS_AT_END_MAX),
        }
        self.shards.close(&self.poll);
        self.core.kernel.is_draining.set(true);
        self.core.block.set_state(State::Draining);
        for (index, connection) in self.connections.iter_mut() {
            connection.on_drain(&self.core);
            if let Some(at) = connection.deadline() {
                self.timers.schedule(index, at);
            }
        }
    }
}

impl AsRawFd for EventLoop {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
