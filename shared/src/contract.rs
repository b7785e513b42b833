//! The worker contract: what a worker finds in its environment, and what master and worker tell each other.
//!
//! `docs/worker-contract.md` says the same to people who write workers in any language.
//!
//! - The first part is systemd's: [`LISTEN_FDS`], [`LISTEN_PID`], [`LISTEN_FDNAMES`], [`NOTIFY_SOCKET`]. A program that
//!   supports socket activation is a worker already.
//! - The second part, `MONOCEROS_*`, is optional for the worker: it buys supervision, not admission.

/// Number of listeners handed over; they are descriptors 3, 4, … in order.
pub const LISTEN_FDS: &str = "LISTEN_FDS";
/// Process the listeners are meant for; another process must ignore them.
pub const LISTEN_PID: &str = "LISTEN_PID";
/// Names of the listeners, `http.0:http.1:…`, separated by colons.
pub const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// Address of the datagram socket that takes `READY=1` and its like; `@…` is an abstract address.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Number of the slot, from 0. The process in a slot changes, its number never.
pub const SLOT: &str = "MONOCEROS_SLOT";
/// Number of the reading of the settings that this worker was spawned from, from 0.
pub const GENERATION: &str = "MONOCEROS_GENERATION";
/// Descriptor of a sealed memory file with the resolved settings: [`crate::settings::Settings`] as JSON.
pub const SETTINGS: &str = "MONOCEROS_SETTINGS";
/// Descriptor of the scoreboard's shared memory.
pub const SCOREBOARD: &str = "MONOCEROS_SCOREBOARD";
/// Index of the scoreboard block that this process writes.
pub const BLOCK: &str = "MONOCEROS_BLOCK";
/// Descriptor of the lifeline: a socket from the master that carries [`Order`]s; end-of-file means the master is gone.
pub const LIFELINE: &str = "MONOCEROS_LIFELINE";

/// Descriptor of the scoreboard's shared memory, for the program `admin`, which reads it all and has no block.
pub const OBSERVED: &str = "MONOCEROS_OBSERVED";

/// Descriptor of a socket to the master, for a preloader: see [`crate::preload`]. It has neither slot nor block.
pub const PRELOADER: &str = "MONOCEROS_PRELOADER";

/// Prefix of the variable that sets a setting: `MONOCEROS_GRACEFUL_TIMEOUT`.
pub const SETTING_PREFIX: &str = "MONOCEROS_";
/// Further command line, split as a shell would, weaker than the real one.
pub const CMD_ARGS: &str = "MONOCEROS_CMD_ARGS";
/// gunicorn's variable for the same, weaker than [`CMD_ARGS`].
pub const GUNICORN_CMD_ARGS: &str = "GUNICORN_CMD_ARGS";
/// Where programs look for their database; the setting `database` sets it for workers.
pub const DATABASE_URL: &str = "DATABASE_URL";

/// Variables with [`SETTING_PREFIX`] that are no settings.
pub const RESERVED: &[&str] =
    &[SLOT, GENERATION, SETTINGS, SCOREBOARD, BLOCK, LIFELINE, OBSERVED, PRELOADER, CMD_ARGS];

/// First listening descriptor of a worker, as systemd has it.
pub const FIRST_LISTENER: i32 = 3;

/// Name of listener `index`, as it stands in [`LISTEN_FDNAMES`].
#[must_use]
pub fn listener_name(index: usize) -> String {
    format!("http.{index}")
}

/// Name of listener `index` of the program `admin`.
#[must_use]
pub fn admin_listener_name(index: usize) -> String {
    format!("admin.{index}")
}

/// Index of the shard that the worker of `slot` owns within a group of `shards` listeners on one address.
///
/// The worker registers this one first, then the others. `None`: there is nothing to own.
#[must_use]
pub fn own_shard(slot: usize, shards: usize) -> Option<usize> {
    slot.checked_rem(shards)
}

/// One byte on the lifeline, from the master to a worker.
///
/// A worker reads its lifeline before it acts on a TERM; unknown bytes are ignored, so that orders can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Another worker died: take the shards it does not own out of the wait set, add them again, accept once from each.
    ReArm,
    /// A stop is near (`shutdown_delay`): keep accepting, but let every response say `Connection: close`.
    SayClose,
    /// Nobody else holds the listeners: on the TERM that follows accept until `EAGAIN` before closing own copies.
    Final,
    /// No newer worker holds this address, counted from 0 in the order of the listeners: on the TERM that follows accept
    /// from it until `EAGAIN`. Everything else as in any drain.
    Retired(u8),
}

/// Addresses that [`Order::Retired`] can name.
pub const RETIRED_ADDRESSES_MAX: usize = 0x80;

/// Marks the byte of an [`Order::Retired`]; the rest of it is the address.
const RETIRED: u8 = 0x80;

impl Order {
    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Order::ReArm => b'r',
            Order::SayClose => b'c',
            Order::Final => b'f',
            Order::Retired(address) => RETIRED | address,
        }
    }

    /// The order that `byte` stands for, if any.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Order> {
        match byte {
            b'r' => Some(Order::ReArm),
            b'c' => Some(Order::SayClose),
            b'f' => Some(Order::Final),
            RETIRED.. => Some(Order::Retired(byte & !RETIRED)),
            _ => None,
        }
    }
}

/// What a worker tells the master in one datagram on [`NOTIFY_SOCKET`]: `NAME=value` lines, unknown ones ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// `READY=1`: the application is built, the first attempt at the database is over, the shards are armed.
    pub ready: bool,
    /// `STOPPING=1`: the worker has begun to drain.
    pub stopping: bool,
    /// `WATCHDOG=1`: a heartbeat of a worker that has no scoreboard block.
    pub watchdog: bool,
    /// `RELOAD=1`: the code has changed, and new workers are wanted (heeded with the setting `reload`); `STATUS` says what.
    pub reload: bool,
    /// `STATUS=text`: for people; with `errno`, why the boot failed.
    pub status: Option<String>,
    /// `ERRNO=n`: the boot failed.
    pub errno: Option<i32>,
}

impl Notice {
    /// Reads one datagram. Never fails: what is not understood is left out.
    #[must_use]
    pub fn parse(text: &str) -> Notice {
        let mut notice = Notice::default();
        for line in text.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => notice.ready = true,
                Some(("STOPPING", "1")) => notice.stopping = true,
                Some(("WATCHDOG", "1")) => notice.watchdog = true,
                Some(("RELOAD", "1")) => notice.reload = true,
                Some(("STATUS", text)) => notice.status = Some(text.to_owned()),
                Some(("ERRNO", number)) => notice.errno = number.trim().parse().ok(),
                _ => (),
            }
        }
        notice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_wire() {
        let retired = [0, 1, 0x7F].map(Order::Retired);
        for order in [Order::ReArm, Order::SayClose, Order::Final].into_iter().chain(retired) {
            assert_eq!(Order::from_byte(order.byte()), Some(order));
        }
        assert_eq!(Order::from_byte(0), None);
    }

    #[test]
    fn a_notice_keeps_what_it_knows() {
        let notice = Notice::parse("READY=1\nFUTURE=x\nSTATUS=all = well\nERRNO=oops\n");
        let want = Notice { ready: true, status: Some("all = well".into()), ..Notice::default() };
        assert_eq!(notice, want);
        assert!(Notice::parse("RELOAD=1\nSTATUS=app.py modified").reload);
        assert_eq!(Notice::parse("READY=0\n\0\n=\n"), Notice::default());
    }
}
