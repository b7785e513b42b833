//! What `/proc` knows of a process.

use std::fs;
use std::time::Duration;

/// The kernel's unit of processor time in `/proc`, whatever its own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// Facts about a process; `None`: not readable, or there is no such process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Processor time so far.
    pub cpu: Option<Duration>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
}

/// Reads what is known of `pid`.
pub fn facts(pid: u64) -> Facts {
    if pid == 0 {
        return Facts::default();
    }
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    Facts {
        cpu: read("stat").and_then(|stat| cpu(&stat)),
        resident_bytes: read("status").and_then(|status| resident_bytes(&status)),
    }
}

/// Number of open descriptors of `pid`; readable to its own user and root only.
pub fn open_fds(pid: u64) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// Largest number of descriptors that `pid` may open.
pub fn max_fds(pid: u64) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `stat`; the name before them may hold spaces and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let ticks = user.saturating_add(kernel);
    Some(Duration::from_millis(ticks.saturating_mul(1_000 / TICKS_PER_SECOND)))
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("7 (a"), None);
        assert_eq!(resident_bytes("VmPeak:\t9 kB\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let pid = u64::from(std::process::id());
        assert!(facts(pid).resident_bytes > Some(0));
        assert!(open_fds(pid) > Some(0) && max_fds(pid) >= open_fds(pid));
    }
}
