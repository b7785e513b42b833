//! Fields of a response that are checked and kept before its head is written.
//!
//! For applications that give their fields in one piece and want to hear at once what is wrong with them.

use crate::chars;
use crate::error::ResponseError;
use crate::response::{append_field, belongs_to, check_field, content_length, is_ours};

/// Checked fields, encoded. Used again and again, it keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct FieldBlock {
    pub(crate) bytes: Vec<u8>,
    pub(crate) declared: Option<u64>,
    pub(crate) closes: bool,
    pub(crate) upgrades: bool,
    status: u16,
}

impl FieldBlock {
    /// Empties the block, for a response with `status`.
    pub fn begin(&mut self, status: u16) {
        self.bytes.clear();
        *self =
            FieldBlock { bytes: std::mem::take(&mut self.bytes), status, ..FieldBlock::default() };
    }

    /// Adds a field, by the rules of [`Encoder::field`](crate::Encoder::field).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        check_field(name, value)?;
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = content_length(value)?;
                if self.declared.is_some_and(|declared| declared != length) {
                    return Err(ResponseError::ContentLength);
                }
                self.declared = Some(length);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.closes |=
                    chars::list(value).any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            _ if belongs_to(name, self.status) => {
                self.upgrades |= name.eq_ignore_ascii_case(b"upgrade");
                append_field(&mut self.bytes, name, value);
            }
            _ if is_ours(name) => (),
            _ => append_field(&mut self.bytes, name, value),
        }
        Ok(())
    }

    /// The Content-Length among the fields.
    #[must_use]
    pub fn declared(&self) -> Option<u64> {
        self.declared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_fields_are_refused_and_ours_are_left_out() {
        let mut block = FieldBlock::default();
        block.field(b"X-One", b" 1 ").unwrap();
        block.field(b"Date", b"never").unwrap();
        block.field(b"content-Length", b"5").unwrap();
        block.field(b"Connection", b"x, Close").unwrap();
        assert_eq!(block.bytes, b"X-One: 1\r\n");
        assert_eq!((block.declared(), block.closes), (Some(5), true));
        assert!(block.field(b"a b", b"").is_err());
        assert!(block.field(b"a", b"x\r\ny").is_err());
        assert!(block.field(b"Content-Length", b"6").is_err());
        block.field(b"Upgrade", b"h2c").unwrap();
        assert!(!block.upgrades);
        block.begin(426);
        assert!(block.bytes.is_empty() && block.declared().is_none() && !block.closes);
        block.field(b"Upgrade", b"h2c").unwrap();
        block.field(b"Proxy-Authenticate", b"Basic").unwrap();
        assert_eq!((&*block.bytes, block.upgrades), (&b"Upgrade: h2c\r\n"[..], true));
    }
}
