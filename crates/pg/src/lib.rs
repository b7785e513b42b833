//! PostgreSQL for one loop: connect, pipeline, statement cache, transactions, deadlines, reconnect.
//!
//! A [`Database`] is owned by one thread and driven by that thread's event loop; it never blocks, never sleeps,
//! and asks for no clock but the `now` it is handed. Everything that waits is a plain future, woken through the
//! standard [`std::task::Waker`], so any executor will do.
//!
//! # Driving it
//!
//! ```no_run
//! # fn run_ready_tasks() -> bool { false }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Instant;
//!
//! let mut poll = mio::Poll::new()?;
//! let config = pg::Config::parse("postgresql://user@localhost/name")?;
//! let tokens = 1000..1000 + config.tokens_needed();
//! let db = pg::Database::new(config, poll.registry().try_clone()?, tokens, Box::new(pg::NoEvents), Instant::now());
//! let mut events = mio::Events::with_capacity(256);
//! loop {
//!     let now = Instant::now();
//!     let wait = db.next_deadline(now).map(|at| at.saturating_duration_since(now));
//!     poll.poll(&mut events, wait)?;
//!     let now = Instant::now();
//!     for event in &events {
//!         // `false`: the token is not one of the database's.
//!         let _ours = db.on_ready(event, now);
//!     }
//!     db.on_deadline(now);
//!     // Tasks ask for queries; one write per connection sends them all. Sending may itself end a wait.
//!     loop {
//!         let ran = run_ready_tasks();
//!         db.flush(now);
//!         if !ran {
//!             break;
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! # Asking
//!
//! ```no_run
//! # async fn handler(db: &pg::Database) -> Result<(), pg::Error> {
//! let world = db.statement("SELECT id, randomnumber FROM world WHERE id = $1");
//! let row = db.query_one(&world, &[&42_i32]).await?;
//! let number: i32 = row.get(1)?;
//!
//! let mut batch = db.batch();
//! batch.push(&world, &[&7_i32]).await?; // Waits only when the statement was never prepared before.
//! batch.push_all(&world, (1..=20_i32).map(|id| [id])).await?; // The same for many, and for less.
//! for rows in batch.send().await?.iter() {
//!     for row in rows? {
//!         let mut values = row.values(); // In order; `row.int4(1)` and `row.get::<i32>(1)` in any.
//!         let _ = (values.int4()?, values.int4()?);
//!     }
//! }
//! # let _ = number; Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod database;
mod dedicated;

mod config;
mod error;
mod events;
mod rows;
mod statement;
mod tally;

mod cancels;
mod certificate;
mod common;
mod connect;
mod engine;
mod lanes;
mod link;

mod encode;
mod inbox;
mod message;
mod pipeline;
mod requests;
mod scanner;

mod backoff;
mod driver;
mod opening;
mod parameters;
mod resolve;
mod secure;
mod socket;
mod tls;
mod wire;

pub use config::{Config, ConfigError, Prepare};
pub use database::{Batch, Database};
pub use dedicated::{Dedicated, Transaction};
pub use error::{Error, SqlError};
pub use events::{Events, NoEvents};
pub use postgres_types::{FromSql, ToSql, Type};
pub use rows::{Record, Replies, Row, RowIter, Rows, Values};
pub use statement::Statement;
pub use tally::{Counters, Durations};
pub use tokio_postgres;
