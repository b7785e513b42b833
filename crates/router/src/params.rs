//! What the parameters of a pattern matched.

use std::borrow::Cow;

use crate::pattern::PARAMS_MAX;

/// The parameters of one match, borrowed from the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<'r, 'p> {
    pub(crate) names: &'r [Box<str>],
    pub(crate) values: Values<'p>,
}

/// Values in the order of the pattern, as places in the path; only as many as there are names count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values<'p> {
    path: &'p [u8],
    places: [(u32, u32); PARAMS_MAX],
}

impl<'p> Values<'p> {
    pub(crate) fn of(path: &'p [u8]) -> Values<'p> {
        Values { path, places: Default::default() }
    }

    /// Sets a value: `len` bytes of the path, with `behind` bytes behind their beginning.
    pub(crate) fn set(&mut self, index: usize, behind: usize, len: usize) {
        if let Some(place) = self.places.get_mut(index) {
            *place = ((self.path.len() - behind) as u32, len as u32);
        }
    }

    fn iter(self) -> impl ExactSizeIterator<Item = &'p [u8]> {
        let Values { path, places } = self;
        places.into_iter().map(move |(start, len)| {
            let start = start as usize;
            path.get(start..start + len as usize).unwrap_or_default()
        })
    }
}

impl<'r, 'p> Params<'r, 'p> {
    /// Returns a parameter as it was sent, percent-encoding included.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'p [u8]> {
        self.iter().find(|&(known, _)| known == name).map(|(_, value)| value)
    }

    /// Returns a parameter percent-decoded; `None` if there is none of that name or it holds a malformed escape.
    #[must_use]
    pub fn decode(&self, name: &str) -> Option<Cow<'p, [u8]>> {
        percent_decode(self.get(name)?)
    }

    /// Iterates over names and values, as sent, in the order of the pattern.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'r str, &'p [u8])> + use<'r, 'p> {
        self.names.iter().map(|name| &**name).zip(self.values.iter())
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Decodes `%XX`; `+` stays what it is. `None` where a `%` is not followed by two hexadecimal digits.
#[must_use]
pub fn percent_decode(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !bytes.contains(&b'%') {
        return Some(Cow::Borrowed(bytes));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, tail)) = next_decoded(rest)? {
        decoded.push(byte);
        rest = tail;
    }
    Some(Cow::Owned(decoded))
}

/// Whether `raw` stands for `literal`.
pub(crate) fn matches_literal(raw: &[u8], literal: &[u8]) -> bool {
    if raw == literal {
        return true;
    }
    if raw.len() <= literal.len() || !raw.contains(&b'%') {
        return false;
    }
    let mut rest = raw;
    for &wanted in literal {
        match next_decoded(rest) {
            Some(Some((byte, tail))) if byte == wanted => rest = tail,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// The first byte that `bytes` stands for and what follows it: `Some(None)` at the end, `None` if malformed.
#[expect(clippy::option_option, reason = "the end and a malformed escape are different answers")]
fn next_decoded(bytes: &[u8]) -> Option<Option<(u8, &[u8])>> {
    match bytes {
        [] => Some(None),
        [b'%', high, low, tail @ ..] => {
            let digit = |byte: u8| (byte as char).to_digit(16);
            let byte = digit(*high)? << 4 | digit(*low)?;
            Some(Some((byte as u8, tail)))
        }
        [b'%', ..] => None,
        [byte, tail @ ..] => Some(Some((*byte, tail))),
    }
}
