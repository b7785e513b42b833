//! Who waits for what: one slot per request, used again and again.
//!
//! A slot is referred to by its future and, while replies are due, by its connection. The last of the two to let go
//! frees it: the future once it has the result, the connection if the future was dropped before.

use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

use crate::error::{Error, Kind};
use crate::message::{self, Malformed, Message};
use crate::rows::{self, Answer, Pool, Unit};
use crate::statement::{Inner as Statement, Shape};
use crate::tally::{Counters, Durations, Tally};

/// Largest answer to one request (a query, or a whole batch), in bytes; beyond, the query fails.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// All requests of one [`crate::Database`].
pub(crate) struct Requests {
    pub slots: Slab<Slot>,
    pub pool: Rc<Pool>,
    /// To be woken when nothing is borrowed any more.
    pub woken: Vec<Waker>,
    pub tally: Tally,
}

/// One request, and its answer as far as it has come.
pub(crate) struct Slot {
    state: State,
    waker: Option<Waker>,
    answer: Answer,
    /// The query whose reply is arriving, as its place among the answer's units.
    current: usize,
    /// Whether that reply has reached its end, but for ReadyForQuery.
    concluded: bool,
}

enum State {
    /// Replies are due.
    Waiting,
    /// All replies are there; the future will take them.
    Done,
    /// The future will be told.
    Failed(Error),
    /// The future is gone; replies are discarded.
    Abandoned,
}

impl Requests {
    /// `duration_bounds_ns`: see [`crate::Config::duration_bounds_ns`].
    pub fn new(duration_bounds_ns: &'static [u64]) -> Requests {
        let durations = Durations::new(duration_bounds_ns);
        let tally = Tally { counters: Counters::default(), durations };
        Requests { slots: Slab::new(), pool: Rc::default(), woken: Vec::new(), tally }
    }

    pub fn add(&mut self, answer: Answer) -> usize {
        let slot =
            Slot { state: State::Waiting, waker: None, answer, current: 0, concluded: false };
        self.slots.insert(slot)
    }

    /// The answer's place for a caller that adds it before it is complete.
    pub fn answer_mut(&mut self, slot: usize) -> Option<&mut Answer> {
        self.slots.get_mut(slot).map(|slot| &mut slot.answer)
    }

    /// The result, if it is there; frees the slot then.
    pub fn poll(&mut self, key: usize, waker: &Waker) -> Poll<Result<Answer, Error>> {
        let Some(slot) = self.slots.get_mut(key) else {
            return Poll::Ready(Err(Error::new(Kind::Unavailable, "the request is over")));
        };
        if matches!(slot.state, State::Waiting | State::Abandoned) {
            match &mut slot.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return Poll::Pending;
        }
        let slot = self.slots.remove(key);
        Poll::Ready(match slot.state {
            State::Failed(error) => {
                rows::recycle(slot.answer, &self.pool);
                Err(error)
            }
            _ => Ok(slot.answer),
        })
    }

    /// The future is dropped before it took its result.
    pub fn abandon(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match slot.state {
            State::Waiting => {
                slot.state = State::Abandoned;
                slot.waker = None;
            }
            _ => self.free(key),
        }
    }

    /// No more replies will come.
    pub fn fail(&mut self, key: usize, error: &Error) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let left = slot.answer.units.len().saturating_sub(slot.current);
        if matches!(slot.state, State::Waiting | State::Abandoned) {
            self.tally.counters.failed(error.kind(), left);
        }
        match slot.state {
            State::Waiting => {
                slot.state = State::Failed(error.clone());
                self.woken.extend(slot.waker.take());
            }
            State::Abandoned => self.free(key),
            State::Done | State::Failed(_) => (),
        }
    }

    /// Frees a slot whose future is gone; `false` if somebody still waits.
    pub fn free_if_abandoned(&mut self, key: usize) -> bool {
        let abandoned =
            self.slots.get(key).is_none_or(|slot| matches!(slot.state, State::Abandoned));
        if abandoned && self.slots.contains(key) {
            self.free(key);
        }
        abandoned
    }

    fn free(&mut self, key: usize) {
        let slot = self.slots.remove(key);
        rows::recycle(slot.answer, &self.pool);
    }

    /// The slot, for the replies that arrive for it.
    #[inline]
    pub fn slot(&mut self, key: usize) -> Option<&mut Slot> {
        self.slots.get_mut(key)
    }

    /// The last reply has come.
    pub fn done(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match slot.state {
            State::Waiting => {
                slot.state = State::Done;
                self.woken.extend(slot.waker.take());
            }
            State::Abandoned => self.free(key),
            State::Done | State::Failed(_) => (),
        }
    }
}

impl Slot {
    /// Takes a DataRow for the reply that is arriving.
    #[inline]
    pub fn row(&mut self, message: &Message<'_>) -> Result<(), Malformed> {
        let Some((unit, before)) = arriving(&mut self.answer.units, self.current) else {
            return Err(Malformed("more replies than queries"));
        };
        if matches!(self.state, State::Abandoned) || unit.error.is_some() {
            return Ok(());
        }
        if unit.shape.is_none() {
            unit.shape = shape_of(unit, before);
        }
        let count = message::check_row(message.body)?;
        if unit.shape.as_ref().is_none_or(|shape| shape.columns.len() != count) {
            unit.statement.forget();
            unit.error = Some(Error::new(Kind::Decode, "the result's columns have changed"));
            return Ok(());
        }
        if self.answer.bytes.len() + message.whole.len() > ANSWER_BYTES_MAX {
            let what = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
            unit.error = Some(Error::new(Kind::TooLarge, what));
            return Ok(());
        }
        self.answer.bytes.extend_from_slice(message.whole);
        unit.rows += 1;
        Ok(())
    }

    /// What the rows of the reply that is arriving will be; says so to the statement if that is news.
    pub fn describe(&mut self, columns: &[(Box<str>, u32)], woken: &mut Vec<Waker>) {
        let Some(unit) = self.answer.units.get_mut(self.current) else { return };
        let Some(shape) = unit.statement.shape() else { return };
        if shape.has_columns(columns) {
            unit.shape = Some(shape);
        } else if let Some(changed) = shape.with_columns(columns) {
            unit.statement.learned(changed, woken);
            unit.shape = unit.statement.shape();
        } else {
            unit.statement.forget();
            unit.error = Some(Error::new(Kind::Decode, "the result's columns have changed"));
        }
    }

    /// The command is complete.
    #[inline]
    pub fn complete(&mut self, affected: u64) {
        if let Some(unit) = self.answer.units.get_mut(self.current) {
            unit.affected = affected;
            self.concluded = true;
        }
    }

    /// The query failed; the statement it belongs to, for the caller to draw its conclusions.
    pub fn refuse(&mut self, error: &Error) -> Option<Rc<Statement>> {
        let unit = self.answer.units.get_mut(self.current)?;
        unit.error = Some(error.clone());
        self.concluded = true;
        Some(Rc::clone(&unit.statement))
    }

    /// ReadyForQuery: the reply is over; whether it was the last.
    #[inline]
    pub fn end(&mut self) -> Result<bool, Malformed> {
        if !std::mem::take(&mut self.concluded) {
            return Err(Malformed("a reply without its conclusion"));
        }
        if let Some((unit, before)) = arriving(&mut self.answer.units, self.current) {
            if unit.shape.is_none() {
                unit.shape = shape_of(unit, before);
            }
            unit.end = self.answer.bytes.len();
        }
        self.current += 1;
        Ok(self.current == self.answer.units.len())
    }
}

/// The query whose reply is arriving, and the one before it.
#[inline]
fn arriving(units: &mut [Unit], current: usize) -> Option<(&mut Unit, Option<&Unit>)> {
    let (before, rest) = units.split_at_mut_checked(current)?;
    Some((rest.first_mut()?, before.last()))
}

/// What the rows of a query are: what those of the same statement just before it were.
#[inline]
fn shape_of(unit: &Unit, before: Option<&Unit>) -> Option<Rc<Shape>> {
    match before {
        Some(before)
            if before.shape.is_some() && Rc::ptr_eq(&before.statement, &unit.statement) =>
        {
            before.shape.clone()
        }
        _ => unit.statement.shape(),
    }
}
