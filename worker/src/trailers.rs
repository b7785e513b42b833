//! Fields that stand after a body.

use http1::{BodyDecoder, Field};

/// The trailers of a request: fields sent after a chunked body. They are never mixed with the header's.
///
/// At most 64 KiB, and none that concerns framing, routing or authentication: such a request is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers(Vec<Trailer>);

/// Name and value.
type Trailer = (Box<[u8]>, Box<[u8]>);

impl Trailers {
    pub(crate) const NONE: Trailers = Trailers(Vec::new());

    pub(crate) fn of(decoder: &BodyDecoder) -> Trailers {
        Trailers(
            decoder
                .trailers()
                .map(|Field { name, value }| (Box::from(name), Box::from(value)))
                .collect(),
        )
    }

    /// The value of the first one called `name`, compared without case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Names and values, in wire order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
