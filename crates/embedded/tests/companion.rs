//! The companion against the PostgreSQL of this machine: first use, crashes, and refusals.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait for anything; a healthy machine needs a second.
const BOUND: Duration = Duration::from_secs(60);

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in {BOUND:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder that another user may pass through, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/embedded-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running companion on the state directory `state`. Dropping it stops it.
struct Companion {
    child: Child,
    state: PathBuf,
    output: PathBuf,
    notify: UnixDatagram,
}

impl Companion {
    fn start(state: &Path) -> Companion {
        Companion::start_with(state, |_| ())
    }

    fn start_with(state: &Path, change: impl FnOnce(&mut Command)) -> Companion {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let side =
            PathBuf::from(format!("/tmp/embedded-test-{}-notify-{number}", std::process::id()));
        let notify = UnixDatagram::bind(&side).unwrap();
        fs::set_permissions(&side, fs::Permissions::from_mode(0o777)).unwrap();
        notify.set_read_timeout(Some(BOUND)).unwrap();
        let output = side.with_extension("output");
        let mut command = Command::new(env!("CARGO_BIN_EXE_embedded-postgres"));
        command.arg(state).env("NOTIFY_SOCKET", &side).stdin(Stdio::null());
        // A developer's own settings must not reach PostgreSQL.
        command.env("PGPORT", "1").env("PGDATA", "/nowhere");
        command.stderr(File::create(&output).unwrap());
        change(&mut command);
        let child = command.spawn().unwrap();
        Companion { child, state: state.to_path_buf(), output, notify }
    }

    #[track_caller]
    fn ready(self) -> Companion {
        let mut message = [0; 64];
        let length = self
            .notify
            .recv(&mut message)
            .unwrap_or_else(|_| panic!("never ready: {}", self.said()));
        assert_eq!(&message[..length], b"READY=1\n");
        self
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    fn query(&self, sql: &str) -> Result<String, String> {
        let output = psql(&self.state, sql).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn server(&self) -> Pid {
        let text = fs::read_to_string(self.state.join("postgresql/data/postmaster.pid")).unwrap();
        Pid::from_raw(text.lines().next().unwrap().parse().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    #[track_caller]
    fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the companion's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    #[track_caller]
    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.exit_code(), Some(0), "{}", self.said());
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.output);
        let _ = fs::remove_file(self.output.with_extension(""));
    }
}

fn psql(state: &Path, sql: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-AtXqc", sql, &embedded::url(state)]).env_remove("PGPORT").stdin(Stdio::null());
    command
}

/// Whether the process has ended; it may still wait to be collected by whoever is process 1 here.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn first_use_makes_a_cluster_that_outlives_its_companion() {
    let folder = Folder::new();
    let companion = Companion::start(&folder.0).ready();
    companion.query("CREATE TABLE kept AS SELECT 42 AS number").unwrap();
    let settings =
        "SELECT current_setting('listen_addresses') || '|' || current_setting('server_encoding')";
    assert_eq!(companion.query(settings).unwrap(), "|UTF8", "no network address");
    let run = fs::metadata(folder.0.join("postgresql/run")).unwrap().permissions().mode();
    assert_eq!(run & 0o7777, 0o700, "only the owner may reach the socket");
    let server = companion.server();
    companion.stop();
    assert!(is_gone(server), "PostgreSQL was left running");

    let companion = Companion::start(&folder.0).ready();
    assert_eq!(companion.query("SELECT number FROM kept").unwrap(), "42");
    assert!(!companion.said().contains("Made a PostgreSQL"), "{}", companion.said());
    companion.stop();
}

#[test]
fn killed_server_is_replaced_though_an_old_backend_still_computes() {
    let folder = Folder::new();
    let companion = Companion::start(&folder.0).ready();
    companion.query("CREATE TABLE kept AS SELECT 42 AS number").unwrap();
    // The last moments before a crash may be lost; what was written out may not.
    companion.query("CHECKPOINT").unwrap();
    // In a tight loop a backend does not notice that its server is gone, and keeps the shared memory attached.
    let mut busy = psql(&folder.0, "SELECT count(*) FROM generate_series(1, 100000000000)")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let busy_backends = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 1%' \
                         AND pid <> pg_backend_pid()";
    eventually("the busy query's start", || companion.query(busy_backends).as_deref() == Ok("1"));
    let old = companion.server();
    kill(old, Signal::SIGKILL).unwrap();
    eventually("the database's return", || {
        companion.query("SELECT number FROM kept").as_deref() == Ok("42")
    });
    assert_ne!(companion.server(), old);
    assert!(
        companion.said().contains("[Warning] PostgreSQL was ended by SIGKILL"),
        "{}",
        companion.said()
    );
    busy.wait().unwrap();
    companion.stop();
}

#[test]
fn second_companion_is_refused_by_name() {
    let folder = Folder::new();
    let first = Companion::start(&folder.0).ready();
    let mut second = Companion::start(&folder.0);
    assert_eq!(second.exit_code(), Some(1));
    let want = format!("is in use by process {}", first.child.id());
    assert!(second.said().contains(&want), "{}", second.said());
    assert_eq!(first.query("SELECT 1").as_deref(), Ok("1"), "the first goes on");
    first.stop();
}

#[test]
fn interrupted_first_use_begins_anew() {
    let folder = Folder::new();
    let mut companion = Companion::start(&folder.0);
    eventually("the middle of initdb", || {
        unfinished(&folder.0).is_some_and(|path| path.join("PG_VERSION").exists())
    });
    companion.signal(Signal::SIGKILL);
    companion.exit_code();
    assert!(!folder.0.join("postgresql/data").exists(), "killed too late to show anything");
    let companion = Companion::start(&folder.0).ready();
    assert_eq!(companion.query("SELECT 1").as_deref(), Ok("1"));
    assert_eq!(unfinished(&folder.0), None);
    companion.stop();
}

/// The cluster that is being made, if one is.
fn unfinished(state: &Path) -> Option<PathBuf> {
    let mut paths =
        fs::read_dir(state.join("postgresql")).ok()?.flatten().map(|entry| entry.path());
    paths.find(|path| path.to_string_lossy().contains("unfinished"))
}

#[test]
fn cluster_of_another_version_is_left_alone() {
    let folder = Folder::new();
    let data = folder.0.join("postgresql/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let mut companion = Companion::start(&folder.0);
    assert_eq!(companion.exit_code(), Some(1));
    assert!(companion.said().contains("made by PostgreSQL 9"), "{}", companion.said());
    assert!(companion.said().contains("apt-get install postgresql-9"), "{}", companion.said());
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
}

#[test]
fn killed_companion_leaves_no_obstacle() {
    let folder = Folder::new();
    let mut companion = Companion::start(&folder.0).ready();
    companion.query("CREATE TABLE kept AS SELECT 42 AS number").unwrap();
    let server = companion.server();
    companion.signal(Signal::SIGKILL);
    companion.exit_code();
    let companion = Companion::start(&folder.0).ready();
    assert!(is_gone(server) && companion.server() != server);
    assert_eq!(companion.query("SELECT number FROM kept").as_deref(), Ok("42"));
    companion.stop();
}

#[test]
fn status_file_with_a_number_of_another_program_is_no_obstacle() {
    let folder = Folder::new();
    let mut companion = Companion::start(&folder.0).ready();
    let server = companion.server();
    companion.signal(Signal::SIGSTOP);
    kill(server, Signal::SIGKILL).unwrap();
    companion.signal(Signal::SIGKILL);
    companion.exit_code();
    let status = folder.0.join("postgresql/data/postmaster.pid");
    let text = fs::read_to_string(&status).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&status, format!("{}\n{rest}", std::process::id())).unwrap();
    Companion::start(&folder.0).ready().stop();
}

#[test]
fn end_of_the_master_stops_the_server() {
    let folder = Folder::new();
    let mut companion = Companion::start_with(&folder.0, |command| {
        command.env("LIFELINE", "1").stdin(Stdio::piped());
    })
    .ready();
    let server = companion.server();
    // An order for workers, and a Ctrl-C that is meant for the master: neither stops it.
    std::io::Write::write_all(companion.child.stdin.as_mut().unwrap(), b"r").unwrap();
    companion.signal(Signal::SIGINT);
    assert_eq!(companion.query("SELECT 1").as_deref(), Ok("1"));
    assert!(matches!(companion.child.try_wait(), Ok(None)));
    drop(companion.child.stdin.take());
    assert_eq!(companion.exit_code(), Some(0), "{}", companion.said());
    assert!(is_gone(server));
}

#[test]
fn stop_during_first_use_is_obeyed() {
    let folder = Folder::new();
    let mut companion = Companion::start(&folder.0);
    eventually("the beginning of initdb", || unfinished(&folder.0).is_some());
    companion.signal(Signal::SIGTERM);
    assert_eq!(companion.exit_code(), Some(0), "{}", companion.said());
}

#[test]
fn tables_are_made_before_it_is_ready() {
    let folder = Folder::new();
    let program = folder.0.join("tables");
    let write = |text: &str| {
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(
        "#!/bin/sh\n[ \"$1\" = --create-tables ] && exec psql -qc 'CREATE TABLE made (id int)' \"$DATABASE_URL\"\n",
    );
    let with_program = |command: &mut Command| {
        command.arg(&program);
    };
    let companion = Companion::start_with(&folder.0, with_program).ready();
    assert_eq!(companion.query("SELECT count(*) FROM made").as_deref(), Ok("0"));
    companion.stop();

    write("#!/bin/sh\necho 'error: no such column' >&2\nexit 7\n");
    let mut companion = Companion::start_with(&folder.0, with_program);
    assert_eq!(companion.exit_code(), Some(1));
    let said = companion.said();
    assert!(
        said.contains("making the tables exited with code 7") && said.contains("no such column"),
        "{said}"
    );
}

#[test]
fn deep_state_directory_works() {
    let folder = Folder::new();
    let deep = folder.0.join("d/".repeat(50));
    let companion = Companion::start(&deep).ready();
    assert_eq!(companion.query("SELECT 1").as_deref(), Ok("1"));
    assert!(embedded::url(&deep).contains("host=/tmp/monoceros-"));
    companion.stop();
}

#[test]
fn ordinary_user_needs_no_other_account() {
    let folder = Folder::new();
    let companion = Companion::start_with(&folder.0, |command| {
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
    })
    .ready();
    let owner = Command::new("stat")
        .args(["-c", "%u"])
        .arg(folder.0.join("postgresql/data"))
        .output()
        .unwrap();
    let companion_owner = Command::new("stat")
        .args(["-c", "%u"])
        .arg(format!("/proc/{}", companion.child.id()))
        .output()
        .unwrap();
    assert_eq!(owner.stdout, companion_owner.stdout);
    companion.stop();
}

#[test]
fn folder_that_the_server_may_not_enter_is_named() {
    if !nix::unistd::geteuid().is_root() {
        return; // An ordinary user becomes nobody else.
    }
    let folder = Folder::new();
    let barred = folder.0.join("barred");
    fs::create_dir(&barred).unwrap();
    fs::set_permissions(&barred, fs::Permissions::from_mode(0o700)).unwrap();
    let mut companion = Companion::start(&barred.join("state"));
    assert_eq!(companion.exit_code(), Some(1));
    assert!(
        companion.said().contains(&format!("may not enter {}", barred.display())),
        "{}",
        companion.said()
    );
}

#[test]
fn broken_configuration_ends_with_the_reason() {
    let folder = Folder::new();
    Companion::start(&folder.0).ready().stop();
    fs::write(folder.0.join("postgresql/data/postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let mut companion = Companion::start(&folder.0);
    assert_eq!(companion.exit_code(), Some(1));
    let last = companion.said().lines().last().unwrap().to_owned();
    assert!(
        last.starts_with("[Error] PostgreSQL exited with code 1; its output is in /tmp/"),
        "{last}"
    );
    assert!(last.contains("FATAL"), "{last}");
    assert!(companion.child.wait().unwrap().signal().is_none());
}
