//! A generation: one reading of the settings, with the listeners and the sealed copy that its workers get.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};

use net::{BindAddr, BindError, BindOptions, ListenerGroup};
use shared::settings::Settings;

use crate::app::App;
use crate::config::Loaded;
use crate::lookup::Addresses;

/// The listeners of one address, shared by every generation that has the address.
#[derive(Debug)]
pub struct Listening {
    /// As the settings have it; `None`: inherited.
    address: Option<BindAddr>,
    /// The sockets.
    pub group: ListenerGroup,
    /// Whether another master holds them too.
    shared: Cell<bool>,
    /// Whether new connections are turned away: no newer generation has the address.
    is_retired: Cell<bool>,
}

/// One reading of the settings.
#[derive(Debug)]
pub struct Generation {
    /// Its number, from 0.
    pub number: u32,
    /// What was read.
    pub loaded: Loaded,
    /// Its addresses.
    pub listening: Vec<Rc<Listening>>,
    /// The same as its workers were given them, in order, whatever was let go of since.
    given: Vec<Weak<Listening>>,
    sealed: OwnedFd,
    /// The database's URL for programs that take it from their environment.
    pub database_url: Option<String>,
}

/// Why a generation cannot be made.
#[derive(Debug)]
pub enum OpenError {
    /// An address cannot be bound.
    Bind(BindError),
    /// An inherited descriptor is no listener.
    Inherit(io::Error),
    /// There is nowhere to keep the embedded database.
    NoStateDirectory,
    /// The settings cannot be handed to workers.
    Seal(io::Error),
}

impl Listening {
    /// Opens `addresses`; what `previous` listens on already is shared, not opened again. Names that are not among the
    /// `found` ones are looked up, which may take a while.
    ///
    /// # Errors
    ///
    /// The first address that cannot be bound; what was opened before it is closed again.
    pub fn open(
        addresses: &[BindAddr],
        previous: &[Rc<Listening>],
        shards: usize,
        options: &BindOptions,
        found: &Addresses,
    ) -> Result<Vec<Rc<Listening>>, BindError> {
        let mut opened = Vec::new();
        for address in addresses {
            let has_address =
                |listening: &&Rc<Listening>| listening.address.as_ref() == Some(address);
            let known = previous.iter().find(has_address);
            if let Some(listening) = known.filter(|listening| listening.can_go_on()) {
                opened.push(Rc::clone(listening));
                continue;
            }
            let known = known.map(|listening| &listening.group);
            match ListenerGroup::bind_after(&found.of_bind(address), shards, options, known) {
                Ok(group) => opened.push(Rc::new(Listening::new(Some(address.clone()), group))),
                Err(error) => {
                    Listening::close_unused(opened);
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    /// Closes those of `opened` that nobody else has, and removes their unix socket paths.
    pub fn close_unused(opened: Vec<Rc<Listening>>) {
        for listening in opened.into_iter().filter_map(Rc::into_inner) {
            if !listening.is_held_elsewhere() {
                // Opened a moment ago, and for nothing: what cannot be removed is found to be stale by the next one.
                let _ = listening.group.close_and_unlink();
            }
        }
    }

    /// Turns new connections away, while no newer generation has the address. Says it once.
    ///
    /// # Errors
    ///
    /// The kernel's: then a few clients may see a reset.
    pub fn retire(&self) -> io::Result<()> {
        if self.is_retired.replace(true) { Ok(()) } else { self.group.refuse_new() }
    }

    /// Takes new connections again, if they were turned away.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn revive(&self) -> io::Result<()> {
        if self.is_retired.replace(false) { self.group.accept_new() } else { Ok(()) }
    }

    /// Whether a new generation may have it: a unix socket that was retired is deaf for ever.
    fn can_go_on(&self) -> bool {
        !self.is_retired.get() || self.group.addr().ip().is_some()
    }

    /// The listeners of `address`; `None`: somebody outside opened and holds them.
    #[must_use]
    pub fn new(address: Option<BindAddr>, group: ListenerGroup) -> Listening {
        Listening { address, group, shared: Cell::new(false), is_retired: Cell::new(false) }
    }

    /// The address as the settings have it; `None`: inherited.
    #[must_use]
    pub fn address(&self) -> Option<&BindAddr> {
        self.address.as_ref()
    }

    /// Takes over listeners that somebody else opened.
    ///
    /// # Errors
    ///
    /// One of them is no listener.
    pub fn adopt(fds: Vec<OwnedFd>) -> io::Result<Vec<Rc<Listening>>> {
        let groups = ListenerGroup::adopt(fds)?;
        Ok(groups.into_iter().map(|group| Rc::new(Listening::new(None, group))).collect())
    }

    /// Whether somebody else opened it, and surely holds it still.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        matches!(self.address, None | Some(BindAddr::Fd(_)))
    }

    /// Notes whether another master holds it too.
    pub fn share(&self, is_shared: bool) {
        self.shared.set(is_shared);
    }

    /// Whether somebody else holds it as well: then it is only let go of, never shut, filtered or unlinked.
    #[must_use]
    pub fn is_held_elsewhere(&self) -> bool {
        self.is_inherited() || self.shared.get()
    }
}

impl Generation {
    /// Puts a generation together.
    ///
    /// # Errors
    ///
    /// No state directory for the embedded database, or no memory for the settings.
    pub fn new(
        number: u32,
        loaded: Loaded,
        listening: Vec<Rc<Listening>>,
    ) -> Result<Generation, OpenError> {
        let mut settings = loaded.settings().clone();
        if settings.database.as_deref() == Some(EMBEDDED) {
            settings.database = Some(embedded::url(&state_directory(&settings)?));
        }
        let database_url = settings.database.clone();
        if loaded.app.is_python {
            settings.database = None; // The worker has no use for it: the application connects.
        }
        let json = serde_json::to_vec(&settings).map_err(|error| OpenError::Seal(error.into()))?;
        let sealed = sys::shm::sealed(c"settings", &json).map_err(OpenError::Seal)?;
        let given = listening.iter().map(Rc::downgrade).collect();
        Ok(Generation { number, loaded, listening, given, sealed, database_url })
    }

    /// What runs in its slots.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.loaded.app
    }

    /// Whether its workers are forked from a process that has loaded the application.
    #[must_use]
    pub fn preloads(&self) -> bool {
        self.settings().preload_app && self.app().is_python
    }

    /// Its settings as they were written.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.loaded.settings()
    }

    /// Whether it wants the embedded database.
    #[must_use]
    pub fn wants_embedded(&self) -> bool {
        self.settings().database.as_deref() == Some(EMBEDDED)
    }

    /// Every listener, address by address.
    #[must_use]
    pub fn listeners(&self) -> Vec<BorrowedFd<'_>> {
        self.listening
            .iter()
            .flat_map(|listening| listening.group.shards())
            .map(AsFd::as_fd)
            .collect()
    }

    /// The places, among the addresses that its workers were given, of those for which `is_meant` says so.
    #[must_use]
    pub fn places(&self, is_meant: impl Fn(&Rc<Listening>) -> bool) -> Vec<usize> {
        let given = self.given.iter().map(Weak::upgrade).enumerate();
        given
            .filter(|(_, one)| one.as_ref().is_some_and(&is_meant))
            .map(|(place, _)| place)
            .collect()
    }

    /// The sealed settings for its workers.
    #[must_use]
    pub fn sealed(&self) -> BorrowedFd<'_> {
        self.sealed.as_fd()
    }

    /// The addresses for people, as gunicorn lists them.
    #[must_use]
    pub fn addresses(&self) -> String {
        let addresses: Vec<String> =
            self.listening.iter().map(|listening| listening.group.addr().to_string()).collect();
        addresses.join(",")
    }
}

/// The value of the setting `database` that means a private database of our own.
pub const EMBEDDED: &str = "embedded";

/// Where the embedded database lives.
///
/// # Errors
///
/// Neither the settings nor the environment name a place.
pub fn state_directory(settings: &Settings) -> Result<std::path::PathBuf, OpenError> {
    let is_root = nix::unistd::geteuid().is_root();
    settings
        .database_directory
        .clone()
        .or_else(|| embedded::state_dir(is_root, |name| std::env::var_os(name)))
        .ok_or(OpenError::NoStateDirectory)
}

impl OpenError {
    /// The exit code when this happens at start.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            OpenError::Bind(_) | OpenError::Inherit(_) => shared::exit::CANNOT_BIND,
            OpenError::NoStateDirectory => shared::exit::CONFIG,
            OpenError::Seal(_) => shared::exit::RUNTIME,
        }
    }
}

impl OpenError {
    /// The error in one line, and who is in the way as far as that can be seen.
    #[must_use]
    pub fn explained(&self) -> String {
        let mut line = crate::arbiter::chain(self);
        if let OpenError::Bind(error) = self {
            let holders: Vec<String> =
                error.holders().into_iter().map(|(pid, name)| format!("{pid}({name})")).collect();
            if !holders.is_empty() {
                line += &format!(" held_by={}", holders.join(","));
            }
        }
        line
    }
}

impl From<BindError> for OpenError {
    fn from(error: BindError) -> OpenError {
        OpenError::Bind(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // gunicorn's words, which monitoring greps for.
            OpenError::Bind(error) if error.is_in_use() => write!(f, "Connection in use: {}", error.addr()),
            OpenError::Bind(error) if error.is_invalid() => write!(f, "Invalid address: {}", error.addr()),
            OpenError::Bind(error) => error.fmt(f),
            OpenError::Inherit(_) => f.write_str("cannot take over inherited listeners"),
            OpenError::NoStateDirectory => f.write_str(
                "nowhere to keep the embedded database: set database_directory, HOME or XDG_STATE_HOME",
            ),
            OpenError::Seal(_) => f.write_str("cannot hand the settings to workers"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Bind(error) => std::error::Error::source(error),
            OpenError::Inherit(error) | OpenError::Seal(error) => Some(error),
            OpenError::NoStateDirectory => None,
        }
    }
}
