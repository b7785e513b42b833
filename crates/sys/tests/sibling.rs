//! A copy that becomes its parent's child: forked in a process of its own, for the test runner has threads.

#![allow(clippy::expect_used)] // In helpers of tests.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sys::pidfd::{Exit, is_child, reap};
use sys::sibling::{Forked, adopt_orphans, fork};
use sys::spawn::Spawn;

/// Longest wait for anything here.
const BOUND: Duration = Duration::from_secs(10);

/// Runs this very test again in a child, with `part` in its environment.
fn act(part: &str, test: &str, fd: &UnixStream) -> sys::spawn::Child {
    let program = std::env::current_exe().expect("this program");
    let text = |text: &str| CString::new(text).expect("no NUL byte");
    let mut spawn = Spawn::new(text(program.to_str().expect("text")));
    spawn.args =
        [program.to_str().expect("text"), "--exact", test, "--nocapture", "--test-threads=1"]
            .map(text)
            .to_vec();
    spawn.env = vec![text(&format!("PART={part}"))];
    let number = spawn.pass(fd.as_fd());
    assert_eq!(number, 3);
    spawn.spawn().expect("spawned")
}

fn end_of(child: &sys::spawn::Child) -> Exit {
    assert!(sys::fd::wait_readable(&child.pidfd, Some(BOUND)).expect("waits"));
    reap(&child.pidfd).expect("our child").expect("ended")
}

#[test]
fn a_copy_is_its_grandparents_child_and_waits_until_it_is_let_go() {
    let name = "a_copy_is_its_grandparents_child_and_waits_until_it_is_let_go";
    if let Ok(part) = std::env::var("PART") {
        let socket = sys::fd::adopt(3).expect("the passed socket");
        match fork(nix::unistd::getppid()).expect("forked") {
            Forked::Original(copy) => {
                let pid = copy.pid.to_string();
                sys::message::send(&socket, None, pid.as_bytes(), &[copy.pidfd.as_fd()])
                    .expect("sent");
                if part == "let go" {
                    copy.let_go();
                }
                std::process::exit(0);
            }
            Forked::Copy => {
                let parent = nix::unistd::getppid().to_string();
                sys::message::send(&socket, None, parent.as_bytes(), &[]).expect("sent");
                std::process::exit(7);
            }
        }
    }
    adopt_orphans(true).expect("adopts");
    for (part, want) in [("let go", Exit::Code(7)), ("drop", Exit::Code(0))] {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let original = act(part, name, &theirs);
        drop(theirs);
        // The original's harness writes to standard output only; what comes here is the two messages, in order.
        let mut buffer = [0; 64];
        assert!(sys::fd::wait_readable(&ours, Some(BOUND)).expect("waits"));
        let received =
            sys::message::receive(&ours, &mut buffer).expect("received").expect("a message");
        let pidfd = received.fds.into_iter().next().expect("the pidfd");
        assert!(is_child(&pidfd), "{part}: the copy was not adopted");
        let named = String::from_utf8_lossy(&buffer[..received.length]).parse().expect("a number");
        assert_eq!(sys::pidfd::pid(&pidfd), Some(sys::Pid::from_raw(named)));
        assert!(!is_child(&sys::pidfd::open(sys::Pid::from_raw(1)).expect("process 1")));
        assert_eq!(end_of(&original), Exit::Code(0), "{part}");
        assert!(sys::fd::wait_readable(&pidfd, Some(BOUND)).expect("waits"));
        assert_eq!(reap(&pidfd).expect("our child"), Some(want), "{part}");
        assert_eq!(sys::pidfd::pid(&pidfd), None, "{part}: it was reaped");
        let mut rest = String::new();
        ours.read_to_string(&mut rest).expect("read");
        let parent = std::process::id().to_string();
        let said = String::from_utf8_lossy(&buffer[..received.length]).into_owned() + &rest;
        assert_eq!(said.ends_with(&parent), part == "let go", "{part}: {said}");
    }
    adopt_orphans(false).expect("adopts no more");
}
