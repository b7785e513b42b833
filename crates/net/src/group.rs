//! Groups: all listening sockets of one address.
//!
//! The first shard is bound and made to listen *without* SO_REUSEPORT, so any other holder of the port is an error, even
//! one that starts at the same moment; only then is it opened for the others to join. A probe that is closed again
//! would leave a gap in which two servers could both succeed and share the port without knowing.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
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
        let at = At(addr);
        let (shards, path) = match addr {
            BindAddr::Tcp { host, port } => {
                let shards = if options.reuse_port { shards.clamp(1, SHARDS_MAX) } else { 1 };
                (bind_tcp(&at, resolve(&at, host, *port)?, shards, options)?, None)
            }
            BindAddr::Unix(path) => {
                let (socket, ownership) = unix::bind_path(&at, path, options)?;
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
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    let first = tcp_socket(at, address)?;
    first.bind(&address.into()).map_err(|error| at.error(BindStep::Bind, error))?;
    first.listen(backlog).map_err(|error| at.error(BindStep::Listen, error))?;
    if shards == 1 {
        return Ok(vec![first.into()]);
    }
    let chosen = LocalAddr::of(&first.as_fd()).ok().and_then(|address| address.ip());
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(tcp_socket(at, address)?);
    }
    for socket in &sockets {
        socket.set_reuse_port(true).map_err(|error| at.error(BindStep::Socket, error))?;
    }
    for socket in &sockets[1..] {
        let address = chosen.unwrap_or(address);
        socket.bind(&address.into()).map_err(|error| at.error(BindStep::Bind, error))?;
    }
    for socket in &sockets[1..] {
        socket.listen(backlog).map_err(|error| at.error(BindStep::Listen, error))?;
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

fn tcp_socket(at: &At<'_>, address: SocketAddr) -> Result<Socket, BindError> {
    // Close-on-exec from birth. Reuse of the address lets a restart bind beside connections in TIME_WAIT.
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)
        .map_err(|error| at.error(BindStep::Socket, error))?;
    socket.set_reuse_address(true).map_err(|error| at.error(BindStep::Socket, error))?;
    Ok(socket)
}
