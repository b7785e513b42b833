//! One worker: an epoll loop that reads once, answers, and writes once per ready connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt,
};

use crate::pages::{self, Clock};
use crate::postgres::{Answer, Pending, Pipeline};

const LISTENER: u64 = u64::MAX;
const DATABASE: u64 = u64::MAX - 1;
/// Holds sixteen pipelined requests several times over.
const READ_BYTES: usize = 1 << 14;

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    /// The beginning of a request whose end has not arrived.
    partial: Vec<u8>,
}

struct Worker {
    epoll: Epoll,
    listener: TcpListener,
    database: Option<Pipeline>,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    /// Connections whose output was added to in this turn.
    touched: Vec<usize>,
    clock: Clock,
    body: Vec<u8>,
    read: Vec<u8>,
    /// Each connection has one answer.
    close: bool,
}

/// Serves for ever. `close`: each connection has one answer, as a load client with a connection per request asks for;
/// told once, so that no request's fields need to be read.
pub fn serve(bind: SocketAddr, database: Option<Pipeline>, close: bool) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let listener = listen(bind)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    if let Some(database) = &database {
        epoll.add(database, EpollEvent::new(EpollFlags::EPOLLIN, DATABASE))?;
    }
    let (read, body) = (vec![0; READ_BYTES], Vec::new());
    let (connections, touched) = (Vec::new(), Vec::new());
    let clock = Clock::new(close);
    let mut worker =
        Worker { epoll, listener, database, connections, touched, clock, body, read, close };
    let mut events = vec![EpollEvent::empty(); 1024];
    loop {
        let unsent = worker.database.as_ref().is_some_and(Pipeline::has_unsent);
        let timeout = if unsent { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        let count = match worker.epoll.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            count => count?,
        };
        worker.clock.tick();
        let mut answers = false;
        for event in &events[..count] {
            match event.data() {
                LISTENER => worker.accept()?,
                // After the requests, so that their queries and the next answers share system calls.
                DATABASE => answers = true,
                token => worker.requests(token as usize),
            }
        }
        worker.turn(answers)?;
    }
}

fn listen(bind: SocketAddr) -> io::Result<TcpListener> {
    let family = if bind.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(
        family,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // Each worker has a listener of its own.
    socket::setsockopt(&fd, sockopt::ReusePort, &true)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(bind))?;
    socket::listen(&fd, Backlog::new(4096)?)?;
    Ok(TcpListener::from(fd))
}

impl Worker {
    fn accept(&mut self) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let token = stream.as_raw_fd() as usize;
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token as u64))?;
            if self.connections.len() <= token {
                self.connections.resize_with(token + 1, || None);
            }
            self.connections[token] =
                Some(Connection { stream, output: Vec::new(), partial: Vec::new() });
        }
        Ok(())
    }

    /// Reads once from a connection and begins to answer what came.
    fn requests(&mut self, token: usize) {
        let Some(connection) = &mut self.connections[token] else { return };
        let length = match connection.stream.read(&mut self.read) {
            Ok(0) => 0,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => 0,
        };
        if length == 0 {
            self.connections[token] = None;
            return;
        }
        let joined;
        let mut input = &self.read[..length];
        if !connection.partial.is_empty() {
            connection.partial.extend_from_slice(input);
            joined = std::mem::take(&mut connection.partial);
            input = &joined;
        }
        while let Some(end) = memmem::find(input, b"\r\n\r\n") {
            let path = &input[4..];
            if path.starts_with(b"/plaintext ") {
                pages::response(&mut connection.output, &self.clock, pages::TEXT, b"Hello, World!");
            } else if path.starts_with(b"/json ") {
                self.body.clear();
                pages::message(&mut self.body, "Hello, World!");
                pages::response(&mut connection.output, &self.clock, pages::JSON, &self.body);
            } else if let Some(database) = &mut self.database {
                if path.starts_with(b"/db ") {
                    database.world(token);
                } else if path.starts_with(b"/fortunes ") {
                    database.fortunes(token);
                } else if path.starts_with(b"/queries?") {
                    database.worlds(token, count(path));
                } else if path.starts_with(b"/updates?") {
                    database.updates(token, count(path));
                }
            }
            input = &input[end + 4..];
        }
        connection.partial.extend_from_slice(input);
        if !connection.output.is_empty() {
            self.touched.push(token);
        }
    }

    /// Exchanges bytes with the database and writes to every connection that has an answer.
    fn turn(&mut self, answers: bool) -> io::Result<()> {
        if let Some(database) = &mut self.database {
            database.flush()?;
            if answers {
                let (connections, touched) = (&mut self.connections, &mut self.touched);
                let (clock, body) = (&self.clock, &mut self.body);
                database.read(|pending| {
                    touched.push(pending.connection);
                    if let Some(connection) = &mut connections[pending.connection] {
                        return answer(pending, &mut connection.output, clock, body);
                    }
                    None
                })?;
                // Updates that follow their reads.
                database.flush()?;
            }
        }
        for token in self.touched.drain(..) {
            let Some(connection) = &mut self.connections[token] else { continue };
            if connection.output.is_empty() {
                continue;
            }
            // A load client reads all it asked for, so its socket takes every answer.
            match connection.stream.write_all(&connection.output) {
                Ok(()) if !self.close => connection.output.clear(),
                _ => self.connections[token] = None,
            }
        }
        Ok(())
    }
}

/// Appends the response; returns the buffer that its body was in.
fn answer(
    pending: Pending,
    out: &mut Vec<u8>,
    clock: &Clock,
    body: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    match pending.answer {
        Answer::World(text) => {
            pages::response(out, clock, pages::JSON, &text);
            Some(text)
        }
        Answer::Worlds(mut text) | Answer::Updating(mut text) => {
            if let Some(last) = text.last_mut() {
                *last = b']';
            }
            pages::response(out, clock, pages::JSON, &text);
            Some(text)
        }
        Answer::Fortunes(mut rows) => {
            body.clear();
            pages::fortunes(body, &mut rows);
            pages::response(out, clock, pages::HTML, body);
            None
        }
        Answer::Read(_) => None,
    }
}

/// Reads the number after the first `=`.
fn count(path: &[u8]) -> usize {
    let digits = path
        .iter()
        .skip_while(|&&byte| byte != b'=')
        .skip(1)
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')).clamp(1, 500)
}
