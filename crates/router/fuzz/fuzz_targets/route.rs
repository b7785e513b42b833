//! Any patterns and any path: no panic, and what a pattern's parameters take fits the path.
//!
//! The input is lines: patterns up to an empty line, then paths.

#![no_main]

use libfuzzer_sys::fuzz_target;
use router::{Match, Router};

fuzz_target!(|input: &[u8]| {
    let mut router = Router::new();
    let mut lines = input.split(|&byte| byte == b'\n');
    for line in lines.by_ref().take_while(|line| !line.is_empty()).take(32) {
        if let Ok(pattern) = std::str::from_utf8(line) {
            let _ = router.add(
                if line.len() % 2 == 0 { "GET" } else { "POST" },
                pattern,
                pattern.to_owned(),
            );
        }
    }
    for path in lines {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let Match::Found { value, params } = router.find(method, path) else { continue };
            // Putting the parameters into the pattern gives back the path, literals apart from their encoding.
            let mut again = Vec::new();
            for segment in value.split('/').skip(1) {
                again.push(b'/');
                match segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) {
                    Some(name) => again.extend_from_slice(
                        params.get(name.trim_start_matches('*')).expect("a parameter"),
                    ),
                    None => again.extend_from_slice(segment.as_bytes()),
                }
                let _ = params.decode(segment);
            }
            if !path.contains(&b'%') {
                assert_eq!(again, path);
            }
        }
    }
});
