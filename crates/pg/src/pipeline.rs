//! One connection's conversation, without its socket: what was asked, in order, and whose turn the next reply is.
//!
//! - Every query ends in a Sync of its own, so every reply ends in one ReadyForQuery, and an error harms one query.
//! - The queue holds an entry for everything that was asked, in the order of the bytes; replies come in that order.
//! - tokio-postgres may ask on the same wire (type lookups): its replies are handed back to it byte by byte.
//! - Deadlines: a request has its own, from when it was sent. The line as a whole has the first entry's, counted
//!   from when that entry became the first: only that says that the server is stuck, and costs the connection.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_types::ToSql;

use crate::encode;
use crate::error::{Error, Kind, SqlError};
use crate::message::{self, Malformed, Message};
use crate::requests::Requests;
use crate::rows::{self, Answer, Unit};
use crate::statement::{Inner as Statement, Shape};

/// Queries sent and not yet answered, per connection; more wait here, unsent.
pub(crate) const IN_FLIGHT_MAX: usize = 8192;

/// Bytes that wait for the socket, per connection; once reached, further queries wait unsent.
pub(crate) const OUT_BYTES_MAX: usize = 1 << 20;

/// Bytes of queries that wait unsent, per connection; beyond, a query is refused as overload.
pub(crate) const HELD_BYTES_MAX: usize = 32 << 20;

/// Largest single message accepted from the server.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// No reply is shorter: BindComplete, EmptyQueryResponse, ReadyForQuery.
const REPLY_BYTES_MIN: usize = 16;

/// The server uses these codes when it does not know a statement's name, or knows it already.
const POOLER_CODES: [&str; 2] = ["26000", "42P05"];

/// The plan no longer fits the schema.
const FEATURE_NOT_SUPPORTED: &str = "0A000";

pub(crate) struct Pipeline {
    /// Which of the shared connections this is, and the number of its session.
    place: usize,
    session: u64,
    named: bool,
    statements_max: usize,
    prepared: Vec<Rc<Statement>>,
    tick: u64,
    /// Bytes for the server; those before `sent` are on their way.
    pub out: BytesMut,
    pub sent: usize,
    queue: VecDeque<Expected>,
    /// How many entries at the queue's end have not been sent yet.
    undated: usize,
    in_flight: usize,
    first_since: Instant,
    held: VecDeque<Held>,
    held_bytes: usize,
    parsing: Parsing,
    /// About how many bytes the server sends for a reply; rather too few.
    reply_bytes: usize,
    pub report: Report,
}

/// What the owner of the socket must act on after [`Pipeline::take`].
#[derive(Default)]
pub(crate) struct Report {
    /// Statements with types that PostgreSQL has not built in: to be looked up.
    pub unknown: Vec<Rc<Statement>>,
    /// Bytes were added to the driver's.
    pub driver_fed: bool,
    /// A pooler stands in between; said once.
    pub pooler: Option<Error>,
    pooler_told: bool,
    /// A warning that the server is about to end: the last thing it says in an immediate stop or after a crash.
    pub last_words: Option<SqlError>,
}

struct Expected {
    owner: Owner,
    timeout: Duration,
    deadline: Option<Instant>,
}

enum Owner {
    /// The next `left` replies go to this request.
    Request { slot: usize, left: usize },
    /// Parse and Describe of a statement.
    Parse(Rc<Statement>),
    /// The next `left` replies come too late for their request. They are in flight until they come: the server owes
    /// them, and the socket brings them.
    Late { left: usize },
    /// One reply that nobody waits for: to Close, or too late for who wanted to know a statement.
    Nobody,
    /// tokio-postgres asked.
    Driver,
}

/// A request that waits unsent.
struct Held {
    slot: usize,
    bytes: usize,
    timeout: Duration,
    deadline: Option<Instant>,
}

/// What was seen of a reply to Parse and Describe.
#[derive(Default)]
struct Parsing {
    params: Vec<u32>,
    columns: Vec<(Box<str>, u32)>,
    failure: Option<SqlError>,
}

/// Why the connection cannot go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The server sent what the protocol does not allow here.
    Malformed(&'static str),
    /// The server says goodbye.
    Farewell(SqlError),
    /// Somebody sent a statement that only works on a connection of its own.
    NotShared(&'static str),
}

impl From<Malformed> for Broken {
    fn from(Malformed(what): Malformed) -> Broken {
        Broken::Malformed(what)
    }
}

impl Pipeline {
    pub fn new(
        place: usize,
        session: u64,
        named: bool,
        statements_max: usize,
        now: Instant,
    ) -> Pipeline {
        Pipeline {
            place,
            session,
            named,
            statements_max,
            prepared: Vec::new(),
            tick: 0,
            out: BytesMut::new(),
            sent: 0,
            queue: VecDeque::new(),
            undated: 0,
            in_flight: 0,
            first_since: now,
            held: VecDeque::new(),
            held_bytes: 0,
            parsing: Parsing::default(),
            reply_bytes: REPLY_BYTES_MIN,
            report: Report::default(),
        }
    }

    /// Whether no reply is due, to whatever was asked.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queries of requests that were sent and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// About how many bytes the server sends for a reply; rather too few.
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    fn is_full(&self) -> bool {
        self.in_flight >= IN_FLIGHT_MAX || self.out.len() >= OUT_BYTES_MAX || !self.held.is_empty()
    }

    /// Writes one query; its answer goes to the slot returned.
    #[inline]
    pub fn ask(
        &mut self,
        statement: &Rc<Statement>,
        shape: &Shape,
        params: &[&(dyn ToSql + Sync)],
        timeout: Duration,
        requests: &mut Requests,
    ) -> Result<usize, Error> {
        if self.is_full() {
            let mut answer = rows::fresh(&requests.pool);
            encode::query(statement, shape, self.named, params, &mut answer.asked)?;
            let unit = Unit { end: answer.asked.len(), ..Unit::new(Rc::clone(statement)) };
            answer.units.push(unit);
            return self.send(answer, timeout, requests);
        }
        if self.named {
            self.see_prepared(statement)?;
        }
        encode::query(statement, shape, self.named, params, &mut self.out)?;
        let mut answer = rows::fresh(&requests.pool);
        answer.units.push(Unit::new(Rc::clone(statement)));
        let slot = requests.add(answer);
        self.expect(Owner::Request { slot, left: 1 }, timeout, None);
        self.in_flight += 1;
        Ok(slot)
    }

    /// Sends queries that are written already, in `answer.asked`; its units say where in there each ends.
    pub fn send(
        &mut self,
        answer: Answer,
        timeout: Duration,
        requests: &mut Requests,
    ) -> Result<usize, Error> {
        if !self.is_full() {
            let slot = requests.add(answer);
            self.send_slot(slot, timeout, None, requests);
            return Ok(slot);
        }
        let bytes = answer.asked.len();
        if self.held_bytes + bytes > HELD_BYTES_MAX {
            requests.tally.counters.failed(Kind::Overloaded, answer.units.len());
            rows::recycle(answer, &requests.pool);
            return Err(Error::new(Kind::Overloaded, "too many queries wait for the database"));
        }
        let slot = requests.add(answer);
        self.held_bytes += bytes;
        self.held.push_back(Held { slot, bytes, timeout, deadline: None });
        Ok(slot)
    }

    fn send_slot(
        &mut self,
        slot: usize,
        timeout: Duration,
        deadline: Option<Instant>,
        requests: &mut Requests,
    ) {
        let Some(answer) = requests.answer_mut(slot) else { return };
        let bytes = &answer.asked;
        let (mut begun, mut end, mut left) = (0, 0, 0);
        self.tick += 1;
        let mut last: *const Statement = std::ptr::null();
        for unit in &mut answer.units {
            let is_another = !std::ptr::eq(last, Rc::as_ptr(&unit.statement));
            last = Rc::as_ptr(&unit.statement);
            if self.named
                && is_another
                && !unit.statement.is_prepared(self.place, self.session, self.tick)
            {
                // What is written so far goes first: the name given up for the new one may be among it.
                self.send_run(slot, &bytes[begun..end], left, timeout, deadline);
                (begun, left) = (end, 0);
                // It was encoded before, so it can be encoded; if not, the server will say so.
                let _ = self.see_prepared(&unit.statement);
            }
            end = std::mem::take(&mut unit.end).clamp(end, bytes.len());
            left += 1;
        }
        self.send_run(slot, &bytes[begun..end], left, timeout, deadline);
        answer.asked.clear();
    }

    fn send_run(
        &mut self,
        slot: usize,
        bytes: &[u8],
        queries: usize,
        timeout: Duration,
        deadline: Option<Instant>,
    ) {
        if queries > 0 {
            self.out.extend_from_slice(bytes);
            self.expect(Owner::Request { slot, left: queries }, timeout, deadline);
            self.in_flight += queries;
        }
    }

    fn expect(&mut self, owner: Owner, timeout: Duration, deadline: Option<Instant>) {
        self.queue.push_back(Expected { owner, timeout, deadline });
        self.undated += 1;
    }

    /// Has the server learn the name, if it does not know it yet.
    fn see_prepared(&mut self, statement: &Rc<Statement>) -> Result<(), Error> {
        self.tick += 1;
        if statement.is_prepared(self.place, self.session, self.tick) {
            return Ok(());
        }
        self.parse(statement, Duration::MAX)
    }

    /// Asks what a statement's parameters and columns are, and gives it its name.
    pub fn parse(&mut self, statement: &Rc<Statement>, timeout: Duration) -> Result<(), Error> {
        if self.named {
            self.forget_name(statement);
            self.make_room();
        }
        encode::parse(statement, self.named, &mut self.out)?;
        if self.named {
            statement.set_prepared(self.place, self.session);
            self.prepared.push(Rc::clone(statement));
        }
        self.expect(Owner::Parse(Rc::clone(statement)), timeout, None);
        Ok(())
    }

    fn forget_name(&mut self, statement: &Rc<Statement>) {
        self.prepared.retain(|other| !Rc::ptr_eq(other, statement));
    }

    /// Closes the name that was not used for longest, if there are as many as there may be.
    fn make_room(&mut self) {
        if self.prepared.len() < self.statements_max {
            return;
        }
        let oldest = (0..self.prepared.len())
            .min_by_key(|&index| self.prepared[index].last_used(self.place));
        if let Some(index) = oldest {
            let statement = self.prepared.swap_remove(index);
            statement.set_unprepared(self.place);
            encode::close(&statement, &mut self.out);
            self.expect(Owner::Nobody, Duration::MAX, None);
        }
    }

    /// Takes what tokio-postgres wants to ask.
    pub fn ask_for_driver(&mut self, bytes: &[u8], timeout: Duration) {
        let mut rest = bytes;
        while let Ok(Some(length)) = message::length(rest) {
            if matches!(rest.first(), Some(b'S' | b'Q')) {
                self.expect(Owner::Driver, timeout, None);
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        self.out.extend_from_slice(bytes);
    }

    /// Moves what waited unsent, as far as there is room.
    pub fn release_held(&mut self, requests: &mut Requests) {
        while self.in_flight < IN_FLIGHT_MAX && self.out.len() < OUT_BYTES_MAX {
            let Some(held) = self.held.pop_front() else { return };
            self.held_bytes -= held.bytes;
            if !requests.free_if_abandoned(held.slot) {
                self.send_slot(held.slot, held.timeout, held.deadline, requests);
            }
        }
    }

    /// What was asked is being sent: deadlines begin. Returns the earliest of the new ones.
    pub fn date(&mut self, now: Instant, default: Duration) -> Option<Instant> {
        if self.undated == 0 && self.held.back().is_none_or(|held| held.deadline.is_some()) {
            return None;
        }
        let dated = self.queue.len().saturating_sub(self.undated);
        if dated == 0 {
            self.first_since = now;
        }
        self.undated = 0;
        let mut earliest: Option<Instant> = None;
        let queued =
            self.queue.range_mut(dated..).map(|entry| (&mut entry.timeout, &mut entry.deadline));
        let held = self.held.iter_mut().rev().take_while(|held| held.deadline.is_none());
        for (timeout, deadline) in
            queued.chain(held.map(|held| (&mut held.timeout, &mut held.deadline)))
        {
            if *timeout == Duration::MAX {
                *timeout = default;
            }
            let at = *deadline.get_or_insert_with(|| now + *timeout);
            earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
        }
        earliest
    }

    /// Ends the wait of requests that are overdue. `Err(())`: the server is stuck, the connection is of no more use.
    /// Otherwise the next time to call this.
    pub fn expire(&mut self, now: Instant, requests: &mut Requests) -> Result<Option<Instant>, ()> {
        let mut next: Option<Instant> = None;
        let mut earlier = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for entry in &mut self.queue {
            match entry.deadline {
                Some(at) if at <= now => {
                    entry.deadline = None;
                    match &entry.owner {
                        Owner::Request { slot, left } => {
                            requests.fail(*slot, &timed_out(entry.timeout));
                            entry.owner = Owner::Late { left: *left };
                        }
                        Owner::Parse(statement) => {
                            statement.not_learned(timed_out(entry.timeout), &mut requests.woken);
                            statement.set_unprepared(self.place);
                            entry.owner = Owner::Nobody;
                        }
                        Owner::Late { .. } | Owner::Nobody | Owner::Driver => (),
                    }
                }
                Some(at) => earlier(at),
                None => (),
            }
        }
        let held_bytes = &mut self.held_bytes;
        self.held.retain(|held| match held.deadline {
            Some(at) if at <= now => {
                *held_bytes -= held.bytes;
                requests.fail(held.slot, &timed_out(held.timeout));
                false
            }
            Some(at) => {
                earlier(at);
                true
            }
            None => true,
        });
        if let Some(first) = self.queue.front()
            && self.queue.len() > self.undated
        {
            let at = self.first_since + first.timeout;
            if at <= now {
                return Err(());
            }
            earlier(at);
        }
        Ok(next)
    }

    /// The connection is over: everybody who waits is told why.
    pub fn fail_all(&mut self, why: &Error, requests: &mut Requests) {
        for held in self.held.drain(..) {
            requests.fail(held.slot, why);
        }
        for entry in self.queue.drain(..) {
            match entry.owner {
                Owner::Request { slot, .. } => requests.fail(slot, why),
                Owner::Parse(statement) => statement.not_learned(why.clone(), &mut requests.woken),
                Owner::Late { .. } | Owner::Nobody | Owner::Driver => (),
            }
        }
        for statement in self.report.unknown.drain(..) {
            statement.not_learned(why.clone(), &mut requests.woken);
        }
        (self.undated, self.in_flight, self.held_bytes) = (0, 0, 0);
    }

    /// Takes what arrived, as far as messages are complete; returns how many bytes that is. What belongs to
    /// tokio-postgres is appended to `driver`.
    pub fn take(
        &mut self,
        bytes: &[u8],
        driver: &mut BytesMut,
        requests: &mut Requests,
        now: Instant,
    ) -> Result<usize, Broken> {
        let mut rest = bytes;
        let (mut replies, mut reply_bytes) = (0_usize, 0_usize);
        let mut waits = Waits::default();
        loop {
            if let Some(Expected { owner: Owner::Request { slot, left }, timeout, deadline }) =
                self.queue.front_mut()
            {
                let slot = *slot;
                let was_sent = (*timeout, *deadline);
                let before = rest.len();
                let over = take_replies(slot, left, &mut rest, requests)?;
                replies += over.replies;
                reply_bytes += before - rest.len();
                self.in_flight = self.in_flight.saturating_sub(over.replies);
                if over.replies > 0 {
                    self.first_since = now;
                    requests.tally.counters.queries += over.replies as u64;
                    waits.count(was_sent, over.replies, now, requests);
                }
                if let Some(message) = over.refusal {
                    self.refuse(slot, &message, requests)?;
                    continue;
                }
                if over.entry {
                    self.pop();
                    continue;
                }
            }
            let Some(message) = message::first(rest, MESSAGE_BYTES_MAX)? else {
                waits.count((Duration::ZERO, None), 0, now, requests);
                if let Some(each) = reply_bytes.checked_div(replies) {
                    let grown = self.reply_bytes + self.reply_bytes / 8 + 1;
                    self.reply_bytes = each.clamp(REPLY_BYTES_MIN, grown);
                }
                return Ok(bytes.len() - rest.len());
            };
            rest = &rest[message.whole.len()..];
            self.take_other(&message, driver, requests, now)?;
        }
    }

    /// A message that is not part of an ordinary reply to a request.
    fn take_other(
        &mut self,
        message: &Message<'_>,
        driver: &mut BytesMut,
        requests: &mut Requests,
        now: Instant,
    ) -> Result<(), Broken> {
        match message.tag {
            b'Z' => check_idle(message)?,
            b'N' => self.take_notice(message)?,
            _ => (),
        }
        let Some(Expected { owner, .. }) = self.queue.front_mut() else {
            return take_unasked(message);
        };
        match owner {
            Owner::Request { .. } => take_common(message)?,
            Owner::Driver => {
                driver.extend_from_slice(message.whole);
                self.report.driver_fed = true;
                if message.tag == b'Z' {
                    self.first_since = now;
                    self.pop();
                }
            }
            Owner::Late { .. } | Owner::Nobody => match message.tag {
                b'Z' => {
                    self.first_since = now;
                    self.end_unwanted();
                }
                b'1' | b'2' | b'3' | b'n' | b't' | b'T' | b'D' | b'C' | b'I' => (),
                b'E' => drop(error(message)?),
                _ => take_common(message)?,
            },
            Owner::Parse(statement) => match message.tag {
                b'1' | b'3' => (),
                b't' => self.parsing.params = message::parameter_oids(message.body)?,
                b'T' => self.parsing.columns = message::column_oids(message.body)?,
                b'n' => self.parsing.columns.clear(),
                b'E' => self.parsing.failure = Some(error(message)?),
                b'Z' => {
                    let statement = Rc::clone(statement);
                    self.parsed(&statement, requests);
                    self.first_since = now;
                    self.pop();
                }
                _ => take_common(message)?,
            },
        }
        Ok(())
    }

    /// A reply that interests nobody is over.
    fn end_unwanted(&mut self) {
        if let Some(Expected { owner: Owner::Late { left }, .. }) = self.queue.front_mut() {
            self.in_flight = self.in_flight.saturating_sub(1);
            *left -= 1;
            if *left > 0 {
                return;
            }
        }
        self.pop();
    }

    /// Everything that the first entry waited for has come.
    fn pop(&mut self) {
        self.queue.pop_front();
        // What was never counted as sent cannot have been answered, but a server may lie.
        self.undated = self.undated.min(self.queue.len());
    }

    #[cold]
    fn take_notice(&mut self, message: &Message<'_>) -> Result<(), Broken> {
        let notice = message::sql_error(message.body)?;
        if notice.is_unavailable() {
            self.report.last_words = Some(notice);
        }
        Ok(())
    }

    #[cold]
    fn refuse(
        &mut self,
        slot: usize,
        message: &Message<'_>,
        requests: &mut Requests,
    ) -> Result<(), Broken> {
        let sql = error(message)?;
        requests.tally.counters.refused += 1;
        let pooler = self.named && POOLER_CODES.contains(&sql.code());
        let stale = sql.code() == FEATURE_NOT_SUPPORTED && sql.message().contains("cached plan");
        let error = Error::refused("the server refused the query", sql);
        let refused = requests.slot(slot).and_then(|slot| slot.refuse(&error));
        let Some(statement) = refused else { return Ok(()) };
        if pooler {
            statement.set_unprepared(self.place);
            self.forget_name(&statement);
            match statement.failure() {
                // Its Parse failed just before; that says more than that the name is unknown.
                Some(reason) => {
                    let _ = requests.slot(slot).and_then(|slot| slot.refuse(&reason));
                }
                None if !self.report.pooler_told => {
                    self.report.pooler_told = true;
                    self.report.pooler = Some(error);
                }
                None => (),
            }
        } else if stale {
            statement.set_unprepared(self.place);
            self.forget_name(&statement);
            statement.forget();
        }
        Ok(())
    }

    #[cold]
    fn parsed(&mut self, statement: &Rc<Statement>, requests: &mut Requests) {
        let Parsing { params, columns, failure } = std::mem::take(&mut self.parsing);
        if let Some(sql) = failure {
            statement.set_unprepared(self.place);
            self.forget_name(statement);
            let error = Error::refused("the server refused the statement", sql);
            statement.not_learned(error, &mut requests.woken);
            return;
        }
        match statement.shape() {
            Some(shape) if shape.has_params(&params) && shape.has_columns(&columns) => {
                statement.confirmed(&mut requests.woken);
            }
            _ => match Shape::from_oids(&params, &columns) {
                Some(shape) => statement.learned(shape, &mut requests.woken),
                None => {
                    statement.forget();
                    // Whoever comes meanwhile waits for the lookup.
                    statement.begin_learning();
                    self.report.unknown.push(Rc::clone(statement));
                }
            },
        }
    }
}

/// Replies that were waited for equally long, one after the other: those of a turn, mostly. Their duration is worked
/// out once.
#[derive(Default)]
struct Waits {
    timeout: Duration,
    deadline: Option<Instant>,
    replies: usize,
}

impl Waits {
    /// Counts replies to what was sent `timeout` before its deadline; `None`: not known when.
    #[inline]
    fn count(
        &mut self,
        (timeout, deadline): (Duration, Option<Instant>),
        replies: usize,
        now: Instant,
        requests: &mut Requests,
    ) {
        if (timeout, deadline) != (self.timeout, self.deadline) {
            if let Some(sent) = self.deadline.and_then(|at| at.checked_sub(self.timeout)) {
                let took = now.saturating_duration_since(sent);
                requests.tally.durations.add(took, self.replies);
            }
            *self = Waits { timeout, deadline, replies: 0 };
        }
        self.replies += replies;
    }
}

/// How far [`take_replies`] came.
struct Over<'a> {
    /// Replies that are complete.
    replies: usize,
    /// Whether they were all that the entry waited for.
    entry: bool,
    /// The message that refuses the query whose reply is arriving.
    refusal: Option<Message<'a>>,
}

/// The hot path: replies to a request, without looking anything up again between their messages. Stops before a
/// message that is none of them, or is not there completely.
#[inline]
fn take_replies<'a>(
    key: usize,
    left: &mut usize,
    rest: &mut &'a [u8],
    requests: &mut Requests,
) -> Result<Over<'a>, Broken> {
    let mut over = Over { replies: 0, entry: false, refusal: None };
    let mut done = false;
    let Some(slot) = requests.slots.get_mut(key) else {
        return Err(Broken::Malformed("a reply to a request that is over"));
    };
    while let Some(message) = message::first(rest, MESSAGE_BYTES_MAX)? {
        match message.tag {
            b'2' | b'1' | b'3' | b'n' => (),
            b'D' => slot.row(&message)?,
            b'C' => slot.complete(message::affected(message.body)),
            b'I' => slot.complete(0),
            b'T' => slot.describe(&message::column_oids(message.body)?, &mut requests.woken),
            b'E' => over.refusal = Some(message),
            b'Z' => {
                check_idle(&message)?;
                over.replies += 1;
                *left -= 1;
                over.entry = *left == 0;
                done = slot.end()?;
            }
            _ => return Ok(over),
        }
        *rest = &rest[message.whole.len()..];
        if over.entry || over.refusal.is_some() {
            break;
        }
    }
    if done {
        requests.done(key);
    }
    Ok(over)
}

/// A message while nothing is due.
fn take_unasked(message: &Message<'_>) -> Result<(), Broken> {
    match message.tag {
        // The server reports an error of its own accord only to end the connection.
        b'E' => Err(Broken::Farewell(message::sql_error(message.body)?)),
        b'N' | b'S' | b'A' => Ok(()),
        _ => Err(Broken::Malformed("an answer to nothing that was asked")),
    }
}

/// Whether ReadyForQuery says that no transaction is open.
#[inline]
fn check_idle(message: &Message<'_>) -> Result<(), Broken> {
    match message.body {
        b"I" => Ok(()),
        b"T" | b"E" => {
            Err(Broken::NotShared("a statement left a transaction open on the shared connection"))
        }
        _ => Err(Broken::Malformed("an unknown transaction state")),
    }
}

/// What may come at any time, or never on a shared connection.
fn take_common(message: &Message<'_>) -> Result<(), Broken> {
    match message.tag {
        b'N' | b'S' | b'A' => Ok(()),
        b'G' | b'H' | b'W' => Err(Broken::NotShared("COPY needs a connection of its own")),
        _ => Err(Broken::Malformed("a message that does not belong here")),
    }
}

fn error(message: &Message<'_>) -> Result<SqlError, Broken> {
    let sql = message::sql_error(message.body)?;
    if sql.ends_connection() { Err(Broken::Farewell(sql)) } else { Ok(sql) }
}

fn timed_out(limit: Duration) -> Error {
    Error::new(Kind::TimedOut, format!("the database did not answer within {limit:?}"))
}

#[cfg(test)]
mod tests;
