//! The control socket: what `master ctl` talks to. Here are its clients; what they ask for is done in `arbiter/control.rs`.
//!
//! - Polled by the arbiter's own loop: nothing here waits, and every buffer and number has its bound.
//! - A frame is four bytes of length, big-endian, and that much JSON: gunicornc's, so that tool works too.
//! - Only root and our own user are answered, whatever the file's permissions say.

pub mod frame;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use net::{BindAddr, BindOptions};
use nix::poll::{PollFd, PollFlags};
use serde_json::Value;
use shared::settings::Settings;

use crate::generation::Listening;
use crate::lookup::Addresses;
use frame::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request};

/// Clients at one time; more wait in the backlog.
pub const CLIENTS_MAX: usize = 16;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 16;

/// Longest silence of a client that waits for nothing.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// One that is silent for this long makes room when another wants in.
const IDLE_WHEN_FULL_MAX: Duration = Duration::from_secs(1);

/// Time after which accepting is tried again when it failed: the socket stays readable meanwhile.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Name of the socket in the directory that systemd makes for the service.
pub const NAME: &str = "control.sock";

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The end of a reload.
    Reload {
        /// It is the one that runs; otherwise the next.
        has_begun: bool,
    },
    /// The verdict on an upgrade.
    Upgrade,
}

/// A client, as long as it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientId(u64);

/// The socket and its clients.
#[derive(Debug, Default)]
pub struct Control {
    listening: Option<Rc<Listening>>,
    clients: Vec<Client>,
    last_id: u64,
    /// No descriptors were left: not before this is another client accepted.
    accepts_from: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// When it last took or gave a byte.
    active: Instant,
    waits: Option<(Value, Awaited)>,
    /// Gone, or not to be served any more once everything is sent.
    is_over: bool,
}

/// Where the control socket is to be; `None`: nowhere.
#[must_use]
pub fn path(settings: &Settings, runtime_directory: Option<&str>) -> Option<PathBuf> {
    if settings.no_control_socket {
        return None;
    }
    settings.control_socket.clone().or_else(|| {
        // systemd names several, separated by colons.
        let first = runtime_directory?.split(':').next().filter(|path| !path.is_empty())?;
        Some(Path::new(first).join(NAME))
    })
}

impl Control {
    /// Makes the socket at `path`, or shares the one there that an old master passed.
    ///
    /// # Errors
    ///
    /// Why it cannot be made.
    pub fn open(
        path: &Path,
        mode: u32,
        passed: &[Rc<Listening>],
    ) -> Result<Control, net::BindError> {
        let options =
            BindOptions { backlog: BACKLOG, reuse_port: false, umask: !mode & 0o777, owner: None };
        let address = BindAddr::Unix(path.to_owned());
        let mut opened = Listening::open(&[address], passed, 1, &options, &Addresses::default())?;
        Ok(Control { listening: opened.pop(), ..Control::default() })
    }

    /// The socket, for a new master.
    #[must_use]
    pub fn listening(&self) -> Option<&Rc<Listening>> {
        self.listening.as_ref()
    }

    /// Lets go of the socket; clients stay.
    pub fn take_listening(&mut self) -> Option<Rc<Listening>> {
        self.listening.take()
    }

    /// What to wait for; `is_open`: new clients are wanted.
    #[must_use]
    pub fn descriptors(&self, is_open: bool) -> Vec<PollFd<'_>> {
        let listener = self.listening.iter().filter(|_| is_open && self.has_room(Instant::now()));
        let listener = listener.flat_map(|listening| listening.group.shards());
        let listener = listener.map(|shard| PollFd::new(shard.as_fd(), PollFlags::POLLIN));
        let clients = self.clients.iter().map(|client| {
            let wanted =
                if client.unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
            PollFd::new(client.stream.as_fd(), wanted)
        });
        listener.chain(clients).collect()
    }

    /// Whether a client's next request is here already.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.clients.iter().any(|client| {
            client.waits.is_none()
                && client.unsent.is_empty()
                && !client.is_over
                && frame::is_complete(&client.unread, REQUEST_BYTES_MAX)
        })
    }

    fn has_room(&self, now: Instant) -> bool {
        if self.accepts_from.is_some_and(|from| now < from) {
            return false;
        }
        self.clients.len() < CLIENTS_MAX
            || self.clients.iter().any(|client| client.is_dispensable(now))
    }

    /// Accepts, reads and writes what is there; returns what was asked, one request of each client at most.
    pub fn turn(
        &mut self,
        is_open: bool,
        now: Instant,
    ) -> Vec<(ClientId, Result<Request, String>)> {
        if is_open {
            self.accept(now);
        }
        let mut asked = Vec::new();
        for client in &mut self.clients {
            client.write(now);
            client.read(now);
            if client.waits.is_none() && client.unsent.is_empty() && !client.is_over {
                asked.extend(client.next_request().map(|request| (client.id, request)));
            }
        }
        let is_answered = |id| asked.iter().all(|(asking, _)| *asking != id);
        self.clients.retain(|client| {
            let is_done = client.is_over && client.unsent.is_empty() && is_answered(client.id);
            let is_silent = client.waits.is_none() && client.active + IDLE_MAX <= now;
            !is_done && !is_silent
        });
        asked
    }

    fn accept(&mut self, now: Instant) {
        let Some(listening) = self.listening.clone() else { return };
        for _ in 0..CLIENTS_MAX {
            if CLIENTS_MAX <= self.clients.len() {
                let idle = self.clients.iter().position(|client| client.is_dispensable(now));
                let Some(idle) = idle else { return };
                self.clients.remove(idle);
            }
            let accepted = listening.group.shards().first().map(net::Listener::accept);
            let accepted = match accepted {
                Some(Ok(Some((accepted, _)))) => accepted,
                Some(Err(_)) => {
                    self.accepts_from = Some(now + ACCEPT_AGAIN);
                    return;
                }
                Some(Ok(None)) | None => return,
            };
            let stream = UnixStream::from(accepted.fd);
            self.last_id += 1;
            let is_allowed = sys::socket::peer_credentials(&stream)
                .is_ok_and(|peer| peer.uid == 0 || peer.uid == nix::unistd::geteuid().as_raw());
            let mut client = Client {
                id: ClientId(self.last_id),
                stream,
                unread: Vec::new(),
                unsent: Vec::new(),
                active: now,
                waits: None,
                is_over: false,
            };
            if !is_allowed {
                client.send(&Reply::error(
                    Value::Null,
                    "only root and the master's own user are answered",
                ));
                client.is_over = true;
            }
            self.clients.push(client);
        }
    }

    /// Answers a request.
    pub fn reply(&mut self, to: ClientId, id: Value, outcome: Result<Value, String>) {
        let reply = match outcome {
            Ok(data) => Reply::ok(id, data),
            Err(error) => Reply::error(id, &error),
        };
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == to) {
            client.send(&reply);
            client.write(Instant::now());
        }
    }

    /// Leaves a request unanswered until [`Control::conclude`].
    pub fn put_off(&mut self, client: ClientId, id: Value, until: Awaited) {
        if let Some(client) = self.clients.iter_mut().find(|one| one.id == client) {
            client.waits = Some((id, until));
        }
    }

    /// Takes back [`Control::put_off`]: it is answered at once after all.
    pub fn stop_waiting(&mut self, client: ClientId) {
        if let Some(client) = self.clients.iter_mut().find(|one| one.id == client) {
            client.waits = None;
        }
    }

    /// A reload begins: it is what everybody waits for who has asked for one.
    pub fn reload_begins(&mut self) {
        for client in &mut self.clients {
            if let Some((_, Awaited::Reload { has_begun })) = &mut client.waits {
                *has_begun = true;
            }
        }
    }

    /// Answers those who wait for one of `what`.
    pub fn conclude(&mut self, what: impl Fn(Awaited) -> bool, outcome: &Result<Value, String>) {
        let waits =
            |client: &Client| client.waits.as_ref().is_some_and(|(_, awaited)| what(*awaited));
        let waiting: Vec<ClientId> =
            self.clients.iter().filter(|client| waits(client)).map(|client| client.id).collect();
        for id in waiting {
            let client = self.clients.iter_mut().find(|client| client.id == id);
            if let Some((request, _)) = client.and_then(|client| client.waits.take()) {
                self.reply(id, request, outcome.clone());
            }
        }
    }
}

impl Client {
    /// Whether it may be sent away for the sake of another.
    fn is_dispensable(&self, now: Instant) -> bool {
        self.waits.is_none() && self.active + IDLE_WHEN_FULL_MAX <= now
    }

    fn send(&mut self, reply: &Reply) {
        let mut framed = frame::write(reply);
        if REPLY_BYTES_MAX < framed.len() {
            framed = frame::write(&Reply::error(reply.id.clone(), "the answer is too long"));
        }
        self.unsent.extend(framed);
    }

    fn write(&mut self, now: Instant) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) if 0 < length => {
                    self.unsent.drain(..length);
                    self.active = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Ok(_) | Err(_) => {
                    self.unsent.clear();
                    self.is_over = true;
                }
            }
        }
    }

    /// Reads up to one request's worth. Nothing while it has yet to take its answer.
    fn read(&mut self, now: Instant) {
        let mut buffer = [0; 4096];
        while self.unsent.is_empty() && self.unread.len() <= REQUEST_BYTES_MAX && !self.is_over {
            match self.stream.read(&mut buffer) {
                Ok(length) if 0 < length => {
                    self.unread.extend_from_slice(&buffer[..length]);
                    self.active = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                // What it has asked before it closed its side is still done and answered.
                Ok(_) | Err(_) => return self.hang_up(),
            }
        }
        // While it waits nothing is taken from here, so more would have no place to go.
        self.is_over |= self.waits.is_some() && REQUEST_BYTES_MAX < self.unread.len();
    }

    fn hang_up(&mut self) {
        self.is_over = self.waits.is_some() || !frame::is_complete(&self.unread, REQUEST_BYTES_MAX);
    }

    fn next_request(&mut self) -> Option<Result<Request, String>> {
        match frame::take(&mut self.unread, REQUEST_BYTES_MAX) {
            Ok(None) => None,
            Ok(Some(json)) => Some(serde_json::from_slice(&json).map_err(|error| {
                self.is_over = true;
                format!("not a request: {error}")
            })),
            Err(too_long) => {
                self.is_over = true;
                Some(Err(too_long.to_string()))
            }
        }
    }
}
