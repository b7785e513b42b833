//! Every rule by example: `requests/NAME.http` is what a client sends, `NAME.want` what is made of it.
//!
//! In a `.http` file line ends count for nothing and `\r`, `\n`, `\t`, `\\`, `\xHH` stand for bytes. A `.want` file may
//! begin with a line `rules …`. To write the wants of new fixtures, run with `UPDATE_FIXTURES=1` and read the diff.

#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use http1::Rules;

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests").join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder of fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "http"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// Runs one folder and returns the stories.
fn run(folder: &str) -> Vec<(PathBuf, String)> {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut stories = Vec::new();
    for path in fixtures(folder) {
        let raw = common::unescape(&fs::read_to_string(&path).expect("a fixture"));
        let want_path = path.with_extension("want");
        let want = fs::read_to_string(&want_path).unwrap_or_default();
        let (directive, want) = match want.split_once('\n') {
            Some((line, rest)) if line.starts_with("rules ") => {
                (format!("{line}\n"), rest.to_owned())
            }
            _ => (String::new(), want),
        };
        let mut rules = Rules::default();
        common::apply(&mut rules, directive.strip_prefix("rules ").unwrap_or_default());
        let story = common::check_every_split(&raw, &rules);
        if update {
            fs::write(&want_path, format!("{directive}{story}")).expect("a want");
        } else {
            assert_eq!(story, want, "{}", path.display());
        }
        stories.push((path, story));
    }
    stories
}

#[test]
fn valid_requests_are_understood() {
    for (path, story) in run("valid") {
        assert!(!story.contains("refused"), "{}: {story}", path.display());
    }
}

#[test]
fn invalid_requests_are_refused() {
    for (path, story) in run("invalid") {
        let last = story.lines().last().unwrap_or_default();
        assert!(last.starts_with("refused "), "{}: {story}", path.display());
    }
}
