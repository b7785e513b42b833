//! A private Nginx.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::dir::TempDir;
use crate::endpoint::Endpoint;
use crate::process::{descendants_of, find_program, free_port, send};

/// Longest wait for it to start or to stop.
const BOUND: Duration = Duration::from_secs(20);

/// Tries to start: another program may take the port between our look and Nginx's.
const STARTS_MAX: usize = 5;

/// A running Nginx with its own directory and port. Dropping it stops and removes it.
#[derive(Debug)]
pub struct Nginx {
    dir: TempDir,
    port: u16,
    server: Child,
}

impl Nginx {
    /// Tells whether this machine has Nginx.
    #[must_use]
    pub fn is_available() -> bool {
        find_program("nginx").is_some()
    }

    /// Starts Nginx with `http` as the content of its `http` block and waits until it takes connections.
    ///
    /// In `http` the text `{port}` stands for a free port of 127.0.0.1 to listen on, `{dir}` for a directory of its own.
    #[must_use]
    #[track_caller]
    pub fn start(http: &str) -> Nginx {
        let dir = TempDir::new();
        for _ in 0..STARTS_MAX {
            let port = free_port();
            let config = frame(http)
                .replace("{dir}", &dir.path().display().to_string())
                .replace("{port}", &port.to_string());
            let path = dir.write("nginx.conf", &config);
            let log = File::options().append(true).create(true).open(dir.join("stderr"));
            let mut server = Command::new(program())
                .arg("-p")
                .arg(dir.path())
                .arg("-c")
                .arg(path)
                .args(["-g", "daemon off;"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log.expect("a log file"))
                .spawn()
                .expect("nginx starts");
            let endpoint = Endpoint::Tcp(([127, 0, 0, 1], port).into());
            let start = Instant::now();
            while start.elapsed() < BOUND && server.try_wait().expect("our child").is_none() {
                if endpoint.connect(BOUND).is_ok() {
                    return Nginx { dir, port, server };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        let log = std::fs::read_to_string(dir.join("stderr")).unwrap_or_default();
        panic!("Nginx does not start:\n{log}");
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(([127, 0, 0, 1], self.port).into())
    }

    /// Reads its configuration again, from the same text.
    #[track_caller]
    pub fn reload(&self) {
        send(self.server.id(), Signal::SIGHUP).expect("it runs");
    }

    /// Stops it gracefully and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        send(self.server.id(), Signal::SIGQUIT).expect("it runs");
        crate::wait_until("the end of Nginx", BOUND, || {
            self.server.try_wait().expect("our child").is_some()
        });
    }

    /// Its error log so far.
    #[must_use]
    pub fn error_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("error.log")).unwrap_or_default()
    }

    /// Its access log so far.
    #[must_use]
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("access.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            let family = descendants_of(self.server.id());
            let _ = self.server.kill();
            for pid in family {
                let _ = send(pid, Signal::SIGKILL);
            }
            let _ = self.server.wait();
        }
    }
}

#[track_caller]
fn program() -> PathBuf {
    find_program("nginx")
        .unwrap_or_else(|| panic!("nginx not found (Debian: apt-get install nginx-light)"))
}

fn frame(http: &str) -> String {
    // As root its workers would be somebody who may not enter the directory.
    let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}worker_processes 1;\npid {{dir}}/nginx.pid;\nerror_log {{dir}}/error.log warn;\n\
         events {{ worker_connections 2048; }}\n\
         http {{\n\
         access_log {{dir}}/access.log;\n\
         client_body_temp_path {{dir}}/body;\n\
         proxy_temp_path {{dir}}/proxy;\n\
         fastcgi_temp_path {{dir}}/fastcgi;\n\
         uwsgi_temp_path {{dir}}/uwsgi;\n\
         scgi_temp_path {{dir}}/scgi;\n\
         {http}\n\
         }}\n"
    )
}
