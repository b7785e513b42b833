//! The program `master`: reads the settings, then hands over to the arbiter.

#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use master::application_check;
use master::arbiter::{Arbiter, Known};
use master::companion::{self, EMBEDDED_COMMAND};
use master::config::{Invocation, LoadError, Loaded};
use master::ctl::{self, CTL_COMMAND};
use master::daemon;
use master::journal::Journal;
use master::log_check;
use master::lookup::{self, Addresses, LOOKUP_COMMAND};
use master::upgrade::{self, Handover};
use net::inherit::Inherited;
use shared::exit;

fn main() -> ExitCode {
    // Every code of ours is from 0 to 255.
    ExitCode::from(u8::try_from(run()).unwrap_or(1))
}

fn run() -> i32 {
    let mut args = env::args_os().skip(1);
    match args.next() {
        Some(first) if first == EMBEDDED_COMMAND => return companion::embedded_postgres(args),
        Some(first) if first == CTL_COMMAND => return ctl::run(args),
        Some(first) if first == LOOKUP_COMMAND => return lookup::run(args),
        _ => (),
    }
    // Before anything is opened: the numbers after 2 may be listeners that were passed to us.
    let inherited = match net::inherit::take() {
        Ok(inherited) => inherited,
        Err(error) => return fail(&error, exit::CANNOT_BIND),
    };
    let handover = match upgrade::take() {
        Ok(handover) => handover,
        Err(error) => return fail(&error, exit::CANNOT_BIND),
    };
    let invocation = Invocation::of_this_process();
    let loaded = match invocation.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            if let Some(handover) = &handover {
                handover.link.say_failed(&chain(&error));
            }
            return refuse(&error);
        }
    };
    if loaded.settings().print_config {
        return answer(&loaded.resolved.print());
    }
    if loaded.settings().check_config {
        for warning in &loaded.warnings {
            say(warning);
        }
        if let Err(why) = log_check::run(&loaded) {
            say(&format!("master: {why}"));
            return exit::CONFIG;
        }
        return application_check::run(loaded).unwrap_or_else(|why| {
            say(&format!("master: {why}"));
            exit::WORKER_BOOT
        });
    }
    let report = daemon::report();
    if loaded.settings().daemon && report.is_none() && handover.is_none() {
        return daemon::launch(&invocation).unwrap_or_else(|error| {
            say(&format!("master: cannot start in the background: {error}"));
            exit::RUNTIME
        });
    }
    start(invocation, loaded, inherited, handover, report)
}

fn start(
    invocation: Invocation,
    loaded: Loaded,
    inherited: Vec<Inherited>,
    handover: Option<Handover>,
    report: Option<UnixStream>,
) -> i32 {
    let subdued = handover.is_some();
    // For the last word when it does not come to more.
    let link = handover.as_ref().and_then(|handover| handover.link.try_clone().ok());
    let say_failed = |why: &str| {
        if let Some(link) = &link {
            link.say_failed(why);
        }
    };
    if let Err(error) = env::set_current_dir(&loaded.directory) {
        let why = format!("cannot enter {}: {error}", loaded.directory.display());
        say_failed(&why);
        say(&format!("master: {why}"));
        return exit::CONFIG;
    }
    let found = Addresses::of_start(loaded.settings());
    let journal = match Journal::open(loaded.settings(), &found) {
        Ok(journal) => journal,
        Err(error) => {
            let name = loaded.settings().errorlog.clone().unwrap_or_default();
            let why = format!("cannot open errorlog {name}: {error}");
            say_failed(&why);
            say(&format!("master: {why}"));
            return exit::CONFIG;
        }
    };
    if let Err(error) = journal.obituaries.open(loaded.settings(), &found) {
        let name = loaded.settings().accesslog.clone().unwrap_or_default();
        let why = format!("cannot open accesslog {name}: {error}");
        say_failed(&why);
        say(&format!("master: {why}"));
        return exit::CONFIG;
    }
    journal.subdue(subdued);
    let settings = loaded.settings().clone();
    let known = Known { loaded, found };
    match Arbiter::start(invocation, known, inherited, handover, journal.clone()) {
        Ok(arbiter) => {
            let keeps_output = settings.enable_stdio_inheritance;
            if let Some(Err(error)) = report.map(|report| daemon::begin(report, keeps_output)) {
                journal.warning(&format!("Cannot leave the terminal error={error:?}"));
            }
            journal.capture_streams(&settings);
            drop(link);
            arbiter.run()
        }
        Err(error) => {
            let why = error.explained();
            say_failed(&why);
            journal.error(&why);
            // Whoever gave the command looks here, and not yet into a file.
            if settings.errorlog.as_deref().is_some_and(|name| name != "-") {
                say(&format!("master: {why}"));
            }
            journal.flush();
            error.exit_code()
        }
    }
}

/// Says what is wrong with the settings.
fn refuse(error: &LoadError) -> i32 {
    let code = error.exit_code();
    match error {
        LoadError::Usage(_, error) if code == exit::OK => {
            return answer(&error.render().to_string());
        }
        LoadError::Usage(..) => say(error.to_string().trim_end()),
        LoadError::File { .. } => say(&format!("master: {}", chain(error))),
        LoadError::Python { source, .. } => {
            say(source.traceback.trim_end());
            say(&format!("master: {}", chain(error)));
        }
        LoadError::Settings(problems) => {
            say(&problems.to_string());
            let count = problems.0.len();
            say(&format!("master: nothing was started: {count} wrong settings, exit code {code}"));
        }
    }
    code
}

fn fail(error: &dyn Error, code: i32) -> i32 {
    say(&format!("master: {}", chain(error)));
    code
}

fn chain(error: &dyn Error) -> String {
    master::arbiter::chain(error)
}

fn answer(text: &str) -> i32 {
    // A reader that went away has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    exit::OK
}

fn say(text: &str) {
    // Nobody to hear it: the exit code says it too.
    let _ = writeln!(io::stderr(), "{text}");
}
