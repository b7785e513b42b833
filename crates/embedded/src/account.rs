//! Whom PostgreSQL runs as: it refuses root.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, geteuid};

use crate::error::Error;

/// Users to become when root starts the cluster, in this order.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The user that owns the cluster's files and runs its programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Whether we are root and must become this user.
    pub(crate) switch: bool,
}

impl Account {
    /// Chooses the user: ourselves, or, for root, the owner of an existing cluster in `data`, else a user without privileges.
    pub(crate) fn choose(data: &Path) -> Result<Account, Error> {
        if !geteuid().is_root() {
            let uid = geteuid();
            let name = User::from_uid(uid)
                .ok()
                .flatten()
                .map_or_else(|| uid.to_string(), |user| user.name);
            return Ok(Account { name, uid, gid: nix::unistd::getegid(), switch: false });
        }
        let owner = data.metadata().ok().filter(|meta| meta.uid() != 0);
        if let Some(meta) = owner {
            let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
            let name = User::from_uid(uid)
                .ok()
                .flatten()
                .map_or_else(|| uid.to_string(), |user| user.name);
            return Ok(Account { name, uid, gid, switch: true });
        }
        CANDIDATES
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Account { name: user.name, uid: user.uid, gid: user.gid, switch: true })
            .ok_or(Error::NobodyToRunAs)
    }

    /// Gives `path` to this user, when we are not this user anyway.
    pub(crate) fn own(&self, path: &Path, group: Option<u32>) -> Result<(), Error> {
        let uid = self.switch.then(|| self.uid.as_raw());
        let gid = group.or_else(|| self.switch.then(|| self.gid.as_raw()));
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        std::os::unix::fs::chown(path, uid, gid).map_err(Error::file("change the owner of", path))
    }

    /// Names the first folder on the way to `path` that this user may not enter, judged by mode bits alone.
    pub(crate) fn barred_by(&self, path: &Path) -> Option<PathBuf> {
        let mut folders: Vec<&Path> = path.ancestors().collect();
        folders.reverse();
        let barred = folders.into_iter().find(|folder| {
            folder.metadata().is_ok_and(|meta| {
                let execute = if meta.uid() == self.uid.as_raw() {
                    0o100
                } else if meta.gid() == self.gid.as_raw() {
                    0o010
                } else {
                    0o001
                };
                meta.permissions().mode() & execute == 0
            })
        });
        barred.map(Path::to_path_buf)
    }
}
