//! Whether the kernel killed a worker for want of memory: the cgroup counts such kills.

use std::fs;
use std::path::{Path, PathBuf};

/// The counter of kills for want of memory in our own cgroup; workers share it.
#[derive(Debug)]
pub struct OomKills {
    file: Option<PathBuf>,
    seen: u64,
}

/// Where memory controllers are mounted: version 2 alone or beside version 1, then version 1.
const MOUNTS: [(&str, &str); 3] = [
    ("/sys/fs/cgroup", "memory.events"),
    ("/sys/fs/cgroup/unified", "memory.events"),
    ("/sys/fs/cgroup/memory", "memory.oom_control"),
];

impl OomKills {
    /// Finds the counter. Without one, nothing is ever said about memory.
    #[must_use]
    pub fn find() -> OomKills {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = candidates(&groups).into_iter().find(|file| count_in(file).is_some());
        let seen = file.as_deref().and_then(count_in).unwrap_or(0);
        OomKills { file, seen }
    }

    /// Whether there were such kills since the last look; `None`: nobody counts.
    pub fn is_there_a_new_one(&mut self) -> Option<bool> {
        let now = count_in(self.file.as_deref()?)?;
        let is_new = self.seen < now;
        self.seen = now;
        Some(is_new)
    }
}

/// The files that may hold the counter, from the text of `/proc/self/cgroup`.
fn candidates(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        for (mount, name) in MOUNTS.iter().filter(|(_, name)| is_v2 == (*name == "memory.events")) {
            files.push(Path::new(mount).join(path.trim_start_matches('/')).join(name));
            // In a container the path is the host's, but the group is mounted as the root.
            files.push(Path::new(mount).join(name));
        }
    }
    files
}

fn count_in(file: &Path) -> Option<u64> {
    count(&fs::read_to_string(file).ok()?)
}

/// The line `oom_kill N`, the same in both versions.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_in_both_versions() {
        let files = candidates("0::/web.slice/m.service\n");
        assert_eq!(files[0], Path::new("/sys/fs/cgroup/web.slice/m.service/memory.events"));
        let files = candidates("5:cpu,cpuacct:/x\n4:memory:/lab\n");
        assert_eq!(files[0], Path::new("/sys/fs/cgroup/memory/lab/memory.oom_control"));
        assert_eq!(count("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(count("oom 3\n"), None);
        assert!(candidates("rubbish\n1\n").is_empty());
    }
}
