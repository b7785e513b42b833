//! Unix sockets: a path is taken only from the dead, replaced without a gap, and removed only while it is ours.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};
use nix::sys::stat::{Mode, umask};
use socket2::SockRef;

use crate::addr::UNIX_NAME_BYTES_MAX;
use crate::bind::{At, BindError, BindOptions, BindStep};

/// Between a path and our pid in the name under which a replacement is made.
const TEMPORARY: &[u8] = b".~";

/// Appended to a path for the file that servers of that path lock.
const LOCK_SUFFIX: &str = ".lock";

/// The right to remove a path: we made the file there, and hold the lock beside it.
#[derive(Debug)]
pub(crate) struct PathOwnership {
    path: PathBuf,
    identity: (u64, u64),
    /// `None` when it was claimed while its former owner still held the lock.
    lock: Option<OwnedFd>,
}

impl PathOwnership {
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    pub(crate) fn claim(path: &Path, identity: (u64, u64)) -> Option<PathOwnership> {
        let found = identity_of(path).ok()?;
        (found == identity).then(|| PathOwnership {
            path: path.to_owned(),
            identity,
            lock: lock(path).ok(),
        })
    }

    /// The lock is the former owner's own open file, so that there is no moment without it.
    pub(crate) fn claim_with(
        path: &Path,
        identity: (u64, u64),
        held: Option<OwnedFd>,
    ) -> Option<PathOwnership> {
        let Some(held) = held else { return PathOwnership::claim(path, identity) };
        let found = identity_of(path).ok()?;
        let lock = Some(held);
        (found == identity).then(|| PathOwnership { path: path.to_owned(), identity, lock })
    }

    pub(crate) fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }

    /// Removes the path unless somebody else's file stands there by now.
    pub(crate) fn unlink(self) -> io::Result<()> {
        match identity_of(&self.path) {
            Ok(found) if found == self.identity => fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Listens on `path`. `held`: the lock beside it, if it is ours already.
pub(crate) fn bind_path(
    at: &At<'_>,
    path: &Path,
    options: &BindOptions,
    held: Option<BorrowedFd<'_>>,
) -> Result<(OwnedFd, PathOwnership), BindError> {
    let lock = match held {
        // One open file: the lock lasts until the last of us has closed it.
        Some(held) => held.try_clone_to_owned(),
        None => lock(path),
    };
    let lock = lock.map_err(|error| at.error(BindStep::Lock, error))?;
    let stale = is_stale(path).map_err(|error| at.error(BindStep::Probe, error))?;
    let socket = new_socket(at)?;
    let name = if stale { temporary(path) } else { None };
    if stale && name.is_none() {
        // No room for a longer name: the short moment without the path cannot be avoided.
        fs::remove_file(path).map_err(|error| at.error(BindStep::Replace, error))?;
    }
    let made = name.as_deref().unwrap_or(path);
    let result = finish(at, &socket, path, made, options);
    match result {
        Ok(identity) => {
            Ok((socket, PathOwnership { path: path.to_owned(), identity, lock: Some(lock) }))
        }
        Err(error) => {
            if error.step != BindStep::Bind {
                // Ours, half made: nobody can have connected to it.
                let _ = fs::remove_file(made);
            }
            Err(error)
        }
    }
}

/// Binds `socket` to `made`, makes it listen, and only then shows it as `path`.
fn finish(
    at: &At<'_>,
    socket: &OwnedFd,
    path: &Path,
    made: &Path,
    options: &BindOptions,
) -> Result<(u64, u64), BindError> {
    let address = UnixAddr::new(made).map_err(|error| at.error(BindStep::Bind, error))?;
    // The mask belongs to the process; masters have one thread.
    let before = umask(Mode::from_bits_truncate(options.umask));
    let bound = bind(socket.as_raw_fd(), &address);
    umask(before);
    bound.map_err(|error| at.error(BindStep::Bind, error))?;
    if let Some((uid, gid)) = options.owner {
        chown(made, Some(uid), Some(gid)).map_err(|error| at.error(BindStep::Owner, error))?;
    }
    let identity = identity_of(made).map_err(|error| at.error(BindStep::Bind, error))?;
    start_listening(at, socket, options)?;
    if made != path {
        fs::rename(made, path).map_err(|error| at.error(BindStep::Replace, error))?;
    }
    Ok(identity)
}

/// Listens on a name in the abstract namespace, which vanishes with its last holder.
pub(crate) fn bind_abstract(
    at: &At<'_>,
    name: &[u8],
    options: &BindOptions,
) -> Result<OwnedFd, BindError> {
    let socket = new_socket(at)?;
    let address = UnixAddr::new_abstract(name).map_err(|error| at.error(BindStep::Bind, error))?;
    bind(socket.as_raw_fd(), &address).map_err(|error| at.error(BindStep::Bind, error))?;
    start_listening(at, &socket, options)?;
    Ok(socket)
}

fn new_socket(at: &At<'_>) -> Result<OwnedFd, BindError> {
    stream_socket().map_err(|error| at.error(BindStep::Socket, error))
}

fn stream_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn start_listening(at: &At<'_>, socket: &OwnedFd, options: &BindOptions) -> Result<(), BindError> {
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    SockRef::from(socket).listen(backlog).map_err(|error| at.error(BindStep::Listen, error))
}

/// Takes the lock that keeps two servers from judging one path at the same moment.
///
/// The file stays for ever: a lock on a file that can be removed excludes nobody.
fn lock(path: &Path) -> io::Result<OwnedFd> {
    let mut name = path.as_os_str().to_owned();
    name.push(LOCK_SUFFIX);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(name)?;
    sys::fd::try_lock(&file).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => in_use(),
        _ => error,
    })?;
    Ok(file.into())
}

/// Tells whether a dead server's socket stands at `path`; `Ok(false)`: nothing does.
fn is_stale(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => (),
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is not a socket stands there",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let address = UnixAddr::new(path)?;
    // A stream server that is alive takes the connection, or its queue is full; the dead refuse.
    match connect(stream_socket()?.as_raw_fd(), &address) {
        Err(Errno::ECONNREFUSED) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Err(in_use()),
        Err(errno) => Err(errno.into()),
    }
}

fn in_use() -> io::Error {
    io::Error::from_raw_os_error(Errno::EADDRINUSE as i32)
}

/// The name under which a replacement for `path` is made. `None`: it would be too long for an address.
fn temporary(path: &Path) -> Option<PathBuf> {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(TEMPORARY);
    name.extend_from_slice(std::process::id().to_string().as_bytes());
    (name.len() <= UNIX_NAME_BYTES_MAX).then(|| PathBuf::from(OsString::from_vec(name)))
}

/// Undoes [`temporary`]: the kernel goes on naming a socket as it was bound, also after the rename.
pub(crate) fn visible_path(bound: &Path) -> PathBuf {
    let name = bound.as_os_str().as_bytes();
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &name[..name.len() - digits];
    match rest.strip_suffix(TEMPORARY) {
        Some(path) if digits > 0 => PathBuf::from(OsString::from_vec(path.to_vec())),
        _ => bound.to_owned(),
    }
}
