//! A private HAProxy.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::dir::TempDir;
use crate::endpoint::Endpoint;
use crate::process::{find_program, free_port};

/// Longest wait for it to start.
const BOUND: Duration = Duration::from_secs(20);

/// Tries to start: another program may take the port between our look and HAProxy's.
const STARTS_MAX: usize = 5;

/// A running HAProxy with its own directory and port. Dropping it stops and removes it.
#[derive(Debug)]
pub struct Haproxy {
    dir: TempDir,
    port: u16,
    server: Child,
}

impl Haproxy {
    /// Tells whether this machine has HAProxy.
    #[must_use]
    pub fn is_available() -> bool {
        find_program("haproxy").is_some()
    }

    /// Starts HAProxy with `sections` behind its global and default ones, and waits until it takes connections.
    ///
    /// In `sections` the text `{port}` stands for a free port of 127.0.0.1 to listen on, `{dir}` for a directory of its own.
    #[must_use]
    #[track_caller]
    pub fn start(sections: &str) -> Haproxy {
        let program = find_program("haproxy").expect("haproxy (Debian: apt-get install haproxy)");
        let dir = TempDir::new();
        for _ in 0..STARTS_MAX {
            let port = free_port();
            let config = format!("{FRAME}{sections}\n")
                .replace("{dir}", &dir.path().display().to_string())
                .replace("{port}", &port.to_string());
            let path = dir.write("haproxy.cfg", &config);
            let log = std::fs::File::create(dir.join("stderr")).expect("a log file");
            let mut server = Command::new(&program)
                .arg("-db")
                .arg("-f")
                .arg(path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("haproxy starts");
            let endpoint = Endpoint::Tcp(([127, 0, 0, 1], port).into());
            let start = Instant::now();
            while start.elapsed() < BOUND && server.try_wait().expect("our child").is_none() {
                let is_asked = || UnixStream::connect(dir.join("admin.sock")).is_ok();
                if endpoint.connect(BOUND).is_ok() && is_asked() {
                    return Haproxy { dir, port, server };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        let log = std::fs::read_to_string(dir.join("stderr")).unwrap_or_default();
        panic!("HAProxy does not start:\n{log}");
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(([127, 0, 0, 1], self.port).into())
    }

    /// Whether it counts the server `name` among those that work.
    #[must_use]
    pub fn is_up(&self, name: &str) -> bool {
        let table = self.ask("show stat");
        let row = table.lines().find(|line| line.split(',').nth(1) == Some(name));
        row.is_some_and(|row| row.split(',').nth(17).is_some_and(|state| state.starts_with("UP")))
    }

    /// The answer to a command on its administration socket.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        let mut socket = UnixStream::connect(self.dir.join("admin.sock")).expect("its socket");
        socket.write_all(format!("{command}\n").as_bytes()).expect("it listens");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// What it complained about.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

const FRAME: &str = "global
    maxconn 500
    stats socket {dir}/admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout check 2s
";
