//! Finds PostgreSQL's own programs on this machine.
//!
//! Nothing is ever downloaded: a machine without PostgreSQL gets one error that says what to install.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// Where Debian's packages put the programs of each major version, as `N/bin`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// `initdb` and `postgres` of one installed version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) major: u32,
}

/// Chooses the programs for a cluster of version `wanted`, or the newest ones for a cluster to be made.
///
/// # Errors
///
/// No PostgreSQL here, or none of the version that the cluster in `data` was made by.
pub(crate) fn find(
    path: Option<&OsStr>,
    wanted: Option<u32>,
    data: &Path,
) -> Result<Programs, Error> {
    choose(installed(path), wanted).map_err(|here| match wanted {
        Some(cluster) if !here.is_empty() => {
            Error::OtherVersion { data: data.to_path_buf(), cluster, here }
        }
        _ => Error::NotInstalled,
    })
}

/// Takes the wanted version, or the newest. The error lists the versions that are here.
fn choose(mut here: Vec<Programs>, wanted: Option<u32>) -> Result<Programs, Vec<u32>> {
    // Stable: of one version found twice, the one on PATH comes first and wins.
    here.sort_by_key(|programs| std::cmp::Reverse(programs.major));
    let mut majors: Vec<u32> = here.iter().map(|programs| programs.major).collect();
    majors.dedup();
    here.into_iter()
        .find(|programs| wanted.is_none_or(|major| major == programs.major))
        .ok_or(majors)
}

/// Lists every folder that has both programs, `PATH` first.
fn installed(path: Option<&OsStr>) -> Vec<Programs> {
    let on_path =
        path.map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let debian = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    on_path
        .into_iter()
        .filter(|folder| folder.is_absolute())
        .chain(debian)
        .filter_map(|it| in_folder(&it))
        .collect()
}

fn in_folder(folder: &Path) -> Option<Programs> {
    let (initdb, postgres) = (folder.join("initdb"), folder.join("postgres"));
    if !is_program(&initdb) || !is_program(&postgres) {
        return None;
    }
    let said = Command::new(&postgres)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let major = major_version(&String::from_utf8_lossy(&said.stdout))?;
    Some(Programs { initdb, postgres, major })
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Reads the major version from `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, or from `PG_VERSION`.
pub(crate) fn major_version(text: &str) -> Option<u32> {
    let number = text.rsplit_once("(PostgreSQL) ").map_or(text, |(_, after)| after);
    let digits: String = number.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(folder: &str, major: u32) -> Programs {
        let folder = Path::new(folder);
        Programs { initdb: folder.join("initdb"), postgres: folder.join("postgres"), major }
    }

    #[test]
    fn versions_as_the_programs_and_the_cluster_write_them() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_version("postgres (PostgreSQL) 19devel\n"), Some(19));
        assert_eq!(major_version("15\n"), Some(15));
        assert_eq!(major_version("postgres: not found"), None);
        assert_eq!(major_version(""), None);
    }

    #[test]
    fn newest_makes_the_cluster_and_its_own_version_runs_it() {
        let here = vec![programs("/opt/15", 15), programs("/usr/17", 17), programs("/usr/15", 15)];
        assert_eq!(choose(here.clone(), None), Ok(programs("/usr/17", 17)));
        assert_eq!(choose(here.clone(), Some(15)), Ok(programs("/opt/15", 15)), "PATH comes first");
        assert_eq!(choose(here, Some(14)), Err(vec![17, 15]));
        assert_eq!(choose(Vec::new(), None), Err(vec![]));
    }
}
