//! Handing the listeners to another master program: what is passed, and how it comes to be nobody's child.
//!
//! The new master is started by a relay that ends at once, so it belongs to process 1 as the old one did: a service
//! manager then waits for it at a stop, which it would not do for a grandchild of its own.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use net::ListenerGroup;
use serde::{Deserialize, Serialize};
use shared::contract;
use sys::spawn::Spawn;

use crate::config::Invocation;
use crate::generation::Listening;

/// The hidden first argument that makes this program the relay.
pub const RELAY_COMMAND: &str = "relay-upgrade";

/// The variable that holds a [`Passed`].
const VARIABLE: &str = "_MONOCEROS_UPGRADE";

/// What a new master finds in its environment.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    /// The socket to the old master.
    link: RawFd,
    /// The listeners, address by address.
    groups: Vec<PassedGroup>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PassedGroup {
    /// As the settings have it; none: the old master inherited it itself.
    address: Option<String>,
    /// The sockets.
    fds: Vec<RawFd>,
    /// Device and inode of the unix socket's file that the old master made.
    path: Option<(u64, u64)>,
    /// Whether it is the program `admin` that accepts from them.
    is_admin: bool,
}

/// What a new master takes over.
#[derive(Debug)]
pub struct Handover {
    /// The socket to the old master.
    pub link: UnixStream,
    /// The workers' listeners.
    pub listening: Vec<Rc<Listening>>,
    /// The listeners of the program `admin`.
    pub admin: Vec<Rc<Listening>>,
}

/// Starts the program at our path with our own arguments and all listeners; returns our end of the link to it.
///
/// # Errors
///
/// No process, memory or descriptors left. What becomes of it is told on the link.
pub fn launch(
    invocation: &Invocation,
    listening: &[Rc<Listening>],
    admin: &[Rc<Listening>],
) -> io::Result<UnixStream> {
    let program = invocation.program.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut spawn = Spawn::new(CString::new(program.as_os_str().as_bytes())?);
    let for_workers = listening.iter().map(|listening| (listening, false));
    let groups = for_workers
        .chain(admin.iter().map(|listening| (listening, true)))
        .map(|(listening, is_admin)| PassedGroup {
            address: listening.address().map(ToString::to_string),
            fds: listening.group.shards().iter().map(|shard| spawn.pass(shard.as_fd())).collect(),
            path: listening.group.path_identity(),
            is_admin,
        })
        .collect();
    let passed = Passed { link: spawn.pass(theirs.as_fd()), groups };
    spawn.args = words(&[program.as_os_str(), OsStr::new(RELAY_COMMAND)], &invocation.args)?;
    spawn.env = environment(&serde_json::to_string(&passed)?)?;
    spawn.dir = Some(CString::new(invocation.directory.as_os_str().as_bytes())?);
    // Its end is seen on the link, and it is collected as any orphan.
    spawn.spawn().map(|_relay| ours)
}

/// Starts the new master; the relay is to end after this.
///
/// # Errors
///
/// As [`launch`].
pub fn relay() -> io::Result<()> {
    let passed = passed()?.ok_or(io::ErrorKind::NotFound)?;
    let invocation = Invocation::of_this_process();
    let program = invocation.program.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let numbers = passed.groups.iter().flat_map(|group| &group.fds).chain([&passed.link]);
    let fds = numbers
        .map(|number| Ok((sys::fd::adopt(*number)?, *number)))
        .collect::<io::Result<Vec<(OwnedFd, RawFd)>>>()?;
    let mut spawn = Spawn::new(CString::new(program.as_os_str().as_bytes())?);
    spawn.fds = fds
        .iter()
        .map(|(fd, number)| (fd.as_fd(), *number))
        .collect::<Vec<(BorrowedFd<'_>, RawFd)>>();
    spawn.args = words(&[program.as_os_str()], invocation.args.get(1..).unwrap_or_default())?;
    spawn.env = environment(&serde_json::to_string(&passed)?)?;
    spawn.spawn().map(drop)
}

/// Takes over what an old master passed. `Ok(None)`: nobody passed anything.
///
/// # Errors
///
/// The variable or a descriptor is not what it should be.
pub fn take() -> io::Result<Option<Handover>> {
    let Some(passed) = passed()? else { return Ok(None) };
    let link = UnixStream::from(sys::fd::adopt(passed.link)?);
    link.set_nonblocking(true)?;
    let (mut listening, mut admin) = (Vec::new(), Vec::new());
    for group in passed.groups {
        let fds =
            group.fds.into_iter().map(sys::fd::adopt).collect::<io::Result<Vec<OwnedFd>>>()?;
        let address = group.address.and_then(|address| address.parse().ok());
        for mut adopted in ListenerGroup::adopt(fds)? {
            if let Some(identity) = group.path {
                adopted.claim(identity);
            }
            let listeners = Rc::new(Listening::new(address.clone(), adopted));
            if group.is_admin { admin.push(listeners) } else { listening.push(listeners) }
        }
    }
    Ok(Some(Handover { link, listening, admin }))
}

fn passed() -> io::Result<Option<Passed>> {
    match env::var(VARIABLE) {
        Ok(json) => Ok(Some(serde_json::from_str(&json)?)),
        Err(_) => Ok(None),
    }
}

/// The variable's name, which no worker may see.
pub(crate) const OURS_ALONE: &str = VARIABLE;

fn words(first: &[&OsStr], rest: &[OsString]) -> io::Result<Vec<CString>> {
    let all = first.iter().copied().chain(rest.iter().map(OsString::as_os_str));
    all.map(|word| Ok(CString::new(word.as_bytes())?)).collect()
}

/// Our environment for the next master: what concerned this process alone is left out.
fn environment(passed: &str) -> io::Result<Vec<CString>> {
    let left_out = [
        contract::LISTEN_FDS,
        contract::LISTEN_PID,
        contract::LISTEN_FDNAMES,
        "WATCHDOG_PID",
        VARIABLE,
    ];
    let kept = env::vars_os().filter(|(name, _)| !left_out.iter().any(|left_out| name == left_out));
    let passed = (OsString::from(VARIABLE), OsString::from(passed));
    kept.chain([passed])
        .map(|(name, value)| Ok(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?))
        .collect()
}
