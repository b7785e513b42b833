//! The server's messages: framing and the few bodies that are read here. No state, no I/O.

use crate::error::SqlError;

/// Bytes before a message's body: the tag and the length.
const HEAD_BYTES: usize = 5;

/// The server sent something that is not the protocol; the connection cannot be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

/// One whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub tag: u8,
    /// Without tag and length.
    pub body: &'a [u8],
    /// With them: what it takes in the buffer.
    pub whole: &'a [u8],
}

/// The first message of `bytes`; `None` if it has not arrived completely.
#[inline]
pub(crate) fn first(
    bytes: &[u8],
    message_bytes_max: usize,
) -> Result<Option<Message<'_>>, Malformed> {
    let Some(length) = length(bytes)? else { return Ok(None) };
    if length > message_bytes_max {
        return Err(Malformed("a message larger than is accepted"));
    }
    match bytes.get(..length) {
        Some(whole) => Ok(Some(Message { tag: whole[0], body: &whole[HEAD_BYTES..], whole })),
        None => Ok(None),
    }
}

/// The length of the first message, tag included, as soon as its head has arrived.
#[inline]
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(&[_, a, b, c, d]) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    match usize::try_from(i32::from_be_bytes([a, b, c, d])) {
        Ok(length @ 4..) => Ok(Some(length + 1)),
        _ => Err(Malformed("a message with an impossible length")),
    }
}

/// Reads big-endian numbers and C strings from the front of a body.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) =
            self.0.split_at_checked(count).ok_or(Malformed("a message that ends too early"))?;
        self.0 = rest;
        Ok(front)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn c_string(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.0).ok_or(Malformed("a text without its end"))?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Ok(text)
    }
}

/// Checks a DataRow's structure, so that reading it later cannot fail; returns the number of its values.
#[inline]
pub(crate) fn check_row(body: &[u8]) -> Result<usize, Malformed> {
    let wrong = Err(Malformed("a row whose values do not fill it"));
    let Some((&count, mut rest)) = body.split_first_chunk::<2>() else { return wrong };
    let count = usize::from(u16::from_be_bytes(count));
    for _ in 0..count {
        let Some((&length, values)) = rest.split_first_chunk::<4>() else { return wrong };
        let length = i32::from_be_bytes(length);
        // -1 is NULL.
        let length = if length == -1 { 0 } else { usize::try_from(length).unwrap_or(usize::MAX) };
        let Some(after) = values.get(length..) else { return wrong };
        rest = after;
    }
    if rest.is_empty() { Ok(count) } else { wrong }
}

/// The number at the end of a command tag such as `UPDATE 20` or `INSERT 0 1`; 0 if there is none.
#[inline]
pub(crate) fn affected(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let mut number = 0_u64;
    let mut scale = 1_u64;
    for &byte in tag.iter().rev() {
        match byte {
            b'0'..=b'9' => {
                number = number.saturating_add(u64::from(byte - b'0').saturating_mul(scale));
                scale = scale.saturating_mul(10);
            }
            b' ' => return number,
            _ => return 0,
        }
    }
    0
}

/// The object identifiers in a ParameterDescription.
pub(crate) fn parameter_oids(body: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut fields = Fields(body);
    let count = fields.u16()?;
    (0..count).map(|_| fields.u32()).collect()
}

/// The names and type identifiers in a RowDescription.
pub(crate) fn column_oids(body: &[u8]) -> Result<Vec<(Box<str>, u32)>, Malformed> {
    let mut fields = Fields(body);
    let count = fields.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let name = String::from_utf8_lossy(fields.c_string()?).into();
        // The table's identifier and the column's number in it.
        fields.bytes(6)?;
        let oid = fields.u32()?;
        // The type's size and modifier, and a format that says nothing before Bind.
        fields.bytes(8)?;
        columns.push((name, oid));
    }
    Ok(columns)
}

/// The fields of an ErrorResponse.
pub(crate) fn sql_error(body: &[u8]) -> Result<SqlError, Malformed> {
    let mut fields = Fields(body);
    let mut error = SqlError::default();
    loop {
        let field = fields.u8()?;
        if field == 0 {
            return Ok(error);
        }
        let text = String::from_utf8_lossy(fields.c_string()?);
        match field {
            // V is S in English, whatever the server's language; it comes after S.
            b'S' | b'V' => error.severity = text.into(),
            b'C' => error.code = text.into(),
            b'M' => error.message = text.into(),
            b'D' => error.detail = Some(text.into()),
            b'H' => error.hint = Some(text.into()),
            b'n' => error.constraint = Some(text.into()),
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_or_absent() {
        let bytes = b"Z\0\0\0\x05IZ\0\0";
        for cut in 0..6 {
            assert_eq!(first(&bytes[..cut], 100), Ok(None), "cut at {cut}");
        }
        let message = first(bytes, 100).unwrap().unwrap();
        assert_eq!((message.tag, message.body, message.whole.len()), (b'Z', &b"I"[..], 6));
        assert!(first(b"Z\0\0\0\x03I", 100).is_err());
        assert!(first(b"Z\xff\xff\xff\xff", 100).is_err());
        assert!(first(b"D\0\0\x01\0", 100).is_err());
    }

    #[test]
    fn rows_are_checked_to_their_last_byte() {
        let row = b"\0\x02\0\0\0\x01x\xff\xff\xff\xff";
        assert_eq!(check_row(row), Ok(2));
        for cut in 0..row.len() {
            assert!(check_row(&row[..cut]).is_err(), "cut at {cut}");
        }
        assert!(check_row(b"\0\x01\xff\xff\xff\xfe").is_err());
        assert!(check_row(b"\0\x01\x7f\xff\xff\xff").is_err());
    }

    #[test]
    fn command_tags() {
        for (tag, rows) in
            [("SELECT 20", 20), ("INSERT 0 1", 1), ("BEGIN", 0), ("UPDATE 500", 500), ("", 0)]
        {
            assert_eq!(affected(format!("{tag}\0").as_bytes()), rows, "{tag}");
        }
    }
}
