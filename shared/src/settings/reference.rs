//! The reference page `docs/settings.md`, made from the table. A test of the master fails when the file is stale.

use std::fmt::Write as _;

use super::{Kind, SETTINGS, Section, Setting};

/// The page, in Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    for section in Section::ALL {
        let _ = write!(page, "\n## {}\n", section.title());
        for setting in SETTINGS.iter().filter(|setting| setting.section == section) {
            entry(&mut page, setting);
        }
    }
    page
}

const INTRODUCTION: &str = "# Settings

<!-- Made from the table in shared/src/settings/table.rs by `UPDATE_DOCS=1 cargo test -p master --test docs`. Do not edit. -->

A value comes from the strongest source that names it:

1. the default;
2. environment variables: `MONOCEROS_` and the name in capitals, and the customary ones listed below, which are weaker;
3. the settings file: `--config FILE`, else `./monoceros.toml` if it exists, else `./gunicorn.conf.py` for a Python application;
4. `GUNICORN_CMD_ARGS`, a command line split as a shell would, then `MONOCEROS_CMD_ARGS`, the same and stronger;
5. the command line.

A list is taken whole from one source. `master --print-config` prints every value with its source; `master --check-config`
says nothing and exits with 0 when all is right, or prints every mistake with file, line and column and exits with 78. A
Python application is loaded for that, too.
A command line that cannot be understood exits with 2. Where gunicorn has a setting of the same name, name, flag and
default are gunicorn's, unless the entry says otherwise.
";

fn entry(page: &mut String, setting: &Setting) {
    let _ = write!(page, "\n### `{}`\n\n", setting.name);
    for line in setting.doc {
        let _ = writeln!(page, "{}", line.trim());
    }
    if setting.doc.last().is_some_and(|line| !line.trim().is_empty()) {
        page.push('\n');
    }
    if let Some(flag) = setting.long_flag() {
        let short = setting.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let value =
            if setting.kind == Kind::Switch { String::new() } else { format!(" {}", setting.meta) };
        let also: Vec<String> =
            setting.aliases.iter().map(|alias| format!(", `--{alias}`")).collect();
        let no =
            if setting.kind == Kind::Switch { format!(", `--no-{flag}`") } else { String::new() };
        let _ = writeln!(page, "- flag: {short}`--{flag}{value}`{}{no}", also.concat());
    }
    let named: Vec<String> = setting
        .env
        .iter()
        .map(|variable| match variable.prefix {
            "" => format!(", `{}`", variable.name),
            prefix => format!(", `{}` (meaning `{prefix}${}`)", variable.name, variable.name),
        })
        .collect();
    let _ = writeln!(page, "- variable: `{}`{}", setting.variable(), named.concat());
    let default = if setting.default.is_empty() {
        "unset".to_owned()
    } else {
        format!("`{}`", setting.default)
    };
    let _ = writeln!(page, "- default: {default}");
    let _ = writeln!(page, "- {}", setting.on_reload.sentence());
}
