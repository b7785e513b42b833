//! `docs/http.md` names a test for every requirement: they must be there.

#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/http.md")).expect("the page");
    let mut count = 0;
    // Every second piece stands between backticks.
    for name in page.split('`').skip(1).step_by(2) {
        let is_name = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        };
        let (kind, rest) = match name.split_once('/') {
            Some(parts) => parts,
            None => continue,
        };
        match (kind, rest.split_once("::")) {
            ("valid" | "invalid", None) if is_name(rest) && rest != "NAME" => {
                let path = format!("crates/http1/tests/requests/{kind}/{rest}.http");
                assert!(
                    root.join(&path).exists(),
                    "docs/http.md names `{name}`, but there is no {path}"
                );
            }
            ("http1" | "net" | "router" | "worker" | "master", Some((file, test)))
                if is_name(file) && file != "FILE" =>
            {
                let folder = if matches!(kind, "worker" | "master") {
                    kind.to_owned()
                } else {
                    format!("crates/{kind}")
                };
                let path = format!("{folder}/tests/{file}.rs");
                let text = fs::read_to_string(root.join(&path)).unwrap_or_default();
                assert!(
                    text.contains(&format!("fn {test}(")),
                    "docs/http.md names `{name}`, but {path} has no such test"
                );
            }
            _ => continue,
        }
        count += 1;
    }
    assert!(100 < count, "only {count} names found: has the page's notation changed?");
}
