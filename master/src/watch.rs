//! Looks at files for `reload`.
//!
//! One `stat` each, once in a while. A change counts when the file is the same at two looks in a row, so that a program
//! is not started while the linker still writes it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells two states of a file apart; `None`: it is not there.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// The files of one generation.
#[derive(Debug)]
pub struct Watch {
    files: Vec<Watched>,
    look_at: Instant,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// As the workers have it.
    known: Stamp,
    /// As it was at the last look.
    last: Stamp,
}

impl Watch {
    /// Watches `paths` from now on.
    #[must_use]
    pub fn new(paths: impl Iterator<Item = PathBuf>, now: Instant) -> Watch {
        let watched = |path: PathBuf| {
            let stamp = stamp(&path);
            Watched { path, known: stamp, last: stamp }
        };
        Watch { files: paths.map(watched).collect(), look_at: now + LOOK_EVERY }
    }

    /// Looks, if it is time; returns a file that has changed, once for each change.
    pub fn changed(&mut self, now: Instant) -> Option<&Path> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_EVERY;
        let mut changed = None;
        for file in &mut self.files {
            let stamp = stamp(&file.path);
            let is_at_rest = std::mem::replace(&mut file.last, stamp) == stamp;
            // One that is gone is about to be written anew.
            if is_at_rest && stamp.is_some() && stamp != file.known {
                file.known = stamp;
                changed = Some(&*file.path);
            }
        }
        changed
    }

    /// When it looks again.
    #[must_use]
    pub fn look_at(&self) -> Instant {
        self.look_at
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_when_it_is_over() {
        let path = std::env::temp_dir().join(format!("monoceros-watch-{}", std::process::id()));
        fs::write(&path, "1").unwrap();
        let mut now = Instant::now();
        let mut watch = Watch::new([path.clone()].into_iter(), now);
        let mut look = || {
            now += LOOK_EVERY;
            watch.changed(now).is_some()
        };
        assert!(!look());
        fs::write(&path, "12").unwrap();
        assert!(!look(), "it may still be written");
        fs::write(&path, "123").unwrap();
        assert!(!look(), "it was");
        assert!(look());
        assert!(!look());
        fs::remove_file(&path).unwrap();
        assert!(!look() && !look(), "gone is no change");
        fs::write(&path, "123").unwrap();
        assert!(!look() && look(), "another file of the same name and length");
        fs::remove_file(&path).unwrap();
    }
}
