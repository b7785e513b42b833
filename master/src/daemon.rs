//! `--daemon`: this program again, in a session of its own, while the command waits for its verdict.
//!
//! The command returns when the addresses are bound, or with the failure's own exit code: unlike gunicorn, whose
//! command reports success before it has tried. Errors up to then are printed where the command was given.

use std::env;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use shared::exit;
use sys::pidfd::{self, Exit};
use sys::spawn::Spawn;

use crate::config::Invocation;

/// The descriptor on which the daemon reports that it has begun.
pub(crate) const REPORT: &str = "_MONOCEROS_REPORT";

/// What the daemon says when it has begun; silence and end-of-file mean that it could not.
const BEGUN: &[u8] = b"1";

/// Starts the daemon and waits until it has begun or failed; returns the exit code.
///
/// # Errors
///
/// It could not be started.
pub fn launch(invocation: &Invocation) -> io::Result<i32> {
    let program = invocation.program.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let (mut verdict, report) = UnixStream::pair()?;
    let report: OwnedFd = report.into();
    let mut spawn = Spawn::new(CString::new(program.as_os_str().as_bytes())?);
    // By its own name: an upgrade starts what lies there then.
    let name = invocation.origin.as_ref().unwrap_or(program).clone().into_os_string();
    spawn.args = [&name]
        .into_iter()
        .chain(&invocation.args)
        .map(|arg| CString::new(arg.as_bytes()))
        .collect::<Result<_, _>>()?;
    spawn.env = env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<_, _>>()?;
    let number = spawn.pass(report.as_fd());
    spawn.env.push(CString::new(format!("{REPORT}={number}"))?);
    spawn.session = true;
    let child = spawn.spawn()?;
    drop(report);
    let mut said = [0; BEGUN.len()];
    if verdict.read(&mut said).unwrap_or(0) == BEGUN.len() {
        return Ok(exit::OK);
    }
    // It closed the report by ending; its last words are printed already.
    sys::fd::wait_readable(&child.pidfd, None)?;
    match (pidfd::reap(&child.pidfd)?, child.exec_failure()) {
        (_, Some((step, error))) => Err(io::Error::new(error.kind(), format!("{step}: {error}"))),
        (Some(Exit::Code(code)), None) => Ok(code),
        _ => Ok(exit::RUNTIME),
    }
}

/// Where a daemon reports that it has begun. `None`: this process is none.
#[must_use]
pub fn report() -> Option<UnixStream> {
    let number = env::var(REPORT).ok()?.parse().ok()?;
    sys::fd::adopt(number).ok().map(UnixStream::from)
}

/// Lets go of the terminal and reports that the daemon has begun. `keeps_output`: but only of a terminal.
///
/// # Errors
///
/// There is no `/dev/null`.
pub fn begin(mut report: UnixStream, keeps_output: bool) -> io::Result<()> {
    let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nowhere)?;
    if !keeps_output || io::stdout().is_terminal() {
        dup2_stdout(&nowhere)?;
    }
    if !keeps_output || io::stderr().is_terminal() {
        dup2_stderr(&nowhere)?;
    }
    // Nobody waits for the answer any more: then nobody is misled either.
    let _ = report.write_all(BEGUN);
    Ok(())
}
