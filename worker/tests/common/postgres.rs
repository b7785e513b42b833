//! A private PostgreSQL server on a unix socket, with statement statistics.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::unistd::User;

/// A server of its own in a temporary directory; stopped and removed when dropped.
pub struct Postgres {
    directory: PathBuf,
}

impl Postgres {
    /// Makes and starts a server, and fills the tables of the tests with the program that does so.
    pub fn start() -> Postgres {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("monoceros-worker-{}-{number}", std::process::id());
        let postgres = Postgres { directory: std::env::temp_dir().join(name) };
        fs::create_dir_all(&postgres.directory).unwrap();
        if let Some(user) = unprivileged() {
            chown(&postgres.directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let options =
            ["--no-sync", "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "-D"];
        postgres.run(program("initdb").args(options).arg(postgres.data()));
        postgres.resume();
        let made = Command::new(super::bundled())
            .arg("--create-tables")
            .env("DATABASE_URL", postgres.url())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.query("CREATE EXTENSION pg_stat_statements");
        postgres
    }

    /// Starts the server again after [`Postgres::interrupt`].
    pub fn resume(&self) {
        let directory = self.directory.display();
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={directory} -c fsync=off -c max_connections=50 \
             -c shared_preload_libraries=pg_stat_statements -c pg_stat_statements.track=all"
        );
        let log = self.directory.join("log");
        self.run(
            program("pg_ctl")
                .arg("-D")
                .arg(self.data())
                .arg("-l")
                .arg(log)
                .args(["-o", &options, "-w", "start"]),
        );
    }

    /// For how long the running server has taken connections: its last word in this file is that it does.
    pub fn up_for(&self) -> Duration {
        let status = fs::metadata(self.data().join("postmaster.pid")).unwrap();
        status.modified().unwrap().elapsed().unwrap_or_default()
    }

    /// Stops the server; clients are cut off.
    pub fn interrupt(&self) {
        self.run(program("pg_ctl").arg("-D").arg(self.data()).args([
            "-m",
            "immediate",
            "-w",
            "stop",
        ]));
    }

    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.directory.display())
    }

    /// Runs SQL and returns what psql prints: rows as lines, columns separated by `|`.
    pub fn query(&self, sql: &str) -> String {
        let output = program("psql")
            .args([
                "-X",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-h",
            ])
            .arg(&self.directory)
            .args(["-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Runs a program of PostgreSQL's, which refuse to be root's.
    fn run(&self, command: &mut Command) {
        // Not a pipe: the server would hold it open.
        let output = self.directory.join("output");
        let file = File::create(&output).unwrap();
        if let Some(user) = unprivileged() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let error = file.try_clone().unwrap();
        let status = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(error)
            .status()
            .unwrap();
        assert!(status.success(), "{}", fs::read_to_string(output).unwrap());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = program("pg_ctl");
        if let Some(user) = unprivileged() {
            stop.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let _ = stop
            .arg("-D")
            .arg(self.data())
            .args(["-m", "immediate", "-w", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The user to run the server as, if we are root.
fn unprivileged() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).unwrap())
}

/// One of PostgreSQL's programs: of the newest version that Debian installed, else whatever PATH has.
fn program(name: &str) -> Command {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|path| path.exists());
    versions.sort();
    Command::new(versions.pop().unwrap_or_else(|| name.into()))
}
