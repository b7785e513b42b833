//! A small blocking HTTP/1.1 client that shows exactly what came over the wire.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::endpoint::{Endpoint, Stream};

/// Longest wait for a connection, and for each read and write on it.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Longest response read, in bytes.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// One whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The head as it came, with its empty line.
    pub head: String,
    /// Body, without chunk framing.
    pub body: Vec<u8>,
}

impl Response {
    /// First value of a header field, whatever the case of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Body as text; panics when it is none.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// Tells whether the server said that it will close the connection.
    #[must_use]
    pub fn says_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Read, and not yet part of a response.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects with [`LIMIT`].
    ///
    /// # Errors
    ///
    /// See [`Endpoint::connect`].
    pub fn open(endpoint: &Endpoint) -> io::Result<Connection> {
        Connection::open_within(endpoint, LIMIT)
    }

    /// Connects; `limit` holds for every later read and write too.
    ///
    /// # Errors
    ///
    /// See [`Endpoint::connect`].
    pub fn open_within(endpoint: &Endpoint, limit: Duration) -> io::Result<Connection> {
        Ok(Connection { stream: endpoint.connect(limit)?, buffer: Vec::new() })
    }

    /// Sends literal bytes.
    ///
    /// # Errors
    ///
    /// The connection is gone, or the peer took nothing within the limit.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that no more will be sent.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.finish_sending()
    }

    /// Tells, without waiting, whether something came or the peer closed; see [`Stream::has_news`].
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.buffer.is_empty() || self.stream.has_news()
    }

    /// Reads one response; `to_head`: to a HEAD request, so without a body. Interim (1xx) responses are returned too.
    ///
    /// # Errors
    ///
    /// `ConnectionReset`: closed before its first byte. `UnexpectedEof`: closed within it. `InvalidData`: not HTTP.
    /// `WouldBlock`: the limit passed.
    pub fn response(&mut self, to_head: bool) -> io::Result<Response> {
        let head_length = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill()? == 0 {
                return Err(if self.buffer.is_empty() {
                    io::ErrorKind::ConnectionReset.into()
                } else {
                    io::ErrorKind::UnexpectedEof.into()
                });
            }
        };
        let head: Vec<u8> = self.buffer.drain(..head_length).collect();
        let head = String::from_utf8(head).map_err(|_| invalid("head is not text"))?;
        let status = head
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| invalid("no status line"))?;
        let mut response = Response { status, head, body: Vec::new() };
        response.body = if to_head || status < 200 || status == 204 || status == 304 {
            Vec::new()
        } else if response.header("transfer-encoding").is_some() {
            self.chunked()?
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| invalid("content-length is not a number"))?;
            self.exactly(length)?
        } else {
            self.rest()?
        };
        Ok(response)
    }

    /// Reads until the peer closes; an abrupt end counts as one too, if anything came before it.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: it neither sent nor closed within the limit.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(0) => return Ok(std::mem::take(&mut self.buffer)),
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.buffer.len() > RESPONSE_BYTES_MAX {
            return Err(invalid("response is too long"));
        }
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| invalid("line is not text"));
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16).map_err(|_| invalid("not a chunk"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            if !self.line()?.is_empty() {
                return Err(invalid("chunk is longer than it says"));
            }
        }
    }
}

/// Requests `path` over a connection of its own.
///
/// # Errors
///
/// As [`Connection::open`] and [`Connection::response`].
pub fn get(endpoint: &Endpoint, path: &str) -> io::Result<Response> {
    request(endpoint, "GET", path, &[], b"")
}

/// Sends one request over a connection of its own. A body gets its Content-Length.
///
/// # Errors
///
/// As [`Connection::open`] and [`Connection::response`].
pub fn request(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut connection = Connection::open(endpoint)?;
    connection.send(&request_bytes(method, path, fields, body, false))?;
    connection.response(method == "HEAD")
}

/// Sends literal bytes over a connection of its own and returns everything until the server closes it.
///
/// # Errors
///
/// As [`Connection::open`] and [`Connection::rest`].
pub fn exchange(endpoint: &Endpoint, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut connection = Connection::open(endpoint)?;
    connection.send(bytes)?;
    connection.rest()
}

/// The bytes of one request.
#[must_use]
pub fn request_bytes(
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
    keep_alive: bool,
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !keep_alive {
        text.push_str("Connection: close\r\n");
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
