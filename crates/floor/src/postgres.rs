//! PostgreSQL by hand: one connection, three prepared statements, binary format, every query with its own Sync.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::pages;

/// What a request waits for. One entry per request, in the order in which PostgreSQL answers.
pub struct Pending {
    pub connection: usize,
    pub answer: Answer,
    /// ReadyForQuery messages still to come.
    left: usize,
}

pub enum Answer {
    /// One world as an object.
    World(Vec<u8>),
    /// Worlds as an array.
    Worlds(Vec<u8>),
    /// Worlds that were read in order to be updated, then the array of the new ones.
    Read(Vec<(i32, i32)>),
    /// The update is under way.
    Updating(Vec<u8>),
    Fortunes(Vec<(i32, Vec<u8>)>),
}

pub struct Pipeline {
    /// A socket: reading and writing is all that is done with it.
    stream: File,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    pending: VecDeque<Pending>,
    /// Buffers of answers that were sent, so that none is allocated per request.
    spare: Vec<Vec<u8>>,
}

const WORLD: &str = "SELECT id, randomnumber FROM world WHERE id=$1";
const FORTUNES: &str = "SELECT id, message FROM fortune";
const UPDATE: &str = "UPDATE world SET randomnumber = u.n FROM unnest($1::int[],$2::int[]) AS u(id,n) WHERE world.id=u.id";

impl Pipeline {
    /// Connects to a socket's path or to `HOST:PORT`, and prepares the statements. The server must trust us.
    pub fn connect(address: &str) -> io::Result<Pipeline> {
        let stream: OwnedFd = if address.starts_with('/') {
            UnixStream::connect(address)?.into()
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.into()
        };
        let mut pipeline = Pipeline {
            stream: stream.into(),
            input: vec![0; 1 << 16],
            filled: 0,
            output: Vec::new(),
            pending: VecDeque::new(),
            spare: Vec::new(),
        };
        let mut startup = 196_608_i32.to_be_bytes().to_vec();
        startup.extend_from_slice(b"user\0monoceros\0database\0hello_world\0\0");
        pipeline.output.extend_from_slice(&length(startup.len()));
        pipeline.output.extend_from_slice(&startup);
        pipeline.until_ready()?;
        for (name, sql) in [("w", WORLD), ("f", FORTUNES), ("u", UPDATE)] {
            message(&mut pipeline.output, b'P', |out| {
                out.extend_from_slice(name.as_bytes());
                out.push(0);
                out.extend_from_slice(sql.as_bytes());
                out.extend_from_slice(&[0, 0, 0]);
            });
            message(&mut pipeline.output, b'S', |_| ());
            pipeline.until_ready()?;
        }
        sys::fd::set_nonblocking(&pipeline.stream, true)?;
        Ok(pipeline)
    }

    fn until_ready(&mut self) -> io::Result<()> {
        self.flush()?;
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head)?;
            let mut body = vec![0; int(&head[1..]) as usize - 4];
            self.stream.read_exact(&mut body)?;
            match head[0] {
                b'Z' => return Ok(()),
                b'E' => return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
                b'R' if int(&body) != 0 => {
                    return Err(io::Error::other("the database asks for a password"));
                }
                _ => (),
            }
        }
    }

    pub fn world(&mut self, connection: usize) {
        self.select(random());
        let body = self.spare.pop().unwrap_or_default();
        self.pending.push_back(Pending { connection, answer: Answer::World(body), left: 1 });
    }

    pub fn worlds(&mut self, connection: usize, count: usize) {
        for _ in 0..count {
            self.select(random());
        }
        let mut body = self.spare.pop().unwrap_or_default();
        body.push(b'[');
        self.pending.push_back(Pending { connection, answer: Answer::Worlds(body), left: count });
    }

    pub fn updates(&mut self, connection: usize, count: usize) {
        for _ in 0..count {
            self.select(random());
        }
        self.pending.push_back(Pending {
            connection,
            answer: Answer::Read(Vec::new()),
            left: count,
        });
    }

    pub fn fortunes(&mut self, connection: usize) {
        message(&mut self.output, b'B', |out| out.extend_from_slice(b"\0f\0\0\0\0\0\0\x01\0\x01"));
        execute(&mut self.output);
        self.pending.push_back(Pending {
            connection,
            answer: Answer::Fortunes(Vec::new()),
            left: 1,
        });
    }

    fn select(&mut self, id: i32) {
        message(&mut self.output, b'B', |out| {
            // Portal "", statement "w", one parameter of four bytes in binary, results in binary.
            out.extend_from_slice(b"\0w\0\0\x01\0\x01\0\x01\0\0\0\x04");
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(b"\0\x01\0\x01");
        });
        execute(&mut self.output);
    }

    fn update(&mut self, rows: &[(i32, i32)]) {
        message(&mut self.output, b'B', |out| {
            out.extend_from_slice(b"\0u\0\0\x01\0\x01\0\x02");
            array(out, rows.iter().map(|row| row.0));
            array(out, rows.iter().map(|row| row.1));
            out.extend_from_slice(b"\0\x01\0\x01");
        });
        execute(&mut self.output);
    }

    /// Writes what has been queued. The socket takes it all: a load client has few requests in flight.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.stream.write(&self.output[sent..]) {
                Ok(length) => sent += length,
                // PostgreSQL may be waiting for us to read before it reads: keep the rest for the next turn.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        Ok(())
    }

    pub fn has_unsent(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads once, and hands each finished answer to `done`, which returns the buffer it sent.
    pub fn read(&mut self, mut done: impl FnMut(Pending) -> Option<Vec<u8>>) -> io::Result<()> {
        if self.input.len() - self.filled < 1 << 14 {
            self.input.resize(self.input.len() * 2, 0);
        }
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.filled += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while 5 <= self.filled - at {
            let end = at + 1 + int(&input[at + 1..]) as usize;
            if self.filled < end {
                break;
            }
            let body = &input[at + 5..end];
            match input[at] {
                b'D' => self.row(body),
                b'Z' => self.ready(&mut done),
                b'E' => return Err(io::Error::other(String::from_utf8_lossy(body).into_owned())),
                _ => (),
            }
            at = end;
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn row(&mut self, body: &[u8]) {
        let Some(first) = self.pending.front_mut() else { return };
        // Two columns, each with its length before it; the first is an int4.
        let id = int(&body[6..]);
        match &mut first.answer {
            Answer::World(out) => pages::world(out, id, int(&body[14..])),
            Answer::Worlds(out) => {
                pages::world(out, id, int(&body[14..]));
                out.push(b',');
            }
            Answer::Read(rows) => rows.push((id, random())),
            Answer::Fortunes(rows) => rows.push((id, body[14..].to_vec())),
            Answer::Updating(_) => (),
        }
    }

    fn ready(&mut self, done: &mut impl FnMut(Pending) -> Option<Vec<u8>>) {
        let Some(first) = self.pending.front_mut() else { return };
        first.left -= 1;
        if first.left != 0 {
            return;
        }
        let Some(mut pending) = self.pending.pop_front() else { return };
        match &mut pending.answer {
            Answer::Read(rows) => {
                // In order, so that two updates never wait for each other in a circle.
                rows.sort_unstable();
                rows.dedup_by_key(|row| row.0);
                let mut out = self.spare.pop().unwrap_or_default();
                out.push(b'[');
                for &(id, number) in &*rows {
                    pages::world(&mut out, id, number);
                    out.push(b',');
                }
                let rows = std::mem::take(rows);
                self.update(&rows);
                let answer = Answer::Updating(out);
                self.pending.push_back(Pending { connection: pending.connection, answer, left: 1 });
            }
            _ => {
                if let Some(mut body) = done(pending) {
                    body.clear();
                    self.spare.push(body);
                }
            }
        }
    }
}

impl AsFd for Pipeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn random() -> i32 {
    fastrand::i32(1..=10_000)
}

fn int(bytes: &[u8]) -> i32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The four bytes before a message's body.
fn length(body: usize) -> [u8; 4] {
    (body as u32 + 4).to_be_bytes()
}

fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = length(out.len() - at - 4);
    out[at..at + 4].copy_from_slice(&length);
}

/// Appends Execute of the unnamed portal, without a row limit, and Sync.
fn execute(out: &mut Vec<u8>) {
    out.extend_from_slice(b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04");
}

/// Appends an int4 array of one dimension as a parameter.
fn array(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = i32>) {
    let count = values.len() as i32;
    for number in [20 + 8 * count, 1, 0, 23, count, 1] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for value in values {
        out.extend_from_slice(&4_i32.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}
