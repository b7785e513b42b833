//! Connections that one task has to itself, as the task sees them.

use std::ops::Deref;
use std::rc::Rc;

use crate::engine::Core;
use crate::error::{Error, Kind};
use crate::lanes::Held;

/// A connection of its own: any operation of [`tokio_postgres::Client`], `COPY` included.
///
/// Closed when dropped: nobody inherits its settings, temporary tables or listeners. If the server is silent for the
/// query timeout while something is due from it, the connection is dropped and what was asked fails as closed.
pub struct Dedicated {
    held: Held,
    reusable: bool,
    core: Rc<Core>,
}

impl Dedicated {
    pub(crate) fn new(held: Held, reusable: bool, core: &Rc<Core>) -> Dedicated {
        Dedicated { held, reusable, core: Rc::clone(core) }
    }
}

impl Drop for Dedicated {
    fn drop(&mut self) {
        self.core.release(self.held.lane, self.held.session, self.reusable);
    }
}

impl Deref for Dedicated {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.held.client
    }
}

/// A transaction on a connection of its own, with any operation of [`tokio_postgres::Client`].
///
/// Rolled back when dropped without [`Transaction::commit`]. Its connection then serves other transactions: what is
/// `SET` for longer than the transaction stays set.
pub struct Transaction {
    connection: Dedicated,
}

impl Transaction {
    pub(crate) async fn begin(connection: Dedicated) -> Result<Transaction, Error> {
        connection.batch_execute("BEGIN").await?;
        Ok(Transaction { connection })
    }

    /// Makes its effects permanent.
    ///
    /// # Errors
    ///
    /// The server refused; the transaction had failed before, so that nothing was done; or the server is gone, and
    /// whether it committed is unknown.
    pub async fn commit(self) -> Result<(), Error> {
        self.connection.batch_execute("COMMIT").await?;
        let Held { lane, session, .. } = self.connection.held;
        if self.connection.core.has_rolled_back(lane, session) {
            return Err(Error::new(Kind::Sql, "the transaction had failed and was rolled back"));
        }
        Ok(())
    }

    /// Undoes everything.
    ///
    /// # Errors
    ///
    /// The server is gone, which undoes everything too.
    pub async fn rollback(self) -> Result<(), Error> {
        Ok(self.connection.batch_execute("ROLLBACK").await?)
    }
}

impl Deref for Transaction {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.connection
    }
}
