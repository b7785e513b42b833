//! Runs of bytes of one kind, measured sixteen bytes at a time.

use wide::u8x16;

/// Bytes that are judged together.
const BLOCK_BYTES: usize = 16;

/// Kinds of bytes whose runs are measured. Narrower than what the rules permit, where that is quicker to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Letters, digits and hyphen: what nearly all field names are made of.
    Name,
    /// What a field value may hold, but HTAB.
    Value,
    /// What a request target may hold, but `?`.
    Path,
    /// Letters, digits, hyphen and dot: what nearly all hosts are made of.
    Host,
}

impl Kind {
    /// One bit for each byte that is not of this kind.
    #[inline(always)]
    fn others(self, block: [u8; BLOCK_BYTES]) -> u32 {
        let block = u8x16::new(block);
        let is = |byte: u8| block.cmp_eq(u8x16::splat(byte));
        let lies_in = |block: u8x16, first: u8, last: u8| {
            let distance = block - u8x16::splat(first);
            distance.min(u8x16::splat(last - first)).cmp_eq(distance)
        };
        let alphanumeric =
            || lies_in(block | u8x16::splat(0x20), b'a', b'z') | lies_in(block, b'0', b'9');
        let ours = match self {
            Kind::Name => alphanumeric() | is(b'-'),
            Kind::Host => alphanumeric() | is(b'-') | is(b'.'),
            Kind::Path => {
                let others = is(b'#') | is(b'?');
                return !lies_in(block, 0x21, 0x7e).move_mask().cast_unsigned() & 0xffff
                    | others.move_mask().cast_unsigned();
            }
            Kind::Value => {
                let others = lies_in(block, 0, 0x1f) | is(0x7f);
                return others.move_mask().cast_unsigned();
            }
        };
        !ours.move_mask().cast_unsigned() & 0xffff
    }
}

/// Returns how many bytes of `kind` stand at the front; `None` if nothing follows them.
#[inline(always)]
pub(crate) fn run(bytes: &[u8], kind: Kind) -> Option<usize> {
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk() {
        let others = kind.others(*block);
        if others != 0 {
            return Some(bytes.len() - rest.len() + others.trailing_zeros() as usize);
        }
        rest = behind;
    }
    last_run(rest, kind).map(|end| bytes.len() - rest.len() + end)
}

/// As [`run`], for less than a block.
#[inline(never)]
fn last_run(bytes: &[u8], kind: Kind) -> Option<usize> {
    // NUL ends a run of any kind.
    let mut block = [0; BLOCK_BYTES];
    block.iter_mut().zip(bytes).for_each(|(place, &byte)| *place = byte);
    let end = kind.others(block).trailing_zeros() as usize;
    (end < bytes.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chars;

    const KINDS: [Kind; 4] = [Kind::Name, Kind::Value, Kind::Path, Kind::Host];

    fn holds(kind: Kind, byte: u8) -> bool {
        match kind {
            Kind::Name => byte.is_ascii_alphanumeric() || byte == b'-',
            Kind::Host => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'),
            Kind::Path => byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?'),
            Kind::Value => 0x20 <= byte && byte != 0x7f,
        }
    }

    #[test]
    fn every_byte_ends_the_runs_of_other_kinds_and_no_others_in_every_place() {
        for kind in KINDS {
            for byte in 0..=255 {
                for place in 0..BLOCK_BYTES {
                    let mut block = [b'a'; BLOCK_BYTES];
                    block[place] = byte;
                    let want = u32::from(!holds(kind, byte)) << place;
                    assert_eq!(kind.others(block), want, "{kind:?} {byte:#x} at {place}");
                }
            }
        }
    }

    #[test]
    fn no_kind_holds_more_than_the_rules_permit() {
        for byte in 0..=255 {
            let within = [chars::TOKEN, chars::VALUE, chars::TARGET, chars::REG_NAME];
            for (kind, class) in KINDS.into_iter().zip(within) {
                assert!(!holds(kind, byte) || chars::is(byte, class), "{kind:?} {byte:#x}");
            }
        }
    }

    #[test]
    fn a_run_has_an_end_once_another_byte_has_come() {
        for kind in KINDS {
            for len in 0..70 {
                let mut bytes = vec![b'a'; len];
                assert_eq!(run(&bytes, kind), None);
                bytes.push(0x7f);
                assert_eq!(run(&bytes, kind), Some(len));
                bytes.extend_from_slice(b"\x00aaaaaaaaaaaaaaaaa\x00");
                assert_eq!(run(&bytes, kind), Some(len));
            }
        }
    }
}
