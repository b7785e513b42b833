//! Every unsafe block: spawn, signal delivery, pidfd, shared memory, socket options, process title.

// The one crate in which unsafe code is allowed.
#![allow(unsafe_code)]
