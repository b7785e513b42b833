//! docs/gunicorn.md says of every setting of gunicorn what the program does with it, and names tests that exist.

#![allow(clippy::unwrap_used)] // In helpers of tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shared::settings::{Fate, RETIRED, Retired, SETTINGS, Setting};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gunicorn.md");
    fs::read_to_string(path).unwrap()
}

/// The cells of the rows below a heading that begin with a number.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let cells =
        |line: &str| line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect();
    let is_numbered =
        |row: &Vec<String>| row.first().is_some_and(|cell| cell.parse::<u32>().is_ok());
    section.lines().filter(|line| line.starts_with('|')).map(cells).filter(is_numbered).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_setting_has_the_verdict_that_the_program_gives() {
    let page = page();
    let mut named = BTreeSet::new();
    for row in rows(&page, "Settings") {
        let (name, verdict) = (quoted(&row[1])[0].to_owned(), &row[3]);
        match (Setting::find(&name), Retired::find(&name)) {
            (Some(setting), None) => {
                assert!(
                    verdict.starts_with("same") || verdict.starts_with("adapted: "),
                    "{name} is offered, but: {verdict}"
                );
                for flag in quoted(&row[2]).iter().filter_map(|flag| flag.strip_prefix("--")) {
                    let known = setting.long_flag().into_iter();
                    let known = known.chain(setting.aliases.iter().map(|&alias| alias.to_owned()));
                    // gunicorn has its switch for "no" where ours has both.
                    let positive = flag.strip_prefix("no-").unwrap_or(flag);
                    let is_known =
                        known.into_iter().any(|known| known == flag || known == positive);
                    assert!(is_known, "{name}: --{flag}");
                }
            }
            (None, Some(retired)) => {
                let word = match retired.fate {
                    Fate::Ignored => "accepted with a warning",
                    Fate::Refused => "refused",
                };
                assert_eq!(*verdict, format!("{word}: {}", retired.why), "{name}");
            }
            (None, None) => panic!("{name}: the program knows nothing of it"),
            (Some(_), Some(_)) => panic!("{name} is offered and retired"),
        }
        assert!(named.insert(name.clone()), "{name} twice");
    }
    assert_eq!(named.len(), 120, "gunicorn has 120 settings");
    for retired in RETIRED {
        assert!(named.contains(retired.name), "{} has no row", retired.name);
    }
    let ours = page.split("gunicorn does not have: ").nth(1).unwrap();
    let ours: BTreeSet<&str> = quoted(ours.split(". ").next().unwrap()).into_iter().collect();
    for setting in SETTINGS {
        let name = setting.name;
        assert!(
            named.contains(name) != ours.contains(name),
            "{name} belongs into the table, or else into the list below it"
        );
    }
}

#[test]
fn every_named_test_exists() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources: String =
        files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = page();
    let rows = rows(&page, "The 25 sufferings");
    assert_eq!(rows.len(), 25);
    for row in &rows {
        let tests = quoted(&row[3]);
        assert!(!tests.is_empty() || row[3] == "not yet", "{} names no test", row[0]);
        for test in tests {
            assert!(
                sources.contains(&format!("#[test]\nfn {test}()")),
                "{}: no test {test}",
                row[0]
            );
        }
    }
    for test in sources.split("#[test]\nfn s").skip(1).filter_map(|rest| rest.split('(').next()) {
        let is_numbered = test.get(..2).is_some_and(|number| number.parse::<u32>().is_ok());
        assert!(!is_numbered || page.contains(&format!("`s{test}`")), "s{test} has no row");
    }
}
