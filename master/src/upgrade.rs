//! Handing everything to another master program: what is passed, and how.
//!
//! - The new master is started through two forks, so it belongs to process 1 as the old one did: a service manager then
//!   waits for it at a stop, which it would not do for a grandchild of its own.
//! - It is the program that now lies where this one was started from, with the same arguments, directory and environment.
//! - Listeners are named by address in a variable of our own, not by `LISTEN_FDS`, whose numbers may be anybody's.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use net::ListenerGroup;
use serde::{Deserialize, Serialize};
use shared::contract;
use sys::spawn::{Child, Spawn};

use crate::config::Invocation;
use crate::generation::Listening;
use crate::upgrade_link::{Link, Word};

/// The variable that holds a [`Passed`], which no worker may see.
pub(crate) const VARIABLE: &str = "_MONOCEROS_UPGRADE";

/// What passed listeners are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The workers.
    Http,
    /// The program `admin`.
    Admin,
    /// `master ctl`.
    Control,
}

/// Listeners that are passed, or were.
#[derive(Debug, Clone)]
pub struct Passing {
    /// What for.
    pub purpose: Purpose,
    /// The listeners of one address.
    pub listening: Rc<Listening>,
}

/// What a new master finds in its environment.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    /// The socket to the old master.
    link: RawFd,
    /// The listeners, address by address.
    groups: Vec<PassedGroup>,
    /// How many workers the old master's settings ask for, and how many it wants.
    workers: (usize, usize),
    /// The old master holds this pidfile.
    pidfile: Option<std::path::PathBuf>,
    /// The service manager keeps these for it.
    stored: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PassedGroup {
    purpose: Purpose,
    /// As the settings have it; none: the old master inherited it itself.
    address: Option<String>,
    /// The sockets.
    fds: Vec<RawFd>,
    /// Device and inode of the unix socket's file that the old master made.
    path: Option<(u64, u64)>,
    /// The lock beside that file.
    lock: Option<RawFd>,
}

/// What an old master passes besides its listeners.
#[derive(Debug, Clone, Default)]
pub struct Heritage {
    /// How many workers its settings ask for, and how many it wants.
    pub workers: (usize, usize),
    /// Its pidfile.
    pub pidfile: Option<std::path::PathBuf>,
    /// Names of what the service manager keeps for it.
    pub stored: Vec<String>,
}

/// What a new master takes over.
#[derive(Debug)]
pub struct Handover {
    /// The link to the old master.
    pub link: Link,
    /// The listeners, in the old one's order.
    pub passed: Vec<Passing>,
    /// The rest.
    pub heritage: Heritage,
}

/// Starts the program that now lies at our path, with our own arguments and everything that is `passed`.
///
/// # Errors
///
/// No process, memory or descriptors left. What becomes of it is told on the link, or by its end.
pub fn launch(
    invocation: &Invocation,
    passing: &[Passing],
    heritage: &Heritage,
) -> io::Result<(Child, Link)> {
    let program = invocation.origin.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut spawn = Spawn::new(CString::new(program.as_os_str().as_bytes())?);
    let mut groups = Vec::new();
    for Passing { purpose, listening } in passing {
        let group = &listening.group;
        groups.push(PassedGroup {
            purpose: *purpose,
            address: listening.address().map(ToString::to_string),
            fds: group.shards().iter().map(|shard| spawn.pass(shard.as_fd())).collect(),
            path: group.path_identity(),
            lock: group.path_lock().map(|lock| spawn.pass(lock)),
        });
    }
    let link = spawn.pass(theirs.as_fd());
    let Heritage { workers, pidfile, stored } = heritage.clone();
    let passed = Passed { link, groups, workers, pidfile, stored };
    let words = [program.as_os_str()].into_iter().chain(invocation.args.iter().map(AsRef::as_ref));
    spawn.args = words
        .map(|word: &OsStr| Ok(CString::new(word.as_bytes())?))
        .collect::<io::Result<Vec<CString>>>()?;
    spawn.env = environment(serde_json::to_string(&passed)?)?;
    spawn.dir = Some(CString::new(invocation.directory.as_os_str().as_bytes())?);
    let child = spawn.spawn_detached()?;
    Ok((child, Link::new(ours)?))
}

/// Takes over what an old master passed. `Ok(None)`: nobody passed anything.
///
/// # Errors
///
/// The variable or a descriptor is not what it should be.
pub fn take() -> io::Result<Option<Handover>> {
    let Ok(json) = env::var(VARIABLE) else { return Ok(None) };
    let Passed { link, groups, workers, pidfile, stored } = serde_json::from_str(&json)?;
    let link = Link::new(UnixStream::from(sys::fd::adopt(link)?))?;
    match groups.into_iter().map(adopt).collect() {
        Ok(passed) => {
            link.say(&Word::Begun {});
            let heritage = Heritage { workers, pidfile, stored };
            Ok(Some(Handover { link, passed, heritage }))
        }
        Err(error) => {
            link.say_failed(&format!("cannot take over the listeners: {error}"));
            Err(error)
        }
    }
}

fn adopt(passed: PassedGroup) -> io::Result<Passing> {
    let fds = passed.fds.into_iter().map(sys::fd::adopt).collect::<io::Result<Vec<OwnedFd>>>()?;
    let lock = passed.lock.map(sys::fd::adopt).transpose()?;
    // One group, even should two of its sockets be called differently by now: they came as one.
    let mut adopted = ListenerGroup::adopt(fds)?.into_iter();
    let (Some(mut group), None) = (adopted.next(), adopted.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "sockets of several addresses"));
    };
    if let Some(identity) = passed.path {
        group.claim_with(identity, lock);
    }
    let address = passed.address.and_then(|address| address.parse().ok());
    let listening = Listening::new(address, group);
    listening.share(true);
    Ok(Passing { purpose: passed.purpose, listening: Rc::new(listening) })
}

/// Our environment for the next master: what concerned this process alone is left out.
fn environment(passed: String) -> io::Result<Vec<CString>> {
    let left_out = [
        contract::LISTEN_FDS,
        contract::LISTEN_PID,
        contract::LISTEN_FDNAMES,
        "WATCHDOG_PID",
        crate::daemon::REPORT,
        VARIABLE,
    ];
    let kept = env::vars_os().filter(|(name, _)| !left_out.iter().any(|left_out| name == left_out));
    kept.chain([(OsString::from(VARIABLE), OsString::from(passed))])
        .map(|(name, value)| Ok(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?))
        .collect()
}
