//! The process as the system sees it: users, environment, background, process 1 of a container.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use support::{Folder, Server, get, run};

fn status_line(pid: Pid, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn workers_get_the_user_and_no_other_groups() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can change users");
        return;
    }
    let args =
        ["--user", "65534", "--group", "65533", "--env", "COLOUR=red", "--", "sleep", "1000"];
    let server = Server::start(&args);
    let worker = server.workers()[0];
    assert_eq!(status_line(worker, "Uid:"), "65534 65534 65534 65534");
    assert_eq!(status_line(worker, "Gid:"), "65533 65533 65533 65533");
    assert_eq!(status_line(worker, "Groups:"), "");
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    assert!(environment.split(|byte| *byte == 0).any(|entry| entry == b"COLOUR=red"));
    assert_eq!(status_line(server.pid(), "Uid:"), "0 0 0 0");
    server.stop();
}

#[test]
fn titles_name_the_role() {
    let server = Server::start(&["--name", "shop", "--admin-bind", "127.0.0.1:0"]);
    server.wait_for_line("Admin at: ");
    let title = |pid: Pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        String::from_utf8_lossy(&line).trim_end_matches('\0').to_owned()
    };
    assert_eq!(title(server.pid()), "monoceros: master [shop]");
    let mut children: Vec<String> = server.workers().into_iter().map(title).collect();
    children.sort();
    assert_eq!(children, ["monoceros: admin", "monoceros: worker [shop]"]);
    server.stop();
}

#[test]
fn daemon_returns_when_it_is_bound_and_fails_when_it_cannot() {
    let folder = Folder::new();
    let args = ["--daemon", "--pid", "m.pid", "--error-logfile", "m.log", "--bind", "unix:m.sock"];
    let (code, text) = run(&folder, &args);
    assert_eq!((code, text.as_str()), (Some(0), ""));
    let pid: i32 = fs::read_to_string(folder.path("m.pid")).unwrap().trim().parse().unwrap();
    assert!(folder.path("m.sock").exists(), "bound when the command returns");

    let (code, text) = run(&folder, &args);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(&format!("Already running on PID {pid}")),
        "said to whoever asked: {text}"
    );
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let (code, text) = run(&folder, &["--daemon", "--error-logfile", "other.log", "-b", &taken]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains(&format!("Connection in use: {taken}")), "{text}");
    assert!(fs::read_to_string(folder.path("m.log")).unwrap().contains("Already running on PID"));
    let (code, text) = run(&folder, &["--daemon", "--workers", "none"]);
    assert_eq!(code, Some(78), "{text}");

    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while folder.path("m.pid").exists() {
        assert!(std::time::Instant::now() < deadline, "the daemon does not stop");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn orphans_are_collected_by_process_1() {
    let folder = Folder::new();
    let is_possible = Command::new("unshare").args(["--pid", "--fork", "true"]).status();
    if !is_possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine makes no process namespaces");
        return;
    }
    // The worker leaves a grandchild behind, which becomes the master's child and then a zombie.
    let script = "#!/usr/bin/env python3
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.3)
    os._exit(0)
os.wait()
time.sleep(1000)
";
    let program = folder.write_program("app", script);
    let log = fs::File::create(folder.path("log")).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child"]).arg(support::master());
    unshare.args(["--log-level", "debug", "--bind", "127.0.0.1:0", "--"]).arg(&program);
    unshare.current_dir(folder.path("")).stderr(log).stdout(std::process::Stdio::null());
    let mut child = unshare.spawn().unwrap();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    let is_reaped = || fs::read_to_string(folder.path("log")).unwrap().contains("Reaped an orphan");
    while !is_reaped() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let was_reaped = is_reaped();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(was_reaped, "{}", fs::read_to_string(folder.path("log")).unwrap());
}

#[test]
fn listeners_passed_by_a_parent_are_used_instead_of_binding() {
    // As systemd does it, with descriptor 3 and LISTEN_PID of the new process.
    let folder = Folder::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    use std::os::fd::AsRawFd;
    let script = format!(
        "exec 3<&{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"",
        listener.as_raw_fd()
    );
    let fd = listener.as_raw_fd();
    nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .unwrap();
    assert!(3 <= fd);
    let log = fs::File::create(folder.path("log")).unwrap();
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script).arg(support::master()).current_dir(folder.path("")).stderr(log);
    let mut child = shell.spawn().unwrap();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while !fs::read_to_string(folder.path("log")).unwrap().contains("Ready workers=1") {
        assert!(
            std::time::Instant::now() < deadline,
            "{}",
            fs::read_to_string(folder.path("log")).unwrap()
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    get(&address, "/json").unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Whoever passed it holds it still: connections wait for the next server instead of being turned away.
    std::net::TcpStream::connect(&address).expect("the listener is as it was");
}

#[test]
fn paths_start_at_the_directory_that_was_asked_for() {
    let folder = Folder::new();
    let home = folder.path("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("monoceros.toml"), "bind = \"unix:here.sock\"\npidfile = \"m.pid\"\n")
        .unwrap();
    let server =
        Server::spawn(folder, &["--chdir", "home", "--env", "COLOUR=blue", "--", "sleep", "9"]);
    server.wait_for_line("Ready workers=");
    assert!(home.join("here.sock").exists() && home.join("m.pid").exists());
    for pid in [server.pid(), server.workers()[0]] {
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), home);
    }
    let environment = fs::read(format!("/proc/{}/environ", server.workers()[0])).unwrap();
    assert!(environment.split(|byte| *byte == 0).any(|entry| entry == b"COLOUR=blue"));
    server.stop();
}

#[test]
fn process_1_of_a_container_drains_on_term() {
    let folder = Folder::new();
    let is_possible = Command::new("unshare").args(["--pid", "--fork", "true"]).status();
    if !is_possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine makes no process namespaces");
        return;
    }
    let log = fs::File::create(folder.path("log")).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child"]).arg(support::master());
    unshare.args(["--bind", "127.0.0.1:0", "--workers", "2"]).current_dir(folder.path(""));
    let child = unshare.stderr(log).stdin(std::process::Stdio::null()).spawn().unwrap();
    let mut server = Server::adopt(child, folder);
    server.wait_for_line("Ready workers=2");
    get(&server.address(), "/json").unwrap();
    // `unshare` waits for the master, its only child, and ends as that does.
    let master = server.workers()[0];
    assert!(status_line(master, "NSpid:").ends_with(" 1"), "process 1 of its namespace");
    kill(master, Signal::SIGTERM).unwrap();
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    assert_eq!(server.count("Worker exited"), 2, "{}", server.log());
    server.check_log();
}
