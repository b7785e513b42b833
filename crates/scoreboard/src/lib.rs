//! The shared-memory blocks: one writer each, sums for readers.

#![forbid(unsafe_code)]
