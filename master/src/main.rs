//! The program `master`.
#![forbid(unsafe_code)]

fn main() {}
