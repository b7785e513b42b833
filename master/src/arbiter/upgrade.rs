//! USR2: another master program takes over, and nobody notices.
//!
//! 1. The program now at our path is started with our listeners. It boots its workers and says READY; until then it is
//!    alone in what it does: it takes no pidfile and tells the service manager nothing.
//! 2. We let go of the pidfile, tell the service manager, and say GO. Our workers drain, and we leave.
//! 3. It fails, or takes too long: it is told to STOP, and nothing has changed. A TERM meanwhile waits for the verdict.
//!
//! If we die before GO, it takes over by itself. If it dies before READY, its end of the link says so.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Arbiter;
use crate::fleet::{Reload, Stage};
use crate::handover;
use crate::hooks::Hook;
use crate::pidfile::PidFile;

/// Time for the new master beyond `boot_timeout`: it reads settings and starts up itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for an old master that dies to let go of the pidfile.
const PIDFILE_PATIENCE: Duration = Duration::from_secs(5);

/// Time between two tries for it.
pub(super) const PIDFILE_RETRY: Duration = Duration::from_millis(20);

/// Longest message on the link.
const MESSAGE_BYTES_MAX: usize = 64;

/// What one master tells the other. Each says one thing only, so a message is all that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// New to old: all slots are served; with the process id.
    Ready(i32),
    /// Old to new: everything is yours.
    Go,
    /// Old to new: you are not wanted.
    Stop,
    /// The other one is gone, or talks nonsense.
    Gone,
}

impl Word {
    fn text(self) -> String {
        match self {
            Word::Ready(pid) => format!("ready {pid}"),
            Word::Go => "go".to_owned(),
            Word::Stop => "stop".to_owned(),
            Word::Gone => String::new(),
        }
    }

    fn parse(text: &[u8]) -> Word {
        match std::str::from_utf8(text).map(|text| text.split_once(' ').unwrap_or((text, ""))) {
            Ok(("ready", pid)) => pid.parse().map_or(Word::Gone, Word::Ready),
            Ok(("go", _)) => Word::Go,
            Ok(("stop", _)) => Word::Stop,
            _ => Word::Gone,
        }
    }
}

/// The other master of an upgrade.
#[derive(Debug)]
pub(super) struct Peer {
    link: UnixStream,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is to follow us; by this time it is given up.
    Successor { deadline: Instant, is_stop_asked: bool },
    /// We are to follow it; whether we said READY.
    Predecessor { is_told: bool },
}

impl Peer {
    /// The one that started us.
    pub(super) fn predecessor(link: UnixStream) -> Peer {
        Peer { link, role: Role::Predecessor { is_told: false } }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.role {
            Role::Successor { deadline, .. } => Some(deadline),
            Role::Predecessor { .. } => None,
        }
    }

    fn say(&self, word: Word) {
        // That it is gone is seen by reading.
        let _ = (&self.link).write(word.text().as_bytes());
    }

    /// What it said; `None`: nothing yet.
    fn heard(&self) -> Option<Word> {
        let mut message = [0; MESSAGE_BYTES_MAX];
        match (&self.link).read(&mut message) {
            Ok(length) => Some(Word::parse(&message[..length])),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                None
            }
            Err(_) => Some(Word::Gone),
        }
    }
}

impl Arbiter {
    /// USR2.
    pub(super) fn ask_upgrade(&mut self) {
        let obstacle = match &self.peer {
            Some(Peer { role: Role::Successor { .. }, .. }) => "USR2 signal ignored. Child exists.",
            Some(_) => "USR2 signal ignored. Parent exists.",
            None if self.stop.is_some() => "USR2 ignored: the server is stopping",
            None if !self.is_announced => "USR2 ignored: the first boot is not over",
            None if self.fleet.reload != Reload::Idle => "USR2 ignored: a reload is under way",
            None if self.companion.is_some() => {
                "USR2 ignored: the embedded database belongs to this master"
            }
            None if std::process::id() == 1 => {
                "USR2 ignored: the container would end with process 1"
            }
            None => return self.begin_upgrade(),
        };
        self.journal.warning(obstacle);
    }

    fn begin_upgrade(&mut self) {
        let now = self.now();
        self.hook(Hook::PreExec, &[]);
        let Some(generation) = self.generation() else { return };
        match handover::launch(&self.invocation, &generation.listening, self.admin.listening()) {
            Ok(link) => {
                let boot = self.fleet.limits.boot_timeout.unwrap_or(Duration::from_secs(3600));
                let role =
                    Role::Successor { deadline: now + boot + PATIENCE, is_stop_asked: false };
                self.peer = Some(Peer { link, role });
                self.journal.info("Upgrading: another master boots");
            }
            Err(error) => {
                self.journal.error(&format!(
                    "Upgrade failed, still serving reason=cannot start it error={error:?}"
                ));
            }
        }
    }

    /// A graceful stop that has to wait for an upgrade's verdict; whether it does.
    pub(super) fn stop_waits_for_upgrade(&mut self) -> bool {
        match &mut self.peer {
            Some(Peer { role: Role::Successor { is_stop_asked, .. }, .. }) => {
                *is_stop_asked = true;
                self.journal.info("The stop waits for the upgrade");
                true
            }
            _ => false,
        }
    }

    /// A quick stop waits for nothing: whoever was to follow us goes too.
    pub(super) fn abandon_upgrade(&mut self) {
        if let Some(Peer { role: Role::Successor { .. }, .. }) = &self.peer
            && let Some(peer) = self.peer.take()
        {
            peer.say(Word::Stop);
        }
    }

    /// Gives a new master up that takes too long; tries again for what an old one still holds.
    pub(super) fn tend_upgrade(&mut self) {
        self.take_pidfile();
        let now = self.now();
        if self.peer.as_ref().and_then(Peer::next_deadline).is_some_and(|deadline| deadline <= now)
        {
            self.upgrade_failed("it was not ready in time");
        }
    }

    /// Something came on the link.
    pub(super) fn hear_peer(&mut self) {
        let Some(peer) = &self.peer else { return };
        let Some(word) = peer.heard() else { return };
        match (peer.role, word) {
            (Role::Successor { .. }, Word::Ready(pid)) => self.hand_over(pid),
            (Role::Successor { .. }, _) => self.upgrade_failed("the new master ended"),
            (Role::Predecessor { .. }, Word::Stop) => {
                self.journal.error("The old master does not want to be followed");
                self.peer = None;
                self.ask_graceful_stop();
            }
            // It let go, or it died: either way it is our turn.
            (Role::Predecessor { .. }, _) => self.take_over(),
        }
    }

    fn upgrade_failed(&mut self, why: &str) {
        let Some(peer) = self.peer.take() else { return };
        peer.say(Word::Stop);
        let generation = self.fleet.generation;
        self.journal
            .error(&format!("Upgrade failed, still serving generation={generation} reason={why}"));
        if matches!(peer.role, Role::Successor { is_stop_asked: true, .. }) {
            self.ask_graceful_stop();
        }
    }

    /// The new master is ready: everything is its own now.
    fn hand_over(&mut self, pid: i32) {
        let Some(peer) = self.peer.take() else { return };
        self.shares_listeners = true;
        if let Some(pidfile) = self.pidfile.take() {
            pidfile.release();
        }
        // Only the main process may name another one; from here on that one speaks.
        self.manager.tell(&format!("MAINPID={pid}\nREADY=1"));
        self.manager.fall_silent();
        peer.say(Word::Go);
        self.journal
            .info(&format!("Upgraded: the new master serves, this one leaves new_pid={pid}"));
        self.leave_admin_to_successor();
        self.ask_graceful_stop();
    }

    /// Whether an old master still speaks for the server.
    pub(super) fn is_taking_over(&self) -> bool {
        let role = self.peer.as_ref().map(|peer| peer.role);
        role == Some(Role::Predecessor { is_told: false })
    }

    /// Tells the old master that we are ready.
    pub(super) fn tell_predecessor(&mut self) {
        if let Some(peer) = &mut self.peer
            && peer.role == (Role::Predecessor { is_told: false })
        {
            peer.role = Role::Predecessor { is_told: true };
            peer.say(Word::Ready(std::process::id() as i32));
            // The old one's leaves now.
            self.tend_admin();
        }
    }

    /// Takes over the old master's pidfile, now or a little later.
    fn take_pidfile(&mut self) {
        let Some(by) = self.pidfile_by else { return };
        let now = self.now();
        let path = self.generation().and_then(|generation| generation.settings().pidfile.clone());
        let taken = path.map(|path| PidFile::acquire(&path, std::process::id())).transpose();
        match taken {
            Err(_) if now < by => return,
            Err(error) => self.journal.error(&super::chain(&error)),
            Ok(pidfile) => self.pidfile = pidfile,
        }
        self.pidfile_by = None;
    }

    /// The old master is out of the way.
    fn take_over(&mut self) {
        self.peer = None;
        self.shares_listeners = false;
        self.pidfile_by = Some(self.now() + PIDFILE_PATIENCE);
        self.take_pidfile();
        // gunicorn's words.
        self.journal.info("Master has been promoted.");
        self.manager.speak_up();
        if self.is_announced && self.fleet.stage == Stage::Running {
            let status = self.status();
            self.manager.tell(&format!("READY=1\nSTATUS={status}"));
        }
    }
}
