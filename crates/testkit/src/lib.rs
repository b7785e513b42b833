//! What the tests share: running servers, PostgreSQL, Nginx, and load clients that count failures.

#![forbid(unsafe_code)]
