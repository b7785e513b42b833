//! Running the real binary: started in a folder of its own, on a port that the kernel chose, its log in a file.

// Each test file uses a part of it; a helper of tests may fail as a test does.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod upgradable;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait for anything in these tests: far beyond what an idle machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server under test. Dropping it ends it.
pub struct Server {
    child: Child,
    pub folder: Folder,
    /// Parts of WARNING, ERROR and CRITICAL lines that this test provokes.
    expected: Vec<&'static str>,
}

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("monoceros-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        // Replaced as a whole, as an editor does: nobody ever reads half of it.
        let fresh = self.path(&format!("{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, &path).unwrap();
        path
    }

    /// Writes a program; `text` begins with `#!`.
    pub fn write_program(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let fresh = self.write(&format!("{name}.fresh"), text);
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&fresh, self.path(name)).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The master's program. The bundled worker and `admin` lie beside it, built when they are missing or old.
pub fn master() -> &'static Path {
    static BUILT: OnceLock<()> = OnceLock::new();
    let master = Path::new(env!("CARGO_BIN_EXE_master"));
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "worker", "--bin", "worker"]);
        cargo.args(["--package", "admin", "--bin", "admin"]);
        if master.parent().is_some_and(|folder| folder.ends_with("release")) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the bundled worker and admin must build");
    });
    master
}

/// The library's example program that has a route for everything, built when it is missing or old.
pub fn features() -> &'static str {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "worker", "--example", "features"]);
        let folder = master().parent().unwrap();
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the example must build");
        folder.join("examples/features").to_str().unwrap().to_owned()
    })
}

/// Puts master and worker where every user may execute them; the master's path.
pub fn programs_for_everybody(folder: &Folder) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["master", "worker"] {
        let built = master().with_file_name(name);
        let copy = folder.path(name);
        fs::hard_link(&built, &copy).or_else(|_| fs::copy(&built, &copy).map(drop)).unwrap();
    }
    folder.path("master")
}

/// A master's command in `folder`, with nothing of this process's settings in its environment.
pub fn command(folder: &Folder, args: &[&str]) -> Command {
    let mut command = Command::new(master());
    command.args(args).current_dir(&folder.0).stdin(Stdio::null());
    for name in
        ["PORT", "WEB_CONCURRENCY", "DATABASE_URL", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"]
    {
        command.env_remove(name);
    }
    command
}

/// Runs a master that ends by itself; its exit code and all that it printed.
#[track_caller]
pub fn run(folder: &Folder, args: &[&str]) -> (Option<i32>, String) {
    let output = command(folder, args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

impl Server {
    /// Starts a master on a port of the kernel's choice and waits until its first boot is over.
    #[track_caller]
    pub fn start(args: &[&str]) -> Server {
        Server::start_in(Folder::new(), args)
    }

    #[track_caller]
    pub fn start_in(folder: Folder, args: &[&str]) -> Server {
        let mut all = vec!["--bind", "127.0.0.1:0"];
        all.extend(args);
        let server = Server::spawn(folder, &all);
        server.wait_for_line("Ready workers=");
        server
    }

    /// Starts a master and does not wait.
    pub fn spawn(folder: Folder, args: &[&str]) -> Server {
        let log = fs::File::create(folder.path("log")).unwrap();
        let child =
            command(&folder, args).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Server { child, folder, expected: Vec::new() }
    }

    /// Takes over a master that was started another way, with its log in the file `log`.
    pub fn adopt(child: Child, folder: Folder) -> Server {
        Server { child, folder, expected: Vec::new() }
    }

    /// Allows WARNING, ERROR and CRITICAL lines with `part` in them.
    pub fn expect(&mut self, part: &'static str) {
        self.expected.push(part);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path("log")).unwrap()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// `127.0.0.1:PORT`, from the log.
    #[track_caller]
    pub fn address(&self) -> String {
        let log = self.log();
        let from = log.find("http://").expect("the log names the address") + "http://".len();
        log[from..].split([' ', ',']).next().unwrap().to_owned()
    }

    /// Number of lines with `part`.
    pub fn count(&self, part: &str) -> usize {
        self.log().lines().filter(|line| line.contains(part)).count()
    }

    #[track_caller]
    pub fn wait_for_line(&self, part: &str) {
        self.wait_for_lines(part, 1);
    }

    #[track_caller]
    pub fn wait_for_lines(&self, part: &str, count: usize) {
        self.wait_until(&format!("{count} × {part:?}"), || count <= self.count(part));
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what} never came; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The pids of living worker processes.
    pub fn workers(&self) -> Vec<Pid> {
        let master = self.child.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))
            .unwrap_or_default();
        children.split_ascii_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
    }

    /// Waits for the end of the master; its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        self.wait_status().code()
    }

    #[track_caller]
    pub fn wait_status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the master does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it by TERM and looks at what it leaves: exit code, log, processes.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(), Some(0), "{}", self.log());
        self.check_log();
    }

    /// The log holds no WARNING or worse that was not expected.
    #[track_caller]
    pub fn check_log(&self) {
        for line in self.log().lines() {
            let is_bad = ["[WARNING]", "[ERROR]", "[CRITICAL]", "panicked"]
                .iter()
                .any(|bad| line.contains(bad));
            let is_expected = self.expected.iter().any(|part| line.contains(part));
            assert!(!is_bad || is_expected, "unexpected: {line}\nin:\n{}", self.log());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Its workers follow by themselves: they see the end of their lifeline.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One request on a connection of its own; the whole answer.
pub fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In one piece: a server may answer and close before the rest of it is sent.
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(answer) } else { Err(std::io::Error::other(answer)) }
}

/// Clients that send request after request until told to stop.
pub struct Load {
    clients: Vec<JoinHandle<(u32, Vec<String>)>>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    /// `clients` threads, each request on a connection of its own, with a pause after each.
    pub fn start(address: &str, clients: usize, pause: Duration) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (address, is_over) = (address.to_owned(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let (mut answered, mut failed) = (0, Vec::new());
                while !is_over.load(Ordering::Relaxed) {
                    match get(&address, "/json") {
                        Ok(_) => answered += 1,
                        Err(error) => failed.push(format!("{error} after {answered} answers")),
                    }
                    std::thread::sleep(pause);
                }
                (answered, failed)
            })
        };
        Load { clients: (0..clients).map(client).collect(), is_over }
    }

    /// Ends the load; number of answers, and every failure.
    pub fn finish(self) -> (u32, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut sum = (0, Vec::new());
        for client in self.clients {
            let (answered, failed) = client.join().unwrap();
            sum.0 += answered;
            sum.1.extend(failed);
        }
        sum
    }
}
