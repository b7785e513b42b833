//! The library that applications are built on, and the bundled application.

#![forbid(unsafe_code)]
