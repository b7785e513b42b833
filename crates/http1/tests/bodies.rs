//! Bounds of bodies that no fixture could show.

use http1::{BodyDecoder, BodyError, Framing, Limits};

/// Feeds `start`, then `piece` again and again; returns the error with the bytes taken before it.
fn feed_until_refused(start: &[u8], piece: &[u8], at_most: usize) -> (BodyError, usize) {
    let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default());
    let mut taken = 0;
    for mut input in std::iter::once(start).chain(std::iter::repeat_n(piece, at_most)) {
        while !input.is_empty() {
            match decoder.decode(input) {
                Err(error) => return (error, taken),
                Ok(step) => {
                    assert_ne!(step.consumed, 0, "input makes progress");
                    taken += step.consumed;
                    input = &input[step.consumed..];
                }
            }
        }
    }
    panic!("nothing was refused in {taken} bytes");
}

#[test]
fn extensions_are_bounded_over_the_whole_body() {
    // Each line is short; a client could send one byte of data with each for ever.
    let piece = format!("1;{}\r\nx\r\n", "e".repeat(1000));
    let (error, _) = feed_until_refused(b"", piece.as_bytes(), 20);
    assert_eq!(error, BodyError::ExtensionsTooLong);
}

#[test]
fn trailers_are_bounded_together() {
    let piece = format!("X: {}\r\n", "v".repeat(8000));
    let (error, bytes) = feed_until_refused(b"0\r\n", piece.as_bytes(), 20);
    assert_eq!((error, error.status()), (BodyError::TrailersTooLarge, 431));
    assert!(bytes < 80_000, "{bytes}");
}

#[test]
fn largest_length_needs_no_memory() {
    let mut decoder = BodyDecoder::new(Framing::Length(u64::MAX), &Limits::default());
    let step = decoder.decode(b"abc").unwrap();
    assert_eq!((step.consumed, step.data, step.done), (3, 0..3, false));
    assert_eq!(decoder.remaining(), Some(u64::MAX - 3));
    let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default());
    let step = decoder.decode(b"ffffffffffffffff\r\nabc").unwrap();
    assert_eq!((step.consumed, step.data, step.done), (21, 18..21, false));
}
