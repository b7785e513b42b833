//! Log files that never block their writer and can be reopened.

#![forbid(unsafe_code)]
