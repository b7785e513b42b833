//! A settings file: every mistake is an error at a place in it, and what is accepted reads back the same when printed.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use shared::settings::{SETTINGS, file, resolve};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("fuzz.toml");
    let found = file(path, text);
    let places = text.lines().count().max(1) + 1;
    for problem in &found.problems {
        let said = problem.to_string();
        let line = said.split(':').nth(1).and_then(|line| line.parse::<usize>().ok());
        assert!(line.is_some_and(|line| 1 <= line && line <= places), "no place in the file: {said}");
    }
    if !found.problems.is_empty() {
        return;
    }
    let Ok(resolved) = resolve(&found.assignments) else { return };
    let is_open = |name: &str| SETTINGS.iter().any(|setting| setting.name == name && !setting.secret);
    if found.assignments.iter().all(|written| is_open(written.setting.name)) {
        let page = resolved.print();
        let again = file(path, &page);
        assert!(again.problems.is_empty(), "{:?} in\n{page}", again.problems);
        let again = resolve(&again.assignments).expect("what was accepted is accepted again");
        assert_eq!(again.settings, resolved.settings, "{page}");
    }
});
