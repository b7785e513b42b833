//! What the master and the workers must agree on.
//!
//! - [`contract`]: the variables, descriptors, messages and orders between the master and a worker.
//! - [`exit`]: exit codes, the same for both.
//! - [`preload`]: what the master and a preloader say to each other.
//! - [`settings`]: the one table of settings, and how default, environment, file and command line are laid over each other.
//!
//! ```
//! use shared::settings::Settings;
//!
//! let settings = Settings::default();
//! assert_eq!(settings.workers, 1);
//! assert_eq!(settings.bind, ["127.0.0.1:8000"]);
//! ```

#![forbid(unsafe_code)]

pub mod contract;
pub mod exit;
pub mod preload;
pub mod settings;
