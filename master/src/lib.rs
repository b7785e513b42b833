//! The arbiter: binds, forks workers, supervises them.

#![forbid(unsafe_code)]
