//! A host's application loaded once, for many workers: the preloader.
//!
//! - It is started by the master like a worker, but with a socket for wishes and without a slot. It loads the application,
//!   says READY, and makes a copy of itself for each wish. The copy is an ordinary worker from then on.
//! - It serves nobody: it holds the listeners for its copies, as the master does.
//! - How a process is copied is the host's business, for its language has to know of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use net::Listener;
use nix::errno::Errno;
use scoreboard::Scoreboard;
use shared::contract;
use shared::exit;
use shared::preload::{Answer, MESSAGE_BYTES_MAX, Wish};
use shared::settings::Settings;
use sys::Pid;
use sys::sibling::Sibling;

use super::{Host, HostBoot};
use crate::context::Boot;
use crate::contract::{self as given, ContractError, Inheritance, Lifeline};
use crate::error::Chain;
use crate::log::Log;
use crate::notices::Notices;
use crate::run::{fail, serve, what_failed};

/// The process that loads an application once, and what it was given.
pub struct Preloader {
    channel: OwnedFd,
    listeners: Vec<Listener>,
    settings: Settings,
    scoreboard: Option<Scoreboard>,
    generation: u64,
    /// What the master is told. Its interpreter is let go of during the wait, so it has to be safe for threads.
    notices: Mutex<Notices>,
    log: Log,
    /// The master, whose children the copies are to be.
    parent: Pid,
    /// The wish that was taken last, with the worker's end of its lifeline.
    wish: Option<(Wish, OwnedFd)>,
    /// Open for as long as this process lives; orders are for workers.
    _lifeline: Option<OwnedFd>,
}

/// What a preloader has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A worker is wanted: copy this process, then [`Preloader::answer`] or [`Preloader::work`].
    Worker,
    /// Nothing yet: [`Preloader::wait`].
    Wait,
    /// The master wants no more: end.
    End,
}

impl Preloader {
    /// What the environment makes of this process: a preloader, or `None`, a worker like any other.
    ///
    /// # Errors
    ///
    /// The exit code, when what was promised is not there; the reason is in the log.
    pub fn take() -> Result<Option<Preloader>, i32> {
        Preloader::from_environment().map_err(|error| {
            Log::to_stderr().error(format_args!("{}", Chain(&error)));
            exit::WORKER_BOOT
        })
    }

    fn from_environment() -> Result<Option<Preloader>, ContractError> {
        let Some(channel) = given::inherited_fd(contract::PRELOADER)? else { return Ok(None) };
        let settings = given::sealed_settings()?.unwrap_or_default();
        let listeners = given::listeners()?;
        let scoreboard = given::scoreboard()?;
        let lifeline = given::inherited_fd(contract::LIFELINE)?;
        let notifier = given::notifier()?;
        let generation = given::number(contract::GENERATION)?.unwrap_or(0);
        let name = settings.proc_name.as_deref().unwrap_or("monoceros");
        sys::title::set(&format!("monoceros: preloader [{name}]"));
        sys::signal::be_deaf().map_err(given::cannot("the signals"))?;
        Ok(Some(Preloader {
            log: Log::open(&settings),
            parent: nix::unistd::getppid(),
            wish: None,
            _lifeline: lifeline,
            channel,
            listeners,
            settings,
            scoreboard,
            generation,
            notices: Mutex::new(Notices::new(notifier)),
        }))
    }

    /// The settings that its workers will have.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The error log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The process that its copies are to be children of.
    #[must_use]
    pub fn parent(&self) -> Pid {
        self.parent
    }

    /// Says that there is no application; returns the exit code.
    pub fn fail(&self, why: HostBoot) -> i32 {
        let (code, error) = why.into_parts();
        let why = Chain(&*error).to_string();
        fail(&self.log, &mut self.notices(), code, what_failed(code), &why);
        self.log.finish();
        code
    }

    fn notices(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the application is loaded.
    pub fn say_ready(&self) {
        // What it was loaded with may have changed them.
        let _ = sys::signal::be_deaf();
        self.notices().say("READY=1", Instant::now());
    }

    /// Waits until there is something to do.
    pub fn wait(&self) {
        let wait = {
            let (mut notices, now) = (self.notices(), Instant::now());
            notices.retry(now);
            notices.wait(now)
        };
        // A failure is a lack of memory: the next turn tries again.
        let _ = sys::fd::wait_readable(&self.channel, wait);
    }

    /// What is to be done now.
    pub fn turn(&mut self) -> Next {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        match sys::message::receive(&self.channel, &mut buffer) {
            Ok(None) => Next::Wait,
            Ok(Some(received)) if 0 < received.length => {
                let text = String::from_utf8_lossy(&buffer[..received.length]);
                let lifeline = received.fds.into_iter().next();
                // What is not understood is of a newer master, which will miss the answer.
                match Wish::parse(&text).zip(lifeline) {
                    Some(wish) => {
                        self.wish = Some(wish);
                        Next::Worker
                    }
                    None => Next::Wait,
                }
            }
            Ok(Some(_)) | Err(_) => Next::End,
        }
    }

    /// In the original: tells the master of the copy, or why there is none, and lets the copy go.
    pub fn answer(&mut self, made: io::Result<Sibling>) {
        let Some((wish, _)) = self.wish.take() else { return };
        let errno = |error: &io::Error| error.raw_os_error().unwrap_or(Errno::EAGAIN as i32);
        let outcome = made.as_ref().map(|copy| copy.pid.as_raw()).map_err(errno);
        let text = Answer { number: wish.number, outcome }.text();
        let pidfd = made.as_ref().ok().map(|copy| copy.pidfd.as_fd());
        let pidfds = pidfd.as_slice();
        match (sys::message::send(&self.channel, None, text.as_bytes(), pidfds), made) {
            // In this order: what the copy says must find a master that knows it.
            (Ok(()), Ok(copy)) => copy.let_go(),
            // Dropped, it ends; the master is gone.
            (Err(_), _) | (_, Err(_)) => (),
        }
    }

    /// In the copy: serves as the worker that was wanted, until its end; returns the exit code.
    pub fn work(self, build: impl FnOnce(&Boot) -> Result<Box<dyn Host>, HostBoot>) -> i32 {
        let log = self.log.clone();
        match self.into_inheritance() {
            Ok(inheritance) => serve(inheritance, |boot| super::run::engine(boot, build)),
            Err(error) => {
                log.error(format_args!("{}", Chain(&error)));
                exit::WORKER_BOOT
            }
        }
    }

    fn into_inheritance(self) -> Result<Inheritance, ContractError> {
        let (wish, lifeline) =
            self.wish.ok_or_else(|| given::cannot(contract::PRELOADER)("nobody asked"))?;
        Ok(Inheritance {
            slot: wish.slot,
            generation: self.generation,
            settings: self.settings,
            listeners: given::mark_own(self.listeners, wish.slot),
            block: given::block(self.scoreboard, wish.block)?,
            lifeline: Some(Lifeline::new(lifeline).map_err(given::cannot(contract::LIFELINE))?),
            notifier: self
                .notices
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .into_notifier(),
            own: None,
        })
    }
}
