//! A request for a file: its path leads nowhere but down, its preconditions and ranges to bytes that the file has.

#![no_main]

use std::path::Component;

use http1::{FieldStorage, Parsed, Progress, Rules, parse_head};
use libfuzzer_sys::fuzz_target;
use worker::fuzzing::{file_part, file_path, query};

fuzz_target!(|bytes: &[u8]| {
    if let Some(path) = file_path(bytes) {
        for component in path.components() {
            let Component::Normal(name) = component else { panic!("{path:?}") };
            let name = name.as_encoded_bytes();
            assert!(!name.contains(&0) && (name[0] != b'.' || name == b".well-known"), "{path:?}");
        }
    }
    query(bytes);
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\n", bytes, b"\r\n\r\n"].concat();
    let mut storage = FieldStorage::new();
    let parsed = parse_head(&head, &Rules::default(), &mut Progress::default(), &mut storage);
    let Ok(Parsed::Complete(head)) = parsed else { return };
    for len in [0, 1, 1000, u64::MAX] {
        if let Some((first, last)) = file_part(head.fields(), len) {
            assert!(first <= last && last < len, "{first}-{last} of {len}");
        }
    }
});
