//! How to bind, and why it failed.

use std::fmt;
use std::io;

use sys::Pid;

use crate::addr::BindAddr;

/// How listening sockets are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// Connections that may wait for `accept`, per shard; the kernel caps it (see `ListenerGroup::backlog_granted`).
    pub backlog: u32,
    /// Whether a TCP address may have several shards.
    pub reuse_port: bool,
    /// File mode creation mask for a unix socket path; 0 lets everybody connect.
    pub umask: u32,
    /// User and group that shall own a unix socket path.
    pub owner: Option<(u32, u32)>,
}

impl Default for BindOptions {
    fn default() -> BindOptions {
        BindOptions { backlog: 2048, reuse_port: true, umask: 0, owner: None }
    }
}

/// What was being done when binding failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindStep {
    /// Looking up the host name.
    Resolve,
    /// Making a socket.
    Socket,
    /// Giving it its address.
    Bind,
    /// Making it listen.
    Listen,
    /// Locking the unix socket path against a server that starts at the same moment.
    Lock,
    /// Finding out who owns what stands at the unix socket path.
    Probe,
    /// Putting a new socket in the place of a stale one.
    Replace,
    /// Changing the owner of the unix socket path.
    Owner,
    /// Taking over the descriptor we were started with.
    Adopt,
}

/// A listener could not be opened. `source()` is the operating system's reason.
#[derive(Debug)]
pub struct BindError {
    pub(crate) addr: BindAddr,
    pub(crate) step: BindStep,
    pub(crate) source: io::Error,
}

impl BindError {
    /// The address that was asked for.
    #[must_use]
    pub fn addr(&self) -> &BindAddr {
        &self.addr
    }

    /// What was being done.
    #[must_use]
    pub fn step(&self) -> BindStep {
        self.step
    }

    /// Somebody else listens there: it may help to try again.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// Processes that listen on the port, as far as we may see: whom to ask, or to end, when the address is in use.
    ///
    /// Walks `/proc`, so ask once per failure that will be reported.
    #[must_use]
    pub fn holders(&self) -> Vec<(Pid, String)> {
        match &self.addr {
            BindAddr::Tcp { port, .. } if self.is_in_use() => crate::holder::of_port(*port),
            _ => Vec::new(),
        }
    }

    /// The address is none of this machine's, or cannot be found: trying again will not help soon.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.step == BindStep::Resolve || self.source.kind() == io::ErrorKind::AddrNotAvailable
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = &self.addr;
        match self.step {
            BindStep::Resolve => write!(f, "cannot find the host of {addr}"),
            BindStep::Socket => write!(f, "cannot make a socket for {addr}"),
            BindStep::Bind => write!(f, "cannot bind {addr}"),
            BindStep::Listen => write!(f, "cannot listen on {addr}"),
            BindStep::Lock => write!(f, "cannot lock {addr}"),
            BindStep::Probe => write!(f, "cannot take {addr}"),
            BindStep::Replace => write!(f, "cannot replace the stale socket at {addr}"),
            BindStep::Owner => write!(f, "cannot change the owner of {addr}"),
            BindStep::Adopt => write!(f, "cannot take over {addr}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds the address to errors of one `bind` call.
pub(crate) struct At<'a>(pub(crate) &'a BindAddr);

impl At<'_> {
    pub(crate) fn error(&self, step: BindStep, source: impl Into<io::Error>) -> BindError {
        BindError { addr: self.0.clone(), step, source: source.into() }
    }
}
