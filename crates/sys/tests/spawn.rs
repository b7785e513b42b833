//! Spawning real programs: what they find when they begin, and how their end is seen.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sys::pidfd::{self, Exit};
use sys::spawn::{Child, Credentials, Spawn, Step, find_program};
use sys::{Pid, Signal};

/// Longest time a child may take for anything.
const BOUND: Duration = Duration::from_secs(20);

fn text(text: &str) -> CString {
    CString::new(text).expect("no zero byte")
}

fn shell(script: &str) -> Spawn<'static> {
    let mut spawn = Spawn::new(text("/bin/sh"));
    spawn.args = ["sh", "-c", script].map(text).into();
    spawn.env = vec![text("PATH=/usr/bin:/bin")];
    spawn
}

fn wait(child: &Child) -> Exit {
    assert!(sys::fd::wait_readable(&child.pidfd, Some(BOUND)).expect("waits"), "child hangs");
    pidfd::reap(&child.pidfd).expect("our child").expect("ended")
}

/// Runs a script with its standard output in a pipe and returns what it wrote.
fn output(mut spawn: Spawn<'_>) -> String {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let copies: Vec<OwnedFd> =
        spawn.fds.iter().map(|(fd, _)| fd.try_clone_to_owned().expect("a copy")).collect();
    let targets: Vec<i32> = spawn.fds.iter().map(|&(_, target)| target).collect();
    let mut spawn = Spawn { fds: Vec::new(), ..std::mem::replace(&mut spawn, shell("")) };
    spawn.fds.extend(copies.iter().map(AsFd::as_fd).zip(targets));
    spawn.fds.push((write.as_fd(), 1));
    let child = spawn.spawn().expect("spawned");
    drop(spawn);
    drop(copies);
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).expect("text");
    assert_eq!(wait(&child), Exit::Code(0), "{:?} {text}", child.exec_failure());
    text
}

#[test]
fn descriptors_are_exactly_where_they_were_asked_for_and_no_others_come_along() {
    // Sources whose numbers collide with the targets in every way: 3, 4, 5… are taken by these very files.
    let files: Vec<File> = (0..6).map(|_| File::open("/dev/null").expect("null")).collect();
    let (read, write) = nix::unistd::pipe().expect("a pipe, not close-on-exec");
    let mut spawn = shell("cd /proc/self/fd && echo *; readlink 3 4 5 9");
    let zero = File::open("/dev/zero").expect("zero");
    for (file, target) in files.iter().rev().zip([3, 4, 5]) {
        spawn.fds.push((file.as_fd(), target));
    }
    spawn.fds.push((zero.as_fd(), 9));
    assert_eq!(spawn.pass(zero.as_fd()), 10);
    let seen = output(spawn);
    let mut lines = seen.lines();
    let numbers: Vec<&str> = lines.next().expect("a line").split(' ').collect();
    // The shell holds the directory it lists open under one more number.
    for number in ["0", "1", "2", "3", "4", "5", "9", "10"] {
        assert!(numbers.contains(&number), "{seen}");
    }
    assert!(numbers.len() <= 9, "{seen}");
    assert_eq!(lines.collect::<Vec<_>>(), ["/dev/null", "/dev/null", "/dev/null", "/dev/zero"]);
    drop((read, write));
}

#[test]
fn listen_pid_is_the_childs_pid() {
    let mut spawn = shell("echo $LISTEN_PID $$ $OTHER");
    spawn.listen_pid = true;
    spawn.env.push(text("OTHER=kept"));
    let seen = output(spawn);
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words[0], words[1]);
    assert_eq!(words[2], "kept");
}

#[test]
fn a_failed_exec_is_reported_with_its_reason() {
    for (program, errno) in [
        ("/no/such/program", libc_errno("ENOENT")),
        ("/dev/null", libc_errno("EACCES")),
        ("/", libc_errno("EACCES")),
    ] {
        let mut spawn = Spawn::new(text(program));
        spawn.args = vec![text("x")];
        let child = spawn.spawn().expect("forked");
        assert_eq!(wait(&child), Exit::Code(127), "{program}");
        let (step, error) = child.exec_failure().expect("a reason");
        assert_eq!((step, error.raw_os_error()), (Step::Exec, Some(errno)), "{program}");
    }
    let mut spawn = shell("true");
    spawn.dir = Some(text("/no/such/directory"));
    let child = spawn.spawn().expect("forked");
    wait(&child);
    let (step, _) = child.exec_failure().expect("a reason");
    assert_eq!(step, Step::Directory);

    let child = shell("true").spawn().expect("spawned");
    assert_eq!(wait(&child), Exit::Code(0));
    assert!(child.exec_failure().is_none());
}

fn libc_errno(name: &str) -> i32 {
    match name {
        "ENOENT" => nix::errno::Errno::ENOENT as i32,
        _ => nix::errno::Errno::EACCES as i32,
    }
}

#[test]
fn impossible_descriptor_lists_are_refused_before_the_fork() {
    let null = File::open("/dev/null").expect("null");
    for fds in [vec![(null.as_fd(), 3), (null.as_fd(), 3)], vec![(null.as_fd(), -1)]] {
        let mut spawn = shell("true");
        spawn.fds = fds;
        let error = spawn.spawn().expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn dispositions_and_mask_are_the_defaults() {
    // This very thread blocks and ignores what it can; the child must not notice.
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before)).expect("set");
    // `grep` is executed by the shell, so it shows what survives two programs; Rust ignores PIPE in this process.
    let seen = output(shell("grep -E '^Sig(Blk|Ign)' /proc/self/status"));
    let mut after = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), Some(&mut after)).expect("restored");
    assert!(after.contains(Signal::SIGTERM), "spawning must not change our own mask");
    for line in seen.lines() {
        let (_, bits) = line.split_once(':').expect("a field");
        assert_eq!(u64::from_str_radix(bits.trim(), 16), Ok(0), "{seen}");
    }
    assert_eq!(seen.lines().count(), 2);
}

#[test]
fn directory_umask_and_session_are_as_asked() {
    let mut spawn =
        shell("pwd; umask; ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat; echo $$");
    spawn.dir = Some(text("/usr"));
    spawn.umask = Some(0o027);
    spawn.session = true;
    let seen = output(spawn);
    let lines: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(lines[..2], ["/usr", "0027"]);
    assert_eq!(lines[2], lines[3], "the child leads a session of its own");
}

#[test]
fn credentials_replace_every_group() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root may become somebody else.
    }
    let mut spawn = shell("grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' '");
    spawn.credentials = Some(Credentials { uid: 65_534, gid: 65_533, groups: vec![] });
    let seen = output(spawn);
    assert!(seen.contains("Uid: 65534 65534 65534 65534"), "{seen}");
    assert!(seen.contains("Gid: 65533 65533 65533 65533"), "{seen}");
    let groups = seen.lines().find_map(|line| line.strip_prefix("Groups:")).expect("a line");
    assert_eq!(groups.trim(), "", "root's groups must not survive");
}

#[test]
fn a_child_follows_the_thread_that_spawned_it() {
    let spawner = std::thread::spawn(|| {
        let mut spawn = shell("sleep 60");
        spawn.parent_death_signal = Some(Signal::SIGTERM);
        // Also after a change of user, which makes the kernel forget the wish.
        if nix::unistd::geteuid().is_root() {
            spawn.credentials = Some(Credentials { uid: 65_534, gid: 65_534, groups: vec![] });
        }
        let child = spawn.spawn().expect("spawned");
        // The program has begun once the report pipe is closed.
        assert!(
            sys::fd::wait_readable(child.exec_error.as_ref().expect("a program"), Some(BOUND))
                .expect("waits")
        );
        assert!(child.exec_failure().is_none());
        child
    });
    let child = spawner.join().expect("no panic");
    assert_eq!(wait(&child), Exit::Signal(Signal::SIGTERM as i32, false));
}

#[test]
fn signals_go_by_pidfd_and_an_end_is_reaped_once() {
    let child = shell("sleep 60").spawn().expect("spawned");
    assert_eq!(pidfd::reap(&child.pidfd).expect("our child"), None);
    pidfd::send_signal(&child.pidfd, Signal::SIGKILL).expect("sent");
    let exit = wait(&child);
    assert_eq!(exit, Exit::Signal(Signal::SIGKILL as i32, false));
    assert_eq!(exit.to_string(), "signal=SIGKILL");
    assert_eq!(Exit::Code(3).to_string(), "code=3");
    let gone = pidfd::send_signal(&child.pidfd, Signal::SIGTERM).expect_err("reaped");
    assert_eq!(gone.raw_os_error(), Some(nix::errno::Errno::ESRCH as i32));
    assert!(pidfd::reap(&child.pidfd).is_err(), "twice");
}

#[test]
fn a_hundred_spawns_leave_no_descriptor_behind() {
    let count = || std::fs::read_dir("/proc/self/fd").expect("readable").count();
    let before = count();
    for _ in 0..100 {
        let mut spawn = Spawn::new(text("/no/such/program"));
        spawn.args = vec![text("x")];
        wait(&spawn.spawn().expect("forked"));
    }
    // Other tests of this program open some at the same time, but not a hundred.
    assert!(count() < before + 60);
}

#[test]
fn programs_are_found_in_path() {
    let find =
        |name: &str| find_program(OsStr::new(name), Some(OsStr::new("/nowhere:/usr/bin:/bin")));
    assert!(find("sh").is_some_and(|path| path.is_absolute()));
    assert_eq!(find("no-such-program-anywhere"), None);
    assert_eq!(find("./relative").expect("taken as it is").to_str(), Some("./relative"));
    assert_eq!(find_program(OsStr::new("sh"), None), None);
}

#[test]
fn pids_are_numbers_of_this_namespace() {
    let child = shell("exit 7").spawn().expect("spawned");
    assert!(child.pid > Pid::from_raw(1));
    assert_eq!(wait(&child), Exit::Code(7));
}

#[test]
fn a_detached_process_is_nobodys_child_and_its_failures_are_told() {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let mut spawn = shell("echo $PPID; exec sleep 100");
    spawn.fds.push((write.as_fd(), 1));
    let child = spawn.spawn_detached().expect("spawned");
    drop(spawn);
    drop(write);
    let mut parent = [0; 16];
    let length = File::from(read.try_clone().expect("a copy")).read(&mut parent).expect("its line");
    let parent = String::from_utf8_lossy(&parent[..length]).trim().to_owned();
    assert_ne!(parent, std::process::id().to_string(), "it is our child");
    assert!(pidfd::reap(&child.pidfd).is_err(), "it is our child");
    pidfd::send_signal(&child.pidfd, Signal::SIGKILL).expect("it lives");
    assert!(sys::fd::wait_readable(&child.pidfd, Some(BOUND)).expect("waits"), "its end is seen");

    let child = Spawn::new(text("/nowhere/at/all")).spawn_detached().expect("spawned");
    assert!(sys::fd::wait_readable(&child.pidfd, Some(BOUND)).expect("waits"));
    let (step, error) = child.exec_failure().expect("a reason");
    assert_eq!((step, error.raw_os_error()), (Step::Exec, Some(2)));
}
