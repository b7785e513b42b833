//! Answers: rows in one buffer, decoded where they lie.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::BytesMut;
use postgres_types::{FromSql, Type};

use crate::error::{Error, Kind};
use crate::statement::{Column, Inner as Statement, Shape};

/// Answers kept for the next queries; more are freed.
const ANSWERS_POOLED_MAX: usize = 256;

/// Largest buffer, in bytes, that is kept for the next query.
const ANSWER_BYTES_POOLED_MAX: usize = 64 * 1024;

/// Bytes before a row's body in its message: tag and length.
const HEAD_BYTES: usize = 5;

/// The replies to the queries of one request: whole DataRow messages, checked, one after the other.
#[derive(Default)]
pub(crate) struct Answer {
    /// The queries, as long as they are not sent; empty for a query that was written straight to its connection.
    pub asked: BytesMut,
    pub bytes: Vec<u8>,
    pub units: Vec<Unit>,
}

/// One query of a request, and what became of it.
pub(crate) struct Unit {
    pub statement: Rc<Statement>,
    /// What the rows are; set when the reply is complete.
    pub shape: Option<Rc<Shape>>,
    /// Where its rows end in the buffer; while a batch is being built: where its messages end in the batch.
    pub end: usize,
    pub rows: usize,
    pub affected: u64,
    pub error: Option<Error>,
}

impl Unit {
    pub fn new(statement: Rc<Statement>) -> Unit {
        Unit { statement, shape: None, end: 0, rows: 0, affected: 0, error: None }
    }
}

/// Answers to be used again, so that a query allocates nothing.
pub(crate) type Pool = RefCell<Vec<Answer>>;

/// An [`Answer`] that returns to its pool.
pub(crate) struct Pooled {
    answer: Answer,
    pool: Rc<Pool>,
}

impl Pooled {
    pub fn new(answer: Answer, pool: &Rc<Pool>) -> Pooled {
        Pooled { answer, pool: Rc::clone(pool) }
    }

    /// For filling it, or for handing it on.
    pub fn answer_mut(&mut self) -> &mut Answer {
        &mut self.answer
    }

    pub fn len(&self) -> usize {
        self.answer.units.len()
    }

    fn rows_of(&self, index: usize) -> Option<Result<RowIter<'_>, Error>> {
        let unit = self.answer.units.get(index)?;
        if let Some(error) = &unit.error {
            return Some(Err(error.clone()));
        }
        let start = index
            .checked_sub(1)
            .and_then(|before| self.answer.units.get(before))
            .map_or(0, |unit| unit.end);
        let bytes = self.answer.bytes.get(start..unit.end).unwrap_or_default();
        let columns = unit.shape.as_ref().map_or(&[][..], |shape| &shape.columns);
        Some(Ok(RowIter { bytes, left: unit.rows, columns, affected: unit.affected }))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        recycle(std::mem::take(&mut self.answer), &self.pool);
    }
}

/// Takes an empty answer.
pub(crate) fn fresh(pool: &Pool) -> Answer {
    pool.borrow_mut().pop().unwrap_or_default()
}

/// Gives an answer back.
pub(crate) fn recycle(mut answer: Answer, pool: &Pool) {
    answer.units.clear();
    answer.bytes.clear();
    answer.asked.clear();
    let largest = answer.bytes.capacity().max(answer.asked.capacity());
    let mut pool = pool.borrow_mut();
    if answer.units.capacity() > 0
        && pool.len() < ANSWERS_POOLED_MAX
        && largest <= ANSWER_BYTES_POOLED_MAX
    {
        pool.push(answer);
    }
}

/// The rows of one query.
pub struct Rows(Pooled);

impl Rows {
    /// Of a request with one query.
    pub(crate) fn new(answer: Pooled) -> Result<Rows, Error> {
        match answer.rows_of(0) {
            Some(Err(error)) => Err(error),
            _ => Ok(Rows(answer)),
        }
    }

    /// The rows, in the server's order.
    #[must_use]
    pub fn iter(&self) -> RowIter<'_> {
        match self.0.rows_of(0) {
            Some(Ok(rows)) => rows,
            _ => RowIter { bytes: &[], left: 0, columns: &[], affected: 0 },
        }
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().left
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first row.
    #[must_use]
    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }

    /// The number of rows that the command returned or changed, as its command tag says.
    #[must_use]
    pub fn affected(&self) -> u64 {
        self.iter().affected
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = Row<'a>;
    type IntoIter = RowIter<'a>;

    fn into_iter(self) -> RowIter<'a> {
        self.iter()
    }
}

/// Iterates over the rows of one answer.
#[derive(Clone)]
pub struct RowIter<'a> {
    bytes: &'a [u8],
    left: usize,
    columns: &'a [Column],
    affected: u64,
}

impl RowIter<'_> {
    /// The number of rows that the command returned or changed, as its command tag says.
    #[must_use]
    pub fn affected(&self) -> u64 {
        self.affected
    }
}

impl<'a> Iterator for RowIter<'a> {
    type Item = Row<'a>;

    #[inline]
    fn next(&mut self) -> Option<Row<'a>> {
        let &[_, a, b, c, d] = self.bytes.first_chunk::<HEAD_BYTES>()?;
        let whole = u32::from_be_bytes([a, b, c, d]) as usize + 1;
        let (message, rest) = self.bytes.split_at_checked(whole)?;
        self.bytes = rest;
        self.left = self.left.saturating_sub(1);
        // The count of values, which is that of the columns, is behind the head.
        Some(Row { values: message.get(HEAD_BYTES + 2..)?, columns: self.columns })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for RowIter<'_> {}

/// One row, borrowed from its answer.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    values: &'a [u8],
    columns: &'a [Column],
}

impl<'a> Row<'a> {
    /// The number of columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there are no columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The number of the column with this name, the first if there are several.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }

    /// Its values from the first on, for reading them in order: that costs less than asking for each by its number.
    #[must_use]
    #[inline]
    pub fn values(&self) -> Values<'a> {
        Values { rest: self.values, column: 0, columns: self.columns }
    }

    /// The value of a column, counted from 0. NULL needs an `Option`.
    ///
    /// # Errors
    ///
    /// There is no such column, its type is another one, or it is NULL.
    #[inline]
    pub fn get<T: FromSql<'a>>(&self, column: usize) -> Result<T, Error> {
        read(self.columns, column, self.raw(column))
    }

    /// The text of a `text`, `varchar`, `name`, … column.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    #[inline]
    pub fn str(&self, column: usize) -> Result<&'a str, Error> {
        self.get(column)
    }

    /// The value of an `int4` column: as [`Row::get`], faster.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    #[inline]
    pub fn int4(&self, column: usize) -> Result<i32, Error> {
        int4(self.columns, column, self.raw(column))
    }

    /// The bytes of a value; `None` for NULL, and for what is not there.
    #[inline]
    fn raw(&self, column: usize) -> Option<&'a [u8]> {
        let mut rest = self.values;
        for _ in 0..column {
            (_, rest) = split(rest)?;
        }
        split(rest)?.0
    }
}

/// The first of a row's values (`None`: NULL) and what is behind it; `None`: there is none.
#[inline]
fn split(values: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (&length, rest) = values.split_first_chunk::<4>()?;
    match usize::try_from(i32::from_be_bytes(length)) {
        Ok(length) => {
            let (value, rest) = rest.split_at_checked(length)?;
            Some((Some(value), rest))
        }
        Err(_) => Some((None, rest)),
    }
}

/// A column's value, decoded.
#[inline]
fn read<'a, T: FromSql<'a>>(
    columns: &'a [Column],
    column: usize,
    raw: Option<&'a [u8]>,
) -> Result<T, Error> {
    let Some(Column { kind, .. }) = columns.get(column) else {
        let what = format!("there is no column {column}: the row has {}", columns.len());
        return Err(Error::new(Kind::Decode, what));
    };
    if !T::accepts(kind) {
        return Err(mismatch::<T>(column, kind));
    }
    T::from_sql_nullable(kind, raw)
        .map_err(|why| Error::with_source(Kind::Decode, format!("column {column} ({kind})"), why))
}

/// The values of one row, read one after the other.
#[derive(Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
    /// The number of the next one.
    column: usize,
    columns: &'a [Column],
}

impl<'a> Values<'a> {
    /// The next value. NULL needs an `Option`.
    ///
    /// # Errors
    ///
    /// As [`Row::get`]; the value counts as read all the same.
    #[inline]
    pub fn get<T: FromSql<'a>>(&mut self) -> Result<T, Error> {
        let (column, raw) = self.advance();
        read(self.columns, column, raw)
    }

    /// The next value, of an `int4` column: as [`Values::get`], faster.
    ///
    /// # Errors
    ///
    /// As [`Values::get`].
    #[inline]
    pub fn int4(&mut self) -> Result<i32, Error> {
        let (column, raw) = self.advance();
        int4(self.columns, column, raw)
    }

    /// The next value, of a `text`, `varchar`, `name`, … column.
    ///
    /// # Errors
    ///
    /// As [`Values::get`].
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, Error> {
        self.get()
    }

    #[inline]
    fn advance(&mut self) -> (usize, Option<&'a [u8]>) {
        let column = self.column;
        let Some((value, rest)) = split(self.rest) else { return (column, None) };
        self.rest = rest;
        self.column += 1;
        (column, value)
    }
}

#[inline]
fn int4<'a>(columns: &'a [Column], column: usize, raw: Option<&'a [u8]>) -> Result<i32, Error> {
    match (columns.get(column), raw) {
        (Some(Column { kind: Type::INT4, .. }), Some(&[a, b, c, d])) => {
            Ok(i32::from_be_bytes([a, b, c, d]))
        }
        _ => read(columns, column, raw),
    }
}

#[cold]
fn mismatch<T>(column: usize, kind: &Type) -> Error {
    let wanted = std::any::type_name::<T>();
    Error::new(Kind::Decode, format!("column {column} is {kind}, which is no {wanted}"))
}

/// The one row of [`crate::Database::query_one`], with the methods of [`Row`].
pub struct Record(Rows);

impl Record {
    /// `None` if there is no row; an error if there are several.
    pub(crate) fn new(rows: Rows) -> Result<Option<Record>, Error> {
        match rows.len() {
            0 => Ok(None),
            1 => Ok(Some(Record(rows))),
            count => Err(Error::new(
                Kind::RowCount,
                format!("{count} rows came, at most one was expected"),
            )),
        }
    }

    /// The row.
    #[must_use]
    #[inline]
    pub fn row(&self) -> Row<'_> {
        self.0.first().unwrap_or(Row { values: &[], columns: &[] })
    }

    /// See [`Row::get`].
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    #[inline]
    pub fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, Error> {
        self.row().get(column)
    }

    /// See [`Row::str`].
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    #[inline]
    pub fn str(&self, column: usize) -> Result<&str, Error> {
        self.row().str(column)
    }

    /// See [`Row::int4`].
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    #[inline]
    pub fn int4(&self, column: usize) -> Result<i32, Error> {
        self.row().int4(column)
    }
}

/// The answers to a batch, in the order of its queries.
pub struct Replies(Pooled);

impl Replies {
    pub(crate) fn new(answer: Pooled) -> Replies {
        Replies(answer)
    }

    /// The number of answers: that of the queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the batch was empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer to the query with this number, counted from 0.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<Result<RowIter<'_>, Error>> {
        self.0.rows_of(index)
    }

    /// One answer per query: an iterator over its rows, or its own error.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<RowIter<'_>, Error>> {
        (0..self.len()).map(|index| {
            self.0
                .rows_of(index)
                .unwrap_or_else(|| Err(Error::new(Kind::Decode, "there is no such answer")))
        })
    }
}
