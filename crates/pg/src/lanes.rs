//! Connections that one task has to itself: opened on demand, kept a while, carried by tokio-postgres entirely.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event;
use tokio_postgres::Client;

use crate::cancels::Order;
use crate::common::{Common, earlier};
use crate::connect::{Attempt, Progress, Session};
use crate::driver::Driver;
use crate::error::{Error, Kind};
use crate::opening::Route;
use crate::scanner::Scanner;
use crate::socket::Socket;
use crate::wire::WIRE_BYTES_MAX;

/// Tasks that may wait for a connection; beyond, asking for one is refused as overload.
const WAITING_MAX: usize = 1024;

/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    waiting: VecDeque<Rc<Ticket>>,
    first_token: usize,
}

enum Lane {
    Empty,
    Connecting(Box<Attempt>),
    Open(Box<Open>),
}

struct Open {
    session: u64,
    socket: Socket,
    route: Route,
    driver: Driver,
    holder: Holder,
    /// Whether the socket may hold more than was read.
    readable: bool,
    asked: Scanner,
    answered: Scanner,
    /// Requests that the server has not concluded.
    due: i64,
    in_transaction: bool,
    /// The first letter of the last command's tag.
    last_command: u8,
    last_moved: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Holder {
    Nobody,
    Task,
    /// The task is done; whatever it began is being concluded.
    Leaving,
}

/// A task that waits for a connection.
#[derive(Default)]
pub(crate) struct Ticket(RefCell<Turn>);

#[derive(Default)]
struct Turn {
    result: Option<Result<Held, Error>>,
    waker: Option<Waker>,
    deadline: Option<Instant>,
    gone: bool,
}

/// A connection that was handed out.
pub(crate) struct Held {
    pub lane: usize,
    pub session: u64,
    pub client: Rc<Client>,
}

impl Ticket {
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Result<Held, Error>> {
        let mut turn = self.0.borrow_mut();
        match turn.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                turn.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The task waits no more; what it was given meanwhile, if anything.
    pub fn give_up(&self) -> Option<Held> {
        let mut turn = self.0.borrow_mut();
        turn.gone = true;
        turn.result.take()?.ok()
    }

    fn conclude(&self, result: Result<Held, Error>, woken: &mut Vec<Waker>) {
        let mut turn = self.0.borrow_mut();
        turn.result = Some(result);
        woken.extend(turn.waker.take());
    }
}

impl Lanes {
    pub fn new(count: usize, first_token: usize) -> Lanes {
        Lanes {
            lanes: (0..count).map(|_| Lane::Empty).collect(),
            waiting: VecDeque::new(),
            first_token,
        }
    }

    /// Queues for a connection; [`Lanes::flush`] hands them out.
    pub fn ask(&mut self) -> Result<Rc<Ticket>, Error> {
        if self.waiting.len() >= WAITING_MAX || self.lanes.is_empty() {
            return Err(Error::new(
                Kind::Overloaded,
                "too many tasks wait for a connection of their own",
            ));
        }
        let ticket = Rc::new(Ticket::default());
        self.waiting.push_back(Rc::clone(&ticket));
        Ok(ticket)
    }

    /// Takes a connection back. `reusable`: whatever is open on it is rolled back, and it serves another task.
    pub fn release(&mut self, index: usize, session: u64, reusable: bool) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        if let Lane::Open(open) = lane
            && open.session == session
        {
            if reusable {
                open.holder = Holder::Leaving;
                // So that the next flush looks at it.
                open.driver.raise();
            } else {
                open.say_goodbye();
                *lane = Lane::Empty;
            }
        }
    }

    /// Connections that are up.
    pub fn open(&self) -> usize {
        self.lanes.iter().filter(|lane| matches!(lane, Lane::Open(_))).count()
    }

    /// Connections that are being made.
    pub fn connecting(&self) -> usize {
        self.lanes.iter().filter(|lane| matches!(lane, Lane::Connecting(_))).count()
    }

    /// Whether the last command that was completed on a connection was a rollback: what the server makes of a
    /// COMMIT if the transaction has failed before.
    pub fn has_rolled_back(&self, index: usize, session: u64) -> bool {
        matches!(self.lanes.get(index), Some(Lane::Open(open))
            if open.session == session && open.last_command == b'R')
    }

    pub fn on_ready(&mut self, index: usize, event: &Event, now: Instant, common: &mut Common) {
        match self.lanes.get_mut(index) {
            Some(Lane::Connecting(_)) => self.go_on_connecting(index, now, common),
            Some(Lane::Open(open)) => {
                open.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                self.pump(index, now);
            }
            _ => (),
        }
        self.serve(now, common);
    }

    pub fn flush(&mut self, now: Instant, common: &mut Common) {
        for index in 0..self.lanes.len() {
            if let Some(Lane::Open(open)) = self.lanes.get(index)
                && open.driver.wants_poll()
            {
                self.pump(index, now);
            }
        }
        for ticket in self.waiting.iter().rev() {
            let deadline = &mut ticket.0.borrow_mut().deadline;
            if deadline.is_some() {
                break;
            }
            *deadline = Some(now + common.config.query_timeout);
        }
        self.serve(now, common);
    }

    pub fn next_deadline(&self, limit: Duration) -> Option<Instant> {
        let waiting = self.waiting.iter().find_map(|ticket| ticket.0.borrow().deadline);
        self.lanes.iter().fold(waiting, |next, lane| {
            let at = match lane {
                Lane::Empty => None,
                Lane::Connecting(attempt) => Some(attempt.deadline()),
                Lane::Open(open) => open.deadline(limit),
            };
            earlier(next, at)
        })
    }

    pub fn on_deadline(&mut self, now: Instant, common: &mut Common) {
        for index in 0..self.lanes.len() {
            match &mut self.lanes[index] {
                Lane::Connecting(attempt) if attempt.deadline() <= now => {
                    self.go_on_connecting(index, now, common)
                }
                Lane::Open(open)
                    if open.deadline(common.config.query_timeout).is_some_and(|at| at <= now) =>
                {
                    if open.holder == Holder::Nobody {
                        open.say_goodbye();
                    } else {
                        let (route, bytes) = (open.route.clone(), open.driver.cancel_request());
                        common.cancels.push(Order { route, bytes });
                    }
                    self.lanes[index] = Lane::Empty;
                }
                _ => (),
            }
        }
        let limit = common.config.query_timeout;
        while let Some(ticket) = self.waiting.front() {
            if ticket.0.borrow().deadline.is_none_or(|at| at > now) {
                break;
            }
            let what = format!("no connection was free within {limit:?}");
            common.requests.tally.counters.failed(Kind::TimedOut, 1);
            ticket.conclude(Err(Error::new(Kind::TimedOut, what)), &mut common.requests.woken);
            self.waiting.pop_front();
        }
        self.serve(now, common);
    }

    /// Closes all; whoever waits is told.
    pub fn close(&mut self, common: &mut Common) {
        let why = Error::new(Kind::Unavailable, "the database handle is closed");
        self.fail_waiting(&why, common);
        for lane in self.lanes.drain(..) {
            if let Lane::Open(mut open) = lane {
                open.say_goodbye();
            }
        }
    }

    fn fail_waiting(&mut self, why: &Error, common: &mut Common) {
        common.requests.tally.counters.failed(why.kind(), self.waiting.len());
        for ticket in self.waiting.drain(..) {
            ticket.conclude(Err(why.clone()), &mut common.requests.woken);
        }
    }

    /// Hands idle connections to those who wait, and opens more if that does not suffice.
    fn serve(&mut self, now: Instant, common: &mut Common) {
        self.waiting.retain(|ticket| !ticket.0.borrow().gone);
        self.hand_out(now, common);
        self.open_more(now, common);
        // A server may be so quick that a connection is up before there is anything to wait for.
        self.hand_out(now, common);
    }

    fn hand_out(&mut self, now: Instant, common: &mut Common) {
        if self.waiting.is_empty() {
            return;
        }
        for (lane, open) in self.lanes.iter_mut().enumerate() {
            let Lane::Open(open) = open else { continue };
            if open.holder == Holder::Nobody
                && let Some(ticket) = self.waiting.pop_front()
            {
                open.holder = Holder::Task;
                open.last_moved = now;
                let held =
                    Held { lane, session: open.session, client: Rc::clone(&open.driver.client) };
                ticket.conclude(Ok(held), &mut common.requests.woken);
            }
        }
    }

    fn open_more(&mut self, now: Instant, common: &mut Common) {
        let on_their_way = self
            .lanes
            .iter()
            .filter(|lane| match lane {
                Lane::Connecting(_) => true,
                Lane::Open(open) => open.holder == Holder::Leaving,
                Lane::Empty => false,
            })
            .count();
        let mut wanted = self.waiting.len().saturating_sub(on_their_way);
        for index in 0..self.lanes.len() {
            if wanted > 0 && matches!(self.lanes[index], Lane::Empty) {
                let token = Token(self.first_token + index);
                let attempt = Attempt::new(&common.config, &common.registry, token, now);
                self.lanes[index] = Lane::Connecting(Box::new(attempt));
                wanted -= 1;
                self.go_on_connecting(index, now, common);
            }
        }
    }

    fn go_on_connecting(&mut self, index: usize, now: Instant, common: &mut Common) {
        let Some(Lane::Connecting(attempt)) = self.lanes.get_mut(index) else { return };
        match attempt.go_on(now) {
            Progress::Pending => (),
            Progress::Up(session) => {
                common.sessions += 1;
                common.requests.tally.counters.connects += 1;
                self.lanes[index] = Lane::Open(Box::new(Open::new(*session, common.sessions, now)));
                self.pump(index, now);
            }
            Progress::Failed(why) => {
                common.requests.tally.counters.connect_failures += 1;
                self.lanes[index] = Lane::Empty;
                let why = Error::because(
                    Kind::Unavailable,
                    "no connection of its own could be opened",
                    &why,
                );
                if self.lanes.iter().any(|lane| matches!(lane, Lane::Open(_))) {
                    // The others may still be served by the connections that there are.
                    if let Some(ticket) = self.waiting.pop_front() {
                        common.requests.tally.counters.failed(why.kind(), 1);
                        ticket.conclude(Err(why), &mut common.requests.woken);
                    }
                } else {
                    self.fail_waiting(&why, common);
                }
            }
        }
    }

    fn pump(&mut self, index: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        if let Lane::Open(open) = lane
            && !open.pump(now)
        {
            *lane = Lane::Empty;
        }
    }
}

impl Open {
    fn new(session: Session, number: u64, now: Instant) -> Open {
        let Session { socket, driver, route, unread } = session;
        let mut open = Open {
            session: number,
            socket,
            route,
            driver,
            holder: Holder::Nobody,
            readable: true,
            asked: Scanner::default(),
            answered: Scanner::default(),
            due: 0,
            in_transaction: false,
            last_command: 0,
            last_moved: now,
        };
        open.received(&unread);
        open
    }

    /// Carries bytes both ways until neither moves; `false` if the connection is over.
    fn pump(&mut self, now: Instant) -> bool {
        loop {
            let read = match self.read() {
                Ok(read) => read,
                Err(_) => {
                    // tokio-postgres tells its client.
                    self.driver.wire.0.borrow_mut().ended = true;
                    self.driver.poll();
                    return false;
                }
            };
            if self.driver.poll().is_some() {
                return false;
            }
            let Ok(written) = self.write() else { return false };
            if read || written {
                self.last_moved = now;
            } else if self.driver.wants_poll() {
                // Its channel has room again.
            } else if self.holder == Holder::Leaving && self.due <= 0 {
                if self.in_transaction {
                    self.roll_back();
                } else {
                    self.holder = Holder::Nobody;
                    return true;
                }
            } else {
                return true;
            }
        }
    }

    fn read(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let mut any = false;
        while self.readable && self.driver.wire.0.borrow().inbound.len() < WIRE_BYTES_MAX {
            match self.socket.read(&mut buffer)? {
                None => self.readable = false,
                Some(0) if any => break,
                Some(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Some(count) => {
                    any = true;
                    self.received(&buffer[..count]);
                }
            }
        }
        Ok(any)
    }

    fn received(&mut self, bytes: &[u8]) {
        let (due, in_transaction) = (&mut self.due, &mut self.in_transaction);
        let last_command = &mut self.last_command;
        self.answered.feed(bytes, |tag, first| match tag {
            b'Z' => {
                *due -= 1;
                *in_transaction = first != b'I';
            }
            b'C' => *last_command = first,
            // While it takes a COPY, the server overlooks the Sync that was sent with the query.
            b'G' => *due -= 1,
            _ => (),
        });
        self.driver.wire.0.borrow_mut().inbound.extend_from_slice(bytes);
    }

    fn write(&mut self) -> std::io::Result<bool> {
        let mut wire = self.driver.wire.0.borrow_mut();
        if wire.outbound.is_empty() {
            return Ok(false);
        }
        let written = self.socket.write(&wire.outbound)?;
        let written = wire.outbound.split_to(written);
        let due = &mut self.due;
        self.asked.feed(&written, |tag, _| *due += i64::from(matches!(tag, b'S' | b'Q')));
        Ok(!written.is_empty())
    }

    /// Asks for a ROLLBACK and waits for nothing: the answer is waited for by whoever pumps.
    fn roll_back(&mut self) {
        self.in_transaction = false;
        let client = Rc::clone(&self.driver.client);
        let mut asked = std::pin::pin!(client.batch_execute("ROLLBACK"));
        let _ = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    fn say_goodbye(&mut self) {
        // Terminate; that it may not reach the server is of no consequence.
        if self.driver.wire.0.borrow().outbound.is_empty() {
            let _ = self.socket.write(b"X\0\0\0\x04");
        }
    }

    fn deadline(&self, limit: Duration) -> Option<Instant> {
        match self.holder {
            Holder::Nobody => Some(self.last_moved + IDLE_MAX),
            _ if self.due > 0 => Some(self.last_moved + limit),
            _ => None,
        }
    }
}
