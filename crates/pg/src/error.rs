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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unavailable,
    TimedOut,
    Overloaded,
    Sql,
    TooLarge,
    Encode,
    Decode,
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

    pub(crate) fn sql(kind: Kind, what: impl Into<Box<str>>, sql: SqlError) -> Error {
        Error(Arc::new(Inner { kind, what: what.into(), sql: Some(sql), source: None }))
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
        if let Some(sql) = &self.0.sql {
            return Some(sql);
        }
        self.0.source.as_deref().map(|source| source as &(dyn error::Error + 'static))
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
