//! Canned responses: what is said to a request that gets no further.

use crate::body_writer::Finish;
use crate::response::{Encoder, Exchange};
use crate::stamp::Stamp;
use crate::status::reason_phrase;

/// A short answer in plain text: `STATUS PHRASE: reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The status.
    pub status: u16,
    /// What is wrong, for people; may be empty.
    pub reason: &'a str,
    /// `Allow`, which a 405 must have.
    pub allow: Option<&'a str>,
    /// `Retry-After` in seconds, for a 503.
    pub retry_after: Option<u32>,
}

impl<'a> Refusal<'a> {
    /// Makes a refusal without further fields.
    #[must_use]
    pub const fn new(status: u16, reason: &'a str) -> Self {
        Refusal { status, reason, allow: None, retry_after: None }
    }

    /// Appends the response. Use [`Exchange::UNKNOWN`] where the request did not parse or its body cannot be trusted:
    /// the response says `Connection: close` then.
    pub fn write(&self, out: &mut Vec<u8>, exchange: Exchange, stamp: &Stamp) -> Finish {
        match self.try_write(out, exchange, stamp) {
            Ok(finish) => finish,
            // The fields were not valid: refuse without them.
            Err(_) => {
                let status = if (400..=599).contains(&self.status) { self.status } else { 500 };
                crate::response::respond(
                    out,
                    &exchange,
                    stamp,
                    status,
                    "text/plain; charset=utf-8",
                    b"",
                );
                if exchange.keep_alive { Finish::KeepAlive } else { Finish::Close }
            }
        }
    }

    fn try_write(
        &self,
        out: &mut Vec<u8>,
        exchange: Exchange,
        stamp: &Stamp,
    ) -> Result<Finish, crate::ResponseError> {
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        body.push(b' ');
        body.extend_from_slice(reason_phrase(self.status).as_bytes());
        if !self.reason.is_empty() {
            body.extend_from_slice(b": ");
            body.extend_from_slice(self.reason.as_bytes());
        }
        body.push(b'\n');
        let mut encoder = Encoder::new(out, exchange, stamp, self.status)?;
        if let Some(allow) = self.allow {
            encoder.field("Allow", allow.as_bytes())?;
        }
        if let Some(seconds) = self.retry_after {
            encoder.field("Retry-After", itoa::Buffer::new().format(seconds).as_bytes())?;
        }
        encoder.field("Content-Type", b"text/plain; charset=utf-8")?;
        Ok(encoder.finish(&body))
    }
}
