//! What can go wrong with a query, and what the caller may conclude from it.

use std::sync::Arc;
use std::{error, fmt};

/// Why a query, a transaction or a connection failed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    what: Box<str>,
    sql: Option<SqlError>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

/// What the caller may conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server is not there, or went away.
    Unavailable,
    /// A deadline passed.
    TimedOut,
    /// A bound was reached; nothing was sent.
    Overloaded,
    /// The server refused the query.
    Sql,
    /// The answer was larger than is accepted.
    TooLarge,
    /// A parameter does not fit the statement.
    Encode,
    /// A value was asked for as what it is not.
    Decode,
    /// Another number of rows than asked for.
    RowCount,
}

impl Error {
    pub(crate) fn new(kind: Kind, what: impl Into<Box<str>>) -> Error {
        Error(Arc::new(Inner { kind, what: what.into(), sql: None, source: None }))
    }

    pub(crate) fn with_source(
        kind: Kind,
        what: impl Into<Box<str>>,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Error {
        Error(Arc::new(Inner { kind, what: what.into(), sql: None, source: Some(source.into()) }))
    }

    /// A refusal by the server, while doing `what`; unavailable if that is what its code means.
    pub(crate) fn refused(what: impl Into<Box<str>>, sql: SqlError) -> Error {
        let kind = if sql.is_unavailable() { Kind::Unavailable } else { Kind::Sql };
        Error(Arc::new(Inner { kind, what: what.into(), sql: Some(sql), source: None }))
    }

    /// The server said why it closes the connection.
    pub(crate) fn farewell(what: impl Into<Box<str>>, sql: SqlError) -> Error {
        Error(Arc::new(Inner {
            kind: Kind::Unavailable,
            what: what.into(),
            sql: Some(sql),
            source: None,
        }))
    }

    /// The same reason, reported for something else.
    pub(crate) fn because(kind: Kind, what: impl Into<Box<str>>, of: &Error) -> Error {
        Error(Arc::new(Inner {
            kind,
            what: what.into(),
            sql: of.0.sql.clone(),
            source: Some(Box::new(of.clone())),
        }))
    }

    pub(crate) fn from_driver(what: &str, of: tokio_postgres::Error) -> Error {
        match of.as_db_error() {
            Some(db) => Error::refused(what, SqlError::from_driver(db)),
            // Everything else that tokio-postgres reports while connecting or asking is about the connection,
            // parameters and values apart, which it reports with the value's position.
            None => Error::with_source(Kind::Unavailable, what, of),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the database could not be reached or went away: worth a 503 and another try.
    ///
    /// Whether a query that was in flight then took effect is unknown.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == Kind::Unavailable
    }

    /// Whether the answer did not come within the query deadline. The query may still take effect.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.0.kind == Kind::TimedOut
    }

    /// Whether too much was already waiting, so that the query was not sent.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.0.kind == Kind::Overloaded
    }

    /// Whether another number of rows came than was asked for ([`crate::Database::query_one`]).
    #[must_use]
    pub fn is_row_count(&self) -> bool {
        self.0.kind == Kind::RowCount
    }

    /// What the server said, if this is its error.
    #[must_use]
    pub fn as_sql(&self) -> Option<&SqlError> {
        self.0.sql.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match (&self.0.source, &self.0.sql) {
            (Some(source), _) => Some(source.as_ref()),
            (None, Some(sql)) => Some(sql),
            (None, None) => None,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    /// For what is asked through [`crate::Transaction`] and [`crate::Dedicated`].
    fn from(of: tokio_postgres::Error) -> Error {
        let lost = of.is_closed()
            || error::Error::source(&of).is_some_and(|source| source.is::<std::io::Error>());
        match of.as_db_error() {
            Some(db) => Error::refused("the server refused the query", SqlError::from_driver(db)),
            None if lost => {
                Error::with_source(Kind::Unavailable, "the connection to the database is lost", of)
            }
            None => Error::with_source(
                Kind::Decode,
                "the query does not fit its parameters or results",
                of,
            ),
        }
    }
}

/// An error that the server reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlError {
    pub(crate) severity: Box<str>,
    pub(crate) code: Box<str>,
    pub(crate) message: Box<str>,
    pub(crate) detail: Option<Box<str>>,
    pub(crate) hint: Option<Box<str>>,
    pub(crate) constraint: Option<Box<str>>,
}

impl SqlError {
    fn from_driver(db: &tokio_postgres::error::DbError) -> SqlError {
        SqlError {
            severity: db.severity().into(),
            code: db.code().code().into(),
            message: db.message().into(),
            detail: db.detail().map(Into::into),
            hint: db.hint().map(Into::into),
            constraint: db.constraint().map(Into::into),
        }
    }

    /// Whether the code speaks of the server's or the connection's state rather than of the query:
    /// shutting down, crashing, starting up, out of connections, connection failure.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(&*self.code, "57P01" | "57P02" | "57P03" | "57P05" | "53300")
            || self.code.starts_with("08")
    }

    /// Whether the server closes the connection after this.
    pub(crate) fn ends_connection(&self) -> bool {
        matches!(&*self.severity, "FATAL" | "PANIC")
    }

    /// `ERROR`, `FATAL` or `PANIC`.
    #[must_use]
    pub fn severity(&self) -> &str {
        &self.severity
    }

    /// The five characters of the SQLSTATE.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The primary message, in the server's language.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A second message with more about the problem.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What the server suggests to do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The name of the constraint that was violated.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl error::Error for SqlError {}
