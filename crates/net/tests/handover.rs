//! What crosses a process boundary: inherited descriptors with their names, and notify messages.
//!
//! The other process is this test program again, asked to run one of the tests named `child_…`.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::ffi::CString;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use net::notify::{Notifier, Receiver, value};
use net::{BindOptions, ListenerGroup};
use sys::spawn::{Child, Spawn};

/// Set for children, so that running the ignored tests by hand does nothing.
const CHILD: &str = "NET_TEST_CHILD";

/// Longest time a child may take for anything.
const BOUND: Duration = Duration::from_secs(20);

fn child(test: &str) -> Spawn<'static> {
    let program = std::env::current_exe().expect("this program");
    let text = |text: &str| CString::new(text).expect("no zero byte");
    let mut spawn = Spawn::new(CString::new(program.as_os_str().as_bytes()).expect("a path"));
    spawn.args = [test, test, "--exact", "--ignored", "--nocapture"].map(text).into();
    spawn.env = vec![text(&format!("{CHILD}=1"))];
    spawn
}

fn assert_succeeds(child: &Child) {
    assert!(sys::fd::wait_readable(&child.pidfd, Some(BOUND)).expect("waits"), "child hangs");
    let exit = sys::pidfd::reap(&child.pidfd).expect("our child").expect("ended");
    assert!(exit.is_success(), "{exit} {:?}", child.exec_failure());
}

#[test]
#[ignore = "runs as a child of `names_and_order_survive_exec`"]
fn child_serves_inherited_listeners() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let inherited = net::inherit::take().expect("taken");
    let names: Vec<&str> = inherited.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["http.0", "http.1", "http.2", ""]);
    assert!(net::inherit::take().is_err(), "descriptors have one owner");
    let (listeners, mut others): (Vec<_>, Vec<_>) =
        inherited.into_iter().map(|one| one.fd).partition(sys::fd::is_listening_socket);
    assert_eq!((listeners.len(), others.len()), (3, 1));
    let groups = ListenerGroup::adopt(listeners).expect("all listen");
    assert_eq!(groups.len(), 1);
    let mut text = String::new();
    std::fs::File::from(others.remove(0)).read_to_string(&mut text).expect("a pipe");
    assert_eq!(text, "hello");
    // The parent connected before we existed.
    let accepted = groups[0].shards().iter().find_map(|shard| shard.accept().expect("no error"));
    assert!(accepted.is_some());
}

#[test]
fn names_and_order_survive_exec() {
    let addr = "127.0.0.1:0".parse().expect("an address");
    let group = ListenerGroup::bind(&addr, 3, &BindOptions::default()).expect("bound");
    let _client = TcpStream::connect(group.addr().ip().expect("TCP")).expect("connected");
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    nix::unistd::write(&write, b"hello").expect("room");
    drop(write);

    let mut spawn = child("child_serves_inherited_listeners");
    for shard in group.shards() {
        spawn.pass(shard.as_fd());
    }
    assert_eq!(spawn.pass(read.as_fd()), 6);
    spawn.listen_pid = true;
    for variable in ["LISTEN_FDS=4", "LISTEN_FDNAMES=http.0:http.1:http.2"] {
        spawn.env.push(CString::new(variable).expect("no zero byte"));
    }
    assert_succeeds(&spawn.spawn().expect("spawned"));
}

#[test]
#[ignore = "runs as a child of `a_notification_carries_its_senders_pid`"]
fn child_says_ready() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let notifier = Notifier::from_env().expect("well-formed").expect("asked for");
    notifier.send("READY=1\nSTATUS=serving").expect("sent");
}

#[test]
fn a_notification_carries_its_senders_pid() {
    let receiver = Receiver::open().expect("opened");
    let mut spawn = child("child_says_ready");
    let variable = [b"NOTIFY_SOCKET=", receiver.name().as_bytes()].concat();
    spawn.env.push(CString::new(variable).expect("no zero byte"));
    let child = spawn.spawn().expect("spawned");
    assert!(sys::fd::wait_readable(&receiver, Some(BOUND)).expect("waits"), "no message");
    let (sender, text) = receiver.receive().expect("no error").expect("a message");
    assert_eq!(sender, child.pid);
    assert_eq!(value(&text, "READY"), Some("1"));
    assert_eq!(value(&text, "STATUS"), Some("serving"));
    assert_eq!(value(&text, "ERRNO"), None);
    assert_succeeds(&child);
}

#[test]
fn hostile_messages_neither_leak_descriptors_nor_get_through_cut() {
    let receiver = Receiver::open().expect("opened");
    let notifier = Notifier::to(receiver.name()).expect("a name");
    let open = || std::fs::read_dir("/proc/self/fd").expect("readable").count();
    let null = std::fs::File::open("/dev/null").expect("null");
    let passed = [null.as_fd(); 100];
    notifier.send(&"X=1\n".repeat(2_000)).expect("sent");
    notifier.send_with_fds("FDSTORE=1", &passed).expect("sent");
    notifier.send("A=1\nA=2").expect("sent");
    let before = open();
    let (sender, text) = receiver.receive().expect("no error").expect("the second one");
    assert_eq!((sender.as_raw() as u32, text.as_str()), (std::process::id(), "FDSTORE=1"));
    // Other tests of this program open a few at the same time.
    assert!(open() < before + 50, "received descriptors must be closed");
    let (_, text) = receiver.receive().expect("no error").expect("the third one");
    assert_eq!(value(&text, "A"), Some("2"));
    assert!(receiver.receive().expect("no error").is_none());
}

#[test]
fn a_full_or_dead_supervisor_never_blocks_the_sender() {
    let receiver = Receiver::open().expect("opened");
    let notifier = Notifier::to(receiver.name()).expect("a name");
    let full = (0..100_000).find_map(|_| notifier.send("STATUS=x").err());
    assert_eq!(full.expect("queues are finite").kind(), std::io::ErrorKind::WouldBlock);
    drop(receiver);
    assert!(notifier.send("READY=1").is_err());
    assert!(Notifier::to("relative".as_ref()).is_err());
}
