//! Fixtures damaged at random, with fixed seeds: no panic, and the same story however the bytes are cut.

#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::path::Path;

use http1::{BodyDecoder, Framing, HeaderMap, Rules};

const ROUNDS: usize = 6_000;
const CUTS: usize = 6;

/// Bytes that mean something somewhere.
const TELLING: &[u8] = b"\r\n\t :;,=\"\\%#?/*[]_\x00\x01\x16\x7f\x80\xff019aAzZ";

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests");
    let mut paths = Vec::new();
    for kind in ["valid", "invalid"] {
        paths.extend(
            fs::read_dir(folder.join(kind))
                .expect("fixtures")
                .map(|entry| entry.expect("an entry").path()),
        );
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
    paths.sort();
    paths
        .iter()
        .map(|path| common::unescape(&fs::read_to_string(path).expect("a fixture")))
        .collect()
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=bytes.len());
        let to = random.usize(at..=bytes.len()).min(at + 24);
        match random.u8(..6) {
            0 => bytes.insert(at, TELLING[random.usize(..TELLING.len())]),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => {
                let other = &corpus[random.usize(..corpus.len())];
                let from = random.usize(..=other.len());
                let end = random.usize(from..=other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if random.bool() {
                        TELLING[random.usize(..TELLING.len())]
                    } else {
                        random.u8(..)
                    };
                }
            }
        }
    }
}

fn any_rules(random: &mut fastrand::Rng) -> Rules {
    let mut rules = Rules::default();
    if random.u8(..3) == 0 {
        rules.limits.request_line_bytes_max = random.usize(..60);
        rules.limits.fields_max = random.usize(..6);
        rules.limits.field_bytes_max = random.usize(..60);
    }
    rules.policy.permit_unconventional_http_method = random.bool();
    rules.policy.header_map =
        [HeaderMap::Drop, HeaderMap::Refuse, HeaderMap::Dangerous][random.usize(..3)];
    rules
}

#[test]
fn damaged_requests_have_one_story() {
    let corpus = corpus();
    let mut random = fastrand::Rng::with_seed(9112);
    for _ in 0..ROUNDS {
        let mut raw = corpus[random.usize(..corpus.len())].clone();
        mutate(&mut raw, &corpus, &mut random);
        let rules = any_rules(&mut random);
        let whole = common::Reader::new(&rules).feed(&raw).transcript();
        let want = common::verdict(&raw, &rules);
        for _ in 0..CUTS {
            let cut = random.usize(..=raw.len());
            let early = common::verdict(&raw[..cut], &rules);
            assert!(
                early == Ok(None) || early == want,
                "cut at {cut}: {early:?}, not {want:?}: {}",
                raw.escape_ascii()
            );
            let second = random.usize(cut..=raw.len());
            let mut reader = common::Reader::new(&rules);
            reader.feed(&raw[..cut]).feed(&raw[cut..second]).feed(&raw[second..]);
            assert_eq!(
                reader.transcript(),
                whole,
                "cut at {cut} and {second}: {}",
                raw.escape_ascii()
            );
        }
    }
}

/// What fuzzing found worth keeping (`scripts/fuzz`), cut everywhere.
#[test]
fn corpus_has_one_story() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/head");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the corpus") {
        let input = fs::read(entry.expect("an entry").path()).expect("an input");
        common::check_every_split(input.get(2..).unwrap_or_default(), &Rules::default());
        count += 1;
    }
    assert_ne!(count, 0);
}

/// Any chunks, written by hand, come out as the data they hold, whatever the cuts.
#[test]
fn chunks_come_out_whole() {
    let mut random = fastrand::Rng::with_seed(7);
    let rules = Rules::default();
    for _ in 0..500 {
        let (mut wire, mut data) = (Vec::new(), Vec::new());
        for _ in 0..random.usize(..5) {
            let chunk: Vec<u8> = (0..random.usize(1..300)).map(|_| random.u8(..)).collect();
            let extension = ["", ";a", " ; b=\"\\\" \\r\""][random.usize(..3)];
            wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(&chunk);
            wire.extend_from_slice(b"\r\n");
            data.extend_from_slice(&chunk);
        }
        wire.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
        let end = wire.len();
        wire.extend_from_slice(b"GET /next");

        let mut decoder = BodyDecoder::new(Framing::Chunked, &rules.limits);
        let (mut at, mut have, mut seen) = (0, 0, Vec::new());
        while !decoder.is_done() {
            let step = decoder.decode(&wire[at..have]).expect("valid chunks");
            seen.extend_from_slice(&wire[at..have][step.data]);
            at += step.consumed;
            if step.consumed == 0 {
                assert!(have < wire.len(), "no end");
                have = (have + random.usize(1..40)).min(wire.len());
            }
        }
        assert_eq!((at, &seen), (end, &data), "nothing of the next request is taken");
        assert_eq!(decoder.trailers().count(), 1);
    }
}

/// The largest head that the limits allow is taken, and a read buffer of `head_bytes_max` is enough for it.
#[test]
fn largest_head_fits_its_bound_exactly() {
    let mut rules = Rules::default();
    rules.limits.request_line_bytes_max = 30;
    rules.limits.fields_max = 3;
    rules.limits.field_bytes_max = 20;
    let mut raw = format!("\r\nGET /{} HTTP/1.1\r\n", "a".repeat(30 - 14)).into_bytes();
    for name in ["Host", "A", "B"] {
        raw.extend_from_slice(format!("{name}:{}\r\n", "v".repeat(17 - name.len())).as_bytes());
    }
    raw.extend_from_slice(b"\r\n");
    assert_eq!(raw.len(), rules.limits.head_bytes_max());
    let story = common::check_every_split(&raw, &rules);
    assert!(!story.contains("refused") && !story.contains("in a head"), "{story}");
}

/// A head that arrives byte by byte costs in proportion to its length, not to its square.
#[test]
fn slow_sender_costs_no_more_than_its_bytes() {
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for number in 0..90 {
        head.extend_from_slice(format!("X-{number}: {}\r\n", "v".repeat(2000)).as_bytes());
    }
    let rules = Rules::default();
    let mut reader = common::Reader::new(&rules);
    // 180 kB byte by byte: some 16 billion steps if every byte meant starting again.
    for byte in head.chunks(1) {
        reader.feed(byte);
    }
    assert_eq!(reader.transcript(), "in a head\n");
    assert!(reader.feed(b"\r\n").is_between_requests());
}
