//! Looking up host names without waiting for it: a child of our own program asks the resolver, which may take its time.
//!
//! A name server that does not answer keeps whoever asks for ten seconds and more. At the start nobody waits for us; in a
//! reload the arbiter has workers to look after.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use net::BindAddr;
use shared::exit;
use shared::settings::Settings;
use sys::Signal;
use sys::spawn::{Child, Spawn};

use crate::process::Environment;

/// The hidden first argument that makes this program look up the others, each `HOST:PORT`.
pub const LOOKUP_COMMAND: &str = "look-up";

/// Longest time for all names of a reload together.
pub const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// Longest answer of the child in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// This program, whatever lies at its path by now.
const OURSELVES: &str = "/proc/self/exe";

/// Addresses of names, as far as they were looked up.
#[derive(Debug, Clone, Default)]
pub struct Addresses(BTreeMap<String, SocketAddr>);

/// Names that are being looked up.
#[derive(Debug)]
pub struct Lookup {
    names: Vec<String>,
    child: Child,
    answers: UnixStream,
    said: Vec<u8>,
    deadline: Instant,
}

/// Runs the child: prints `NAME ADDRESS` for each name, and `NAME` alone for one that has no address.
#[must_use]
pub fn run(names: impl Iterator<Item = OsString>) -> i32 {
    let mut out = io::stdout();
    for name in names.filter_map(|name| name.into_string().ok()) {
        let line = match first_address(&name) {
            Some(address) => format!("{name} {address}\n"),
            None => format!("{name}\n"),
        };
        if out.write_all(line.as_bytes()).is_err() {
            return exit::RUNTIME;
        }
    }
    exit::OK
}

/// One address per name, as at the start: IPv4 if it has one.
fn first_address(name: &str) -> Option<SocketAddr> {
    let all: Vec<SocketAddr> = name.to_socket_addrs().ok()?.collect();
    all.iter().find(|address| address.is_ipv4()).or(all.first()).copied()
}

/// The names in `new` that a reload would have to look up: those that `old` has too are known already.
#[must_use]
pub fn names(new: &Settings, old: &Settings) -> Vec<String> {
    let binds = |settings: &Settings| [&settings.bind[..], &settings.admin_bind].concat();
    let old_binds = binds(old);
    let fresh = binds(new).into_iter().filter(|text| !old_binds.contains(text));
    let mut names: Vec<String> = fresh.filter_map(|text| bind_name(&text.parse().ok()?)).collect();
    let plans = |settings: &Settings| [settings.error_syslog(), settings.access_syslog()];
    let address = |settings: &Settings| plans(settings).into_iter().flatten().next();
    if let Some(plan) = address(new)
        && address(old).map(|plan| plan.address) != Some(plan.address.clone())
    {
        names.extend(syslog_name(&plan.address).map(|(_, name)| name));
    }
    names.sort();
    names.dedup();
    names
}

/// The name in an address to bind, with its port. `None`: it holds none.
fn bind_name(address: &BindAddr) -> Option<String> {
    match address {
        BindAddr::Tcp { host, port } if host.parse::<std::net::IpAddr>().is_err() => {
            Some(format!("{host}:{port}"))
        }
        _ => None,
    }
}

/// The scheme and the name in an address of syslog, with its port. `None`: it holds none.
fn syslog_name(address: &str) -> Option<(&str, String)> {
    /// syslog's own.
    const PORT: u16 = 514;
    let (scheme, rest) = address.split_once("://").filter(|(scheme, _)| *scheme != "unix")?;
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let name = if has_port { rest.to_owned() } else { format!("{rest}:{PORT}") };
    name.parse::<SocketAddr>().is_err().then_some((scheme, name))
}

impl Addresses {
    /// Looks up the names in `settings`, and waits for it: for the start. What has no address is not in it.
    #[must_use]
    pub fn of_start(settings: &Settings) -> Addresses {
        let names = names(settings, &Settings::default()).into_iter();
        Addresses(names.filter_map(|name| Some((name.clone(), first_address(&name)?))).collect())
    }

    /// Takes over what was found later.
    pub fn extend(&mut self, more: Addresses) {
        self.0.extend(more.0);
    }

    /// The address to bind, with a number for a name that was looked up.
    #[must_use]
    pub fn of_bind(&self, address: &BindAddr) -> BindAddr {
        let found = bind_name(address).and_then(|name| self.0.get(&name));
        found.map_or_else(
            || address.clone(),
            |found| BindAddr::Tcp { host: found.ip().to_string(), port: found.port() },
        )
    }

    /// The address of syslog, with a number for a name that was looked up.
    #[must_use]
    pub fn of_syslog(&self, address: &str) -> String {
        let found = syslog_name(address)
            .and_then(|(scheme, name)| Some(format!("{scheme}://{}", self.0.get(&name)?)));
        found.unwrap_or_else(|| address.to_owned())
    }
}

impl Lookup {
    /// Starts to look up `names`.
    ///
    /// # Errors
    ///
    /// No process, memory or descriptors left.
    pub fn start(names: Vec<String>) -> io::Result<Lookup> {
        let (answers, theirs) = UnixStream::pair()?;
        answers.set_nonblocking(true)?;
        let program = CString::new(OURSELVES)?;
        let mut spawn = Spawn::new(program.clone());
        spawn.args = [Ok(program), CString::new(LOOKUP_COMMAND)]
            .into_iter()
            .chain(names.iter().map(|name| CString::new(name.as_str())))
            .collect::<Result<_, _>>()?;
        spawn.env = Environment::of_this_process().variables();
        spawn.fds = vec![(theirs.as_fd(), 1)];
        spawn.session = true;
        spawn.parent_death_signal = Some(Signal::SIGKILL);
        let child = spawn.spawn()?;
        let deadline = Instant::now() + LOOKUP_MAX;
        Ok(Lookup { names, child, answers, said: Vec::new(), deadline })
    }

    /// Looks what there is. `None`: it is still at work. Never waits.
    ///
    /// The error says which name has no address, or is not answered for.
    pub fn tend(&mut self) -> Option<Result<Addresses, String>> {
        let mut piece = [0; 4096];
        let is_over = loop {
            match (&self.answers).read(&mut piece) {
                Ok(0) => break true,
                Ok(length) => self.said.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
            if ANSWER_BYTES_MAX < self.said.len() {
                return Some(Err("the answer to a look-up of names is too long".to_owned()));
            }
        };
        if is_over {
            return Some(self.conclude());
        }
        (self.deadline <= Instant::now()).then(|| {
            let names = self.names.join(",");
            let limit_s = LOOKUP_MAX.as_secs();
            Err(format!("names were not found within {limit_s} s names={names}"))
        })
    }

    fn conclude(&self) -> Result<Addresses, String> {
        let text = String::from_utf8_lossy(&self.said);
        let answers: BTreeMap<&str, SocketAddr> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, address)| Some((name, address.parse().ok()?)))
            .collect();
        let found = self.names.iter().map(|name| match answers.get(name.as_str()) {
            Some(address) => Ok((name.clone(), *address)),
            None => Err(format!("cannot find the host of {name}")),
        });
        found.collect::<Result<_, _>>().map(Addresses)
    }

    /// Time until it has taken too long.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl AsFd for Lookup {
    /// Readable when there is something to [`Lookup::tend`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.answers.as_fd()
    }
}

/// Whoever collects orphans finds the dead child.
impl Drop for Lookup {
    fn drop(&mut self) {
        // It has ended, or nobody wants its answer any more.
        let _ = sys::pidfd::send_signal(&self.child.pidfd, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(bind: &[&str], syslog: Option<&str>) -> Settings {
        Settings {
            bind: bind.iter().map(|&text| text.to_owned()).collect(),
            syslog: syslog.is_some(),
            syslog_addr: syslog.unwrap_or_default().to_owned(),
            ..Settings::default()
        }
    }

    #[test]
    fn only_names_that_are_new_are_looked_up() {
        let old = settings(&["localhost:80", "127.0.0.1:1"], Some("udp://log.example"));
        assert_eq!(names(&old, &old), [""; 0]);
        let numbers = settings(&["[::1]:81", "unix:/x", ":82"], Some("unix:///dev/log#dgram"));
        assert_eq!(names(&numbers, &old), [""; 0]);
        let new = settings(&["localhost:80", "b.example:81"], Some("tcp://log.example:601"));
        assert_eq!(names(&new, &old), ["b.example:81", "log.example:601"]);
        assert_eq!(names(&old, &numbers), ["localhost:80", "log.example:514"]);
    }

    #[test]
    fn what_was_found_takes_the_place_of_the_name() {
        let found = [("a.example:80", "192.0.2.1:80"), ("log.example:514", "[2001:db8::1]:514")];
        let found = found.map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
        let addresses = Addresses(found.into());
        let bound = |text: &str| addresses.of_bind(&text.parse().unwrap()).to_string();
        assert_eq!(bound("a.example:80"), "192.0.2.1:80");
        assert_eq!(bound("b.example:80"), "b.example:80");
        assert_eq!(addresses.of_syslog("udp://log.example"), "udp://[2001:db8::1]:514");
        assert_eq!(addresses.of_syslog("udp://192.0.2.9:5"), "udp://192.0.2.9:5");
        assert_eq!(addresses.of_syslog("unix:///dev/log#dgram"), "unix:///dev/log#dgram");
    }
}
