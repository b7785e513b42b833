//! The program `worker`: the bundled application.
#![forbid(unsafe_code)]

fn main() {}
