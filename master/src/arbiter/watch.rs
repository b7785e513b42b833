//! `reload` where a program runs in the slots: its file, and `reload_extra_files`, are looked at here.
//!
//! Watched is the newest generation, which may still be on trial: what changes after its first worker was executed is a
//! reason for another reload, whatever becomes of this one.

use std::time::Instant;

use super::Arbiter;
use crate::generation::Generation;
use crate::watch::Watch;

/// The files that are watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    watch: Option<Watch>,
    generation: Option<u32>,
}

impl Watched {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.watch.as_ref().map(Watch::look_at)
    }
}

impl Arbiter {
    /// Looks at the files, if it is time, and reloads when one has changed.
    pub(super) fn tend_watch(&mut self) {
        let now = self.now();
        let newest = self.generations.keys().next_back().copied();
        if self.watched.generation != newest {
            let watch = self.generations.values().next_back().and_then(|one| watch(one, now));
            self.watched = Watched { watch, generation: newest };
        }
        let changed = self.watched.watch.as_mut().and_then(|watch| watch.changed(now));
        if let Some(path) = changed.filter(|_| self.stop.is_none()) {
            // gunicorn's words.
            self.journal.info(&format!("Worker reloading: {} modified", path.display()));
            // The obstacle is in the log.
            let _ = self.ask_reload();
        }
    }
}

/// What there is to watch of a generation.
fn watch(generation: &Generation, now: Instant) -> Option<Watch> {
    let settings = generation.settings();
    if !settings.reload || generation.app().is_python {
        // Python's files are watched by a worker, which knows the modules.
        return None;
    }
    let directory = &generation.loaded.directory;
    let extra = settings.reload_extra_files.iter().map(|path| directory.join(path));
    Some(Watch::new(extra.chain([generation.app().program.clone()]), now))
}
