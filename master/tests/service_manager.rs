//! What a service manager is told, and when: the protocol of systemd, received as it would.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Folder, Server, command, get};

/// A service manager that keeps all it was told.
struct Manager {
    socket: UnixDatagram,
    told: RefCell<Vec<String>>,
}

impl Manager {
    fn start(args: &[&str]) -> (Manager, Server) {
        Manager::start_with(args, &[])
    }

    fn start_with(args: &[&str], variables: &[(&str, &str)]) -> (Manager, Server) {
        let folder = Folder::new();
        let path = folder.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let log = std::fs::File::create(folder.path("log")).unwrap();
        let mut all = vec!["--bind", "127.0.0.1:0", "--pid", "m.pid"];
        all.extend(args);
        let mut master = command(&folder, &all);
        master.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
        master.envs(variables.iter().copied());
        let child = master.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        (Manager { socket, told: RefCell::new(Vec::new()) }, Server::adopt(child, folder))
    }

    /// Number of messages that begin with `start`, so far.
    fn count(&self, start: &str) -> usize {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.told.borrow_mut().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        self.told.borrow().iter().filter(|message| message.starts_with(start)).count()
    }

    fn message(&self, start: &str) -> String {
        self.told.borrow().iter().find(|message| message.starts_with(start)).cloned().unwrap()
    }
}

#[test]
fn s20_each_step_is_told_when_it_is_true() {
    let (manager, mut server) = Manager::start(&["--workers", "2", "--graceful-timeout", "7"]);
    server.wait_until("READY", || manager.count("READY=1\n") == 1);
    // Whoever waits for READY may send requests now.
    get(&server.address(), "/json").unwrap();
    assert_eq!(server.count("Worker ready"), 2);
    server.wait_until("the watchdog", || 3 <= manager.count("WATCHDOG=1"));

    server.signal(Signal::SIGHUP);
    server.wait_until("RELOADING", || manager.count("RELOADING=1\n") == 1);
    let microseconds = manager.message("RELOADING=1\n");
    assert!(microseconds.contains("\nMONOTONIC_USEC="), "{microseconds}");
    server.wait_until("READY again", || manager.count("READY=1\n") == 2);
    assert!(server.log().contains("Reloaded generation=1"), "READY comes after the reload");

    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert_eq!(manager.count("STOPPING=1\n"), 1);
    let stopping = manager.message("STOPPING=1\n");
    let extension = stopping.split("EXTEND_TIMEOUT_USEC=").nth(1).unwrap().lines().next().unwrap();
    assert!(7_000_000 <= extension.parse::<u64>().unwrap(), "time for the whole drain: {stopping}");
    server.check_log();
}

#[test]
fn a_failed_reload_is_over_too() {
    let (manager, mut server) = Manager::start(&[]);
    server.expect("Reload failed");
    server.wait_until("READY", || manager.count("READY=1\n") == 1);
    server.folder.write("monoceros.toml", "wrokers = 1\n");
    server.signal(Signal::SIGHUP);
    server.wait_until("READY again", || manager.count("READY=1\n") == 2);
    assert_eq!(manager.count("RELOADING=1\n"), 1);
    std::fs::remove_file(server.folder.path("monoceros.toml")).unwrap();
    server.stop();
}

#[test]
fn an_upgrade_names_the_new_main_process_before_that_one_speaks() {
    let (manager, mut server) = Manager::start(&[]);
    server.wait_until("READY", || manager.count("READY=1\n") == 1);
    server.signal(Signal::SIGUSR2);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    server.wait_until("the new one's READY", || manager.count("READY=1\n") == 2);
    assert_eq!(manager.count("MAINPID="), 1);
    let named = manager.message("MAINPID=");
    let pid: i32 = named.lines().next().unwrap().trim_start_matches("MAINPID=").parse().unwrap();
    let told = manager.told.borrow().clone();
    let naming = told.iter().position(|message| message.starts_with("MAINPID=")).unwrap();
    let speaking = told.iter().rposition(|message| message.starts_with("READY=1\n")).unwrap();
    assert!(naming < speaking, "{told:?}");
    assert_eq!(manager.count("STOPPING=1"), 0, "the service does not stop: {told:?}");
    server.wait_until("the new pidfile", || {
        std::fs::read_to_string(server.folder.path("m.pid"))
            .is_ok_and(|text| text.trim() == pid.to_string())
    });
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    server.wait_until("STOPPING", || manager.count("STOPPING=1\n") == 1);
    server.wait_until("the end", || !server.folder.path("m.pid").exists());
    server.check_log();
}

#[test]
fn every_listener_is_stored_and_retired_ones_are_removed() {
    let (manager, server) = Manager::start_with(&["--workers", "2"], &[("FDSTORE", "5")]);
    server.wait_until("READY", || manager.count("READY=1\n") == 1);
    assert_eq!(manager.count("FDSTORE=1\n"), 1);
    let stored = manager.message("FDSTORE=1\n");
    // Two sockets of one address, in one message. That they come with it is seen by a real systemd.
    assert_eq!(stored, "FDSTORE=1\nFDNAME=stored.http.0-0.127.0.0.1%3A0\nFDPOLL=0");
    server.folder.write("monoceros.toml", "admin_bind = \"127.0.0.1:0\"\n");
    server.signal(Signal::SIGHUP);
    server.wait_until("the admin's", || manager.count("FDSTORE=1\nFDNAME=stored.admin.") == 1);
    server.folder.write("monoceros.toml", "");
    server.signal(Signal::SIGHUP);
    server.wait_until("its removal", || {
        manager.count("FDSTOREREMOVE=1\nFDNAME=stored.admin.0-0.127.0.0.1%3A0") == 1
    });
    assert_eq!(manager.count("FDSTORE=1\n"), 2, "nothing is stored twice");
    server.stop();
}

#[test]
fn a_manager_that_keeps_nothing_is_sent_nothing() {
    let (manager, server) = Manager::start(&[]);
    server.wait_until("READY", || manager.count("READY=1\n") == 1);
    assert_eq!(manager.count("FDSTORE"), 0);
    server.stop();
}
