//! Addresses, listener groups, inheriting and passing listeners.

#![forbid(unsafe_code)]
