//! Server processes that outlived their companion, or their own server.
//!
//! The caller holds the cluster's lock, so nobody else looks after them: whatever still works in the cluster's
//! folder keeps the old shared memory attached, and no new server would start.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::Error;
use crate::layout::Layout;
use crate::process::Process;
use crate::server::{status_lines, stop};
use crate::wait::{Wake, Watch};

/// Time that processes without a server have to quit, before they are killed; for all of them together.
const QUIT_MAX: Duration = Duration::from_secs(5);

/// Stops every server process on this cluster, the server itself first and gently. Returns how many there were.
pub(crate) fn stop_all(layout: &Layout, watch: &mut Watch) -> Result<usize, Error> {
    let mut stopped = 0;
    let server =
        status_lines(&layout.data).and_then(|lines| lines.first()?.trim().parse::<i32>().ok());
    if let Some(pid) = server {
        match open(pid, &layout.data)? {
            Some(process) => {
                stop(process, watch)?;
                stopped += 1;
            }
            None => disown(layout)?,
        }
    }
    let deadline = Instant::now() + QUIT_MAX;
    for pid in all(&layout.data) {
        let Some(process) = open(pid, &layout.data)? else { continue };
        stopped += 1;
        process.signal(Signal::SIGQUIT)?;
        while Instant::now() < deadline
            && watch.wait(Some(process.pidfd()), Some(deadline))? != Wake::Exited
        {}
        // Nothing happens to one that is gone.
        process.signal(Signal::SIGKILL)?;
    }
    Ok(stopped)
}

/// Opens process `pid` if it is a server process of the cluster in `data`.
fn open(pid: i32, data: &Path) -> Result<Option<Process>, Error> {
    let process = Process::of_other_parent(pid)?;
    // Looked at after the descriptor was opened: from then on the number cannot mean another process.
    Ok(process.filter(|_| works_in(pid, data)))
}

/// Whether `pid` is a `postgres` whose working folder is `data`, as that of every server process is.
fn works_in(pid: i32, data: &Path) -> bool {
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).ok();
    let is_postgres = |exe: &Path| {
        exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("postgres"))
    };
    link("cwd").is_some_and(|cwd| data.canonicalize().is_ok_and(|data| data == cwd))
        && link("exe").is_some_and(|exe| is_postgres(&exe))
}

fn all(data: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| works_in(pid, data)).collect()
}

/// Writes our own process id into the status file of a server that is gone.
///
/// Its number may belong to another program by now, and PostgreSQL would take that for a running server. A number
/// of its own parent never worries it, and the rest of the file, which names the old shared memory, still counts.
fn disown(layout: &Layout) -> Result<(), Error> {
    let status = layout.data.join("postmaster.pid");
    let text = std::fs::read_to_string(&status).map_err(Error::file("read", &status))?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    std::fs::write(&status, format!("{}\n{rest}", std::process::id()))
        .map_err(Error::file("write", &status))
}
