//! Unix sockets: never stolen, replaced without a gap, removed only while ours.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use net::{BindAddr, BindOptions, BindStep, Kind, ListenerGroup, Peer};

/// A directory of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("net-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a fresh directory");
        Dir(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("app.sock")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bind(path: &Path) -> Result<ListenerGroup, net::BindError> {
    ListenerGroup::bind(&BindAddr::Unix(path.to_owned()), 3, &BindOptions::default())
}

fn answers(path: &Path, group: &ListenerGroup) -> bool {
    let Ok(_client) = UnixStream::connect(path) else { return false };
    group.shards()[0].accept().expect("no error").is_some()
}

#[test]
fn a_path_is_bound_with_its_mode_and_removed_at_the_end() {
    let dir = Dir::new();
    let path = dir.socket();
    let options = BindOptions { umask: 0o117, ..BindOptions::default() };
    let group = ListenerGroup::bind(&BindAddr::Unix(path.clone()), 3, &options).expect("bound");
    assert_eq!(group.shards().len(), 1, "the kernel does not spread unix connections");
    assert_eq!(group.addr().to_string(), format!("unix:{}", path.display()));
    let mode = fs::metadata(&path).expect("it exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let _client = UnixStream::connect(&path).expect("connected");
    let (accepted, peer) = group.shards()[0].accept().expect("no error").expect("one waits");
    assert_eq!((accepted.kind, peer), (Kind::Unix, Peer::Unix));
    group.close_and_unlink().expect("removed");
    assert!(!path.exists());
}

#[test]
fn a_live_server_keeps_its_path() {
    let dir = Dir::new();
    let path = dir.socket();
    let ours = bind(&path).expect("bound");
    let error = bind(&path).expect_err("taken");
    assert!(error.is_in_use(), "{error:?}");
    assert!(answers(&path, &ours));

    // A server that knows nothing of our lock file, with a full queue besides.
    let other = dir.0.join("other.sock");
    let foreign = UnixListener::bind(&other).expect("bound");
    let error = bind(&other).expect_err("taken");
    assert!(error.is_in_use() && error.step() == BindStep::Probe, "{error:?}");
    assert!(UnixStream::connect(&other).is_ok());
    drop(foreign);
}

#[test]
fn a_stale_socket_is_replaced_without_a_moment_of_absence() {
    let dir = Dir::new();
    let path = dir.socket();
    drop(UnixListener::bind(&path).expect("bound"));
    let stale = fs::metadata(&path).expect("left behind").ino();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Removed at the end, which may come between the two looks.
                let is_there = path.exists() || done.load(Ordering::Relaxed);
                assert!(is_there, "clients would see ENOENT");
            }
        });
        let group = bind(&path);
        done.store(true, Ordering::Relaxed);
        let group = group.expect("replaced");
        assert_ne!(fs::metadata(&path).expect("it exists").ino(), stale);
        assert_eq!(group.addr().to_string(), format!("unix:{}", path.display()));
        assert!(answers(&path, &group));
        let copies = vec![group.shards()[0].try_clone().expect("a copy").into()];
        let adopted = ListenerGroup::adopt(copies).expect("listening");
        assert_eq!(adopted[0].addr(), group.addr(), "a successor must see the same name");
        group.close_and_unlink().expect("removed");
    });
    let left: Vec<_> = fs::read_dir(&dir.0).expect("readable").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_type().expect("a type").is_socket()), "{left:?}");
}

#[test]
fn other_files_are_never_replaced() {
    let dir = Dir::new();
    let path = dir.socket();
    fs::write(&path, "precious").expect("written");
    let error = bind(&path).expect_err("not a socket");
    assert_eq!(error.to_string(), format!("cannot take unix:{}", path.display()));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    assert!(bind(&dir.0.join("missing/app.sock")).is_err());
}

#[test]
fn a_path_that_somebody_else_took_meanwhile_is_left_alone() {
    let dir = Dir::new();
    let path = dir.socket();
    let group = bind(&path).expect("bound");
    fs::remove_file(&path).expect("an operator's hand");
    let foreign = UnixListener::bind(&path).expect("another server");
    group.close_and_unlink().expect("nothing to do");
    assert!(UnixStream::connect(&path).is_ok(), "the other server's path was removed");
    drop(foreign);
}

#[test]
fn a_successor_can_claim_the_path_it_inherited() {
    let dir = Dir::new();
    let path = dir.socket();
    let old = bind(&path).expect("bound");
    let identity = old.path_identity().expect("made by us");
    let fd = old.shards()[0].try_clone().expect("a copy").into();
    let mut new = ListenerGroup::adopt(vec![fd]).expect("listening");
    let mut new = new.pop().expect("one group");
    drop(old);
    assert!(path.exists(), "the old one leaves the path to its successor");
    assert!(!new.claim((0, 0)), "another file is not ours");
    assert!(new.claim(identity));
    assert!(answers(&path, &new));
    new.close_and_unlink().expect("removed");
    assert!(!path.exists());
}

#[test]
fn a_path_too_long_for_a_temporary_name_is_still_replaced() {
    let dir = Dir::new();
    let name = "s".repeat(107 - dir.0.as_os_str().len() - 1);
    let path = dir.0.join(name);
    drop(UnixListener::bind(&path).expect("bound"));
    let group = bind(&path).expect("replaced");
    assert!(answers(&path, &group));
}

#[test]
fn abstract_names_need_no_file_and_are_exclusive() {
    let addr: BindAddr =
        format!("unix:@net-test-{}", std::process::id()).parse().expect("an address");
    let options = BindOptions { backlog: u32::MAX, ..BindOptions::default() };
    let group = ListenerGroup::bind(&addr, 1, &options).expect("bound");
    assert_eq!(group.addr().to_string(), addr.to_string());
    let error = ListenerGroup::bind(&addr, 1, &options).expect_err("taken");
    assert!(error.is_in_use(), "{error:?}");
    drop(group);
    ListenerGroup::bind(&addr, 1, &options).expect("gone with its last holder");
}

#[test]
fn the_last_stop_of_a_unix_socket_keeps_its_queue() {
    let dir = Dir::new();
    let path = dir.socket();
    let group = bind(&path).expect("bound");
    let _clients: Vec<_> =
        (0..10).map(|_| UnixStream::connect(&path).expect("connected")).collect();
    group.refuse_new().expect("shut down for reading");
    assert!(UnixStream::connect(&path).is_err());
    let served = std::iter::from_fn(|| group.shards()[0].accept().expect("no error")).count();
    assert_eq!(served, 10);
}

#[test]
fn a_path_that_was_given_up_is_taken_again_by_its_own_holder() {
    let dir = Dir::new();
    let path = dir.socket();
    let addr = BindAddr::Unix(path.clone());
    let options = BindOptions::default();
    let old = bind(&path).expect("bound");
    let _queued = UnixStream::connect(&path).expect("connected");
    assert!(ListenerGroup::bind_after(&addr, 1, &options, Some(&old)).is_err(), "it is served");
    old.refuse_new().expect("shut down for reading");
    assert!(old.accept_new().is_err(), "a unix socket cannot take it back");
    let new = ListenerGroup::bind_after(&addr, 1, &options, Some(&old)).expect("bound again");
    assert!(answers(&path, &new));
    assert!(old.shards()[0].accept().expect("no error").is_some(), "what was queued is served");
    old.close_and_unlink().expect("nothing of ours is there");
    assert!(answers(&path, &new), "the path is the new one's");
    assert!(bind(&path).expect_err("locked").is_in_use(), "and so is the lock");
    new.close_and_unlink().expect("removed");
    assert!(!path.exists());
}
