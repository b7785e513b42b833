//! The worker's loop. One turn: wait → clients → PostgreSQL → tasks → time → heartbeat.
//!
//! - One thread, one wait. Nothing in a turn blocks.
//! - Coalescing is the point: all queries of a turn leave in one write, all pipelined answers of a client in one.
//! - Tokens of connections hold a generation, so that an event for a connection that is gone never meets its successor.
//! - The loop can be stepped ([`EventLoop::turn`]) and waited for (`AsRawFd`), so that another loop can host it.

mod arrivals;
mod orders;
mod room;
mod tasks;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use scoreboard::{Counter, Gauge};
use sys::signal::Caught;
use timer::Timers;

use self::room::Evictions;
use self::tasks::Spawned;
use crate::accept::Shards;
use crate::connection::{Activity, Connection, Readiness, Verdict};
use crate::contract::Lifeline;
use crate::core::Core;
use crate::database;
use crate::executor::TaskKey;
use crate::host::AtWork;
use crate::peer::PeerText;
use crate::slots::Slots;

/// Time between two heartbeats of an idle worker.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// How much longer than by itself a request on a thread of the host's may stand still before the worker counts as silent: what
/// was told to end at its time limit has this long to do so.
const STANDSTILL_GRACE: Duration = Duration::from_secs(1);
/// Between the handlers of one turn a heartbeat is given after so many nanoseconds: it is one handler that must not be silent.
const HEARTBEAT_WITHIN_TURN_NS: u64 = HEARTBEAT_EVERY.as_nanos() as u64;
/// Deadlines of connections that are looked at in one turn: where a thousand come together, others have their turn between.
const EXPIRIES_PER_TURN_MAX: usize = 32;
/// Events taken from one wait.
const EVENTS_MAX: usize = 1024;
/// After a worker was full it accepts again when one in so many places is free: arming costs a system call per shard.
const CAPACITY_SLACK: usize = 16;

/// Tokens from here on belong to no connection: their upper half is a generation that is never given out.
const SPECIAL: usize = (u32::MAX as usize) << 32;
pub(crate) const ALARM: Token = Token(SPECIAL);
const SIGNALS: Token = Token(SPECIAL + 1);
const LIFELINE: Token = Token(SPECIAL + 2);
/// The shards', then the database's.
pub(crate) const FIRST_SHARD: usize = SPECIAL + 0x1_0000;
pub(crate) const FIRST_DATABASE: usize = SPECIAL + 0x2_0000;

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
    /// Nanoseconds of this turn that went to long responses.
    long_ns: u64,
    /// Tasks of long responses that wait for the next turn; kept for its memory.
    put_off: Vec<TaskKey>,
    /// Shards with connections to be taken in this turn; kept for its memory.
    ready_shards: Vec<usize>,
    /// `CLOCK_MONOTONIC` in nanoseconds when this turn began.
    began: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds of the last heartbeat in this turn, or its beginning.
    beaten: u64,
    /// When the last turn ended; the wait begins there.
    ended: Instant,
    heartbeat_at: Instant,
    /// When the database wants to be called.
    database_due: Option<Instant>,
    /// The last attempt to accept failed.
    accept_fails: bool,
    /// Connections that made way for new ones.
    evictions: Evictions,
    /// The host had no capacity at the end of the last turn.
    host_is_busy: bool,
    /// The latest heartbeat that may be given: a thread of the host's stands still.
    beat_max: u64,
    database_watch: database::Watch,
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
            long_ns: 0,
            put_off: Vec::new(),
            ready_shards: Vec::new(),
            began: 0,
            beaten: 0,
            ended: now,
            heartbeat_at: now,
            database_due: None,
            accept_fails: false,
            evictions: Evictions::default(),
            host_is_busy: false,
            beat_max: u64::MAX,
            database_watch: database::Watch::default(),
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
        self.beaten = self.began;
        self.core.date.update(now);

        self.attend_to_specials(&events);
        if self.core.drain.is_quitting() && self.is_over(now) {
            return Ok(Turn::Over); // Nothing is begun any more.
        }
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

        self.put_back_long();
        self.expire(now);
        self.flush_database(now);
        if let Some(access) = &mut self.core.access {
            access.flush();
        }
        self.watch_gate();
        self.beat(now);
        Ok(if self.is_over(now) { Turn::Over } else { Turn::GoOn })
    }

    /// Whether the worker is through; says what it leaves unfinished.
    fn is_over(&mut self, now: Instant) -> bool {
        if !self.core.drain.is_draining() {
            return false;
        }
        let left = self.connections.len();
        let at_work = self.core.host().map_or(0, |host| host.at_work());
        let is_over = self.core.drain.is_over(left + at_work, now);
        if is_over && left != 0 {
            self.core
                .kernel
                .log
                .warning(format_args!("Connections cut at the end connections={left}"));
            for (_, connection) in self.connections.iter_mut() {
                connection.give_up(&mut self.core);
            }
        }
        if is_over {
            self.end_spawned();
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
        if !wait.is_zero()
            && let Some(host) = self.core.host()
        {
            host.before_park();
        }
        let waited = self.poll.poll(events, Some(wait));
        if !wait.is_zero()
            && let Some(host) = self.core.host()
        {
            host.after_park();
        }
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
        self.database_due = kernel.database.next_deadline(self.ended);
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
            self.on_arrival(shard);
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
                if connection.watch(self.poll.registry()).is_err() {
                    return self.close(index);
                }
                if let Some(at) = connection.deadline() {
                    self.timers.schedule(index, at);
                }
            }
            Verdict::Close => self.close(index),
        }
        if HEARTBEAT_WITHIN_TURN_NS < self.core.tick.saturating_sub(self.beaten) {
            self.beaten = self.core.tick;
            self.core.block.beat(self.beaten);
        }
    }

    fn close(&mut self, index: u32) {
        let Some(mut gone) = self.connections.remove(index) else { return };
        // A request that was in hand is not any more.
        gone.abandon(&mut self.core);
        // A task that ended with it may have let go of a transaction, which is now to be rolled back.
        self.core.has_asked = true;
        self.timers.cancel(index);
        let capacity = self.capacity();
        if !self.host_is_busy && self.connections.len() < capacity - capacity / CAPACITY_SLACK {
            self.shards.set_full(&self.poll, false);
        }
    }

    /// Does what is due by now.
    fn expire(&mut self, now: Instant) {
        let (connections, core) = (&mut self.connections, &mut self.core);
        let registry = self.poll.registry();
        let mut closed = Vec::new();
        self.timers.expire(now, EXPIRIES_PER_TURN_MAX, &mut |index| {
            let connection = connections.get_mut(index)?;
            match connection.deadline() {
                Some(at) if at <= now => {
                    // As in `close`: the handler may end here.
                    core.has_asked = true;
                    match connection.on_deadline(core) {
                        Verdict::Keep if connection.watch(registry).is_ok() => {
                            connection.deadline()
                        }
                        _ => {
                            closed.push(index);
                            None
                        }
                    }
                }
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
        self.take_overdue(now);
        if self.shards.on_deadline(&self.poll, now) {
            self.sweep();
        }
    }

    /// Says "alive", and how busy this turn was.
    fn beat(&mut self, now: Instant) {
        self.ended = Instant::now();
        let ended = self.core.kernel.clock.nanoseconds(self.ended);
        self.core.block.beat(ended.min(self.beat_max));
        self.core.block.add(Counter::BusyNanoseconds, ended.saturating_sub(self.began));
        if self.heartbeat_at <= now {
            self.heartbeat_at = now + HEARTBEAT_EVERY;
            self.look_at_threads(ended);
            self.publish_gauges(now);
            self.core.kernel.log.flush();
            if let Some(access) = &mut self.core.access {
                access.report(&self.core.kernel.log);
            }
        }
    }

    /// Shows what the host's threads are at. One that stands still makes the worker silent: its master acts on that.
    fn look_at_threads(&mut self, now: u64) {
        if !self.core.shows_threads {
            return;
        }
        let Some(slowest) = self.core.host().map(|host| host.slowest(now)) else { return };
        let grace = STANDSTILL_GRACE.as_nanos() as u64;
        let still_since = slowest.as_ref().and_then(|request| request.still_since);
        self.beat_max = still_since.map_or(u64::MAX, |since| since + grace);
        match slowest {
            Some(AtWork { since, method, path, peer, .. }) => {
                let peer = PeerText::of(&peer);
                self.core.block.hold(since, method.as_bytes(), &path, peer.as_bytes());
            }
            None => self.core.block.let_go(),
        }
    }

    fn publish_gauges(&mut self, now: Instant) {
        let mut counts = [0; 3];
        for (_, connection) in self.connections.iter_mut() {
            counts[connection.activity() as usize] += 1;
        }
        let block = self.core.block;
        block.set(Gauge::ConnectionsIdle, counts[Activity::Idle as usize]);
        block.set(Gauge::ConnectionsReading, counts[Activity::Reading as usize]);
        block.set(Gauge::ConnectionsWriting, counts[Activity::Writing as usize]);
        if self.core.kernel.settings.database.is_none() {
            return; // A handle that leads nowhere: its failures are none.
        }
        self.database_watch.look(&self.core.kernel.database, block, &self.core.kernel.log, now);
    }
}

impl AsRawFd for EventLoop {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
