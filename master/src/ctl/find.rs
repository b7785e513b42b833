//! Which socket is meant: what was said, else the settings, else where systemd's services have it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Asked, ask};
use crate::config::Invocation;
use crate::control;

/// Where the unit that comes with the program has it.
const OF_THE_SERVICE: &str = "/run/monoceros/control.sock";

/// Sockets of a process that are tried when it is known by its pidfile.
const TRIED_MAX: usize = 64;

/// Connects to the socket that is meant.
///
/// # Errors
///
/// In one line: where was looked, and what was found.
pub(super) fn connect(asked: &Asked) -> Result<UnixStream, String> {
    if let Some(pidfile) = &asked.pidfile {
        return of_pidfile(pidfile);
    }
    let path = match &asked.socket {
        Some(path) => path.clone(),
        None => by_rule(asked)?,
    };
    UnixStream::connect(&path)
        .map_err(|error| format!("no master answers at {}: {error}", path.display()))
}

/// The rule by which a master makes its socket, then the place of the service.
fn by_rule(asked: &Asked) -> Result<PathBuf, String> {
    let mut invocation = Invocation::of_this_process();
    let flag = asked.config.iter().flat_map(|path| [OsString::from("--config"), path.into()]);
    invocation.args = flag.collect();
    let runtime = std::env::var("RUNTIME_DIRECTORY").ok();
    match invocation.load() {
        Ok(loaded) => {
            if let Some(path) = control::path(loaded.settings(), runtime.as_deref()) {
                return Ok(loaded.directory.join(path));
            }
        }
        // Settings that were named but cannot be read say nothing; otherwise they may be those of something else.
        Err(error) if asked.config.is_some() => return Err(crate::arbiter::chain(&error)),
        Err(_) => {
            if let Some(path) =
                control::path(&shared::settings::Settings::default(), runtime.as_deref())
            {
                return Ok(path);
            }
        }
    }
    Ok(PathBuf::from(OF_THE_SERVICE))
}

/// The control socket among those that the process listens on: the one that answers.
fn of_pidfile(pidfile: &Path) -> Result<UnixStream, String> {
    let shown = pidfile.display();
    let text =
        fs::read_to_string(pidfile).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let pid: u32 = text.trim().parse().map_err(|_| format!("{shown} holds no process id"))?;
    let paths = listening(pid);
    let found = paths.iter().take(TRIED_MAX).find(|path| {
        let stream = UnixStream::connect(path);
        stream.is_ok_and(|stream| ask(stream, &["ready".to_owned()]).is_ok())
    });
    let found = found.and_then(|path| UnixStream::connect(path).ok());
    found.ok_or_else(|| format!("process {pid} of {shown} has no control socket that answers us"))
}

/// Paths of the unix sockets that a process listens on.
fn listening(pid: u32) -> Vec<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inodes: BTreeSet<String> = fds
        .filter_map(|fd| fs::read_link(fd.path()).ok()?.into_os_string().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let paths = table.lines().filter_map(|line| path_of(line, &inodes));
    paths.map(|path| directory.join(as_it_is_called_now(path))).collect()
}

/// A socket that replaced a stale one was bound beside it and renamed, which the kernel does not take notice of.
fn as_it_is_called_now(path: &str) -> &str {
    match path.rsplit_once(".~") {
        Some((now, pid)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => now,
        _ => path,
    }
}

/// The path in a line of `/proc/net/unix`, if it is of a listening socket among `inodes`.
fn path_of<'l>(line: &'l str, inodes: &BTreeSet<String>) -> Option<&'l str> {
    /// The kernel's flag of a socket that accepts connections.
    const ACCEPTS: &str = "00010000";
    // Num RefCount Protocol Flags Type St Inode Path; the path may hold blanks.
    let mut fields = line.splitn(8, ' ').filter(|field| !field.is_empty());
    let is_listening = fields.nth(3)? == ACCEPTS;
    let rest = line.split_once(ACCEPTS)?.1.trim_start();
    let mut rest = rest.splitn(3, ' ').skip(2);
    let (inode, path) = rest.next()?.trim_start().split_once(' ')?;
    (is_listening && !path.starts_with('@') && inodes.contains(inode)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_understood() {
        let inodes = BTreeSet::from(["4711".to_owned()]);
        let line = "ffff8880: 00000002 00000000 00010000 0001 01  4711 /run/a b/control.sock";
        assert_eq!(as_it_is_called_now("/run/x.sock.~42"), "/run/x.sock");
        assert_eq!(path_of(line, &inodes), Some("/run/a b/control.sock"));
        for other in [
            "ffff8880: 00000002 00000000 00000000 0001 01  4711 /run/x.sock",
            "ffff8880: 00000002 00000000 00010000 0001 01  4712 /run/x.sock",
            "ffff8880: 00000002 00000000 00010000 0001 01  4711",
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "",
        ] {
            assert_eq!(path_of(other, &inodes), None, "{other}");
        }
    }
}
