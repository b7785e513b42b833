//! Runs a worker program as its master would: listener on descriptor 3, notify socket, lifeline, settings in memory.

#![allow(clippy::unwrap_used)] // A helper that cannot go on fails its test.
#![allow(dead_code)] // Each test file uses a part of it.

pub mod postgres;

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shared::contract::{self, Order};
use shared::settings::Settings;
use sys::pidfd::Exit;
use sys::spawn::{Child, Spawn};

pub use sys::Signal;

/// Bound of every wait in the tests.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The bundled application.
pub fn bundled() -> PathBuf {
    env!("CARGO_BIN_EXE_worker").into()
}

/// An example, which cargo built beside the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: cargo build -p worker --examples", program.display());
    program
}

/// A running worker.
pub struct Worker {
    pub address: SocketAddr,
    child: Child,
    lifeline: Option<UnixStream>,
    /// The test's own copy: the worker never holds the last one, as under a master.
    pub listener: TcpListener,
    log: std::fs::File,
    exit: Option<Exit>,
}

/// Starts `program` with changed settings, and waits until it says READY=1.
pub fn start(program: PathBuf, change: impl FnOnce(&mut Settings)) -> Worker {
    let (worker, message) = begin(program, change);
    assert!(message.contains("READY=1"), "{message:?}, log:\n{}", worker.log());
    worker
}

/// Starts `program` and waits for the first thing it says.
pub fn begin(program: PathBuf, change: impl FnOnce(&mut Settings)) -> (Worker, String) {
    begin_with(program, change, &[])
}

/// As [`begin`], with further variables.
pub fn begin_with(
    program: PathBuf,
    change: impl FnOnce(&mut Settings),
    env: &[&str],
) -> (Worker, String) {
    begin_on(&[TcpListener::bind("127.0.0.1:0").unwrap()], program, change, env)
}

/// As [`begin_with`], on listeners of the caller's.
pub fn begin_on<L: AsFd>(
    listeners: &[L],
    program: PathBuf,
    change: impl FnOnce(&mut Settings),
    env: &[&str],
) -> (Worker, String) {
    let listener = TcpListener::from(listeners[0].as_fd().try_clone_to_owned().unwrap());
    let address = listener.local_addr().unwrap();
    let mut settings = Settings::default();
    change(&mut settings);
    let settings = sys::shm::sealed(c"settings", &serde_json::to_vec(&settings).unwrap()).unwrap();
    let (lifeline, theirs) = UnixStream::pair().unwrap();
    let notify = net::notify::Receiver::open().unwrap();
    let log = std::fs::File::from(
        nix::sys::memfd::memfd_create(c"log", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap(),
    );

    let text = |text: String| CString::new(text).unwrap();
    let mut spawn = Spawn::new(CString::new(program.to_str().unwrap()).unwrap());
    spawn.args = vec![spawn.program.clone()];
    // Numbers from 3 on are the listeners'; the others follow.
    let next = 3 + i32::try_from(listeners.len()).unwrap();
    spawn.fds = listeners.iter().map(AsFd::as_fd).zip(3..).collect();
    spawn.fds.extend([(log.as_fd(), 2), (settings.as_fd(), next), (theirs.as_fd(), next + 1)]);
    spawn.listen_pid = true;
    spawn.env = vec![
        text(format!("{}={}", contract::LISTEN_FDS, listeners.len())),
        text(format!("{}={}", contract::NOTIFY_SOCKET, notify.name().to_str().unwrap())),
        text(format!("{}={next}", contract::SETTINGS)),
        text(format!("{}={}", contract::LIFELINE, next + 1)),
        text("TZ=UTC".to_owned()),
    ];
    spawn.env.extend(env.iter().map(|variable| text((*variable).to_owned())));
    let child = spawn.spawn().unwrap();
    drop(theirs);
    let worker = Worker { address, child, lifeline: Some(lifeline), listener, log, exit: None };
    assert!(
        sys::fd::wait_readable(&notify, Some(PATIENCE)).unwrap(),
        "nothing was said within {PATIENCE:?}, log:\n{}",
        worker.log()
    );
    let (sender, message) = notify.receive().unwrap().unwrap();
    assert_eq!(sender, worker.child.pid);
    (worker, message)
}

impl Worker {
    pub fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// One request on a connection of its own.
    pub fn get(&self, path: &str) -> Reply {
        let mut client = self.connect();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        let reply = client.reply();
        assert_eq!(client.rest(), "", "after the response to {path}");
        reply
    }

    pub fn order(&mut self, order: Order) {
        self.lifeline.as_mut().unwrap().write_all(&[order.byte()]).unwrap();
    }

    pub fn cut_lifeline(&mut self) {
        self.lifeline = None;
    }

    pub fn signal(&self, signal: Signal) {
        sys::pidfd::send_signal(&self.child.pidfd, signal).unwrap();
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> Exit {
        let ended = sys::fd::wait_readable(&self.child.pidfd, Some(PATIENCE)).unwrap();
        assert!(ended, "the worker did not end, log:\n{}", self.log());
        let exit = sys::pidfd::reap(&self.child.pidfd).unwrap().unwrap();
        self.exit = Some(exit);
        exit
    }

    pub fn is_running(&self) -> bool {
        !sys::fd::wait_readable(&self.child.pidfd, Some(Duration::ZERO)).unwrap()
    }

    /// TERM, and a clean end with nothing in the log that should not be there.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(), Exit::Code(0));
        let log = self.log();
        assert!(!log.contains("[ERROR]") && !log.contains("[WARNING]"), "{log}");
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        use std::os::unix::fs::FileExt;
        let length = self.log.metadata().unwrap().len() as usize;
        let mut bytes = vec![0; length];
        self.log.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Waits for a line in the log.
    pub fn await_log(&self, text: &str) {
        until(
            || self.log().contains(text),
            || format!("{text:?} is not in the log:\n{}", self.log()),
        );
    }

    /// Memory in use, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.child.pid.as_raw()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.exit.is_none() {
            let _ = sys::pidfd::send_signal(&self.child.pidfd, Signal::SIGKILL);
            let _ = sys::fd::wait_readable(&self.child.pidfd, Some(PATIENCE));
            let _ = sys::pidfd::reap(&self.child.pidfd);
        }
    }
}

/// Waits for a condition that nothing announces.
#[track_caller]
pub fn until(mut is_true: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let end = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < end, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection on which literal bytes are sent.
pub struct Client {
    pub stream: TcpStream,
    left: Vec<u8>,
}

/// One response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.text());
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    pub fn to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, left: Vec::new() }
    }

    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.reply()
    }

    /// Reads one response with a body.
    pub fn reply(&mut self) -> Reply {
        self.read_reply(true)
    }

    /// Reads one response to HEAD.
    pub fn head_reply(&mut self) -> Reply {
        self.read_reply(false)
    }

    fn read_reply(&mut self, has_body: bool) -> Reply {
        let end = loop {
            if let Some(at) = self.left.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.more(),
                "end of file in a head: {:?}",
                String::from_utf8_lossy(&self.left)
            );
        };
        let head: Vec<u8> = self.left.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        if has_body && reply.header("transfer-encoding").is_some() {
            reply.body = self.chunks();
            return reply;
        }
        let length: usize = match reply.header("content-length") {
            Some(length) if has_body => length.parse().unwrap(),
            _ => 0,
        };
        while self.left.len() < length {
            assert!(self.more(), "end of file in a body: {}", reply.head);
        }
        reply.body = self.left.drain(..length).collect();
        reply
    }

    /// Reads a body in chunks, and its trailers, which stand at the end of what is returned.
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size = usize::from_str_radix(&line, 16).unwrap();
            if size == 0 {
                loop {
                    let trailer = self.line();
                    if trailer.is_empty() {
                        return body;
                    }
                    body.extend_from_slice(trailer.as_bytes());
                }
            }
            body.extend_from_slice(&self.take(size));
            assert_eq!(self.line(), "", "after a chunk");
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.left.windows(2).position(|end| end == b"\r\n") {
                let mut line = self.take(at + 2);
                line.truncate(at);
                return String::from_utf8(line).unwrap();
            }
            assert!(self.more(), "end of file in a chunked body");
        }
    }

    /// Reads so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.left.len() < count {
            assert!(self.more(), "end of file, {} of {count} bytes came", self.left.len());
        }
        self.left.drain(..count).collect()
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).unwrap();
        self.left.extend_from_slice(&buffer[..count]);
        count != 0
    }

    /// Everything up to the end of the connection; a reset is an error.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8(std::mem::take(&mut self.left)).unwrap()
    }

    pub fn half_close_unless(&self, waits: bool) {
        if !waits {
            self.half_close();
        }
    }

    /// Waits until there is something to read.
    pub fn wait_readable(&self) {
        assert!(sys::fd::wait_readable(&self.stream, Some(PATIENCE)).unwrap(), "nothing to read");
    }

    /// Ends the connection at once: what is under way is discarded.
    pub fn reset(self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &at_once)
            .unwrap();
    }

    /// Whether something came, or the end; without waiting.
    pub fn has_news(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        seen.is_ok() || !self.left.is_empty()
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}
