//! Where datagrams go. Nothing here blocks, and no failure is worth a word: the next second sends again.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Time between two lookups of a name: a receiver may have moved.
const LOOKUP_EVERY: Duration = Duration::from_secs(60);

/// A receiver of datagrams.
pub enum Target {
    /// A host. What its name means is found out by a thread, since looking it up may take long.
    Udp {
        sockets: [Option<UdpSocket>; 2],
        address: Option<SocketAddr>,
        found: Receiver<SocketAddr>,
    },
    /// A socket in the file system.
    Unix { socket: UnixDatagram, path: PathBuf },
}

impl Target {
    /// Makes ready to send to `HOST:PORT` or `unix://PATH`.
    ///
    /// # Errors
    ///
    /// No socket, or no thread.
    pub fn open(host: &str) -> io::Result<Target> {
        if let Some(path) = host.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path).into();
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            return Ok(Target::Unix { socket, path });
        }
        let (answer, found) = channel();
        let address = host.parse().ok();
        if address.is_none() {
            let name = host.to_owned();
            std::thread::Builder::new().name("statsd-lookup".into()).spawn(move || {
                loop {
                    // IPv4 first, as everywhere in this program.
                    let mut all: Vec<SocketAddr> =
                        name.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
                    all.sort_by_key(SocketAddr::is_ipv6);
                    if all.first().is_some_and(|first| answer.send(*first).is_err()) {
                        return; // Nobody wants to know any more.
                    }
                    std::thread::sleep(LOOKUP_EVERY);
                }
            })?;
        }
        let open = |local: &str| {
            let socket = UdpSocket::bind(local).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        // Unconnected: an error reported for one datagram never costs the next.
        Ok(Target::Udp { sockets: [open("0.0.0.0:0"), open("[::]:0")], address, found })
    }

    /// Sends one datagram, or not.
    pub fn send(&mut self, datagram: &str) {
        match self {
            Target::Udp { sockets, address, found } => {
                *address = found.try_iter().last().or(*address);
                if let Some(address) = address
                    && let Some(socket) = &sockets[usize::from(address.is_ipv6())]
                {
                    // Nobody there, or no room in the kernel.
                    let _ = socket.send_to(datagram.as_bytes(), *address);
                }
            }
            Target::Unix { socket, path } => {
                // Nobody there, or its queue is full.
                let _ = socket.send_to(datagram.as_bytes(), path);
            }
        }
    }
}
