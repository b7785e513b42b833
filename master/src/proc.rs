//! What `/proc` knows of a process that does not answer.

use std::fmt;
use std::fs;
use std::time::Duration;

use sys::Pid;

/// Facts about a process, as far as the kernel tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its state: `R` computes, `S` waits, `D` waits for a device, `T` and `t` are stopped.
    pub state: Option<char>,
    /// The kernel function it waits in.
    pub waits_in: Option<String>,
    /// The number of the system call it is in.
    pub syscall: Option<String>,
}

impl Facts {
    /// Looks at `pid`. Never fails: what cannot be read is left out.
    #[must_use]
    pub fn of(pid: Pid) -> Facts {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        Facts {
            state: read("stat").and_then(|stat| state(&stat)),
            waits_in: read("wchan").filter(|name| !name.is_empty() && name != "0"),
            syscall: read("syscall")
                .and_then(|line| Some(line.split_ascii_whitespace().next()?.to_owned())),
        }
    }
}

impl Facts {
    /// Whether a debugger holds it.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.state == Some('t')
    }
}

/// Resident memory of a process in bytes.
#[must_use]
pub fn rss(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim();
    Some(kilobytes.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Field 3 of `/proc/PID/stat`; the name before it may hold spaces and parentheses.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The kernel's unit of processor time in `/proc`, whatever its own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time that `pid` has taken, also of a process that has ended and was not reaped. Zero: unknown.
#[must_use]
pub fn cpu_time(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.ok().and_then(|stat| ticks(&stat)).map_or(Duration::ZERO, |ticks| {
        Duration::from_millis(ticks.saturating_mul(1_000 / TICKS_PER_SECOND))
    })
}

/// Fields 14 and 15 of `/proc/PID/stat`: time in the program and in the kernel.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    Some(user + fields.next()?.parse::<u64>().ok()?)
}

/// As it stands in a log line, with a blank before each.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(state) = self.state {
            write!(f, " process_state={state}")?;
        }
        if let Some(waits_in) = &self.waits_in {
            write!(f, " waits_in={waits_in}")?;
        }
        if let Some(syscall) = &self.syscall {
            write!(f, " syscall={syscall}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_a_state_and_a_dead_one_no_facts() {
        assert!(Facts::of(Pid::this()).state.is_some());
        assert!(rss(Pid::this()).is_some_and(|bytes| 100_000 < bytes));
        assert_eq!(rss(Pid::from_raw(i32::MAX)), None);
        assert_eq!(Facts::of(Pid::from_raw(i32::MAX)), Facts::default());
        assert_eq!(state("1 (a) b) D 2"), Some('D'));
    }

    #[test]
    fn processor_time_is_of_program_and_kernel() {
        assert_eq!(ticks("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0"), Some(300));
        assert_eq!(ticks("7 (a"), None);
        assert_eq!(cpu_time(Pid::from_raw(i32::MAX)), Duration::ZERO);
    }
}
