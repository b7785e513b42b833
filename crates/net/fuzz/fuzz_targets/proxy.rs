//! A PROXY header: every prefix is incomplete or has the verdict of the whole, and what is accepted is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net::{ProxyVersion, V2_BYTES_MAX, parse_proxy};

fuzz_target!(|bytes: &[u8]| {
    for version in [ProxyVersion::Any, ProxyVersion::V1, ProxyVersion::V2] {
        let whole = parse_proxy(bytes, version);
        for cut in 0..bytes.len().min(256) {
            let early = parse_proxy(&bytes[..cut], version);
            assert!(early == Ok(None) || early == whole, "cut at {cut}: {early:?}, then {whole:?}");
        }
        if let Ok(Some(header)) = whole {
            assert!(header.len <= bytes.len() && header.len <= V2_BYTES_MAX);
            // Nothing behind the header has a part in the verdict.
            assert_eq!(parse_proxy(&bytes[..header.len], version), whole);
        }
        assert!(whole != Ok(None) || bytes.len() < V2_BYTES_MAX, "no end is in sight");
    }
});
