//! Method and path to route; built once, then read-only.

#![forbid(unsafe_code)]
