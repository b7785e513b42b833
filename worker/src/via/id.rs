//! Ids of requests and traces.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Longest id of a request that is taken over, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Whether a client's id can be repeated anywhere without harm.
pub(crate) fn is_valid_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Makes ids that no other process makes.
#[derive(Debug)]
pub(crate) struct Ids {
    state: u64,
    seed: u64,
}

impl Ids {
    pub(crate) fn new() -> Ids {
        // The standard library's hash keys are random for each process that was executed; copies of one have the same.
        let random = |number| {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u64(number);
            hasher.write_u32(std::process::id());
            hasher.write_u64(sys::clock::monotonic());
            hasher.finish()
        };
        Ids { state: random(1), seed: random(2) }
    }

    /// The next number, which says nothing about the others at a glance. Source: SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state ^ self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An id for a request: 32 hexadecimal digits.
    pub(crate) fn request_id(&mut self) -> Box<str> {
        [hex(self.next()), hex(self.next())].concat().into()
    }
}

/// A number as 16 hexadecimal digits.
pub(crate) fn hex(number: u64) -> String {
    let digit = |place: u32| b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    (0..16).rev().map(|place| char::from(digit(place))).collect()
}

/// The trace that a request belongs to: W3C Trace Context's `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace<'r> {
    trace_id: &'r str,
    parent_id: &'r str,
    flags: u8,
}

impl<'r> Trace<'r> {
    /// Reads `traceparent`; `None`: it is not valid, and means nothing then. Later versions are read as version 00.
    pub(crate) fn parse(value: &'r [u8]) -> Option<Trace<'r>> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(5, '-');
        let mut hex = |length: usize| {
            let part = parts.next()?;
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            (part.len() == length && part.bytes().all(is_hex)).then_some(part)
        };
        let (version, trace_id, parent_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let has_more = parts.next().is_some();
        if version == "ff" || version == "00" && has_more || is_zero(trace_id) || is_zero(parent_id)
        {
            return None;
        }
        Some(Trace { trace_id, parent_id, flags: u8::from_str_radix(flags, 16).ok()? })
    }

    /// The trace, as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &'r str {
        self.trace_id
    }

    /// The caller's part of the trace, as 16 hexadecimal digits.
    #[must_use]
    pub fn parent_id(&self) -> &'r str {
        self.parent_id
    }

    /// Whether the caller may have recorded its part.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_as_the_specification_says() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let valid = format!("00-{trace}-{parent}-01");
        let read = Trace::parse(valid.as_bytes()).unwrap();
        assert_eq!((read.trace_id(), read.parent_id(), read.is_sampled()), (trace, parent, true));
        assert!(Trace::parse(format!("01-{trace}-{parent}-00-more").as_bytes()).is_some());
        let zero = "0".repeat(32);
        for broken in [
            String::new(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{zero}-{parent}-01"),
            format!("00-{trace}-{}-01", &zero[..16]),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("0-{trace}-{parent}-01"),
        ] {
            assert_eq!(Trace::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn ids_are_plain_and_differ() {
        let mut ids = Ids::new();
        let (one, two, other) = (ids.request_id(), ids.request_id(), Ids::new().request_id());
        assert_eq!(hex(0x0123_4567_89ab_cdef), "0123456789abcdef");
        assert!(one != two && one != other && two != other);
        assert!(is_valid_id(&one) && one.len() == 32);
        assert!(is_valid_id(&"a".repeat(128)) && is_valid_id("A.b_c-9"));
        for bad in ["", "a b", "a\"", "ä", "a\n", &"a".repeat(129)] {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
