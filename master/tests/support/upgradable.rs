//! A server that can be upgraded: its programs are copies in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use testkit::{Server, ServerBuilder, Signal, TempDir, ensure_worker, is_alive, wait_until};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

/// A server whose programs are copies of its own, so that they can be replaced on disk.
pub struct Upgradable {
    pub dir: TempDir,
    pub server: Server,
}

impl Upgradable {
    pub fn start(args: &[&str]) -> Upgradable {
        Upgradable::with(args, |builder| builder)
    }

    pub fn with(args: &[&str], change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Upgradable {
        let dir = TempDir::new();
        let original = Path::new(env!("CARGO_BIN_EXE_master"));
        ensure_worker(original);
        for program in ["master", "worker"] {
            fs::copy(original.with_file_name(program), dir.join(program)).unwrap();
        }
        let pidfile = dir.join("m.pid").display().to_string();
        let builder = Server::builder(dir.join("master")).args(["--pid", &pidfile]);
        let server = change(builder.args(args.iter().copied())).start();
        server.wait_for_log("Ready workers=", BOUND);
        Upgradable { dir, server }
    }

    /// Puts a script in the place of a program, as a package manager does: never into the running file.
    pub fn replace(&self, name: &str, script: &str) {
        let fresh = self.dir.join("fresh");
        fs::write(&fresh, script).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, self.dir.join(name)).unwrap();
    }

    pub fn restore(&self, name: &str) {
        let fresh = self.dir.join("fresh");
        fs::copy(Path::new(env!("CARGO_BIN_EXE_master")).with_file_name(name), &fresh).unwrap();
        fs::rename(fresh, self.dir.join(name)).unwrap();
    }

    pub fn pid_in(&self, name: &str) -> Option<u32> {
        fs::read_to_string(self.dir.join(name)).ok()?.trim().parse().ok()
    }

    /// Waits until the pidfile names another process than `old`.
    pub fn successor_of(&self, old: u32) -> u32 {
        wait_until("the new pidfile", BOUND, || self.pid_in("m.pid").is_some_and(|pid| pid != old));
        self.pid_in("m.pid").unwrap()
    }
}

impl Drop for Upgradable {
    fn drop(&mut self) {
        // A master of an upgrade is nobody's child: should a test have failed, it is ended here.
        for name in ["m.pid", "m.pid.2"] {
            if let Some(pid) = self.pid_in(name).filter(|pid| is_alive(*pid)) {
                signal(pid, Signal::SIGTERM);
            }
        }
    }
}

/// Sends a signal to somebody who may be gone.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// Stops a master that is nobody's child.
pub fn end(pid: u32) {
    signal(pid, Signal::SIGTERM);
    wait_until("the end of the last master", BOUND, || !is_alive(pid));
}
