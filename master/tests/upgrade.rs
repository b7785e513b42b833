//! USR2: another master program takes over under load, or fails and changes nothing.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Folder, Load, Server, get, master};

/// A server whose program is a copy of its own, so that it can be replaced on disk.
struct Upgradable {
    server: Server,
    program: PathBuf,
}

impl Upgradable {
    fn start(args: &[&str]) -> Upgradable {
        let folder = Folder::new();
        let program = folder.path("master");
        fs::copy(master(), &program).unwrap();
        for program in ["worker", "admin"] {
            fs::copy(master().with_file_name(program), folder.path(program)).unwrap();
        }
        let log = fs::File::create(folder.path("log")).unwrap();
        let mut command = std::process::Command::new(&program);
        command
            .args(["--bind", "127.0.0.1:0", "--bind", "unix:m.sock", "--pid", "m.pid"])
            .args(args);
        let child = command.current_dir(folder.path("")).stdin(std::process::Stdio::null());
        let child = child.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let server = Server::adopt(child, folder);
        server.wait_for_line("Ready workers=");
        Upgradable { server, program }
    }

    /// Puts another program in its place, as a package manager does: never into the running file.
    fn replace(&self, with: &str) {
        self.server.folder.write_program("master", with);
        assert!(self.program.exists());
    }

    fn pidfile(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.server.folder.path("m.pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    /// Stops the master that the pidfile names, which is nobody's child here.
    fn stop_successor(self) {
        let pid = self.pidfile().unwrap();
        kill(pid, Signal::SIGTERM).unwrap();
        self.server.wait_until("the end", || !PathBuf::from(format!("/proc/{pid}/exe")).exists());
        assert!(
            !self.server.folder.path("m.pid").exists()
                && !self.server.folder.path("m.sock").exists()
        );
        self.server.check_log();
    }
}

#[test]
fn s21_upgrades_lose_nothing() {
    let mut upgradable = Upgradable::start(&["--workers", "2", "--admin-bind", "unix:admin.sock"]);
    let first = upgradable.server.pid();
    let address = upgradable.server.address();
    let load = Load::start(&address, 4, Duration::from_millis(2));
    upgradable.server.signal(Signal::SIGUSR2);
    assert_eq!(upgradable.server.wait(), Some(0), "{}", upgradable.server.log());
    upgradable.server.wait_for_line("Master has been promoted.");
    upgradable
        .server
        .wait_until("the new pidfile", || upgradable.pidfile().is_some_and(|pid| pid != first));
    let second = upgradable.pidfile().unwrap();
    assert!(
        upgradable.server.folder.path("m.sock").exists(),
        "the leaving master must not take the path along"
    );

    // And once more, by the successor; then a reload of the third.
    kill(second, Signal::SIGUSR2).unwrap();
    upgradable.server.wait_for_lines("Master has been promoted.", 2);
    upgradable
        .server
        .wait_until("the third pidfile", || upgradable.pidfile().is_some_and(|pid| pid != second));
    kill(upgradable.pidfile().unwrap(), Signal::SIGHUP).unwrap();
    upgradable.server.wait_for_line("Reloaded generation=1");
    let (answered, failed) = load.finish();
    assert!(failed.is_empty() && 20 < answered, "{answered} answered, failed: {failed:?}");
    get(&address, "/json").unwrap();
    assert!(
        upgradable.server.folder.path("admin.sock").exists(),
        "the admin address is handed over too"
    );
    std::os::unix::net::UnixStream::connect(upgradable.server.folder.path("m.sock")).unwrap();
    upgradable.stop_successor();
}

#[test]
fn an_upgrade_that_fails_changes_nothing() {
    let mut upgradable = Upgradable::start(&["--workers", "2"]);
    upgradable.server.expect("Upgrade failed, still serving");
    let (address, workers) = (upgradable.server.address(), upgradable.server.workers());
    let load = Load::start(&address, 3, Duration::from_millis(3));
    for (round, program) in ["#!/bin/sh\nexit 1\n", "#!/nowhere/at/all\n", ""].iter().enumerate() {
        upgradable.replace(program);
        upgradable.server.signal(Signal::SIGUSR2);
        upgradable.server.wait_for_lines("Upgrade failed", 1 + round);
    }
    // A master that starts, but whose workers cannot boot.
    fs::remove_file(upgradable.server.folder.path("master")).unwrap();
    fs::copy(master(), upgradable.server.folder.path("master")).unwrap();
    upgradable.server.folder.write_program("worker", "#!/bin/sh\nexit 3\n");
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.wait_for_lines("Upgrade failed", 4);
    let log = upgradable.server.log();
    let reasons: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("reason=")).map(|(_, why)| why).collect();
    assert!(reasons[0].starts_with("it ended without giving a reason"), "{reasons:?}");
    assert!(reasons[1].contains("cannot execute the program: No such file"), "{reasons:?}");
    assert!(
        reasons.iter().any(|why| why.contains("a worker could not boot (code=3)")),
        "{reasons:?}"
    );
    // Settings that cannot be read: the new master's own words reach the operator.
    upgradable.server.folder.write("monoceros.toml", "wrokers = 1\n");
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.wait_for_lines("Upgrade failed", 5);
    assert!(
        upgradable.server.log().contains("reason=monoceros.toml:1:1: "),
        "{}",
        upgradable.server.log()
    );
    fs::remove_file(upgradable.server.folder.path("monoceros.toml")).unwrap();

    let (answered, failed) = load.finish();
    assert!(failed.is_empty() && 10 < answered, "{answered} answered, failed: {failed:?}");
    assert_eq!(upgradable.server.workers(), workers);
    assert_eq!(upgradable.pidfile(), Some(upgradable.server.pid()));
    upgradable.server.stop();
}

#[test]
fn a_stop_waits_for_the_verdict() {
    let mut upgradable = Upgradable::start(&["--boot-timeout", "5"]);
    upgradable.server.expect("Upgrade failed, still serving");
    let address = upgradable.server.address();
    // Boots for a second, then fails.
    upgradable.replace("#!/bin/sh\nsleep 1\nexit 1\n");
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.wait_for_line("Upgrading: booting another master");
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.expect("USR2 signal ignored. Child exists.");
    upgradable.server.wait_for_line("USR2 signal ignored. Child exists.");
    upgradable.server.signal(Signal::SIGTERM);
    upgradable.server.wait_for_line("The stop waits for the upgrade");
    get(&address, "/json").unwrap();
    assert_eq!(upgradable.server.wait(), Some(0));
    upgradable.server.wait_for_line("Upgrade failed");
    upgradable.server.check_log();
}

#[test]
fn a_successor_carries_on_when_its_predecessor_dies() {
    let mut upgradable = Upgradable::start(&[]);
    let address = upgradable.server.address();
    upgradable.server.expect("The master is gone: finishing");
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.wait_for_line("Upgrading: booting another master");
    upgradable.server.signal(Signal::SIGKILL);
    upgradable.server.wait_status();
    upgradable.server.wait_for_line("Master has been promoted.");
    upgradable.server.wait_until("service", || get(&address, "/json").is_ok());
    let first = upgradable.server.pid();
    upgradable
        .server
        .wait_until("the pidfile", || upgradable.pidfile().is_some_and(|pid| pid != first));
    upgradable.stop_successor();
}

#[test]
fn readiness_holds_through_an_upgrade() {
    use std::io::{Read, Write};
    let mut upgradable = Upgradable::start(&["--workers", "2", "--admin-bind", "unix:admin.sock"]);
    upgradable.server.wait_for_line("Admin at: unix:");
    let socket = upgradable.server.folder.path("admin.sock");
    let readiness = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    upgradable.server.signal(Signal::SIGUSR2);
    let mut asked = 0;
    while upgradable.server.count("Admin at: unix:") < 2
        || upgradable.server.count("Master has been promoted.") < 1
    {
        let answer = readiness();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}\n{}", upgradable.server.log());
        asked += 1;
    }
    assert!(10 < asked, "{asked}");
    assert_eq!(upgradable.server.wait(), Some(0));
    assert!(readiness().starts_with("HTTP/1.1 200"));
    upgradable.stop_successor();
}
