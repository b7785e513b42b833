//! What concerns a whole process: its signals, its title, the orphans it inherits, its last words.
//!
//! Each case runs in a process of its own: this program again, with the case's name as its argument.

#![allow(unsafe_code)] // As in the crate: to arrange what a parent may have left us.
#![allow(clippy::expect_used, clippy::print_stdout)] // A test may panic and say so.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, kill, signal};
use nix::unistd::getpid;
use sys::pidfd::{self, Exit};
use sys::signal::{AbortReport, Caught, SignalFd, report_on_abort};
use sys::spawn::Spawn;
use sys::{Pid, Signal};

/// Longest time one case may take for anything.
const BOUND: Duration = Duration::from_secs(20);

const CASES: [(&str, fn()); 8] = [
    ("a_storm_of_signals_is_one_event_each", storm),
    ("ignored_signals_are_heard_again", ignored),
    ("a_worker_catches_what_it_acts_on_and_ignores_the_rest", caught),
    ("a_storm_never_leaves_a_signal_unseen", caught_storm),
    ("programs_started_by_a_worker_are_not_deaf", grandchild),
    ("an_orphan_is_reaped_and_known_children_are_left_alone", orphan),
    ("an_aborted_worker_names_its_request", abort),
    ("the_title_is_seen_and_the_environment_survives", title),
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let wanted = arguments.next();
    if std::env::var_os("SYS_TEST_CASE").is_some() {
        let wanted = wanted.expect("a case");
        let (_, case) = CASES.iter().find(|(name, _)| *name == wanted).expect("known");
        return case();
    }
    let program = std::env::current_exe().expect("this program");
    for (name, _) in CASES {
        if wanted.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
            continue;
        }
        let mut command = Command::new(&program);
        let output = command.arg(name).env("SYS_TEST_CASE", "1").stdin(Stdio::null()).output();
        let output = output.expect("started");
        assert!(output.status.success(), "{name}: {output:?}");
        println!("test {name} ... ok");
    }
}

fn storm() {
    let signals = SignalFd::new(&[Signal::SIGHUP, Signal::SIGTERM, Signal::SIGTTIN]).expect("new");
    for _ in 0..10_000 {
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGTTIN] {
            kill(getpid(), signal).expect("sent");
        }
    }
    let taken = signals.read();
    assert_eq!(taken.len(), 3, "{taken:?}");
    assert!(taken.iter().all(|&(_, sender)| sender == getpid()));
    assert!(signals.read().is_empty());
    assert!(!sys::fd::wait_readable(&signals, Some(Duration::ZERO)).expect("polled"));
}

fn ignored() {
    // As under nohup.
    // SAFETY: ignoring runs no code of ours.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.expect("set");
    // As under a parent that wants no zombies: the kernel would reap our children.
    // SAFETY: as above.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.expect("set");
    let signals = SignalFd::new(&[Signal::SIGHUP]).expect("new");
    kill(getpid(), Signal::SIGHUP).expect("sent");
    assert_eq!(signals.read().len(), 1);
    let child = shell("exit 5").spawn().expect("spawned");
    assert_eq!(wait(&child.pidfd), Exit::Code(5));
}

fn caught() {
    let caught = Caught::install().expect("installed");
    assert!(Caught::install().is_err(), "there is one set of handlers");
    for signal in [Signal::SIGHUP, Signal::SIGWINCH, Signal::SIGTTIN, Signal::SIGTTOU] {
        kill(getpid(), signal).expect("sent");
    }
    kill(getpid(), Signal::SIGUSR2).expect("sent");
    assert!(caught.take().is_empty());
    kill(getpid(), Signal::SIGTERM).expect("sent");
    kill(getpid(), Signal::SIGUSR1).expect("sent");
    assert!(sys::fd::wait_readable(&caught, Some(BOUND)).expect("polled"));
    let set = caught.take();
    assert!(set.contains(Signal::SIGTERM) && set.contains(Signal::SIGUSR1));
    assert!(!set.contains(Signal::SIGINT) && !set.contains(Signal::SIGQUIT));
    assert!(caught.take().is_empty());
    assert!(!sys::fd::wait_readable(&caught, Some(Duration::ZERO)).expect("polled"));
    drop(caught);
    for late in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGHUP] {
        nix::sys::signal::raise(late).expect("survived: a late signal is no death");
    }
    Caught::install().expect("free again");
}

fn caught_storm() {
    let caught = Caught::install().expect("installed");
    let us = getpid();
    let storm = shell(&format!(
        "i=0; while [ $i -lt 5000 ]; do kill -USR1 {us}; i=$((i+1)); done; kill -TERM {us}"
    ));
    let child = storm.spawn().expect("spawned");
    let deadline = Instant::now() + BOUND;
    let mut seen = 0;
    loop {
        assert!(Instant::now() < deadline, "TERM was lost after {seen} others");
        assert!(sys::fd::wait_readable(&caught, Some(BOUND)).expect("polled"));
        let set = caught.take();
        seen += usize::from(set.contains(Signal::SIGUSR1));
        if set.contains(Signal::SIGTERM) {
            break;
        }
    }
    assert!(seen > 0);
    assert_eq!(wait(&child.pidfd), Exit::Code(0));
}

fn grandchild() {
    let _caught = Caught::install().expect("installed");
    // Started the way an application does it, not by our own spawn.
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let output = Command::new("/bin/sh").args(["-c", script]).output().expect("ran");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        let (_, bits) = line.split_once(':').expect("a field");
        let bits = u64::from_str_radix(bits.trim(), 16).expect("a number");
        // Of what this test itself was started with, nothing is known about the numbers above the standard ones.
        assert_eq!(bits & 0x7fff_ffff, 0, "{text}");
    }
}

fn orphan() {
    nix::sys::prctl::set_child_subreaper(true).expect("set");
    let known = shell("exit 4").spawn().expect("spawned");
    // Its child outlives it and becomes ours.
    let middle = shell("sh -c 'exit 9' & exit 0").spawn().expect("spawned");
    for child in [&known, &middle] {
        assert!(sys::fd::wait_readable(&child.pidfd, Some(BOUND)).expect("polled"));
    }
    let is_known = |pid: Pid| pid == known.pid;
    assert_eq!(wait(&middle.pidfd), Exit::Code(0));
    // A dead known child hides the orphan; it must not be reaped in passing.
    let mut orphan = pidfd::reap_orphan(&is_known).expect("no error");
    assert_eq!(wait(&known.pidfd), Exit::Code(4), "its exit code must be left to its pidfd");
    let deadline = Instant::now() + BOUND;
    while orphan.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        orphan = pidfd::reap_orphan(&is_known).expect("no error");
    }
    assert_eq!(orphan.expect("it ends").1, Exit::Code(9));
    assert_eq!(pidfd::reap_orphan(&is_known).expect("no children is no error"), None);
}

fn abort() {
    let path = b"/slow\n[forged]";
    let mut words = vec![AtomicU64::new(path.len() as u64)];
    for part in path.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        words.push(AtomicU64::new(u64::from_ne_bytes(bytes)));
    }
    let since: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(sys::clock::monotonic())));
    let empty: &'static [AtomicU64] = &[];
    let report =
        AbortReport { since, facts: [("method", empty), ("path", words.leak()), ("peer", empty)] };

    let (read, write) = nix::unistd::pipe().expect("a pipe");
    // SAFETY: this process has one thread; its child writes to standard error and dies.
    match unsafe { nix::unistd::fork() }.expect("forked") {
        nix::unistd::ForkResult::Child => {
            nix::unistd::dup2_stderr(&write).expect("redirected");
            report_on_abort(report).expect("first");
            assert!(report_on_abort(report).is_err());
            std::process::abort();
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(write);
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).expect("text");
            let line = text.lines().next().unwrap_or_default();
            assert!(line.contains(&format!("[{child}] [CRITICAL] Worker aborted")), "{text}");
            assert!(line.contains("path=/slow?[forged]") && line.contains("age_ms="), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
            match nix::sys::wait::waitpid(child, None).expect("reaped") {
                nix::sys::wait::WaitStatus::Signaled(_, Signal::SIGABRT, _) => (),
                other => panic!("the default action must follow: {other:?}"),
            }
        }
    }
}

fn title() {
    let before: Vec<_> = std::env::vars_os().collect();
    assert!(sys::title::set(
        "monoceros: master [a title that is longer than the words it replaces]"
    ));
    let read = || std::fs::read_to_string("/proc/self/cmdline").expect("readable");
    assert_eq!(
        read().trim_end_matches('\0'),
        "monoceros: master [a title that is longer than the words it replaces]"
    );
    assert!(sys::title::set("monoceros: short"));
    assert_eq!(read().trim_end_matches('\0'), "monoceros: short");
    assert_eq!(std::env::vars_os().collect::<Vec<_>>(), before);
    let child = Command::new("/bin/sh").args(["-c", "echo $SYS_TEST_CASE"]).output().expect("ran");
    assert_eq!(child.stdout, b"1\n", "children still get the environment");
    // Whatever is left of the arguments, reading them must be harmless.
    let _ = std::env::args_os().count();
}

fn shell(script: &str) -> Spawn<'static> {
    let text = |text: &str| std::ffi::CString::new(text).expect("no zero byte");
    let mut spawn = Spawn::new(text("/bin/sh"));
    spawn.args = ["sh", "-c", script].map(text).into();
    spawn
}

fn wait(pidfd: &impl AsFd) -> Exit {
    assert!(sys::fd::wait_readable(pidfd, Some(BOUND)).expect("polled"), "child hangs");
    pidfd::reap(pidfd).expect("our child").expect("ended")
}
