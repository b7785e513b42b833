//! A private PostgreSQL cluster.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::certificates::Identity;
use crate::dir::TempDir;
use crate::process::{find_program, free_port, send};

/// Longest wait for the cluster to be made, to start or to stop.
const BOUND: Duration = Duration::from_secs(60);

/// Tries to start: another program may take the port between our look and PostgreSQL's.
const STARTS_MAX: usize = 5;

/// How PostgreSQL is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Sessions are ended, then it closes in good order.
    Fast,
    /// At once, as in a crash.
    Immediate,
}

/// A cluster of its own in a directory of its own. Dropping it stops and removes it.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    port: u16,
    /// Whom the server runs as: it refuses to be root.
    user: Option<(u32, u32)>,
    server: Option<Child>,
}

impl Postgres {
    /// Tells whether this machine has PostgreSQL's programs.
    #[must_use]
    pub fn is_available() -> bool {
        find_program("initdb").is_some() && find_program("postgres").is_some()
    }

    /// Makes a cluster (user `postgres`, database `postgres`, no password) and starts it.
    #[must_use]
    #[track_caller]
    pub fn start() -> Postgres {
        let mut postgres = Postgres::create();
        postgres.resume();
        postgres
    }

    /// Makes a stopped cluster's server offer TLS on TCP, as `identity`, and take nothing else there.
    #[track_caller]
    pub fn demand_tls(&self, identity: &Identity) {
        assert!(self.server.is_none(), "it runs already");
        let data = self.data();
        identity.install(&data.join("server.crt"), &data.join("server.key"), self.user);
        let settings = File::options().append(true).open(data.join("postgresql.conf"));
        settings.and_then(|mut file| file.write_all(b"ssl = on\n")).expect("written");
        let who = "local all all trust\nhostssl all all all trust\n";
        std::fs::write(data.join("pg_hba.conf"), who).expect("written");
    }

    /// Makes a cluster and leaves it stopped.
    #[must_use]
    #[track_caller]
    pub fn create() -> Postgres {
        let dir = TempDir::new();
        let user = nix::unistd::geteuid().is_root().then(unprivileged);
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).expect("directory handed over");
        }
        let postgres = Postgres { dir, port: free_port(), user, server: None };
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8"]);
        initdb.args(["--locale=C", "--pgdata"]).arg(postgres.data());
        let output = initdb.output().expect("initdb starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        postgres
    }

    /// Starts a stopped cluster, on the port it had, and waits until it takes connections.
    #[track_caller]
    pub fn resume(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let had_begun = self.dir.join("log").exists();
        for _ in 0..STARTS_MAX {
            let log = File::options().append(true).create(true).open(self.dir.join("log"));
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
            command.args(["-p", &self.port.to_string()]);
            // Commits stay synchronous: without that an immediate stop would lose the last of them.
            for setting in [
                "listen_addresses=127.0.0.1",
                "fsync=off",
                "full_page_writes=off",
                "max_connections=100",
                "shared_buffers=32MB",
            ] {
                command.args(["-c", setting]);
            }
            command.stdout(Stdio::null()).stderr(log.expect("a log file"));
            let mut server = command.spawn().expect("postgres starts");
            if self.becomes_ready(&mut server) {
                self.server = Some(server);
                return;
            }
            if !had_begun {
                self.port = free_port();
            }
        }
        panic!("PostgreSQL does not start:\n{}", self.log());
    }

    /// The last line of `postmaster.pid` is its status.
    fn becomes_ready(&self, server: &mut Child) -> bool {
        let start = Instant::now();
        while start.elapsed() < BOUND {
            if server.try_wait().expect("our child").is_some() {
                return false;
            }
            let status = std::fs::read_to_string(self.data().join("postmaster.pid"));
            let status = status.unwrap_or_default();
            let mut lines = status.lines();
            if lines.next() == Some(&server.id().to_string())
                && lines.next_back().is_some_and(|line| line.trim() == "ready")
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Stops it and waits for its end. The directory stays, for [`Postgres::resume`].
    #[track_caller]
    pub fn stop(&mut self, how: Shutdown) {
        let Some(mut server) = self.server.take() else { return };
        let signal = match how {
            Shutdown::Fast => Signal::SIGINT,
            Shutdown::Immediate => Signal::SIGQUIT,
        };
        send(server.id(), signal).expect("it runs");
        let start = Instant::now();
        while server.try_wait().expect("our child").is_none() {
            if start.elapsed() > BOUND {
                let _ = server.kill();
                panic!("PostgreSQL does not stop:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it fast and starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop(Shutdown::Fast);
        self.resume();
    }

    /// Process id of the running server.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The address over its unix socket.
    #[must_use]
    pub fn url_unix(&self) -> String {
        let (dir, port) = (self.dir.path().display(), self.port);
        format!("postgresql:///postgres?user=postgres&host={dir}&port={port}")
    }

    /// The address over TCP.
    #[must_use]
    pub fn url_tcp(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs SQL and returns what it prints, without headings.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        let mut command = self.command("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d"]);
        let output = command.arg(self.url_unix()).args(["-c", sql]).output().expect("psql starts");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    /// The server's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    #[track_caller]
    fn command(&self, program: &str) -> Command {
        let Some(path) = find_program(program) else {
            panic!("{program} not found: install PostgreSQL (Debian: apt-get install postgresql)")
        };
        let mut command = Command::new(path);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("LC_ALL", "C").env("HOME", self.dir.path());
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = send(server.id(), Signal::SIGQUIT);
            let start = Instant::now();
            while matches!(server.try_wait(), Ok(None)) {
                if start.elapsed() > BOUND {
                    let _ = server.kill();
                    let _ = server.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn unprivileged() -> (u32, u32) {
    for name in ["postgres", "nobody"] {
        if let Ok(Some(user)) = User::from_name(name) {
            return (user.uid.as_raw(), user.gid.as_raw());
        }
    }
    // Whoever owns nothing.
    let overflow = std::fs::metadata("/proc/sys/kernel/overflowuid").map_or(0, |m| m.uid());
    assert_eq!(overflow, 0, "no unprivileged user to run PostgreSQL as");
    (65_534, 65_534)
}
