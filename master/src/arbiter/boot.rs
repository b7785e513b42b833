//! From settings to the first loop: pidfile, listeners, signals; and the announcement when the first boot is over.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use net::inherit::Inherited;
use net::notify::Receiver;
use net::{BindAddr, BindOptions};
use scoreboard::Scoreboard;
use shared::settings::Place;
use sys::signal::SignalFd;
use sys::spawn::PASSED_FDS_MAX;

use super::admin::Admin;
use super::follow::{Predecessor, passed_for, understudys};
use super::hear::SIGNALS;
use super::manager::Manager;
use super::preload::Preloaders;
use super::reload::ReloadBook;
use super::upgrade::Upgrade;
use super::watch::Watched;
use super::{Arbiter, PROCESSES_MAX, limits};
use crate::clock::Clock;
use crate::config::{Invocation, Loaded};
use crate::control::Control;
use crate::fleet::{Fleet, Stage, State};
use crate::generation::{Generation, Listening, OpenError};
use crate::hooks::{Hook, Hooks};
use crate::journal::Journal;
use crate::lookup::Addresses;
use crate::oom::OomKills;
use crate::pidfile::{PidFile, PidFileError};
use crate::process::Environment;
use crate::store;
use crate::upgrade::{Handover, Heritage, Purpose};

/// Descriptors kept free for what is passed besides the workers' listeners: the contract's own, and in an upgrade the
/// listeners of `admin` and the control socket.
const PASSED_BESIDES: usize = 64;

/// Time for hooks to be gone after they were killed.
pub(super) const HOOKS_END_MAX: Duration = Duration::from_secs(1);

/// What is known before anything is opened.
#[derive(Debug)]
pub struct Known {
    /// The settings.
    pub loaded: Loaded,
    /// Addresses of the names in them.
    pub found: Addresses,
}

/// Why the master cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The pidfile.
    PidFile(PidFileError),
    /// An address, or the embedded database's place.
    Open(OpenError),
    /// The system refuses something that every program needs.
    System(&'static str, io::Error),
}

impl Arbiter {
    /// Takes the pidfile, opens the listeners, and is ready to [`Arbiter::run`].
    ///
    /// # Errors
    ///
    /// What is in the way. Nothing is left behind.
    pub fn start(
        invocation: Invocation,
        Known { loaded, found: addresses }: Known,
        inherited: Vec<Inherited>,
        handover: Option<Handover>,
        journal: Journal,
    ) -> Result<Arbiter, StartError> {
        let system = |what| move |error| StartError::System(what, error);
        let settings = loaded.settings().clone();
        let environment = Environment::of_this_process();
        // Signals first: the pidfile invites them.
        let signals = SignalFd::new(&SIGNALS).map_err(system("cannot take signals"))?;
        // A failure leaves the limit as it is, which is enough for most.
        let _ = sys::limits::raise_open_files();
        let (heritage, passed, predecessor) = match handover {
            Some(Handover { link, passed, heritage }) => {
                let predecessor = Predecessor::new(link, passed.clone());
                (heritage, passed, Some(predecessor))
            }
            None => (Heritage::default(), Vec::new(), None),
        };
        let pidfile = match &settings.pidfile {
            Some(path) => {
                let path = understudys(path, heritage.pidfile.as_deref());
                Some(PidFile::acquire(&path, std::process::id()).map_err(StartError::PidFile)?)
            }
            None => None,
        };
        journal.info(&format!("Starting monoceros {}", env!("CARGO_PKG_VERSION")));
        for note in &loaded.notes {
            journal.info(note);
        }
        for warning in &loaded.warnings {
            journal.warning(warning);
        }
        if let Some(who) = &loaded.credentials {
            journal.give_to(who.uid, who.gid);
        }
        let mut hooks = Hooks::new(journal.clone(), environment.clone());
        hooks.call(&settings, Hook::OnStarting, &[]);
        hooks.run_to_end(settings.hook_timeout + HOOKS_END_MAX);
        let found = store::sort(inherited);
        for (name, fds) in [("bind", &found.http), ("admin_bind", &found.admin)] {
            let is_given =
                loaded.resolved.value(name).is_some_and(|value| value.place != Place::Default);
            if !fds.is_empty() && is_given {
                journal
                    .warning(&format!("{name} is not used: listeners were inherited (LISTEN_FDS)"));
            }
        }
        let stored = (found.stored, found.stored_for_admin);
        let (given, mut given_to_admin) = match &predecessor {
            Some(_) => (passed_for(&passed, Purpose::Http), passed_for(&passed, Purpose::Admin)),
            None => stored,
        };
        let opened = Listening::adopt(found.admin)
            .map_err(OpenError::Inherit)
            .and_then(|inherited| {
                given_to_admin.extend(inherited);
                open(&loaded, found.http, &given, &addresses)
            })
            .and_then(|listening| Generation::new(0, loaded, listening))
            .and_then(|generation| match Arbiter::fits(&generation) {
                Ok(()) => Ok(generation),
                Err(why) => Err(OpenError::Inherit(io::Error::other(why))),
            });
        let generation = match opened {
            Ok(generation) => generation,
            Err(error) => {
                if let Some(pidfile) = pidfile {
                    pidfile.release();
                }
                return Err(StartError::Open(error));
            }
        };
        let receiver = Receiver::open().map_err(system("cannot open the notify socket"))?;
        let scoreboard =
            Scoreboard::create(PROCESSES_MAX).map_err(system("cannot make the scoreboard"))?;
        let mut manager = Manager::from_env(&journal);
        manager.has_kept(found.names.into_iter().chain(heritage.stored).collect());
        if predecessor.is_some() {
            manager.fall_silent();
        }

        let now = Instant::now();
        let mut arbiter = Arbiter {
            invocation,
            environment,
            journal,
            signals,
            receiver,
            manager,
            scoreboard,
            clock: Clock::new(),
            fleet: Fleet::new(
                Arbiter::workers_after(settings.workers, heritage.workers),
                limits(&settings),
                now,
            ),
            processes: BTreeMap::new(),
            last_id: 0,
            found: addresses,
            preloaders: Preloaders::default(),
            watched: Watched::default(),
            generations: BTreeMap::new(),
            last_generation: 0,
            companion: None,
            admin: Admin::new(given_to_admin, now),
            queues_at: now,
            hooks,
            reload: ReloadBook::default(),
            stop: None,
            pidfile,
            upgrade: Upgrade::following(predecessor),
            control: Control::default(),
            last_reload: "none yet".to_owned(),
            is_announced: false,
            next_look_for_wear: now,
            oom_kills: OomKills::find(),
            boot_code: None,
        };
        arbiter.introduce();
        arbiter.set_title(&generation);
        arbiter.report_listening(&generation);
        arbiter.want_admin(generation.settings(), generation.loaded.credentials.as_ref());
        arbiter.open_control(&settings, &passed_for(&passed, Purpose::Control));
        let wants_companion = generation.wants_embedded();
        arbiter.generations.insert(0, generation);
        arbiter.hook(Hook::WhenReady, &[]);
        if wants_companion {
            arbiter.want_companion();
        } else {
            arbiter.fleet.stage = Stage::Running;
        }
        Ok(arbiter)
    }

    pub(super) fn set_title(&self, generation: &Generation) {
        let name =
            generation.settings().proc_name.clone().unwrap_or_else(|| generation.app().name());
        // gunicorn's mark of a master that is to follow another one.
        let mark = if self.upgrade.is_understudy() { ".2" } else { "" };
        sys::title::set(&format!("monoceros: master{mark} [{name}]"));
    }

    pub(super) fn report_listening(&self, generation: &Generation) {
        let (addresses, pid) = (generation.addresses(), std::process::id());
        self.journal.info(&format!("Listening at: {addresses} ({pid})"));
        self.journal.info(&format!("Using worker: {}", generation.app().program.display()));
        let wanted = generation.settings().backlog;
        for listening in &generation.listening {
            // Unix sockets do not tell, but the same limit holds for them.
            let granted = listening.group.backlog_granted().or_else(somaxconn);
            let granted = granted.map_or(wanted, |granted| granted as usize);
            if granted < wanted && !listening.is_inherited() {
                self.journal.warning(&format!(
                    "The kernel caps the backlog address={} backlog={wanted} granted={granted} see=net.core.somaxconn",
                    listening.group.addr()
                ));
            }
        }
    }

    /// Announces the end of the first boot: every slot is served, or has failed while others serve.
    pub(super) fn announce_boot(&mut self) {
        let concluded = |state: &State, failures: u32| state.is_served() || 0 < failures;
        let is_over = self.fleet.slots.iter().all(|slot| concluded(&slot.state, slot.failures));
        if self.is_announced || !is_over || self.fleet.serving() == 0 || self.stop.is_some() {
            return;
        }
        self.is_announced = true;
        let (serving, wanted) = (self.fleet.serving(), self.fleet.target);
        self.journal.info(&format!("Ready workers={serving} wanted={wanted}"));
        let status = self.status();
        self.manager.tell(&format!("READY=1\nSTATUS={status}"));
        self.hook(Hook::OnAllReady, &[("WORKERS", serving.to_string())]);
    }

    /// One line on the state of the server, for the service manager.
    pub(super) fn status(&self) -> String {
        let (serving, wanted) = (self.fleet.serving(), self.fleet.target);
        format!("{serving} of {wanted} workers ready, generation {}", self.fleet.generation)
    }

    pub(super) fn report_status(&mut self) {
        if self.is_announced {
            let status = self.status();
            self.manager.tell(&format!("STATUS={status}"));
        }
    }
}

/// The kernel's limit for backlogs.
fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// Opens the listeners of the first generation: inherited ones, or else those of the settings, as far as they were not
/// `passed` by an old master or kept by the service manager.
fn open(
    loaded: &Loaded,
    inherited: Vec<OwnedFd>,
    passed: &[Rc<Listening>],
    found: &Addresses,
) -> Result<Vec<Rc<Listening>>, OpenError> {
    if passed.iter().any(|listening| listening.address().is_none()) {
        // The old master inherited them itself, so they are what there is.
        return Ok(passed.to_vec());
    }
    if !inherited.is_empty() {
        return Listening::adopt(inherited).map_err(OpenError::Inherit);
    }
    let shards = shards(loaded, passed);
    Ok(Listening::open(&loaded.addresses, passed, shards, &bind_options(loaded), found)?)
}

/// Sockets per TCP address that is not `known` yet: one per worker, or one for programs that expect a single listener.
///
/// Fewer when there are many addresses: a process is passed at most [`PASSED_FDS_MAX`] descriptors, all of them at once.
pub(super) fn shards(loaded: &Loaded, known: &[Rc<Listening>]) -> usize {
    if loaded.app.is_foreign || loaded.app.is_python {
        return 1;
    }
    let (mut room, mut fresh) = (PASSED_FDS_MAX - PASSED_BESIDES, 0);
    for address in &loaded.addresses {
        let known = known.iter().find(|known| known.address() == Some(address));
        let taken = match (known, address) {
            (Some(known), _) => known.group.shards().len(),
            (None, BindAddr::Tcp { .. }) => {
                fresh += 1;
                0
            }
            (None, _) => 1,
        };
        room = room.saturating_sub(taken);
    }
    // Each has a lock in the case of a unix socket, which an upgrade passes too.
    let locks = loaded.addresses.len();
    let share = room.saturating_sub(locks).checked_div(fresh).unwrap_or(usize::MAX);
    loaded.settings().workers.min(share).max(1)
}

pub(super) fn bind_options(loaded: &Loaded) -> BindOptions {
    let settings = loaded.settings();
    BindOptions {
        backlog: u32::try_from(settings.backlog).unwrap_or(u32::MAX),
        reuse_port: settings.reuse_port,
        umask: settings.umask,
        owner: loaded.credentials.as_ref().map(|who| (who.uid, who.gid)),
    }
}

impl StartError {
    /// The error in one line, and who is in the way as far as that can be seen.
    #[must_use]
    pub fn explained(&self) -> String {
        match self {
            StartError::Open(error) => error.explained(),
            error => super::chain(error),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            StartError::PidFile(_) | StartError::System(..) => shared::exit::RUNTIME,
            StartError::Open(error) => error.exit_code(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::PidFile(error) => error.fmt(f),
            StartError::Open(error) => error.fmt(f),
            StartError::System(what, _) => f.write_str(what),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::PidFile(error) => error.source(),
            StartError::Open(error) => error.source(),
            StartError::System(_, error) => Some(error),
        }
    }
}
