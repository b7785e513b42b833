//! A private PostgreSQL cluster for development: found, made, started and stopped.

#![forbid(unsafe_code)]
