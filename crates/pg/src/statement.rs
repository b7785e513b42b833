//! SQL texts that are prepared once per connection.
//!
//! - What a text's parameters and columns are (its [`Shape`]) is a fact of the database: learned once, kept over
//!   reconnects, and learned anew whenever the text is parsed again.
//! - Which connections know it by name is counted per connection: a connection's number, once lost, never returns.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use postgres_types::Type;

use crate::Error;

/// An SQL text, prepared on each connection when it is first used there. Cheap to clone.
///
/// Belongs to the [`crate::Database`] that made it.
#[derive(Clone)]
pub struct Statement(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    sql: Box<str>,
    /// What the server calls it.
    name: Box<str>,
    /// How a Bind of it begins: tag, room for the length, the unnamed portal, the name.
    bind_head: Box<[u8]>,
    shape: RefCell<Option<Rc<Shape>>>,
    learning: RefCell<Learning>,
    /// For each shared connection: the number of the session that knows the name, and when it was last used there.
    places: Box<[Place]>,
}

/// What the parameters and columns are.
#[derive(Debug, PartialEq)]
pub(crate) struct Shape {
    pub params: Vec<Type>,
    pub columns: Vec<Column>,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub name: Box<str>,
    pub kind: Type,
}

#[derive(Default)]
struct Place {
    session: Cell<u64>,
    used: Cell<u64>,
}

/// How far learning the shape is.
#[derive(Default)]
struct Learning {
    asked: bool,
    waiting: Vec<Waker>,
    /// Why the last try failed.
    failure: Option<Error>,
}

impl Statement {
    pub(crate) fn new(sql: &str, number: u64, places: usize) -> Statement {
        // tokio-postgres, which shares the connection, calls its own `s1`, `s2`, …
        let name = format!("m{number}");
        Statement(Rc::new(Inner {
            sql: sql.into(),
            bind_head: [b"B\0\0\0\0\0", name.as_bytes(), b"\0"].concat().into(),
            name: name.into(),
            shape: RefCell::default(),
            learning: RefCell::default(),
            places: (0..places).map(|_| Place::default()).collect(),
        }))
    }

    /// The text.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.0.sql
    }
}

impl Inner {
    pub fn sql(&self) -> &str {
        &self.sql
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn bind_head(&self) -> &[u8] {
        &self.bind_head
    }

    #[inline]
    pub fn shape(&self) -> Option<Rc<Shape>> {
        self.shape.borrow().clone()
    }

    /// Whether `session` on connection `place` knows the name; marks it as used at `tick`.
    #[inline]
    pub fn is_prepared(&self, place: usize, session: u64, tick: u64) -> bool {
        self.places.get(place).is_some_and(|place| {
            place.used.set(tick);
            place.session.get() == session
        })
    }

    pub fn set_prepared(&self, place: usize, session: u64) {
        if let Some(place) = self.places.get(place) {
            place.session.set(session);
        }
    }

    pub fn set_unprepared(&self, place: usize) {
        self.set_prepared(place, 0);
    }

    pub fn last_used(&self, place: usize) -> u64 {
        self.places.get(place).map_or(0, |place| place.used.get())
    }

    /// Forgets the shape: the schema has changed under it.
    pub fn forget(&self) {
        *self.shape.borrow_mut() = None;
    }

    /// Claims the asking; `false` if somebody asks already.
    pub fn begin_learning(&self) -> bool {
        !std::mem::replace(&mut self.learning.borrow_mut().asked, true)
    }

    pub fn is_learning(&self) -> bool {
        self.learning.borrow().asked
    }

    pub fn wait(&self, waker: &Waker) {
        let waiting = &mut self.learning.borrow_mut().waiting;
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    pub fn learned(&self, shape: Shape, woken: &mut Vec<Waker>) {
        *self.shape.borrow_mut() = Some(Rc::new(shape));
        self.confirmed(woken);
    }

    /// What is known is right.
    pub fn confirmed(&self, woken: &mut Vec<Waker>) {
        let mut learning = self.learning.borrow_mut();
        learning.asked = false;
        learning.failure = None;
        woken.append(&mut learning.waiting);
    }

    pub fn not_learned(&self, why: Error, woken: &mut Vec<Waker>) {
        let mut learning = self.learning.borrow_mut();
        learning.asked = false;
        learning.failure = Some(why);
        woken.append(&mut learning.waiting);
    }

    pub fn failure(&self) -> Option<Error> {
        self.learning.borrow().failure.clone()
    }
}

impl Shape {
    /// From object identifiers, if PostgreSQL has every one of the types built in.
    pub fn from_oids(params: &[u32], columns: &[(Box<str>, u32)]) -> Option<Shape> {
        let params = params.iter().map(|&oid| Type::from_oid(oid)).collect::<Option<_>>()?;
        Shape { params, columns: Vec::new() }.with_columns(columns)
    }

    /// The same parameters with other columns, if PostgreSQL has every one of the types built in.
    pub fn with_columns(&self, columns: &[(Box<str>, u32)]) -> Option<Shape> {
        let columns = columns
            .iter()
            .map(|(name, oid)| Type::from_oid(*oid).map(|kind| Column { name: name.clone(), kind }))
            .collect::<Option<_>>()?;
        Some(Shape { params: self.params.clone(), columns })
    }

    /// Whether these are its parameters' types.
    pub fn has_params(&self, params: &[u32]) -> bool {
        self.params.iter().map(Type::oid).eq(params.iter().copied())
    }

    /// Whether these are its columns' names and types.
    pub fn has_columns(&self, columns: &[(Box<str>, u32)]) -> bool {
        let ours = self.columns.iter().map(|column| (&column.name, column.kind.oid()));
        ours.eq(columns.iter().map(|(name, oid)| (name, *oid)))
    }
}
