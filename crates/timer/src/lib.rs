//! Deadlines of one loop; is handed the time.

#![forbid(unsafe_code)]
