//! Why a handler could not answer.
//!
//! Any error becomes an [`Error`] by `?`. What the client sees depends on what it was: a database that is away, or
//! has too much to do already, is 503 with `Retry-After`, one that does not answer in time is 504, a body that broke
//! a rule is that rule's status, all else is 500; only the last is logged, for someone must act. The errors of
//! tokio-postgres, as transactions give them, are no others.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use pg::tokio_postgres;

use crate::body::BodyError;
use crate::response::{IntoResponse, Response};

/// What a handler returns: a response, or the reason why there is none.
pub type Result<T = Response> = std::result::Result<T, Error>;

/// What clients are asked to wait for when the database is away or overloaded.
const DATABASE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a handler could not answer; made by `?` from any error.
///
/// It is not itself a `std::error::Error` (as in other such types, so that `?` can take all of them).
pub struct Error {
    status: u16,
    retry_after: Option<Duration>,
    cause: Option<Box<dyn std::error::Error>>,
    /// It was the request's body that could not be read.
    body: Option<BodyError>,
}

impl Error {
    /// A refusal with this status, and the usual page for it.
    #[must_use]
    pub fn status(status: u16) -> Error {
        Error { status, retry_after: None, cause: None, body: None }
    }

    /// Whether it is the client's doing: a refusal that nobody here can mend.
    pub(crate) fn is_refusal(&self) -> bool {
        self.cause.is_none() && (400..=499).contains(&self.status)
    }

    /// What is to be logged.
    pub(crate) fn into_cause(self) -> Box<dyn std::error::Error> {
        self.cause.unwrap_or_else(|| {
            let phrase = http1::status::reason_phrase(self.status);
            format!("given up with {} {phrase}", self.status).into()
        })
    }

    /// Something failed that `cause` describes: 500, and the cause is logged.
    #[must_use]
    pub fn internal(cause: impl Into<Box<dyn std::error::Error>>) -> Error {
        Error { cause: Some(cause.into()), ..Error::status(500) }
    }
}

impl Error {
    /// What a database's state makes of a request is not logged here: its changes are, once each, and queries that were
    /// given up are counted.
    fn of_database(error: pg::Error) -> Error {
        if error.is_unavailable() || error.is_overloaded() {
            Error { retry_after: Some(DATABASE_RETRY_AFTER), ..Error::status(503) }
        } else if error.is_timed_out() {
            Error::status(504)
        } else {
            Error::internal(error)
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        if let Some(body) = (&error as &dyn Any).downcast_ref::<BodyError>() {
            return Error { body: Some(*body), ..Error::status(body.status()) };
        }
        let mut error = Some(error);
        let any: &mut dyn Any = &mut error;
        let database = if let Some(driver) = any.downcast_mut::<Option<tokio_postgres::Error>>() {
            driver.take().map(pg::Error::from)
        } else {
            any.downcast_mut::<Option<pg::Error>>().and_then(Option::take)
        };
        match (database, error) {
            (Some(error), _) => Error::of_database(error),
            (None, Some(error)) => Error::internal(error),
            (None, None) => Error::status(500),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(out, "{}: {}", self.status, Chain(cause.as_ref())),
            None => write!(out, "{}", self.status),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::error(self.status);
        response.body_error = self.body;
        if let Some(wait) = self.retry_after {
            response = response.retry_after(wait);
        }
        match self.cause {
            Some(cause) => response.because(cause),
            None => response,
        }
    }
}

/// An error with its sources, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(out, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_inside_is_kept_for_the_log_and_not_shown() {
        let failed: std::result::Result<(), _> = Err(std::io::Error::other("disk on fire"));
        let answer = (|| -> Result {
            failed?;
            Ok(Response::text("fine"))
        })()
        .into_response();
        assert_eq!(answer.status, 500);
        assert_eq!(answer.body.as_bytes(), b"500 Internal Server Error\n");
        assert_eq!(Chain(answer.cause.unwrap().as_ref()).to_string(), "disk on fire");
    }

    #[test]
    fn a_body_over_its_limit_is_413() {
        let error = Error::from(BodyError::TooLarge);
        assert_eq!(error.into_response().status, 413);
    }
}
