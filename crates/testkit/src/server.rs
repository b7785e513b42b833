//! The real `master`, with its log and its workers.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::endpoint::Endpoint;
use crate::http::{self, Response};
use crate::process::{children_of, descendants_of, send};

/// Longest wait for a server to begin, to answer, or to end: a loaded machine is slow.
pub const BOUND: Duration = Duration::from_secs(40);

/// Variables that would change what the server under test does.
const FOREIGN_VARIABLES: [&str; 11] = [
    "DATABASE_URL",
    "PORT",
    "WEB_CONCURRENCY",
    "FORWARDED_ALLOW_IPS",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "MONOCEROS_CMD_ARGS",
    "GUNICORN_CMD_ARGS",
    "WATCHDOG_USEC",
];

/// Becomes the program with standard input as descriptor 3; the shell's pid stays.
const PASS_LISTENER: &str =
    r#"LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$0" "$@" 3<&0 </dev/null"#;

/// Lines of one stream, as they come.
#[derive(Clone, Debug, Default)]
struct Lines {
    shared: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Lines {
    fn read_from(&self, stream: impl Read + Send + 'static) {
        let lines = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                lines.lock().push(text);
                lines.shared.1.notify_all();
                line.clear();
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the `count`th line from `mark` on contains `pattern`, and returns it.
    fn wait(&self, mark: usize, pattern: &str, count: usize, bound: Duration) -> Option<String> {
        let deadline = Instant::now() + bound;
        let mut lines = self.lock();
        loop {
            let mut matching = lines.iter().skip(mark).filter(|line| line.contains(pattern));
            if let Some(line) = matching.nth(count.saturating_sub(1)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.shared.1.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How to start a server.
#[derive(Debug)]
pub struct ServerBuilder {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    bind: bool,
    await_answer: bool,
    listener: Option<OwnedFd>,
}

impl ServerBuilder {
    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> ServerBuilder {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> ServerBuilder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves out `--bind 127.0.0.1:0`: the arguments say where to listen.
    #[must_use]
    pub fn without_bind(mut self) -> ServerBuilder {
        self.bind = false;
        self
    }

    /// Passes `listener` on descriptor 3, as systemd does for a socket unit, in place of `--bind`.
    #[must_use]
    pub fn listener(mut self, listener: impl Into<OwnedFd>) -> ServerBuilder {
        self.listener = Some(listener.into());
        self.bind = false;
        self
    }

    /// Returns as soon as it listens, without a first request.
    #[must_use]
    pub fn without_first_request(mut self) -> ServerBuilder {
        self.await_answer = false;
        self
    }

    /// Starts it and waits until it listens, and (see above) answers.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Server {
        let await_answer = self.await_answer;
        let mut server = self.spawn();
        server.await_listening();
        if await_answer {
            server.get("/plaintext");
        }
        server
    }

    /// Starts it and waits for nothing: for servers that shall fail.
    #[must_use]
    #[track_caller]
    pub fn spawn(self) -> Server {
        ensure_worker(&self.program);
        let mut command = match &self.listener {
            None => Command::new(&self.program),
            Some(_) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", PASS_LISTENER]).arg(&self.program);
                command
            }
        };
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MONOCEROS_") {
                command.env_remove(name);
            }
        }
        if self.bind {
            command.args(["--bind", "127.0.0.1:0"]);
        }
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        // A process group of its own: everything in it is ours to end, and no terminal signal reaches it.
        command.stdin(self.listener.map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        let (log, output) = (Lines::default(), Lines::default());
        log.read_from(child.stderr.take().expect("piped"));
        output.read_from(child.stdout.take().expect("piped"));
        Server { child, log, output, endpoints: Vec::new(), status: None }
    }
}

/// A running server. Dropping it ends its whole process tree.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Lines,
    output: Lines,
    endpoints: Vec<Endpoint>,
    status: Option<ExitStatus>,
}

impl Server {
    /// Describes a server: `program` is the path of `master`; it listens on a free port of 127.0.0.1.
    #[must_use]
    pub fn builder(program: impl Into<PathBuf>) -> ServerBuilder {
        ServerBuilder {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            bind: true,
            await_answer: true,
            listener: None,
        }
    }

    /// Starts `program --bind 127.0.0.1:0 ARGS…` and waits until it answers.
    #[must_use]
    #[track_caller]
    pub fn start(program: impl Into<PathBuf>, args: &[&str]) -> Server {
        Server::builder(program).args(args.iter().copied()).start()
    }

    #[track_caller]
    fn await_listening(&mut self) {
        let line = self.wait_for_log("Listening at: ", BOUND);
        let (_, rest) = line.split_once("Listening at: ").expect("just found");
        let list = rest.rsplit_once(" (").map_or(rest, |(list, _)| list);
        self.endpoints = list.split(',').filter_map(Endpoint::from_log).collect();
        assert!(!self.endpoints.is_empty(), "no address in {line:?}");
    }

    /// Process id of the master.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// First address it listens on.
    #[must_use]
    #[track_caller]
    pub fn endpoint(&self) -> &Endpoint {
        self.endpoints.first().expect("it listens")
    }

    /// All addresses it listens on, in the order of its log line.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Requests a path; panics when there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        match http::get(self.endpoint(), path) {
            Ok(response) => response,
            Err(error) => panic!("GET {path}: {error}\n{}", self.log_text()),
        }
    }

    /// Sends a signal to the master.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal).expect("the master is there, if only as a zombie");
    }

    /// Pids of the workers: the master's living children, but not its companions.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        let is_worker = |pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !String::from_utf8_lossy(&command).contains("embedded")
        };
        children_of(self.pid()).into_iter().filter(is_worker).collect()
    }

    /// Waits until it has exactly `count` workers, and returns their pids.
    #[track_caller]
    pub fn wait_for_workers(&self, count: usize, bound: Duration) -> Vec<u32> {
        let start = Instant::now();
        loop {
            let workers = self.workers();
            if workers.len() == count {
                return workers;
            }
            assert!(
                start.elapsed() < bound,
                "waited {bound:?} for {count} workers, has {workers:?}\n{}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Number of log lines so far: for [`Server::wait_for_log_since`].
    #[must_use]
    pub fn log_mark(&self) -> usize {
        self.log.lock().len()
    }

    /// Number of descriptors that the master has open.
    #[must_use]
    #[track_caller]
    pub fn open_descriptors(&self) -> usize {
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        dir.expect("the master lives").count()
    }

    /// Number of children that ended and were not collected.
    #[must_use]
    pub fn zombies(&self) -> usize {
        crate::process::zombies_of(self.pid())
    }

    /// All log lines so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Lines of its standard output so far.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.output.lock().clone()
    }

    /// Waits for a log line that contains `pattern`, from the beginning on, and returns it.
    #[track_caller]
    pub fn wait_for_log(&self, pattern: &str, bound: Duration) -> String {
        self.wait_for_log_since(0, pattern, 1, bound)
    }

    /// Waits for the `count`th line from `mark` on that contains `pattern`, and returns it.
    #[track_caller]
    pub fn wait_for_log_since(
        &self,
        mark: usize,
        pattern: &str,
        count: usize,
        bound: Duration,
    ) -> String {
        self.log.wait(mark, pattern, count, bound).unwrap_or_else(|| {
            panic!("waited {bound:?} for log line {pattern:?} ×{count}\n{}", self.log_text())
        })
    }

    /// Number of log lines from `mark` on that contain `pattern`.
    #[must_use]
    pub fn count_log_since(&self, mark: usize, pattern: &str) -> usize {
        self.log.lock().iter().skip(mark).filter(|line| line.contains(pattern)).count()
    }

    /// The log as one text, for messages.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.log.lock().join("\n")
    }

    /// Panics if the log holds a WARNING, an ERROR or a panic that contains none of the `expected` texts.
    #[track_caller]
    pub fn assert_log_clean(&self, expected: &[&str]) {
        let lines = self.log();
        let unexpected: Vec<&String> = lines
            .iter()
            .filter(|line| {
                ["[WARNING]", "[ERROR]", "[CRITICAL]", "panicked at"]
                    .iter()
                    .any(|sign| line.contains(sign))
            })
            .filter(|line| !expected.iter().any(|text| line.contains(text)))
            .collect();
        assert!(unexpected.is_empty(), "unexpected: {unexpected:#?}\n{}", lines.join("\n"));
    }

    /// Waits for the master's end. Workers may outlive it.
    #[track_caller]
    pub fn wait_for_exit(&mut self, bound: Duration) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                self.status = Some(status);
                return status;
            }
            assert!(
                start.elapsed() < bound,
                "waited {bound:?} for the end of the master\n{}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the master to end gracefully and asserts that it exits with 0, leaving nobody behind.
    #[track_caller]
    pub fn stop(&mut self) {
        self.stop_with(Signal::SIGTERM, 0);
    }

    /// Sends `signal` and asserts the exit code.
    #[track_caller]
    pub fn stop_with(&mut self, signal: Signal, code: i32) {
        let family = descendants_of(self.pid());
        self.signal(signal);
        let status = self.wait_for_exit(BOUND);
        assert_eq!(
            (status.code(), status.signal()),
            (Some(code), None),
            "{signal}\n{}",
            self.log_text()
        );
        crate::wait_until("the workers' end", BOUND, || {
            family.iter().all(|&pid| !crate::is_alive(pid))
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever is left of the process group. While one of it lives no other group can have its number.
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        if self.status.is_none() {
            // Stopped first, so that it starts nobody while its family is being counted.
            let _ = send(self.pid(), Signal::SIGSTOP);
            for pid in descendants_of(self.pid()) {
                let _ = send(pid, Signal::SIGKILL);
            }
        }
        let _ = killpg(group, Signal::SIGKILL);
        if self.status.is_none() {
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln_log(&self.log_text());
        }
    }
}

#[allow(clippy::print_stderr)] // Shown by the test runner, beside the panic it explains.
fn eprintln_log(log: &str) {
    eprintln!("--- log of the server ---\n{log}\n--- end ---");
}

/// Builds the bundled program `worker` beside `master`, once per test process: Cargo builds only the tested package.
pub fn ensure_worker(master: &Path) {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let Some(cargo) = std::env::var_os("CARGO") else { return };
        let Some(dir) = master.parent() else { return };
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "worker", "--bins"]);
        if dir.file_name().is_some_and(|name| name == "release") {
            command.arg("--release");
        }
        if let Some(target) = dir.parent() {
            command.arg("--target-dir").arg(target);
        }
        let status = command.status().expect("cargo starts");
        assert!(status.success(), "cannot build the program `worker`");
    });
}
