//! The service manager's store: it keeps our listeners while no master lives, so that a crash or a restart of the master
//! loses no connection that waits.
//!
//! - An entry is an address with all its sockets; its name says which address, so that it is found again.
//! - A socket unit needs no store: systemd holds those sockets anyhow.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use net::inherit::Inherited;
use net::{BindAddr, ListenerGroup};

use crate::generation::Listening;

/// What every name begins with: nobody would call a socket unit's listeners so.
const PREFIX: &str = "stored.";

/// Longest name that systemd takes.
const NAME_BYTES_MAX: usize = 255;

/// The name of listeners that are the program `admin`'s, as a socket unit gives it (`FileDescriptorName=admin`).
const ADMIN: &str = "admin";

/// The same for everybody else's.
const HTTP: &str = "http";

/// What an entry of the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    is_admin: bool,
    address: BindAddr,
    /// Device and inode of the unix socket's file that we made.
    path: Option<(u64, u64)>,
}

/// What a master finds when it starts: descriptors that systemd passed, by their meaning.
#[derive(Debug, Default)]
pub struct Found {
    /// Opened by somebody else, for the workers.
    pub http: Vec<OwnedFd>,
    /// Opened by somebody else, for the program `admin`.
    pub admin: Vec<OwnedFd>,
    /// Ours, from an earlier life, for the workers.
    pub stored: Vec<Rc<Listening>>,
    /// Ours, from an earlier life, for the program `admin`.
    pub stored_for_admin: Vec<Rc<Listening>>,
    /// Names of all that is in the store, useful or not, each as often as there are descriptors.
    pub names: Vec<String>,
}

/// The name under which `listening` is stored. `None`: it is not ours, or has too long a name.
#[must_use]
pub fn name(listening: &Listening, is_admin: bool) -> Option<String> {
    let address = listening.address().filter(|_| !listening.is_inherited())?.clone();
    Entry { is_admin, address, path: listening.group.path_identity() }.name()
}

/// Sorts what was passed. Entries that no longer make sense are closed; their names stay in the list.
#[must_use]
pub fn sort(inherited: Vec<Inherited>) -> Found {
    let mut found = Found::default();
    let mut entries: Vec<(Entry, Vec<OwnedFd>)> = Vec::new();
    for Inherited { fd, name } in inherited {
        if name.starts_with(PREFIX) {
            if let Some(entry) = Entry::parse(&name) {
                match entries.iter_mut().find(|(known, _)| *known == entry) {
                    Some((_, fds)) => fds.push(fd),
                    None => entries.push((entry, vec![fd])),
                }
            }
            found.names.push(name);
        } else if name == ADMIN {
            found.admin.push(fd);
        } else {
            found.http.push(fd);
        }
    }
    for (entry, fds) in entries {
        let is_admin = entry.is_admin;
        if let Some(listening) = entry.listening(fds) {
            let stored = if is_admin { &mut found.stored_for_admin } else { &mut found.stored };
            stored.push(Rc::new(listening));
        }
    }
    found
}

impl Entry {
    fn name(&self) -> Option<String> {
        let kind = if self.is_admin { ADMIN } else { HTTP };
        let (device, inode) = self.path.unwrap_or_default();
        let address = encode(&self.address.to_string());
        let name = format!("{PREFIX}{kind}.{device}-{inode}.{address}");
        (name.len() <= NAME_BYTES_MAX).then_some(name)
    }

    fn parse(name: &str) -> Option<Entry> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '.');
        let is_admin = match parts.next()? {
            HTTP => false,
            ADMIN => true,
            _ => return None,
        };
        let (device, inode) = parts.next()?.split_once('-')?;
        let path = (device.parse().ok()?, inode.parse().ok()?);
        let address = decode(parts.next()?).filter(|address| !address.is_empty())?.parse().ok()?;
        Some(Entry { is_admin, address, path: (path != (0, 0)).then_some(path) })
    }

    /// The listeners again, if the sockets are what the name says.
    fn listening(self, fds: Vec<OwnedFd>) -> Option<Listening> {
        let mut groups = ListenerGroup::adopt(fds).ok()?;
        let mut group = groups.pop().filter(|_| groups.is_empty())?;
        if let BindAddr::Tcp { port, .. } = &self.address
            && group.addr().ip().is_none_or(|found| *port != 0 && *port != found.port())
        {
            return None;
        }
        if let Some(identity) = self.path
            && !group.claim(identity)
        {
            // Nobody could reach it: its file is gone, or somebody else's.
            return None;
        }
        Some(Listening::new(Some(self.address), group))
    }
}

/// Writes `text` with letters that systemd takes in a name: no colons, blanks or control characters.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'%' | b':' | ..=b' ' | 0x7F.. => format!("%{byte:02X}"),
            byte => char::from(byte).to_string(),
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_address_it_was() {
        for (text, path) in [
            ("127.0.0.1:8000", None),
            ("[::1]:80", None),
            ("unix:/run/a b%c.sock", Some((7, 42))),
            ("unix:@abstract", None),
        ] {
            for is_admin in [false, true] {
                let entry = Entry { is_admin, address: text.parse().unwrap(), path };
                let name = entry.name().unwrap();
                assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b':'), "{name}");
                assert_eq!(Entry::parse(&name), Some(entry));
            }
        }
    }

    #[test]
    fn names_of_others_mean_nothing() {
        for name in ["", "stored", "stored.", "stored.http", "stored.http.0-0", "stored.http.0-0."]
            .into_iter()
            .chain([
                "stored.https.0-0.x",
                "stored.http.0.x",
                "stored.http.0-0.%",
                "stored.http.0-0.%zz",
            ])
        {
            assert_eq!(Entry::parse(name), None, "{name}");
        }
        let long = format!("unix:/{}", "é".repeat(53));
        let entry = Entry { is_admin: false, address: long.parse().unwrap(), path: None };
        assert_eq!(entry.name(), None);
    }

    #[test]
    fn what_was_stored_comes_back_as_ours() {
        let bound = ListenerGroup::bind(&"127.0.0.1:0".parse().unwrap(), 2, &Default::default());
        let group = bound.unwrap();
        let address = group.addr().clone();
        let listening = Listening::new(Some("127.0.0.1:0".parse().unwrap()), group);
        let name = name(&listening, false).unwrap();
        let copy = |shard: &net::Listener| OwnedFd::from(shard.try_clone().unwrap());
        let passed = |name: &str, fd| Inherited { fd, name: name.to_owned() };
        let shards = listening.group.shards();
        let found = sort(vec![
            passed("http", copy(&shards[0])),
            passed(&name, copy(&shards[0])),
            passed("admin", copy(&shards[1])),
            passed(&name, copy(&shards[1])),
            passed("stored.nonsense", copy(&shards[1])),
        ]);
        assert_eq!((found.http.len(), found.admin.len(), found.stored.len()), (1, 1, 1));
        assert_eq!(found.stored[0].group.addr(), &address);
        assert_eq!(found.stored[0].group.shards().len(), 2);
        assert!(!found.stored[0].is_inherited());
        assert_eq!(found.names, [name.clone(), name, "stored.nonsense".to_owned()]);
    }
}
