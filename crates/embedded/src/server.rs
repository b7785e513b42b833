//! The `postgres` process: its arguments, its readiness, and how it is stopped.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::error::Error;
use crate::layout::{Layout, PORT};
use crate::process::{Job, Process};
use crate::programs::Programs;
use crate::wait::{Wake, Watch};

/// Time PostgreSQL has to become ready, recovery after a crash included.
const START_MAX: Duration = Duration::from_secs(120);
/// How often its status file is looked at meanwhile.
const STATUS_EVERY: Duration = Duration::from_millis(20);
/// Time a fast shutdown has, before an immediate one.
const FAST_STOP_MAX: Duration = Duration::from_secs(10);
/// Time an immediate shutdown has, before it is killed.
const IMMEDIATE_STOP_MAX: Duration = Duration::from_secs(5);

/// Settings for a cluster on a developer's machine; they win over `postgresql.conf`.
///
/// A crash may lose the last moments' commits (`synchronous_commit`), never the cluster.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "unix_socket_permissions=0777",
    "max_connections=200",
    "synchronous_commit=off",
    "logging_collector=off",
    "log_destination=stderr",
    "log_checkpoints=off",
    "ssl=off",
    // Queries of a developer are short, and a sandbox may forbid code made at run time.
    "jit=off",
];

/// What came of a start.
pub(crate) enum Start {
    /// It accepts connections.
    Ready(Process),
    /// It ended before that.
    Died(String),
    /// A stop was asked for meanwhile, by this; it has been stopped.
    Stopped(&'static str),
}

/// Starts `postgres` and waits until it accepts connections.
pub(crate) fn start(
    layout: &Layout,
    programs: &Programs,
    account: &Account,
    watch: &mut Watch,
) -> Result<Start, Error> {
    let log = crate::cluster::open_log(layout)?;
    let mut args: Vec<OsString> =
        vec!["-D".into(), layout.data.clone().into(), "-k".into(), layout.run.clone().into()];
    args.extend(["-p".into(), PORT.to_string().into()]);
    for setting in SETTINGS {
        args.extend(["-c".into(), setting.into()]);
    }
    let process = Job::new(&programs.postgres, args, &log)
        .run_as(account)
        // If the companion is killed, PostgreSQL makes a fast shutdown by itself.
        .signal_when_parent_dies(Signal::SIGINT)
        .start()?;
    let deadline = Instant::now() + START_MAX;
    loop {
        if is_ready(&layout.data, process.pid()) {
            return Ok(Start::Ready(process));
        }
        match watch.wait(Some(process.pidfd()), Some(Instant::now() + STATUS_EVERY))? {
            Wake::Exited => return Ok(Start::Died(process.reap()?.how)),
            Wake::Stop(name) => {
                stop(process, watch)?;
                return Ok(Start::Stopped(name));
            }
            Wake::Deadline if deadline <= Instant::now() => {
                stop(process, watch)?;
                return Ok(Start::Died(format!("was not ready after {} s", START_MAX.as_secs())));
            }
            Wake::Deadline => (),
        }
    }
}

/// Stops `postgres`: fast (clients are cut off, nothing is lost), then immediately, then by force. Bounded.
pub(crate) fn stop(process: Process, watch: &mut Watch) -> Result<(), Error> {
    for (signal, time) in [(Signal::SIGINT, FAST_STOP_MAX), (Signal::SIGQUIT, IMMEDIATE_STOP_MAX)] {
        process.signal(signal)?;
        let deadline = Instant::now() + time;
        // Asking again to stop changes nothing: it is stopping.
        while Instant::now() < deadline {
            if watch.wait(Some(process.pidfd()), Some(deadline))? == Wake::Exited {
                return process.reap().map(drop);
            }
        }
    }
    process.signal(Signal::SIGKILL)?;
    while watch.wait(Some(process.pidfd()), None)? != Wake::Exited {}
    process.reap().map(drop)
}

/// Whether the server `pid` accepts connections: it says so on the eighth line of its status file.
fn is_ready(data: &Path, pid: i32) -> bool {
    status_lines(data).is_some_and(|lines| {
        let said = |line: usize| lines.get(line).map(|text| text.trim());
        said(0).and_then(|text| text.parse().ok()) == Some(pid) && said(7) == Some("ready")
    })
}

/// Reads the status file that `postgres` keeps; its first line is the server's process id.
pub(crate) fn status_lines(data: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// Makes a new cluster in `layout.unfinished`. `Ok(Some(name))`: a stop was asked for meanwhile.
pub(crate) fn make(
    layout: &Layout,
    programs: &Programs,
    account: &Account,
    watch: &mut Watch,
) -> Result<Option<&'static str>, Error> {
    /// Time for each of the two programs.
    const MAKE_MAX: Duration = Duration::from_secs(120);
    let log = crate::cluster::open_log(layout)?;
    let folder = layout.unfinished.as_os_str();
    let args = ["-D", "", "-U", crate::layout::NAME, "-A", "trust", "-E", "UTF8", "--no-locale"];
    let args = args.map(|arg| if arg.is_empty() { folder } else { OsStr::new(arg) }.to_owned());
    let initdb = Job::new(&programs.initdb, args.to_vec(), &log).run_as(account).start()?;
    if let Some(name) = crate::process::finish(initdb, "initdb", MAKE_MAX, layout, watch)? {
        return Ok(Some(name));
    }
    // One statement without a client program: `--single` reads it from its standard input.
    let args: [&OsStr; 5] =
        ["--single".as_ref(), "-E".as_ref(), "-D".as_ref(), folder, "postgres".as_ref()];
    let single = Job::new(&programs.postgres, args.map(OsStr::to_owned).to_vec(), &log)
        .input(format!("CREATE DATABASE {};\n", crate::layout::NAME))
        .run_as(account)
        .start()?;
    crate::process::finish(single, "postgres --single", MAKE_MAX, layout, watch)
}
