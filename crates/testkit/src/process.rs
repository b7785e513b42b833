//! Processes and ports, as `/proc` shows them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics after `bound`, naming `what`.
#[track_caller]
pub fn wait_until(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < bound, "waited {bound:?} for: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Finds a program in `PATH` and in the directories where Debian keeps servers; the highest version of PostgreSQL.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        std::cmp::Reverse(name.parse::<u32>().unwrap_or(0))
    });
    places.extend(versions.into_iter().map(|version| version.join("bin")));
    places.into_iter().map(|place| place.join(name)).find(|file| file.is_file())
}

/// A TCP port of 127.0.0.1 that was free a moment ago: for programs that cannot be told "any".
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("bound").port()
}

/// Pids of the living children of a process.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    children_where(parent, |state| !matches!(state, 'Z' | 'X'))
}

/// Number of children of a process that ended and were not collected.
pub(crate) fn zombies_of(parent: u32) -> usize {
    children_where(parent, |state| state == 'Z').len()
}

fn children_where(parent: u32, wanted: impl Fn(char) -> bool) -> Vec<u32> {
    let mut children: Vec<u32> = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| stat(pid).is_some_and(|(state, ppid)| ppid == parent && wanted(state)))
        .collect();
    children.sort_unstable();
    children
}

/// All living descendants of a process.
pub(crate) fn descendants_of(root: u32) -> Vec<u32> {
    let mut found = children_of(root);
    let mut next = 0;
    while next < found.len() {
        let more = children_of(found[next]);
        found.extend(more);
        next += 1;
    }
    found
}

/// Tells whether a process exists and is not a zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The letter of a process's state (`R`, `S`, `T`, `Z`, …); `None`: there is no such process.
#[must_use]
pub fn process_state(pid: u32) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses; nothing behind its last one does.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// Sends a signal to a process that the caller started or that descends from one.
pub(crate) fn send(pid: u32, signal: Signal) -> nix::Result<()> {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal)
}
