//! From `main` to the loop and back: what a worker does once.
//!
//! - The application is built after exec, when settings, log and database handle are there.
//! - READY=1 is said when the application is built, the first attempt at the database is concluded and every
//!   listener is waited on: from then on the master may send an older worker away.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Poll;
use scoreboard::State;
use shared::exit;
use shared::settings::Settings;
use sys::signal::Caught;

use crate::access::AccessLog;
use crate::app::App;
use crate::clock::Clock;
use crate::context::{Boot, Context, Kernel, Sleeps};
use crate::contract::Inheritance;
use crate::core::Core;
use crate::error::Chain;
use crate::event_loop::{ALARM, EventLoop, FIRST_DATABASE, Turn};
use crate::executor::ReadyQueue;
use crate::host::Host;
use crate::log::Log;
use crate::notices::Notices;
use crate::service::Service;

/// Why an application could not be built; any error becomes one by `?`.
pub type BootError = Box<dyn std::error::Error>;

/// What the log says of a worker that the system did not let boot.
const BOOT_FAILED: &str = "Worker failed to boot";

/// Longest wait for the first attempt at the database before the worker says that it is ready.
const DATABASE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Runs an application as a worker, until its master (or a signal) ends it. What `main` returns.
///
/// `build` is called once, after settings, log and database handle are there. An error from it ends the worker with
/// exit code 4, "application not loadable", which tells a master not to try again and again.
///
/// Without a master the program binds by itself, by the settings' variables: `$MONOCEROS_BIND`, else `0.0.0.0:$PORT`,
/// else `127.0.0.1:8000`.
pub fn run<S: 'static>(build: impl FnOnce(&Boot) -> Result<App<S>, BootError>) -> ExitCode {
    let code = run_engine(false, |boot| {
        let kernel = &boot.kernel;
        let service = build(boot)
            .and_then(|app| app.into_service(|state| Context::new(state, Rc::clone(kernel))))
            .map_err(|error| (exit::APP_LOAD, error))?;
        Ok(Engine { service, host: None })
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// What answers requests.
pub(crate) struct Engine {
    pub(crate) service: Box<dyn Service>,
    /// If there is one, the service is asked nothing.
    pub(crate) host: Option<Box<dyn Host>>,
}

/// Runs what `build` makes; its errors come with the exit code. Returns the exit code.
///
/// `has_host`: it makes a host, whose program connects to its database by itself.
pub(crate) fn run_engine(
    has_host: bool,
    build: impl FnOnce(&Boot) -> Result<Engine, (i32, BootError)>,
) -> i32 {
    match Inheritance::take() {
        Ok(mut inheritance) => {
            if has_host {
                inheritance.settings.database = None;
            }
            serve(inheritance, build)
        }
        Err(error) => {
            Log::to_stderr().error(format_args!("{}", Chain(&error)));
            exit::WORKER_BOOT
        }
    }
}

/// Says why there will be no worker, in the log and to the master; returns the exit code.
pub(crate) fn fail(log: &Log, notices: &mut Notices, code: i32, what: &str, why: &str) -> i32 {
    log.error(format_args!("{what}: {why}"));
    notices.say_at_the_end(&format!("ERRNO={code}\nSTATUS={what}: {}", why.replace('\n', " ")));
    code
}

/// What is said of an application that could not be built.
pub(crate) fn what_failed(code: i32) -> &'static str {
    match code {
        exit::APP_LOAD => "Application cannot be loaded",
        _ => "Exception in worker process",
    }
}

/// Serves with what was taken over, until the end; returns the exit code.
pub(crate) fn serve(
    inheritance: Inheritance,
    build: impl FnOnce(&Boot) -> Result<Engine, (i32, BootError)>,
) -> i32 {
    let Inheritance { slot, generation, is_first, settings, .. } = inheritance;
    let Inheritance { listeners, block, lifeline, notifier, own, .. } = inheritance;
    let pid = std::process::id();
    crate::panics::install_hook();
    block.start(pid);
    let log = Log::open(&settings).counted_in(block);
    let booting = format_args!("Booting worker with pid: {pid}");
    // A master says so too, and more with it.
    if own.is_some() {
        log.info(booting)
    } else {
        log.debug(booting)
    }
    // Each connection is a descriptor; what the system denies shows when there is none left.
    let _ = sys::limits::raise_open_files();
    let name = settings.proc_name.as_deref().unwrap_or("monoceros");
    sys::title::set(&format!("monoceros: worker [{name}]"));
    let mut notices = Notices::new(notifier);
    let parts = match Parts::make(settings, log, block) {
        Ok(parts) => parts,
        Err((log, error)) => {
            let why = error.to_string();
            return fail(&log, &mut notices, exit::WORKER_BOOT, BOOT_FAILED, &why);
        }
    };
    let kernel = Rc::clone(&parts.kernel);
    let addresses = listeners.iter().map(|(listener, _)| listener.local_addr().clone()).collect();
    let boot = Boot { kernel: Rc::clone(&kernel), slot, generation, is_first, addresses };
    let Engine { service, host } = match build(&boot) {
        Ok(engine) => engine,
        Err((code, error)) => {
            let why = Chain(&*error).to_string();
            return fail(&kernel.log, &mut notices, code, what_failed(code), &why);
        }
    };
    let access = AccessLog::open(&kernel.settings, slot, generation, &kernel.log);
    let mut core = Core::new(service, Rc::clone(&kernel), block, parts.queue, access);
    if let Some(host) = host {
        core.set_host(host);
    }
    let event_loop = EventLoop::new(parts.poll, core, listeners, parts.signals, lifeline);
    let booted = event_loop.and_then(|mut event_loop| {
        let turn = until_ready(&mut event_loop)?;
        Ok((event_loop, turn))
    });
    let code = match booted {
        Ok((mut event_loop, Turn::GoOn)) => {
            block.set_state(State::Ready);
            if let Some(group) = &own {
                kernel.log.info(format_args!("Listening at: {} ({pid})", group.addr()));
            }
            notices.say("READY=1", Instant::now());
            go_on(&mut event_loop, &mut notices)
        }
        Ok((_, Turn::Over)) => exit::OK,
        Err(error) => {
            let why = error.to_string();
            fail(&kernel.log, &mut notices, exit::WORKER_BOOT, BOOT_FAILED, &why)
        }
    };
    kernel.database.close();
    if let Some(group) = own {
        // Nobody else holds it; a path that cannot be removed is found to be stale by the next one who binds it.
        let _ = group.close_and_unlink();
    }
    kernel.log.info(format_args!("Worker exiting (pid: {pid})"));
    kernel.log.finish();
    code
}

/// What there is before the application.
struct Parts {
    poll: Poll,
    queue: std::sync::Arc<ReadyQueue>,
    signals: Caught,
    kernel: Rc<Kernel>,
}

impl Parts {
    fn make(
        settings: Settings,
        log: Log,
        block: scoreboard::Block<'static>,
    ) -> Result<Parts, (Log, BootError)> {
        let clock = Clock::new();
        let made = (|| {
            let signals = Caught::install()?;
            // A test runs several workers in one process, which then share the report.
            let _ = block.report_on_abort();
            let poll = Poll::new()?;
            let queue = ReadyQueue::new(mio::Waker::new(poll.registry(), ALARM)?);
            let registry = poll.registry().try_clone()?;
            let database =
                crate::database::open(&settings, &log, registry, FIRST_DATABASE, clock.now())?;
            Ok((signals, poll, queue, database))
        })();
        let (signals, poll, queue, database) = match made {
            Ok(made) => made,
            Err(error) => return Err((log, error)),
        };
        let kernel = Rc::new(Kernel {
            settings,
            log,
            clock,
            database,
            is_draining: Cell::new(false),
            spawned: RefCell::new(Vec::new()),
            sleeps: RefCell::new(Sleeps::default()),
            interim: RefCell::new(Vec::new()),
        });
        Ok(Parts { poll, queue, signals, kernel })
    }
}

/// Turns until the first attempt at the database is concluded, then until every listener is waited on.
fn until_ready(event_loop: &mut EventLoop) -> std::io::Result<Turn> {
    let database_until = Instant::now() + DATABASE_WAIT_MAX;
    let is_settled = |event_loop: &mut EventLoop| event_loop.core().kernel.database.is_settled();
    while !is_settled(event_loop) && Instant::now() < database_until {
        if event_loop.turn(None)? == Turn::Over {
            return Ok(Turn::Over);
        }
    }
    event_loop.open();
    while !event_loop.is_open() {
        if event_loop.turn(None)? == Turn::Over {
            return Ok(Turn::Over);
        }
    }
    Ok(Turn::GoOn)
}

fn go_on(event_loop: &mut EventLoop, notices: &mut Notices) -> i32 {
    let code = loop {
        // Nothing, once READY was taken.
        let wait = notices.wait(event_loop.core().now());
        match event_loop.turn(wait) {
            Ok(Turn::GoOn) if wait.is_some() => notices.retry(event_loop.core().now()),
            Ok(Turn::GoOn) => (),
            Ok(Turn::Over) => break exit::OK,
            Err(error) => {
                event_loop.core().kernel.log.error(format_args!("The event loop failed: {error}"));
                break exit::RUNTIME;
            }
        }
    };
    let core = event_loop.core();
    if let Some(access) = &mut core.access {
        access.finish(&core.kernel.log);
    }
    code
}
