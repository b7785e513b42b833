//! What the master and the workers must agree on.

#![forbid(unsafe_code)]
