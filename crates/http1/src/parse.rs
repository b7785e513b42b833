//! `parse_head`: a fast pass for heads that are there whole and in order, the line scanner for all others.

use crate::error::HeadError;
use crate::head::{FieldStorage, Head};
use crate::interpret::interpret;
use crate::rules::Rules;
use crate::scan::{self, RequestLine};

pub use crate::scan::Progress;

/// What the bytes so far amount to. That more are needed is no error.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<T> {
    /// Everything is there.
    Complete(T),
    /// Nothing wrong so far; call again with more bytes.
    Partial,
}

/// Parses the request head at the beginning of `buf`.
///
/// `progress` belongs to the connection and is what makes a head that arrives in many pieces cheap: hand in the same
/// one with the longer buffer, and a new one (`Progress::default()`) after bytes were taken from the buffer's front,
/// the head's own included. `fields` may be shared by all connections. An empty line before the request line counts as
/// part of the head. Limits are enforced as bytes arrive, so `buf` never needs to be longer than
/// [`Limits::head_bytes_max`](crate::Limits::head_bytes_max).
///
/// # Errors
///
/// The first certain fault, which no further byte could mend: at once, though the head may not have ended.
pub fn parse_head<'a>(
    buf: &'a [u8],
    rules: &Rules,
    progress: &mut Progress,
    fields: &'a mut FieldStorage,
) -> Result<Parsed<Head<'a>>, HeadError> {
    let Some(len) = scan::scan(buf, rules, progress)? else { return Ok(Parsed::Partial) };
    fields.spans.clear();
    let mut line: Option<RequestLine> = None;
    let mut again = Progress::default();
    scan::visit(
        &buf[..len],
        rules,
        &mut again,
        |_, found| line = Some(found),
        |span| fields.spans.push(span),
    )?;
    let line = line.ok_or(HeadError::Method)?;
    interpret(buf, len, line, &rules.policy, fields).map(Parsed::Complete)
}
