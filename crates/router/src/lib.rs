//! Method and path to route; built once, then read-only.
//!
//! # What matches what
//!
//! - A path is compared segment by segment. `{name}` takes one segment that is not empty, `{*name}`, last, takes all the
//!   rest, nothing included. Slashes count: `/a`, `/a/` and `//a` are three paths, and `..` is a segment like others.
//! - Of several patterns that match, the one with the leftmost literal segment is taken, whatever the method; if it does
//!   not have the method, the answer is 405, not the next pattern.
//! - HEAD goes to GET's route where there is none of its own. OPTIONS without a route is [`Match::Options`], to be
//!   answered with 204 and `Allow`; so is `OPTIONS *`.
//! - Percent-encoding never divides a segment: `%2F` is no slash. Literals match however they are encoded (`/%6Ason` is
//!   `/json`); a segment with a malformed escape matches no literal. Parameters are handed out as sent, by
//!   [`Params::get`], or decoded, by [`Params::decode`].
//!
//! ```
//! use router::{Match, Router};
//!
//! let mut router = Router::new();
//! router.add("GET", "/queries/{n}", 1)?;
//! let Match::Found { value, params } = router.find("GET", b"/queries/20") else { panic!() };
//! assert_eq!((*value, params.get("n")), (1, Some(&b"20"[..])));
//! assert!(matches!(router.find("POST", b"/queries/20"), Match::MethodNotAllowed { allow: "GET, HEAD, OPTIONS" }));
//! assert!(matches!(router.find("GET", b"/other"), Match::NotFound));
//! # Ok::<(), router::AddError>(())
//! ```

#![forbid(unsafe_code)]

mod params;
mod pattern;
mod router;

pub use params::{Params, percent_decode};
pub use pattern::PARAMS_MAX;
pub use router::{AddError, Match, Router};
