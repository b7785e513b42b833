//! Answers: rows in one buffer, decoded where they lie.

use postgres_types::FromSql;

use crate::Error;
use crate::error::Kind;

/// The rows of one query.
pub struct Rows(());

impl Rows {
    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }

    /// The rows, in the server's order.
    pub fn iter(&self) -> RowIter<'_> {
        RowIter(std::iter::empty())
    }

    /// The first row.
    #[must_use]
    pub fn first(&self) -> Option<Row<'_>> {
        None
    }

    /// The number of rows that the command returned or changed, as its command tag says.
    #[must_use]
    pub fn affected(&self) -> u64 {
        0
    }
}

/// One row, borrowed from its answer.
#[derive(Clone, Copy)]
pub struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    /// The number of columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a column, counted from 0. NULL needs an `Option`.
    ///
    /// # Errors
    ///
    /// There is no such column, its type is another one, or it is NULL.
    pub fn get<T: FromSql<'a>>(&self, _column: usize) -> Result<T, Error> {
        Err(Error::new(Kind::Decode, "no such column"))
    }

    /// The text of a `text`, `varchar`, `name`, … column.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn str(&self, column: usize) -> Result<&'a str, Error> {
        self.get(column)
    }

    /// The value of an `int4` column: as [`Row::get`], faster.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn int4(&self, column: usize) -> Result<i32, Error> {
        self.get(column)
    }
}

/// The one row of [`crate::Database::query_one`], with the methods of [`Row`].
pub struct Record(Rows);

impl Record {
    /// The row.
    #[must_use]
    pub fn row(&self) -> Row<'_> {
        self.0.first().unwrap_or(Row(&[]))
    }

    /// See [`Row::get`].
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, Error> {
        self.row().get(column)
    }

    /// See [`Row::str`].
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn str(&self, column: usize) -> Result<&str, Error> {
        self.row().str(column)
    }

    /// See [`Row::int4`].
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn int4(&self, column: usize) -> Result<i32, Error> {
        self.row().int4(column)
    }
}

/// The answers to a batch, in the order of its queries.
pub struct Replies(());

impl Replies {
    /// The number of answers: that of the queries.
    #[must_use]
    pub fn len(&self) -> usize {
        0
    }

    /// Whether the batch was empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }

    /// One answer per query: an iterator over its rows, or its own error.
    pub fn iter(&self) -> impl Iterator<Item = Result<RowIter<'_>, Error>> {
        std::iter::empty()
    }
}

/// Iterates over the rows of one answer.
#[derive(Clone)]
pub struct RowIter<'a>(std::iter::Empty<Row<'a>>);

impl<'a> Iterator for RowIter<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        self.0.next()
    }
}
