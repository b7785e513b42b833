//! A stream of requests: whatever it holds, its story does not depend on the cuts.
//!
//! The first two bytes choose the rules and the cut, the rest is the stream.

#![no_main]

use http1::{HeaderMap, Rules};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/mod.rs"]
mod common;

fuzz_target!(|input: &[u8]| {
    let [choice, cut, raw @ ..] = input else { return };
    let mut rules = Rules::default();
    rules.policy.permit_unconventional_http_method = choice & 1 != 0;
    rules.policy.header_map = [HeaderMap::Drop, HeaderMap::Refuse, HeaderMap::Dangerous]
        [usize::from(choice >> 1 & 3) % 3];
    if choice & 8 != 0 {
        rules.limits.request_line_bytes_max = 40;
        rules.limits.fields_max = 4;
        rules.limits.field_bytes_max = 40;
    }
    let whole = common::Reader::new(&rules).feed(raw).transcript();
    let want = common::verdict(raw, &rules);
    for cut in [usize::from(*cut), raw.len().saturating_sub(usize::from(*cut)), raw.len() / 2] {
        let (first, second) = raw.split_at(cut.min(raw.len()));
        let early = common::verdict(first, &rules);
        assert!(early == Ok(None) || early == want, "{early:?}, not {want:?}");
        assert_eq!(common::Reader::new(&rules).feed(first).feed(second).transcript(), whole);
    }
    let mut slow = common::Reader::new(&rules);
    for byte in raw.chunks(1) {
        slow.feed(byte);
    }
    assert_eq!(slow.transcript(), whole);
});
