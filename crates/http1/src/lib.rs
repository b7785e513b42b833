//! HTTP/1.1 without I/O: request heads, body framing and response writing.
//!
//! - Nothing here touches a socket, a clock, a global or a log: bytes are handed in, verdicts come out.
//! - Strict where request smuggling lives. Where RFC 9112 asks for more than gunicorn, the RFC wins.
//! - Every verdict is the same however the bytes were split: a prefix is [`Parsed::Partial`] or has the same verdict.
//! - Nothing panics on input, and nothing on the path of an ordinary request allocates.
//!
//! ```
//! use http1::{FieldStorage, Framing, Parsed, Progress, Rules, parse_head};
//!
//! let rules = Rules::default();
//! let mut fields = FieldStorage::new();
//! let mut progress = Progress::default();
//! let input = b"GET /json?n=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
//! let Ok(Parsed::Complete(head)) = parse_head(input, &rules, &mut progress, &mut fields) else { panic!() };
//! assert_eq!((head.path(), head.query()), (&b"/json"[..], Some(&b"n=1"[..])));
//! assert_eq!((head.len(), head.framing(), head.keep_alive()), (input.len(), Framing::None, true));
//! ```

#![forbid(unsafe_code)]

mod body;
mod body_writer;
mod chars;
mod error;
mod field_block;
mod head;
mod interpret;
mod parse;
mod quick;
mod refusal;
mod response;
mod rules;
mod run;
mod scan;
mod stamp;
pub mod status;
mod target;

pub use body::{BodyDecoder, EXTENSION_BYTES_MAX, Step, TRAILER_BYTES_MAX};
pub use body_writer::{BodyWriter, Finish};
pub use error::{BodyError, HeadError, ResponseError};
pub use field_block::FieldBlock;
pub use head::{Field, FieldStorage, Fields, Framing, Head, Method, Version};
pub use parse::{Parsed, Progress, parse_head};
pub use refusal::Refusal;
pub use response::{CONTINUE, Encoder, Exchange, interim, respond, written_field};
pub use rules::{HeaderMap, Limits, Policy, Rules};
pub use stamp::Stamp;
