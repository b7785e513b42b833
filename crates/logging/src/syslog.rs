//! Syslog, for a log besides its file: over UDP, TCP or a unix socket, and never waited for.
//!
//! - A receiver that is away, slow or full costs lines, which are counted, and nothing else.
//! - A lost connection is made again, at most once per [`RETRY_EVERY`], without waiting for it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, UnixAddr, connect, socket,
};

use crate::level::Level;
use crate::queue::Queue;
use crate::sink::Sink;

/// Longest message of one datagram in bytes; the rest is cut.
const DATAGRAM_BYTES_MAX: usize = 8192;
/// Most bytes that wait for a stream's receiver; further lines are dropped and counted.
const STREAM_BYTES_MAX: usize = 256 * 1024;
/// Time between two attempts to reach a receiver.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A way to syslog.
#[derive(Debug)]
pub struct Syslog {
    address: Address,
    facility: u8,
    /// `NAME[PID]: `, in front of every text.
    tag: String,
    socket: Socket,
    retry_at: Option<Instant>,
    queue: Queue,
    dropped: u64,
}

#[derive(Debug)]
enum Address {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Datagram(PathBuf),
    Stream(PathBuf),
}

#[derive(Debug)]
enum Socket {
    None,
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    Stream(Sink),
}

impl Syslog {
    /// Finds the receiver at `udp://HOST:PORT`, `tcp://HOST:PORT`, `unix:///PATH#dgram` or `unix:///PATH#stream`. That
    /// nobody listens there is no error: somebody may later.
    ///
    /// Looks the host's name up, which may take a while.
    ///
    /// # Errors
    ///
    /// The address is none, or the host has no address.
    pub fn open(address: &str, facility: u8, name: &str) -> io::Result<Syslog> {
        let mut syslog = Syslog {
            address: Address::parse(address)?,
            facility,
            tag: format!("{name}[{}]: ", std::process::id()),
            socket: Socket::None,
            retry_at: None,
            queue: Queue::new(STREAM_BYTES_MAX),
            dropped: 0,
        };
        syslog.connect();
        Ok(syslog)
    }

    /// Sends one line, or counts it as lost. `text` holds no line's end.
    pub fn send(&mut self, level: Level, text: &[u8]) {
        let priority = u16::from(self.facility) * 8 + u16::from(level.severity());
        let head = format!("<{priority}>{}", self.tag);
        if matches!(self.address, Address::Tcp(_) | Address::Stream(_)) {
            self.queue.push(|bytes| {
                bytes.extend_from_slice(head.as_bytes());
                bytes.extend_from_slice(text);
                bytes.push(b'\n');
            });
            return;
        }
        let mut message = head.into_bytes();
        message.extend_from_slice(text);
        message.truncate(DATAGRAM_BYTES_MAX);
        self.send_datagram(&message);
    }

    fn send_datagram(&mut self, message: &[u8]) {
        self.connect();
        // What a receiver that was away made of the last datagram is told at the next: so twice.
        for _ in 0..2 {
            let sent = match &self.socket {
                Socket::Udp(socket) => socket.send(message),
                Socket::Datagram(socket) => socket.send(message),
                Socket::Stream(_) | Socket::None => break,
            };
            match sent {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if matches!(self.socket, Socket::Udp(_)) => (),
                Err(_) => {
                    self.socket = Socket::None;
                    self.retry_at = None;
                    self.connect();
                }
            }
        }
        self.dropped += 1;
    }

    /// Sends what waits for a stream's receiver, as far as there is room. Call it once per turn.
    pub fn flush(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        self.connect();
        if let Socket::Stream(sink) = &self.socket
            && !self.queue.flush(sink)
        {
            self.queue.change_sink();
            self.socket = Socket::None;
        }
    }

    /// Returns how many lines were lost since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        let dropped = std::mem::take(&mut self.dropped) + self.queue.dropped();
        self.queue.forget_dropped();
        dropped
    }

    /// Makes the connection, if there is none and the last attempt was long enough ago.
    fn connect(&mut self) {
        if !matches!(self.socket, Socket::None) {
            return;
        }
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = Some(now + RETRY_EVERY);
        // A failure is found again, and counted, with each line that it costs.
        self.socket = self.address.connect().unwrap_or(Socket::None);
    }
}

impl Address {
    fn parse(text: &str) -> io::Result<Address> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not an address of syslog");
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        if scheme == "unix" {
            let (path, kind) = rest.split_once('#').unwrap_or((rest, "dgram"));
            return match kind {
                "dgram" => Ok(Address::Datagram(path.into())),
                "stream" => Ok(Address::Stream(path.into())),
                _ => Err(invalid()),
            };
        }
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { rest.to_owned() } else { format!("{rest}:514") };
        let all: Vec<SocketAddr> = host.to_socket_addrs()?.collect();
        // A receiver that knows IPv4 alone is the usual one.
        let address = all.iter().find(|address| address.is_ipv4()).or(all.first());
        let address = *address.ok_or_else(invalid)?;
        match scheme {
            "udp" => Ok(Address::Udp(address)),
            "tcp" => Ok(Address::Tcp(address)),
            _ => Err(invalid()),
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        match self {
            Address::Udp(address) => {
                let any: SocketAddr =
                    if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Socket::Udp(socket))
            }
            Address::Datagram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Socket::Datagram(socket))
            }
            Address::Tcp(address) => {
                let family =
                    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let socket = stream(family)?;
                begin(connect(socket.as_raw_fd(), &SockaddrStorage::from(*address)))?;
                Ok(Socket::Stream(Sink::from_fd(socket)?))
            }
            Address::Stream(path) => {
                let socket = stream(AddressFamily::Unix)?;
                begin(connect(socket.as_raw_fd(), &UnixAddr::new(path)?))?;
                Ok(Socket::Stream(Sink::from_fd(socket)?))
            }
        }
    }
}

fn stream(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
}

/// A connection that is being made takes bytes when it is there.
fn begin(connected: nix::Result<()>) -> io::Result<()> {
    match connected {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
