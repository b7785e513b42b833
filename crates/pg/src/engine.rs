//! What all handles of one database share: the connections, and who is woken when.
//!
//! Nobody is woken and nobody is told while the state is borrowed: a waker may drop a task, and with it a future of
//! ours that wants to be forgotten.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use mio::Token;
use mio::event::Event;

use crate::cancels::{CANCELS_MAX, Cancels};
use crate::common::{Common, Happened, earlier};
use crate::config::Config;
use crate::connect::TIMEOUT_MAX;
use crate::error::Error;
use crate::events::Events;
use crate::lanes::{Held, Lanes, Ticket};
use crate::link::Link;
use crate::pipeline::Pipeline;
use crate::requests::Requests;
use crate::rows::{Answer, Pool, Pooled};
use crate::statement::Statement;
use crate::tally::{Counters, Durations};

/// Texts remembered by [`crate::Database::statement`]; when there are more, all are forgotten.
const TEXTS_MAX: usize = 1024;

pub(crate) struct Core {
    state: RefCell<State>,
    pool: Rc<Pool>,
    events: Box<dyn Events>,
    first_token: usize,
    connections: usize,
    transactions_max: usize,
    texts: RefCell<Texts>,
    /// What was let go while the state was borrowed.
    orphans: RefCell<Vec<Orphan>>,
    /// Kept for its room.
    spare: Cell<Vec<Waker>>,
}

struct State {
    links: Vec<Link>,
    lanes: Lanes,
    cancels: Cancels,
    common: Common,
}

#[derive(Default)]
struct Texts {
    known: HashMap<Box<str>, Statement>,
    count: u64,
}

enum Orphan {
    Request(usize),
    Lane { lane: usize, session: u64, reusable: bool },
}

impl Core {
    pub fn new(
        mut config: Config,
        registry: mio::Registry,
        tokens: Range<usize>,
        events: Box<dyn Events>,
        now: Instant,
    ) -> Rc<Core> {
        config.connections = config.connections.max(1);
        config.connect_timeout = config.connect_timeout.min(TIMEOUT_MAX);
        config.query_timeout = config.query_timeout.min(TIMEOUT_MAX);
        debug_assert!(tokens.len() >= config.tokens_needed(), "too few tokens");
        let (connections, transactions_max) = (config.connections, config.transactions_max);
        let links = (0..connections)
            .map(|place| Link::new(place, Token(tokens.start + place), now))
            .collect();
        let lanes = Lanes::new(transactions_max, tokens.start + connections);
        let cancels = Cancels::new(tokens.start + connections + transactions_max);
        let requests = Requests::new(config.duration_bounds_ns);
        let pool = Rc::clone(&requests.pool);
        let common = Common {
            config: Rc::new(config),
            registry: Rc::new(registry),
            requests,
            happened: Vec::new(),
            cancels: Vec::new(),
            sessions: 0,
        };
        let core = Rc::new(Core {
            state: RefCell::new(State { links, lanes, cancels, common }),
            pool,
            events,
            first_token: tokens.start,
            connections,
            transactions_max,
            texts: RefCell::default(),
            orphans: RefCell::default(),
            spare: Cell::default(),
        });
        core.on_deadline(now);
        core
    }

    /// Does something with the state; then wakes and tells whom that concerns.
    fn drive<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let (result, mut woken, happened) = {
            let state = &mut *self.state.borrow_mut();
            for orphan in self.orphans.borrow_mut().drain(..) {
                state.let_go(orphan);
            }
            let result = act(state);
            let woken = std::mem::replace(&mut state.common.requests.woken, self.spare.take());
            (result, woken, std::mem::take(&mut state.common.happened))
        };
        for waker in woken.drain(..) {
            waker.wake();
        }
        self.spare.set(woken);
        for what in happened {
            match what {
                Happened::Connected { server, version, tls } => {
                    self.events.connected(&server, &version, tls)
                }
                Happened::Lost(why) => self.events.lost(&why),
                Happened::ConnectFailed { why, retry_in } => {
                    self.events.connect_failed(&why, retry_in)
                }
                Happened::Pooler(why) => self.events.pooler_in_the_way(&why),
            }
        }
        result
    }

    pub fn on_ready(&self, event: &Event, now: Instant) -> bool {
        let Some(index) = event.token().0.checked_sub(self.first_token) else { return false };
        if index >= self.connections + self.transactions_max + CANCELS_MAX {
            return false;
        }
        self.drive(|State { links, lanes, cancels, common }| {
            if let Some(link) = links.get_mut(index) {
                link.on_ready(event, now, common);
            } else if index - self.connections < self.transactions_max {
                lanes.on_ready(index - self.connections, event, now, common);
            } else {
                cancels.on_ready(index - self.connections - self.transactions_max);
            }
        });
        true
    }

    pub fn flush(&self, now: Instant) {
        self.drive(|State { links, lanes, cancels, common }| {
            for link in links {
                link.flush(now, common);
            }
            lanes.flush(now, common);
            cancels.begin(now, common);
        });
    }

    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let state = &mut *self.state.borrow_mut();
        if state.common.config.low_water {
            for link in &mut state.links {
                link.before_wait(now);
            }
        }
        let others = earlier(
            state.lanes.next_deadline(state.common.config.query_timeout),
            state.cancels.next_deadline(),
        );
        state.links.iter().fold(others, |next, link| earlier(next, link.next_deadline()))
    }

    pub fn on_deadline(&self, now: Instant) {
        self.drive(|State { links, lanes, cancels, common }| {
            for link in links {
                link.on_deadline(now, common);
            }
            lanes.on_deadline(now, common);
            cancels.on_deadline(now);
            cancels.begin(now, common);
        });
    }

    pub fn close(&self) {
        self.drive(|State { links, lanes, common, .. }| {
            for link in links {
                link.close(common);
            }
            lanes.close(common);
        });
    }

    pub fn is_up(&self) -> bool {
        self.state.borrow().links.iter().any(Link::is_up)
    }

    pub fn is_settled(&self) -> bool {
        self.state.borrow().links.iter().all(|link| link.settled)
    }

    pub fn counters(&self) -> Counters {
        let State { links, lanes, common, .. } = &*self.state.borrow();
        let in_flight = links.iter().map(Link::in_flight).sum::<usize>();
        let up = links.iter().filter(|link| link.is_up()).count() + lanes.open();
        let connecting = links.iter().filter(|link| link.is_coming()).count() + lanes.connecting();
        Counters {
            in_flight: in_flight as u64,
            up: up as u64,
            connecting: connecting as u64,
            ..common.requests.tally.counters
        }
    }

    pub fn take_durations(&self, into: impl FnOnce(&Durations)) {
        let durations = &mut self.state.borrow_mut().common.requests.tally.durations;
        into(durations);
        durations.reset();
    }

    pub fn statement(&self, sql: &str) -> Statement {
        let Texts { known, count } = &mut *self.texts.borrow_mut();
        if let Some(statement) = known.get(sql) {
            return statement.clone();
        }
        if known.len() >= TEXTS_MAX {
            known.clear();
        }
        *count += 1;
        let statement = Statement::new(sql, *count, self.connections);
        known.insert(sql.into(), statement.clone());
        statement
    }

    /// Asks something on the connection that has the least to do.
    #[inline]
    pub fn ask<R>(
        &self,
        ask: impl FnOnce(&mut Pipeline, &mut Requests) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let State { links, common, .. } = &mut *self.state.borrow_mut();
        let link = match links.as_mut_slice() {
            [only] => only,
            several => {
                let best = (0..several.len())
                    .min_by_key(|&index| (!several[index].is_up(), several[index].in_flight()))
                    .unwrap_or(0);
                &mut several[best]
            }
        };
        match link.up() {
            Ok(up) => ask(&mut up.pipeline, &mut common.requests),
            Err(why) => {
                common.requests.tally.counters.failed(why.kind(), 1);
                Err(why)
            }
        }
    }

    /// Waits for the answer to a request.
    pub fn wait(self: &Rc<Core>, slot: usize) -> Wait<'_> {
        Wait { core: self, slot, waiting: true }
    }

    /// An answer to fill, which returns to where it comes from.
    pub fn pooled(&self, answer: Answer) -> Pooled {
        Pooled::new(answer, &self.pool)
    }

    pub fn fresh(&self) -> Answer {
        crate::rows::fresh(&self.pool)
    }

    /// Queues for a connection of its own.
    pub fn ask_lane(&self) -> Result<Rc<Ticket>, Error> {
        let State { links, lanes, common, .. } = &mut *self.state.borrow_mut();
        let away = if links.iter().any(Link::is_up) { None } else { links.first_mut() };
        let asked = away.map_or(Ok(()), |link| link.up().map(drop)).and_then(|()| lanes.ask());
        if let Err(why) = &asked {
            common.requests.tally.counters.failed(why.kind(), 1);
        }
        asked
    }

    pub fn release(&self, lane: usize, session: u64, reusable: bool) {
        self.let_go(Orphan::Lane { lane, session, reusable });
    }

    pub fn has_rolled_back(&self, lane: usize, session: u64) -> bool {
        self.state.borrow().lanes.has_rolled_back(lane, session)
    }

    fn let_go(&self, orphan: Orphan) {
        match self.state.try_borrow_mut() {
            Ok(mut state) => state.let_go(orphan),
            Err(_) => self.orphans.borrow_mut().push(orphan),
        }
    }
}

impl State {
    fn let_go(&mut self, orphan: Orphan) {
        match orphan {
            Orphan::Request(slot) => self.common.requests.abandon(slot),
            Orphan::Lane { lane, session, reusable } => self.lanes.release(lane, session, reusable),
        }
    }
}

/// The future of one request's answer; dropping it discards the answer.
pub(crate) struct Wait<'c> {
    core: &'c Rc<Core>,
    slot: usize,
    waiting: bool,
}

impl Future for Wait<'_> {
    type Output = Result<Answer, Error>;

    #[inline]
    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.core.state.borrow_mut().common.requests.poll(self.slot, context.waker());
        if polled.is_ready() {
            self.waiting = false;
        }
        polled
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.waiting {
            self.core.let_go(Orphan::Request(self.slot));
        }
    }
}

/// The future of a connection of its own; dropping it leaves the queue.
pub(crate) struct WaitForLane<'c> {
    pub core: &'c Rc<Core>,
    pub ticket: Rc<Ticket>,
}

impl Future for WaitForLane<'_> {
    type Output = Result<Held, Error>;

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.ticket.poll(context)
    }
}

impl Drop for WaitForLane<'_> {
    fn drop(&mut self) {
        if let Some(Held { lane, session, .. }) = self.ticket.give_up() {
            self.core.release(lane, session, true);
        }
    }
}
