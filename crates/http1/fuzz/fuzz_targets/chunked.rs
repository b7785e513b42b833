//! A chunked body, without a head before it: the same data and the same end however it is cut.

#![no_main]

use http1::{BodyDecoder, BodyError, Framing, Limits};
use libfuzzer_sys::fuzz_target;

/// What a decoder makes of the pieces: the data, how many bytes it took, and how it ended.
fn decode<'a>(
    limits: &Limits,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u8>, usize, Result<bool, BodyError>) {
    let mut decoder = BodyDecoder::new(Framing::Chunked, limits);
    let (mut data, mut taken, mut buf) = (Vec::new(), 0, Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&buf) {
                Err(error) => return (data, 0, Err(error)),
                Ok(step) => {
                    data.extend_from_slice(&buf[step.data]);
                    buf.drain(..step.consumed);
                    taken += step.consumed;
                    if step.done || step.consumed == 0 {
                        break;
                    }
                }
            }
        }
    }
    for field in decoder.trailers() {
        assert!(
            !field.name.is_empty()
                && !field.value.contains(&b'\r')
                && !field.value.contains(&b'\n')
        );
    }
    (data, taken, Ok(decoder.is_done()))
}

fuzz_target!(|input: &[u8]| {
    let [cut, raw @ ..] = input else { return };
    // Either small limits, which short inputs reach, or those of a server, for the bounds of a whole body.
    let limits = match cut % 2 {
        0 => Limits { field_bytes_max: 64, fields_max: 4, ..Limits::default() },
        _ => Limits::default(),
    };
    let whole = decode(&limits, std::iter::once(raw));
    let (first, second) = raw.split_at(usize::from(*cut).min(raw.len()));
    assert_eq!(decode(&limits, [first, second].into_iter()), whole);
    assert_eq!(decode(&limits, raw.chunks(1)), whole);
    assert!(whole.0.len() <= raw.len());
});
