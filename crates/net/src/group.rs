//! Groups: all listening sockets of one address.
//!
//! The first shard is bound and made to listen *without* SO_REUSEPORT, so any other holder of the port is an error, even
//! one that starts at the same moment; only then is it opened for the others to join. A probe that is closed again
//! would leave a gap in which two servers could both succeed and share the port without knowing. Seen to work on
//! Linux 6.18; where the option comes too late after the first bind, that gap is accepted.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use crate::addr::{BindAddr, LocalAddr};
use crate::bind::{At, BindError, BindOptions, BindStep};
use crate::listener::Listener;
use crate::unix::{self, PathOwnership};

/// Largest number of shards one group may have.
pub const SHARDS_MAX: usize = 256;

/// All listening sockets of one address, in the order in which they began to listen.
///
/// Dropping it closes our copies of the sockets and leaves a unix socket path alone.
#[derive(Debug)]
pub struct ListenerGroup {
    address: LocalAddr,
    shards: Vec<Listener>,
    path: Option<PathOwnership>,
}

impl ListenerGroup {
    /// Binds `addr` and listens on it with `shards` sockets (at least 1, at most [`SHARDS_MAX`]).
    ///
    /// Unix sockets and adopted ones have one shard, and so has everything when `reuse_port` is off.
    ///
    /// # Errors
    ///
    /// See [`BindStep`]. In use: a socket of another process listens there.
    pub fn bind(
        addr: &BindAddr,
        shards: usize,
        options: &BindOptions,
    ) -> Result<ListenerGroup, BindError> {
        ListenerGroup::bind_after(addr, shards, options, None)
    }

    /// As [`ListenerGroup::bind`], where a group of our own that refuses new connections may still hold the unix socket
    /// path: its lock is shared, and the path leads to the new socket from then on.
    ///
    /// # Errors
    ///
    /// As [`ListenerGroup::bind`].
    pub fn bind_after(
        addr: &BindAddr,
        shards: usize,
        options: &BindOptions,
        previous: Option<&ListenerGroup>,
    ) -> Result<ListenerGroup, BindError> {
        let at = At(addr);
        let (shards, path) = match addr {
            BindAddr::Tcp { host, port } => {
                let shards = if options.reuse_port { shards.clamp(1, SHARDS_MAX) } else { 1 };
                (bind_tcp(&at, resolve(&at, host, *port)?, shards, options)?, None)
            }
            BindAddr::Unix(path) => {
                let held = previous.and_then(ListenerGroup::path_lock);
                let (socket, ownership) = unix::bind_path(&at, path, options, held)?;
                (vec![socket], Some(ownership))
            }
            BindAddr::Abstract(name) => (vec![unix::bind_abstract(&at, name, options)?], None),
            BindAddr::Fd(number) => {
                let adopted = sys::fd::adopt(*number);
                (vec![adopted.map_err(|error| at.error(BindStep::Adopt, error))?], None)
            }
        };
        let shards: Vec<Listener> = shards
            .into_iter()
            .map(Listener::from_fd)
            .collect::<io::Result<_>>()
            .map_err(|error| at.error(BindStep::Adopt, error))?;
        Ok(ListenerGroup { address: shards[0].local_addr().clone(), shards, path })
    }

    /// Sorts inherited listening sockets into groups by their address, in the order of their first appearance.
    ///
    /// # Errors
    ///
    /// One of them is not a listening socket; its place in the list is named.
    pub fn adopt(fds: Vec<OwnedFd>) -> io::Result<Vec<ListenerGroup>> {
        let mut groups: Vec<ListenerGroup> = Vec::new();
        for (place, fd) in fds.into_iter().enumerate() {
            let listener = Listener::from_fd(fd).map_err(|error| {
                io::Error::new(error.kind(), format!("inherited descriptor {}: {error}", place + 3))
            })?;
            let address = listener.local_addr();
            match groups.iter_mut().find(|group| group.address == *address) {
                Some(group) => group.shards.push(listener),
                None => groups.push(ListenerGroup {
                    address: address.clone(),
                    shards: vec![listener],
                    path: None,
                }),
            }
        }
        Ok(groups)
    }

    /// The address, with the port that the kernel chose.
    #[must_use]
    pub fn addr(&self) -> &LocalAddr {
        &self.address
    }

    /// Its sockets; never empty.
    #[must_use]
    pub fn shards(&self) -> &[Listener] {
        &self.shards
    }

    /// The backlog that the kernel granted, where it tells; it may be less than was asked for (`net.core.somaxconn`).
    #[must_use]
    pub fn backlog_granted(&self) -> Option<u32> {
        Some(sys::socket::queue(self.shards.first()?).ok()??.limit)
    }

    /// Connections that wait for `accept` on all shards, where the kernel tells.
    #[must_use]
    pub fn queue_length(&self) -> Option<u32> {
        self.sum_queues(|queue| queue.length)
    }

    /// Connections that may wait on all shards, where the kernel tells.
    #[must_use]
    pub fn queue_limit(&self) -> Option<u32> {
        self.sum_queues(|queue| queue.limit)
    }

    fn sum_queues(&self, part: impl Fn(sys::socket::Queue) -> u32) -> Option<u32> {
        self.shards.iter().try_fold(0, |sum: u32, shard| {
            Some(sum.saturating_add(part(sys::socket::queue(shard).ok()??)))
        })
    }

    /// Refuses new connections on every shard; see [`Listener::refuse_new`] for when this is right.
    ///
    /// # Errors
    ///
    /// The first failure; the other shards are changed all the same.
    pub fn refuse_new(&self) -> io::Result<()> {
        let mut result = Ok(());
        for shard in &self.shards {
            result = result.and(shard.refuse_new());
        }
        result
    }

    /// Takes back [`ListenerGroup::refuse_new`], which only TCP can.
    ///
    /// # Errors
    ///
    /// As [`Listener::accept_new`]; the other shards are changed all the same.
    pub fn accept_new(&self) -> io::Result<()> {
        let mut result = Ok(());
        for shard in &self.shards {
            result = result.and(shard.accept_new());
        }
        result
    }

    /// Identity of the socket file that this group made, as device and inode: for a successor's [`ListenerGroup::claim`].
    #[must_use]
    pub fn path_identity(&self) -> Option<(u64, u64)> {
        self.path.as_ref().map(PathOwnership::identity)
    }

    /// Makes an adopted group the owner of its unix socket path, if the file there is the one that is meant.
    ///
    /// Returns whether it is. Until then closing the group leaves the path alone.
    pub fn claim(&mut self, identity: (u64, u64)) -> bool {
        if let LocalAddr::Unix(path) = &self.address {
            self.path = PathOwnership::claim(path, identity);
        }
        self.path.is_some()
    }

    /// As [`ListenerGroup::claim`], with the former owner's own lock beside the path.
    pub fn claim_with(&mut self, identity: (u64, u64), lock: Option<OwnedFd>) -> bool {
        if let LocalAddr::Unix(path) = &self.address {
            self.path = PathOwnership::claim_with(path, identity, lock);
        }
        self.path.is_some()
    }

    /// The lock beside the unix socket path that this group made: for a successor's [`ListenerGroup::claim_with`].
    #[must_use]
    pub fn path_lock(&self) -> Option<BorrowedFd<'_>> {
        self.path.as_ref().and_then(PathOwnership::lock)
    }

    /// Closes our copies of the sockets and, if its file still is ours, removes a unix socket path.
    ///
    /// For the last holder only: a successor or systemd that holds the socket would become unreachable.
    ///
    /// # Errors
    ///
    /// The path is ours and could not be removed.
    pub fn close_and_unlink(self) -> io::Result<()> {
        let ListenerGroup { shards, path, .. } = self;
        // The path goes first: a client that comes between finds nobody, instead of a socket about to vanish.
        let result = path.map_or(Ok(()), PathOwnership::unlink);
        drop(shards);
        result
    }

    /// The unix socket path, if it has one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.address {
            LocalAddr::Unix(path) => Some(path),
            _ => None,
        }
    }
}

/// As gunicorn, one address per name: IPv4 if it has one.
fn resolve(at: &At<'_>, host: &str, port: u16) -> Result<SocketAddr, BindError> {
    let mut found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| at.error(BindStep::Resolve, error))?
        .collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| {
        at.error(BindStep::Resolve, io::Error::new(io::ErrorKind::NotFound, "no address"))
    })
}

fn bind_tcp(
    at: &At<'_>,
    address: SocketAddr,
    shards: usize,
    options: &BindOptions,
) -> Result<Vec<OwnedFd>, BindError> {
    let first = tcp_socket(at, address)?;
    bind_one(at, &first, address)?;
    listen_one(at, &first, options)?;
    if shards == 1 {
        return Ok(vec![first.into()]);
    }
    let chosen = LocalAddr::of(&first.as_fd()).ok().and_then(|address| address.ip());
    let address = chosen.unwrap_or(address);
    share_port(at, &first)?;
    match join(at, address, shards - 1, options) {
        Ok(others) => Ok([first].into_iter().chain(others).map(OwnedFd::from).collect()),
        // A system that wants the option before the first bind. Whoever else was there has been found above.
        Err(error) if error.is_in_use() => {
            drop(first);
            Ok(join(at, address, shards, options)?.into_iter().map(OwnedFd::from).collect())
        }
        Err(error) => Err(error),
    }
}

/// Adds `count` sockets to the group of `address`, or begins it: all are bound before the first one listens.
fn join(
    at: &At<'_>,
    address: SocketAddr,
    count: usize,
    options: &BindOptions,
) -> Result<Vec<Socket>, BindError> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = tcp_socket(at, address)?;
        share_port(at, &socket)?;
        bind_one(at, &socket, address)?;
        sockets.push(socket);
    }
    for socket in &sockets {
        listen_one(at, socket, options)?;
    }
    Ok(sockets)
}

fn bind_one(at: &At<'_>, socket: &Socket, address: SocketAddr) -> Result<(), BindError> {
    socket.bind(&address.into()).map_err(|error| at.error(BindStep::Bind, error))
}

fn listen_one(at: &At<'_>, socket: &Socket, options: &BindOptions) -> Result<(), BindError> {
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(|error| at.error(BindStep::Listen, error))
}

fn share_port(at: &At<'_>, socket: &Socket) -> Result<(), BindError> {
    socket.set_reuse_port(true).map_err(|error| at.error(BindStep::Socket, error))
}

fn tcp_socket(at: &At<'_>, address: SocketAddr) -> Result<Socket, BindError> {
    // Close-on-exec from birth. Reuse of the address lets a restart bind beside connections in TIME_WAIT.
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)
        .map_err(|error| at.error(BindStep::Socket, error))?;
    socket.set_reuse_address(true).map_err(|error| at.error(BindStep::Socket, error))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_can_also_be_made_the_old_way() {
        let addr: BindAddr = "127.0.0.1:0".parse().expect("an address");
        let free = ListenerGroup::bind(&addr, 1, &BindOptions::default()).expect("bound");
        let address = free.addr().ip().expect("TCP");
        drop(free);
        let sockets = join(&At(&addr), address, 3, &BindOptions::default()).expect("bound");
        let clients: Vec<_> =
            (0..200).map(|_| std::net::TcpStream::connect(address).expect("connected")).collect();
        let queues: Vec<u32> = sockets
            .iter()
            .map(|socket| sys::socket::queue(socket).expect("a socket").expect("TCP").length)
            .collect();
        assert_eq!(queues.iter().sum::<u32>() as usize, clients.len());
        assert!(queues.iter().all(|&length| length > 20), "{queues:?}");
    }
}
