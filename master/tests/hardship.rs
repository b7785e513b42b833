//! What must not harm the master: a log that nobody reads, no descriptors, no memory, bad neighbours.

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use support::{Folder, PATIENCE, Server, get, master, programs_for_everybody};

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = Folder::new();
    let mut child = Command::new(master())
        .args(["--bind", "unix:m.sock", "--log-level", "debug"])
        .current_dir(folder.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let is_up = || std::os::unix::net::UnixStream::connect(folder.path("m.sock")).is_ok();
    wait_for("the socket", is_up);
    // Far more lines than a pipe and the master's own queue hold together.
    for _ in 0..8_000 {
        kill(pid, Signal::SIGWINCH).expect("alive");
        std::thread::sleep(Duration::from_micros(50));
    }
    kill(pid, Signal::SIGTTIN).expect("alive");
    let children =
        || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    wait_for("a second worker", || children().split_whitespace().count() == 2);
    kill(pid, Signal::SIGTERM).expect("alive");
    wait_for("the end", || child.try_wait().expect("ours").is_some());
}

#[test]
fn without_descriptors_the_server_goes_on_and_tries_again() {
    let folder = Folder::new();
    let log = fs::File::create(folder.path("log")).expect("made");
    let mut prlimit = Command::new("prlimit");
    prlimit.arg("--nofile=40:40").arg(master()).args(["--bind", "127.0.0.1:0", "--no-reuse-port"]);
    let child = prlimit.current_dir(folder.path("")).stdin(Stdio::null()).stderr(log).spawn();
    let Ok(child) = child else {
        eprintln!("skipped: there is no prlimit");
        return;
    };
    let mut server = Server::adopt(child, folder);
    server.expect("Cannot spawn worker");
    server.expect("exited with code");
    server.expect("Too many open files");
    server.wait_for_line("Ready workers=1");
    for more in 1..=14 {
        server.signal(Signal::SIGTTIN);
        server.wait_for_line(&format!("wanted={}", 1 + more));
    }
    // It is the master or the new process that has none left, as their moments fall.
    server.wait_for_line("Too many open files");
    get(&server.address(), "/json").expect("served");
    for fewer in 1..=14 {
        server.signal(Signal::SIGTTOU);
        server.wait_for_line(&format!("wanted={} before={}", 15 - fewer, 16 - fewer));
    }
    server.wait_until("one worker", || server.workers().len() == 1);
    get(&server.address(), "/json").expect("served");
    server.stop();
}

#[test]
fn strangers_on_the_notify_socket_are_not_believed() {
    let folder = Folder::new();
    let script = "#!/bin/sh\necho \"$NOTIFY_SOCKET\" > socket\nexec sleep 1000\n";
    let program = folder.write_program("app", script);
    let server = Server::start_in(folder, &["--", program.to_str().expect("text")]);
    let name = fs::read_to_string(server.folder.path("socket")).expect("written");
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            name.trim().trim_start_matches('@'),
        )
        .expect("a name");
    let socket = UnixDatagram::unbound().expect("made");
    let long = "STATUS=".to_owned() + &"x".repeat(100_000);
    for message in
        ["READY=1", "", "STOPPING=1\nERRNO=1\nSTATUS=all is lost", "\0\0\0", "WATCHDOG=1", &long]
    {
        // The oversized one may be refused by the kernel.
        let _ = socket.send_to_addr(message.as_bytes(), &address);
    }
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    assert!(!server.log().contains("all is lost"));
    server.stop();
}

#[test]
fn a_kill_for_want_of_memory_is_told_apart() {
    let Some(group) = MemoryGroup::new("30M") else {
        eprintln!("skipped: this machine lets nobody make memory cgroups");
        return;
    };
    let folder = Folder::new();
    // Says READY, then eats.
    let script = "#!/usr/bin/env python3
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'READY=1', '\\0' + os.environ['NOTIFY_SOCKET'][1:])
time.sleep(0.5)
eaten = [bytearray(os.urandom(1 << 20)) for _ in range(200)]
";
    let program = folder.write_program("app", script);
    let log = fs::File::create(folder.path("log")).expect("made");
    let line = "echo 0 > \"$0/cgroup.procs\"; exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        line,
        &group.0,
        master().to_str().expect("text"),
        "--bind",
        "127.0.0.1:0",
        "--",
    ]);
    let child =
        shell.arg(program).current_dir(folder.path("")).stderr(log).spawn().expect("starts");
    let mut server = Server::adopt(child, folder);
    server.expect("was sent SIGKILL!");
    server.wait_for_line("out_of_memory=true");
    server.stop();
}

/// A memory cgroup of version 1 below our own.
struct MemoryGroup(String);

impl MemoryGroup {
    fn new(limit: &str) -> Option<MemoryGroup> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.split_once(":memory:"))?.1.to_owned();
        let path = format!("/sys/fs/cgroup/memory{own}/monoceros-test-{}", std::process::id());
        fs::create_dir(&path).ok()?;
        let group = MemoryGroup(path);
        fs::write(format!("{}/memory.limit_in_bytes", group.0), limit).ok()?;
        Some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Whoever was in it has just ended; the kernel may take a moment to see that.
        let deadline = std::time::Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_hundred_workers_become_ready() {
    let folder = Folder::new();
    // Few sockets: the test is about messages.
    let args = ["--bind", "127.0.0.1:0", "--no-reuse-port", "--workers", "200"];
    let server = Server::spawn(folder, &args);
    server.wait_until("the end of the boot", || 200 <= server.count("Worker ready"));
    server.wait_for_line("Ready workers=200 wanted=200");
    server.stop();
}

#[test]
fn a_flood_on_the_notify_socket_does_not_keep_a_reload_from_its_end() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can run the flood as another user");
        return;
    }
    let folder = Folder::new();
    let worker = master().with_file_name("worker");
    let script =
        format!("#!/bin/sh\necho \"$NOTIFY_SOCKET\" > socket\nexec {}\n", worker.display());
    let program = folder.write_program("app", &script);
    let server = Server::start_in(folder, &["--workers", "4", program.to_str().expect("text")]);
    let name = fs::read_to_string(server.folder.path("socket")).expect("written");
    let flood = "import socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
end = time.time() + 25
while time.time() < end:
    s.sendto(b'STATUS=noise', '\\0' + sys.argv[1])
";
    let mut floods: Vec<_> = (0..2)
        .map(|_| {
            let mut python = Command::new("/usr/bin/python3");
            python.args(["-c", flood, name.trim().trim_start_matches('@')]);
            std::os::unix::process::CommandExt::uid(&mut python, 65_534);
            python.current_dir("/").stderr(Stdio::null()).spawn().expect("starts")
        })
        .collect();
    for generation in 1..=3 {
        server.signal(Signal::SIGHUP);
        server.wait_for_line(&format!("Reloaded generation={generation} workers=4"));
    }
    get(&server.address(), "/json").expect("served");
    for flood in &mut floods {
        assert!(flood.try_wait().expect("ours").is_none(), "the flood was over too early");
        flood.kill().expect("ours");
        flood.wait().expect("ours");
    }
    server.stop();
}

#[test]
fn a_full_process_table_fails_a_reload_and_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can start a master as a user of its own");
        return;
    }
    /// A user with no other process.
    const NOBODY_ELSE: u32 = 54_321;
    let folder = Folder::new();
    let program = programs_for_everybody(&folder);
    let log = fs::File::create(folder.path("log")).expect("made");
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1:0", "--workers", "2", "--boot-timeout", "1"]);
    std::os::unix::process::CommandExt::uid(&mut command, NOBODY_ELSE);
    std::os::unix::process::CommandExt::gid(&mut command, NOBODY_ELSE);
    let child = command.current_dir("/").stdin(Stdio::null()).stderr(log).spawn().expect("starts");
    let mut server = Server::adopt(child, folder);
    server.expect("[WARNING] Cannot spawn worker");
    server.expect("Reload failed");
    // A container may forbid this user a socket filter.
    server.expect("Cannot turn connections away");
    server.wait_for_line("Ready workers=2");
    let limit = |most: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &server.pid().to_string(), &format!("--nproc={most}")]);
        // As that user itself: a container's root may not change what is another's.
        std::os::unix::process::CommandExt::uid(&mut prlimit, NOBODY_ELSE);
        std::os::unix::process::CommandExt::gid(&mut prlimit, NOBODY_ELSE);
        assert!(prlimit.status().expect("there is a prlimit").success());
    };
    limit("1:1000");
    let workers = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reload failed, still serving generation=0 workers=2");
    assert!(
        server.log().contains("reason=cannot spawn a worker: Resource temporarily unavailable")
    );
    // At 0, 0.1, 0.3, 0.7 s and so on, with jitter; not as often as the loop turns.
    let attempts = server.count("Cannot spawn worker");
    assert!((2..=10).contains(&attempts), "{attempts} attempts:\n{}", server.log());
    assert_eq!(server.workers(), workers);
    get(&server.address(), "/json").expect("served");
    limit("1000:1000");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=");
    server.stop();
}
