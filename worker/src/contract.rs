//! The worker's side of the contract with its master: what is in the environment, what comes over the lifeline, what
//! is said back.
//!
//! - Everything is optional: without it the same program binds by itself and serves alone.
//! - Descriptors are taken over before anything else is opened, and are never inherited further.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use net::notify::Notifier;
use net::{BindAddr, BindOptions, Listener, ListenerGroup};
use scoreboard::{Block, Scoreboard};
use shared::contract::{self, Order};
use shared::settings::Settings;

/// What a worker is given.
pub(crate) struct Inheritance {
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    pub(crate) settings: Settings,
    /// Each with whether this worker owns it.
    pub(crate) listeners: Vec<(Listener, bool)>,
    pub(crate) block: Block<'static>,
    pub(crate) lifeline: Option<Lifeline>,
    pub(crate) notifier: Option<Notifier>,
    /// Listeners that this program bound itself, to be unlinked at its end.
    pub(crate) own: Option<ListenerGroup>,
}

/// The environment promised something that is not there.
#[derive(Debug)]
pub(crate) struct ContractError {
    what: &'static str,
    source: Box<dyn std::error::Error>,
}

impl fmt::Display for ContractError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot take over {}", self.what)
    }
}

impl std::error::Error for ContractError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}

pub(crate) fn cannot<E: Into<Box<dyn std::error::Error>>>(
    what: &'static str,
) -> impl FnOnce(E) -> ContractError {
    move |error| ContractError { what, source: error.into() }
}

impl Inheritance {
    /// Takes over what the environment names.
    pub(crate) fn take() -> Result<Inheritance, ContractError> {
        let inherited = listeners()?;
        let settings = match sealed_settings()? {
            Some(settings) => settings,
            None => standalone_settings()?,
        };
        let lifeline = inherited_fd(contract::LIFELINE)?.map(Lifeline::new).transpose();
        let lifeline = lifeline.map_err(cannot(contract::LIFELINE))?;
        let slot = number(contract::SLOT)?.unwrap_or(0);
        let generation = number(contract::GENERATION)?.unwrap_or(0);
        let board = scoreboard()?;
        let block = block(board, number(contract::BLOCK)?)?;
        let notifier = notifier()?;

        let mut own = None;
        // A master that passes none wants none to be served.
        let listeners = if inherited.is_empty() && lifeline.is_none() {
            let group = bind_alone(&settings)?;
            let listeners = group
                .shards()
                .iter()
                .map(|shard| shard.try_clone().map(|listener| (listener, true)))
                .collect::<io::Result<_>>()
                .map_err(cannot("a listener"))?;
            own = Some(group);
            listeners
        } else {
            mark_own(inherited, slot)
        };
        Ok(Inheritance { slot, generation, settings, listeners, block, lifeline, notifier, own })
    }
}

/// Listeners of one address form a group; of each, one shard is this slot's own.
pub(crate) fn mark_own(listeners: Vec<Listener>, slot: usize) -> Vec<(Listener, bool)> {
    let addresses: Vec<_> =
        listeners.iter().map(|listener| listener.local_addr().clone()).collect();
    let is_own: Vec<bool> = (0..listeners.len())
        .map(|index| {
            let same = |other: &usize| addresses[*other] == addresses[index];
            let place = (0..index).filter(same).count();
            let shards = (0..addresses.len()).filter(same).count();
            contract::own_shard(slot, shards) == Some(place)
        })
        .collect();
    listeners.into_iter().zip(is_own).collect()
}

/// The descriptor that a variable names.
pub(crate) fn inherited_fd(name: &'static str) -> Result<Option<OwnedFd>, ContractError> {
    match number(name)? {
        Some(fd) => sys::fd::adopt(fd).map(Some).map_err(cannot(name)),
        None => Ok(None),
    }
}

pub(crate) fn number<T: std::str::FromStr>(name: &'static str) -> Result<Option<T>, ContractError> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(cannot(name)(format!("{text:?} is no number"))),
        },
        Err(_) => Ok(None),
    }
}

/// The master's scoreboard.
pub(crate) fn scoreboard() -> Result<Option<Scoreboard>, ContractError> {
    let fd = inherited_fd(contract::SCOREBOARD)?;
    fd.map(|fd| Scoreboard::open(fd).map_err(cannot(contract::SCOREBOARD))).transpose()
}

/// The block of the scoreboard that is ours; without a number, one that nobody else sees.
pub(crate) fn block(
    board: Option<Scoreboard>,
    index: Option<usize>,
) -> Result<Block<'static>, ContractError> {
    let (board, index) = match (board, index) {
        (Some(board), Some(index)) => (board, index),
        _ => (Scoreboard::create(1).map_err(cannot("a scoreboard"))?, 0),
    };
    board.leak().block(index).ok_or_else(|| cannot(contract::BLOCK)("there is no such block"))
}

/// The resolved settings that the master passed.
pub(crate) fn sealed_settings() -> Result<Option<Settings>, ContractError> {
    let Some(fd) = inherited_fd(contract::SETTINGS)? else { return Ok(None) };
    let bytes = sys::shm::read_sealed(&fd).map_err(cannot(contract::SETTINGS))?;
    serde_json::from_slice(&bytes).map(Some).map_err(cannot(contract::SETTINGS))
}

/// The listeners that the master passed.
pub(crate) fn listeners() -> Result<Vec<Listener>, ContractError> {
    let inherited = net::inherit::take().map_err(cannot("the listeners"))?;
    let listeners = inherited.into_iter().map(|inherited| Listener::from_fd(inherited.fd));
    listeners.collect::<io::Result<_>>().map_err(cannot("the listeners"))
}

/// Where to tell the master something.
pub(crate) fn notifier() -> Result<Option<Notifier>, ContractError> {
    Notifier::from_env().map_err(cannot(contract::NOTIFY_SOCKET))
}

/// Alone there is no master that would have resolved anything: the defaults, and the settings' variables.
fn standalone_settings() -> Result<Settings, ContractError> {
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let (assignments, _) = shared::settings::environment(&variables);
    let resolved = shared::settings::resolve(&assignments).map_err(cannot("the settings"))?;
    Ok(resolved.settings)
}

fn bind_alone(settings: &Settings) -> Result<ListenerGroup, ContractError> {
    let address = settings.bind.first().map_or("127.0.0.1:8000", String::as_str);
    let address: BindAddr = address.parse().map_err(cannot("the address to bind"))?;
    ListenerGroup::bind(&address, 1, &BindOptions::default()).map_err(cannot("the address to bind"))
}

/// The socket to the master: orders come in; its end means that the master is gone.
pub(crate) struct Lifeline {
    socket: UnixStream,
    has_ended: bool,
}

/// What came over the lifeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Order(Order),
    /// The master is gone.
    End,
}

impl Lifeline {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Lifeline> {
        let socket = UnixStream::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Lifeline { socket, has_ended: false })
    }

    pub(crate) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let fd = sys::fd::number(&self.socket);
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Takes the next message; `None`: none has come. The end is reported once.
    pub(crate) fn next(&mut self) -> Option<Message> {
        while !self.has_ended {
            let mut byte = [0];
            match self.socket.read(&mut byte) {
                Ok(0) => {
                    self.has_ended = true;
                    return Some(Message::End);
                }
                Ok(_) => {
                    if let Some(order) = Order::from_byte(byte[0]) {
                        return Some(Message::Order(order));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {
                    self.has_ended = true;
                    return Some(Message::End);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn orders_come_in_sequence_and_the_end_once() {
        let (mut master, worker) = UnixStream::pair().unwrap();
        let mut lifeline = Lifeline::new(worker.into()).unwrap();
        assert_eq!(lifeline.next(), None);
        master.write_all(b"r?f").unwrap();
        assert_eq!(lifeline.next(), Some(Message::Order(Order::ReArm)));
        assert_eq!(lifeline.next(), Some(Message::Order(Order::Final)));
        assert_eq!(lifeline.next(), None);
        drop(master);
        assert_eq!(lifeline.next(), Some(Message::End));
        assert_eq!(lifeline.next(), None);
    }

    #[test]
    fn each_group_has_one_shard_of_ours() {
        let bind = |shards| {
            let address: BindAddr = "127.0.0.1:0".parse().unwrap();
            ListenerGroup::bind(&address, shards, &BindOptions::default()).unwrap()
        };
        let (three, one) = (bind(3), bind(1));
        let listeners =
            three.shards().iter().chain(one.shards()).map(|shard| shard.try_clone().unwrap());
        let own: Vec<bool> =
            mark_own(listeners.collect(), 4).into_iter().map(|(_, own)| own).collect();
        assert_eq!(own, [false, true, false, true]);
    }
}
