//! The cluster's files: folders, lock, and the cluster itself, made on first use.
//!
//! - A cluster is made under another name and renamed when it is whole, so one that was interrupted is never used.
//! - Nothing is changed before the lock is held, and the lock is held for as long as the companion lives.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::account::Account;
use crate::error::Error;
use crate::layout::{Layout, UNFINISHED};
use crate::programs::major_version;

/// Size at which the log is set aside as `log.old`, in bytes; so both together never take much more than twice this.
pub(crate) const LOG_BYTES_MAX: u64 = 16 << 20;

/// The lock on one cluster. Dropping it lets another companion in.
pub(crate) struct Lock {
    _file: Flock<File>,
}

/// Makes the folder that holds everything, and the folders above it.
pub(crate) fn make_home(layout: &Layout) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&layout.home)
        .map_err(Error::file("make folder", &layout.home))
}

/// Takes the lock without waiting. `Ok(Err(pid))`: another process has it.
pub(crate) fn lock(layout: &Layout) -> Result<Result<Lock, Option<i32>>, Error> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&layout.lock)
        .map_err(Error::file("open", &layout.lock))?;
    file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut locked) => {
            let pid = format!("{}\n", std::process::id());
            let written = locked
                .set_len(0)
                .and_then(|()| locked.rewind())
                .and_then(|()| locked.write_all(pid.as_bytes()));
            written.map_err(Error::file("write", &layout.lock))?;
            return Ok(Ok(Lock { _file: locked }));
        }
        Err((file, Errno::EWOULDBLOCK)) => file,
        Err((_, errno)) => return Err(Error::file("lock", &layout.lock)(errno.into())),
    };
    let mut holder = String::new();
    // The holder may be about to write its number: then the error does without it.
    let _ = file.read_to_string(&mut holder);
    Ok(Err(holder.trim().parse().ok()))
}

/// Opens the log for appending, setting an overlong one aside first.
pub(crate) fn open_log(layout: &Layout) -> Result<File, Error> {
    if layout.log.metadata().is_ok_and(|meta| LOG_BYTES_MAX < meta.len()) {
        std::fs::rename(&layout.log, layout.log.with_extension("old"))
            .map_err(Error::file("rename", &layout.log))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&layout.log)
        .map_err(Error::file("open", &layout.log))
}

/// Empties an overlong log that is being written to, keeping a copy. Lines written meanwhile may be lost.
pub(crate) fn cut_log(layout: &Layout) -> Result<(), Error> {
    if layout.log.metadata().is_ok_and(|meta| LOG_BYTES_MAX < meta.len()) {
        let copied = std::fs::copy(&layout.log, layout.log.with_extension("old"));
        let cut = copied.and_then(|_| OpenOptions::new().write(true).open(&layout.log)?.set_len(0));
        cut.map_err(Error::file("shorten", &layout.log))?;
    }
    Ok(())
}

/// Returns the last line of the log that says what is wrong, for an error that points to it; empty: there is none.
pub(crate) fn last_line(layout: &Layout) -> String {
    /// A line longer than this is cut, in bytes.
    const TAIL_BYTES: i64 = 1024;
    let tail = || -> io::Result<String> {
        let mut file = File::open(&layout.log)?;
        let start = file.metadata()?.len().saturating_sub(TAIL_BYTES.unsigned_abs());
        file.seek(io::SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES.unsigned_abs()).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = tail().unwrap_or_default();
    // PostgreSQL adds hints below the line that says what is wrong.
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("FATAL") || line.contains("PANIC") || line.contains("error"));
    line.or_else(|| {
        text.lines().rev().find(|line| !line.trim().is_empty() && !line.contains(" LOG: "))
    })
    .unwrap_or_default()
    .trim()
    .to_owned()
}

/// Reads which major version made the cluster. `None`: there is no cluster yet.
pub(crate) fn version(layout: &Layout) -> Result<Option<u32>, Error> {
    if !layout.data.exists() {
        return Ok(None);
    }
    let path = layout.data.join("PG_VERSION");
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "not a version of PostgreSQL");
    major_version(&text).map(Some).ok_or_else(|| Error::file("read", &path)(unreadable()))
}

/// Makes an empty folder for a new cluster, removing what interrupted attempts left.
pub(crate) fn begin(layout: &Layout, account: &Account) -> Result<(), Error> {
    let entries =
        std::fs::read_dir(&layout.home).map_err(Error::file("read folder", &layout.home))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            remove_if_there(&entry.path())?;
        }
    }
    make_private(&layout.unfinished)?;
    account.own(&layout.unfinished, None)
}

/// Puts the finished cluster where the next start will find it.
pub(crate) fn finish(layout: &Layout) -> Result<(), Error> {
    std::fs::rename(&layout.unfinished, &layout.data)
        .map_err(Error::file("rename", &layout.unfinished))?;
    let synced = File::open(&layout.home).and_then(|folder| folder.sync_all());
    synced.map_err(Error::file("sync", &layout.home))
}

/// Makes the folder of the socket anew: only the cluster's user, and `group` if given, can reach what is in it.
pub(crate) fn make_run(
    layout: &Layout,
    account: &Account,
    group: Option<u32>,
) -> Result<(), Error> {
    if let Ok(meta) = layout.run.symlink_metadata() {
        // In /tmp anyone may have put something under this name.
        if !meta.is_dir() || (meta.uid() != account.uid.as_raw() && meta.uid() != 0) {
            return Err(Error::ForeignFolder { folder: layout.run.clone() });
        }
        // A socket's lock file that names a process of today would keep PostgreSQL from starting.
        remove_if_there(&layout.run)?;
    }
    make_private(&layout.run)?;
    account.own(&layout.run, group)?;
    let mode = if group.is_some() { 0o710 } else { 0o700 };
    std::fs::set_permissions(&layout.run, Permissions::from_mode(mode))
        .map_err(Error::file("set the mode of", &layout.run))
}

fn make_private(folder: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(folder).map_err(Error::file("make folder", folder))
}

fn remove_if_there(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("remove", folder)(error))
        }
        _ => Ok(()),
    }
}
