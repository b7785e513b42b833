//! Connections that one task has to itself.

use std::ops::Deref;

use crate::Error;

/// A connection of its own: any operation of [`tokio_postgres::Client`], `COPY` included.
///
/// Back to the pool when dropped.
pub struct Dedicated {
    client: tokio_postgres::Client,
}

impl Deref for Dedicated {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

/// A transaction on a connection of its own; rolled back when dropped without [`Transaction::commit`].
pub struct Transaction {
    connection: Dedicated,
}

impl Transaction {
    /// Makes its effects permanent.
    ///
    /// # Errors
    ///
    /// The server refused, or it is gone (whether it committed is then unknown).
    pub async fn commit(self) -> Result<(), Error> {
        self.connection
            .batch_execute("COMMIT")
            .await
            .map_err(|_| Error::new(crate::error::Kind::Unavailable, "gone"))
    }

    /// Undoes everything.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`].
    pub async fn rollback(self) -> Result<(), Error> {
        self.connection
            .batch_execute("ROLLBACK")
            .await
            .map_err(|_| Error::new(crate::error::Kind::Unavailable, "gone"))
    }
}

impl Deref for Transaction {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.connection
    }
}
