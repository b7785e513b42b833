//! A private PostgreSQL cluster, and a loop that drives a [`Database`] until a future is done.

#![allow(dead_code)] // Each test program uses a part.

use std::cell::RefCell;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use pg::{Config, Database, Error, Events};
use testkit::{Authority, Identity};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The password of `postgres` in clusters with scram-sha-256.
pub const PASSWORD: &str = "correct horse";

/// A server of its own in a temporary directory; stopped and removed when dropped.
pub struct Cluster {
    directory: PathBuf,
    port: u16,
    server: Mutex<Option<Child>>,
}

impl Cluster {
    /// One that all tests of this program may use at the same time.
    pub fn shared() -> Arc<Cluster> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Cluster::new("trust"));
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// Makes and starts one; `auth` as initdb's `-A`.
    pub fn new(auth: &str) -> Cluster {
        let cluster = Cluster::made(auth);
        cluster.start();
        cluster
    }

    fn made(auth: &str) -> Cluster {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pg-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let password = directory.join("password");
        fs::write(&password, PASSWORD).unwrap();
        if let Some(user) = unprivileged() {
            for path in [&directory, &password] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            }
        }
        let data = directory.join("data");
        let made = program("initdb")
            .args(["--no-sync", "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", auth])
            .arg(format!("--pwfile={}", password.display()))
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Freed at once, so somebody else may take it: then the server does not start, and the test says so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Cluster { directory, port, server: Mutex::new(None) }
    }

    /// Makes and starts one with TLS; `rules` is its pg_hba.conf, `clients` who may have signed its users' certificates.
    pub fn with_tls(rules: &str, identity: &Identity, clients: &Authority) -> Cluster {
        let cluster = Cluster::made("scram-sha-256");
        let data = cluster.directory.join("data");
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let settings = data.join("postgresql.auto.conf");
        fs::write(settings, "ssl = on\nssl_ca_file = 'clients.crt'\n").unwrap();
        cluster.install(identity);
        cluster.write("data/clients.crt", &clients.certificate());
        cluster.start();
        cluster
    }

    /// Writes the server's certificate and key; connections from its next start or HUP on have them.
    pub fn install(&self, identity: &Identity) {
        let data = self.directory.join("data");
        let user = unprivileged().map(|user| (user.uid.as_raw(), user.gid.as_raw()));
        identity.install(&data.join("server.crt"), &data.join("server.key"), user);
    }

    /// Writes a file beside the cluster's, and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        if let Some(user) = unprivileged() {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        path.display().to_string()
    }

    pub fn start(&self) {
        let log = fs::File::options().append(true).create(true).open(self.directory.join("log"));
        let data = self.directory.join("data");
        // What a server that was killed left behind.
        let _ = fs::remove_file(data.join("postmaster.pid"));
        let server = program("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&self.directory)
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=50"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        *self.server.lock().unwrap() = Some(server);
        let begun = Instant::now();
        while !fs::read_to_string(data.join("postmaster.pid"))
            .is_ok_and(|text| text.contains("ready"))
        {
            assert!(begun.elapsed() < PATIENCE, "the server does not start: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the server with `signal` and waits for its end: QUIT is an immediate stop, INT a fast one.
    pub fn stop(&self, signal: Signal) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            kill(Pid::from_raw(server.id().cast_signed()), signal).unwrap();
            server.wait().unwrap();
        }
    }

    pub fn signal(&self, signal: Signal) {
        let server = self.server.lock().unwrap();
        kill(Pid::from_raw(server.as_ref().unwrap().id().cast_signed()), signal).unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub fn tcp(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn unix(&self) -> String {
        format!(
            "host={} port={} user=postgres dbname=postgres",
            self.directory.display(),
            self.port
        )
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Signal::SIGQUIT);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whom to be while running PostgreSQL, which refuses root.
fn unprivileged() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).unwrap());
    Some(user.expect("a user postgres or nobody"))
}

fn program(name: &str) -> Command {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    let found = on_path
        .chain(versions.into_iter().rev())
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    let mut command = Command::new(
        found.unwrap_or_else(|| panic!("{name} is not installed (package postgresql)")),
    );
    if let Some(user) = unprivileged() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir(Path::new("/"));
    command
}

/// A [`Database`] and the loop that drives it.
pub struct Loop {
    poll: mio::Poll,
    events: mio::Events,
    pub db: Database,
    pub told: Told,
    woken: Arc<Woken>,
    /// How often the loop waited for events.
    pub turns: usize,
}

/// What [`Events`] were told, one line each.
#[derive(Clone, Default)]
pub struct Told(Rc<RefCell<Vec<String>>>);

impl Told {
    pub fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    fn add(&self, what: &str, why: &Error) {
        self.0.borrow_mut().push(format!("{what}: {}", chain(why)));
    }
}

impl Events for Told {
    fn connected(&self, _server: &str, _version: &str, tls: Option<&str>) {
        let with = tls.map(|tls| format!(" with TLS {tls}")).unwrap_or_default();
        self.0.borrow_mut().push(format!("connected{with}"));
    }
    fn lost(&self, why: &Error) {
        self.add("lost", why);
    }
    fn connect_failed(&self, why: &Error, _retry_in: Duration) {
        self.add("connect failed", why);
    }
    fn pooler_in_the_way(&self, why: &Error) {
        self.add("pooler", why);
    }
}

/// An error with its reasons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text = format!("{text}: {reason}");
        source = reason.source();
    }
    text
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Loop {
    pub fn new(url: &str) -> Loop {
        Loop::with(Config::parse(url).unwrap())
    }

    pub fn with(config: Config) -> Loop {
        let poll = mio::Poll::new().unwrap();
        let tokens = 7..7 + config.tokens_needed();
        let told = Told::default();
        let registry = poll.registry().try_clone().unwrap();
        let db = Database::new(config, registry, tokens, Box::new(told.clone()), Instant::now());
        Loop {
            poll,
            events: mio::Events::with_capacity(64),
            db,
            told,
            woken: Arc::default(),
            turns: 0,
        }
    }

    /// Drives until the first connection is up.
    pub fn up(url: &str) -> Loop {
        let mut this = Loop::new(url);
        this.until(Database::is_up);
        this
    }

    /// One turn: waits at most `limit` for something to happen.
    pub fn turn(&mut self, limit: Duration) {
        self.db.flush(Instant::now());
        let now = Instant::now();
        // As the worker does it: time is looked at when it is due, and not otherwise.
        let due = self.db.next_deadline(now);
        let wait = due.map_or(limit, |at| at.saturating_duration_since(now).min(limit));
        let wait = if self.woken.0.load(Ordering::Relaxed) { Duration::ZERO } else { wait };
        self.turns += 1;
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            result => result.unwrap(),
        }
        let now = Instant::now();
        for event in &self.events {
            assert!(self.db.on_ready(event, now), "a token that was not handed out");
        }
        if due.is_some_and(|at| at <= now) {
            self.db.on_deadline(now);
        }
    }

    #[track_caller]
    pub fn until(&mut self, condition: impl Fn(&Database) -> bool) {
        let begun = Instant::now();
        while !condition(&self.db) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain; told: {:?}", self.told.lines());
            self.turn(Duration::from_millis(100));
        }
    }

    /// Drives until the future is done.
    #[track_caller]
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&self.woken));
        let begun = Instant::now();
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.db.flush(Instant::now());
                return output;
            }
            assert!(begun.elapsed() < PATIENCE, "a future hangs; told: {:?}", self.told.lines());
            self.turn(Duration::from_millis(100));
        }
    }
}
