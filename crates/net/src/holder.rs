//! Who listens on a port: so that "address already in use" can name the one to talk to.

use std::collections::BTreeSet;
use std::fs;

use sys::Pid;

/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Descriptors looked at before the search gives up: a busy machine has many.
const DESCRIPTORS_MAX: usize = 200_000;

/// Finds the processes that hold a listening TCP socket on `port`, with their names.
///
/// Only such as we may look into: our own user's, or everybody's as root. Empty when `/proc` tells nothing.
pub(crate) fn of_port(port: u16) -> Vec<(Pid, String)> {
    let sockets: BTreeSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut left = DESCRIPTORS_MAX;
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let fds = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let holds = fds.take(left).any(|fd| {
            left = left.saturating_sub(1);
            let target = fs::read_link(fd.path()).ok();
            target.and_then(|target| Some(sockets.contains(target.to_str()?))).unwrap_or(false)
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push((Pid::from_raw(pid), name.trim().to_owned()));
        }
    }
    holders
}

/// Reads the inodes of sockets that listen on `port` from the text of `/proc/net/tcp`.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let local = fields.nth(1)?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?.parse().ok()?;
            (local.ends_with(&suffix) && state == LISTENING).then_some(inode)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 20 4 30 10 -1
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1 0 100 0 0 10 0
";
        assert_eq!(inodes(table, 8080), [4242]);
        assert_eq!(inodes(table, 80), Vec::<u64>::new());
        assert_eq!(inodes("garbage\nmore", 80), Vec::<u64>::new());
    }
}
