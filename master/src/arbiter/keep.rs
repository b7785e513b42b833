//! Keeping the service manager's store in step: it holds every listener that is ours, and no other.

use super::Arbiter;
use crate::generation::Listening;
use crate::store;

impl Arbiter {
    /// Stores what is new and removes what is no longer ours. A change that cannot be sent now is sent in a later turn.
    pub(super) fn tend_store(&mut self) {
        if !self.manager.has_store() || self.stop.is_some() {
            return;
        }
        let workers = self.generation().into_iter().flat_map(|generation| &generation.listening);
        let admin = self.admin.listening();
        let all = workers
            .map(|listening| (listening, false))
            .chain(admin.iter().map(|listening| (listening, true)));
        let wanted: Vec<_> = all
            .filter_map(|(listening, is_admin)| {
                Some((store::name(listening, is_admin)?, std::rc::Rc::clone(listening)))
            })
            .collect();
        self.manager.remove_from_store(|name| wanted.iter().any(|(wanted, _)| wanted == name));
        for (name, listening) in &wanted {
            self.manager.store(name, listening.group.shards());
        }
    }

    /// Whether somebody outside holds it too: then it is only let go of, never filtered or unlinked.
    pub(super) fn is_held_outside(&self, listening: &Listening) -> bool {
        let names = [false, true].map(|is_admin| store::name(listening, is_admin));
        listening.is_held_elsewhere()
            || names.iter().flatten().any(|name| self.manager.has_stored(name))
    }
}
