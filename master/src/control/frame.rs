//! Frames of the control socket: four bytes of length, big-endian, then JSON. Both ends use this.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest request.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Longest reply: every worker of the largest fleet has its line.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

const LENGTH_BYTES: usize = 4;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the reply.
    #[serde(default)]
    pub id: Value,
    /// The command, split as a shell would.
    pub command: String,
    /// More words of it.
    #[serde(default)]
    pub args: Vec<Value>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    #[serde(default)]
    pub id: Value,
    /// `ok` or `error`.
    pub status: String,
    /// The answer.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Request {
    /// The words of the command.
    ///
    /// # Errors
    ///
    /// A quote that is never closed.
    pub fn words(&self) -> Result<Vec<String>, String> {
        let mut words = shared::settings::split(&self.command).map_err(|why| why.to_string())?;
        words.extend(self.args.iter().map(|arg| match arg {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }));
        Ok(words)
    }
}

impl Reply {
    /// An answer.
    #[must_use]
    pub fn ok(id: Value, data: Value) -> Reply {
        Reply { id, status: "ok".into(), data, error: None }
    }

    /// A refusal.
    #[must_use]
    pub fn error(id: Value, why: &str) -> Reply {
        Reply { id, status: "error".into(), data: Value::Null, error: Some(why.into()) }
    }
}

/// A frame that is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message of {} bytes is too long", self.0)
    }
}

impl std::error::Error for TooLong {}

/// A frame with `message` in it.
#[must_use]
pub fn write(message: &impl Serialize) -> Vec<u8> {
    // What is sent is made of strings and numbers, which JSON always has words for.
    let json = serde_json::to_vec(message).unwrap_or_default();
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &json].concat()
}

/// Takes the first frame out of `buffer`; `Ok(None)`: it is not complete.
///
/// # Errors
///
/// It is longer than `most`; nothing that follows can be understood.
pub fn take(buffer: &mut Vec<u8>, most: usize) -> Result<Option<Vec<u8>>, TooLong> {
    let Some((length, rest)) = buffer.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if most < length {
        return Err(TooLong(length));
    }
    if rest.len() < length {
        return Ok(None);
    }
    let frame = rest[..length].to_vec();
    buffer.drain(..LENGTH_BYTES + length);
    Ok(Some(frame))
}

/// Whether [`take`] would take something, or refuse it.
#[must_use]
pub fn is_complete(buffer: &[u8], most: usize) -> bool {
    buffer.split_first_chunk::<LENGTH_BYTES>().is_some_and(|(length, rest)| {
        let length = u32::from_be_bytes(*length) as usize;
        most < length || length <= rest.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_every_cut() {
        let request = Request {
            id: 7.into(),
            command: "show 'workers'".into(),
            args: vec!["-1".into(), 2.into()],
        };
        assert_eq!(request.words().unwrap(), ["show", "workers", "-1", "2"]);
        let wire = write(&request);
        for cut in 0..wire.len() {
            let mut buffer = wire[..cut].to_vec();
            assert_eq!(take(&mut buffer, REQUEST_BYTES_MAX), Ok(None), "cut at {cut}");
            buffer.extend(&wire[cut..]);
            buffer.extend(b"\0\0");
            let json = take(&mut buffer, REQUEST_BYTES_MAX).unwrap().unwrap();
            assert_eq!(serde_json::from_slice::<Request>(&json).unwrap(), request);
            assert_eq!(buffer, b"\0\0");
        }
    }

    #[test]
    fn a_length_is_not_believed() {
        for (bytes, length) in
            [(&b"GET / HTTP/1.1"[..], 0x4745_5420), (b"\xff\xff\xff\xff", u32::MAX as usize)]
        {
            assert_eq!(take(&mut bytes.to_vec(), REQUEST_BYTES_MAX), Err(TooLong(length)));
        }
        assert_eq!(take(&mut b"\0\0\0\0".to_vec(), REQUEST_BYTES_MAX), Ok(Some(vec![])));
    }
}
