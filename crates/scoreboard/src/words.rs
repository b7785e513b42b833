//! Reading and writing runs of words that are not numbers: texts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `text`, cut to what `words` can hold: its length, then its bytes.
pub(crate) fn put_text(words: &[AtomicU64], text: &[u8]) {
    let Some((length, words)) = words.split_first() else { return };
    let text = &text[..text.len().min(words.len() * 8)];
    length.store(text.len() as u64, Ordering::Relaxed);
    let (whole, rest) = text.as_chunks::<8>();
    for (word, part) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*part), Ordering::Relaxed);
    }
    if let (Some(word), [_, ..]) = (words.get(whole.len()), rest) {
        let mut padded = [0; 8];
        // Byte by byte: so few are not worth a call.
        padded.iter_mut().zip(rest).for_each(|(place, &byte)| *place = byte);
        word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
    }
}

/// Reads a text; what moves a cursor or ends a line is replaced, because clients choose these bytes and logs show them.
pub(crate) fn text(words: &[AtomicU64]) -> String {
    let Some((length, words)) = words.split_first() else { return String::new() };
    let length = (length.load(Ordering::Relaxed) as usize).min(words.len() * 8);
    words
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
        .take(length)
        .map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' })
        .collect()
}
