//! PostgreSQL for one loop: connect, pipeline, statement cache, deadlines, reconnect.

#![forbid(unsafe_code)]
