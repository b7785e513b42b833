//! HUP: new settings, a new generation, and nothing lost when either is no good.
//!
//! 1. The settings are read into a new object and its new addresses are bound. Any error: one ERROR line, all stays.
//!    A file in Python is executed by an interpreter, and all goes on meanwhile.
//! 2. One worker of the new generation, the canary, must get ready. If not: one ERROR line, all stays.
//! 3. The others follow; each old worker drains only when its successor is ready. A failure on the way stops it there.

use std::error::Error;
use std::rc::Rc;
use std::time::Instant;

use shared::settings::{OnReload, SETTINGS};

use super::boot::{bind_options, shards};
use super::{Arbiter, limits};
use crate::config::{Answer, Draft, Loaded, Reader};
use crate::fleet::{Reload, SLOTS_MAX};
use crate::generation::{Generation, Listening};
use crate::hooks::Hook;
use crate::lookup::{self, Lookup};

/// A reload waits while this many workers per slot, and [`LEAVING_MAX_MORE`], have yet to finish: each holds memory.
const LEAVING_MAX_PER_SLOT: usize = 2;

/// See [`LEAVING_MAX_PER_SLOT`].
const LEAVING_MAX_MORE: usize = 8;

/// What is known of the reload under way, besides where it stands.
#[derive(Debug, Default)]
pub(super) struct ReloadBook {
    /// A reload was asked for while another one was under way; however many, one more answers them all.
    pub(super) asked_again: bool,
    /// Settings that wait until the new names in them were looked up.
    looked_up: Option<(Lookup, Loaded)>,
    /// Settings that wait for what an interpreter says of their file.
    pub(super) reading: Option<(Reader, Draft)>,
    /// The generation that is being tried.
    pub(super) candidate: Option<u32>,
    /// When it began.
    pub(super) began: Option<Instant>,
}

impl ReloadBook {
    /// The look-up that is waited for.
    pub(super) fn lookup(&self) -> Option<&Lookup> {
        self.looked_up.as_ref().map(|(lookup, _)| lookup)
    }

    /// Nobody waits for it any more: the server stops.
    pub(super) fn give_up_lookup(&mut self) {
        self.looked_up = None;
    }
}

impl Arbiter {
    /// HUP, or `ctl reload`.
    ///
    /// # Errors
    ///
    /// Why there will be none; it is in the log too.
    pub(super) fn ask_reload(&mut self) -> Result<(), String> {
        if self.stop.is_some() {
            let why = "No reload: the server is stopping";
            self.journal.info(why);
            return Err(why.to_owned());
        }
        if let Some(until) = self.reload_waits_for() {
            self.reload.asked_again = true;
            self.journal.info(&format!("The reload comes after {until}"));
        } else {
            self.begin_reload();
        }
        Ok(())
    }

    /// What keeps a reload from beginning now.
    fn reload_waits_for(&self) -> Option<&'static str> {
        if self.is_reloading() {
            return Some("the one under way");
        }
        if !self.fleet.was_ever_ready {
            return Some("the first boot");
        }
        if self.upgrade.is_under_way() {
            return Some("the upgrade");
        }
        let most = LEAVING_MAX_PER_SLOT * self.fleet.target + LEAVING_MAX_MORE;
        (most <= self.fleet.leaving.len()).then_some("older workers have finished")
    }

    fn begin_reload(&mut self) {
        self.journal.info(&format!("Hang up: {}", self.master_name()));
        self.control.reload_begins();
        self.manager.tell_reloading();
        let now = self.now();
        self.reload = ReloadBook { began: Some(now), ..ReloadBook::default() };
        let draft = self.invocation.draft();
        match draft.and_then(|draft| Ok((draft.ask()?, draft))) {
            Ok((Some(reader), draft)) => self.reload.reading = Some((reader, draft)),
            Ok((None, draft)) => self.look_up(draft, None),
            Err(error) => self.reload_failed(&chain(&error)),
        }
    }

    /// Whether a reload is under way.
    pub(super) fn is_reloading(&self) -> bool {
        self.fleet.reload != Reload::Idle
            || self.reload.reading.is_some()
            || self.reload.looked_up.is_some()
    }

    /// Goes on with a reload once the interpreter has said what is in the file.
    pub(super) fn tend_reading(&mut self) {
        let Some((reader, _)) = &mut self.reload.reading else { return };
        let Some(answer) = reader.tend() else { return };
        if let Some((_, draft)) = self.reload.reading.take() {
            self.look_up(draft, Some(answer));
        }
    }

    /// Checks the settings, and begins to look up the names that are new in them, if there are any.
    fn look_up(&mut self, draft: Draft, answer: Option<Answer>) {
        let loaded = match draft.finish(answer) {
            Ok(loaded) => loaded,
            Err(error) => return self.reload_failed(&chain(&error)),
        };
        let old = self.generation().map(|generation| generation.settings());
        let names = old.map(|old| lookup::names(loaded.settings(), old)).unwrap_or_default();
        if names.is_empty() {
            return self.go_on_reloading(loaded);
        }
        match Lookup::start(names) {
            Ok(lookup) => self.reload.looked_up = Some((lookup, loaded)),
            Err(error) => self.reload_failed(&format!("cannot look up names: {error}")),
        }
    }

    /// Goes on with a reload when its names were looked up.
    pub(super) fn tend_lookup(&mut self) {
        let Some((lookup, _)) = &mut self.reload.looked_up else { return };
        let Some(outcome) = lookup.tend() else { return };
        let Some((_, loaded)) = self.reload.looked_up.take() else { return };
        match outcome {
            Ok(found) => {
                self.found.extend(found);
                self.go_on_reloading(loaded);
            }
            Err(why) => self.reload_failed(&why),
        }
    }

    fn go_on_reloading(&mut self, loaded: Loaded) {
        let now = self.now();
        match self.prepare(loaded) {
            Ok(number) => {
                self.reload.candidate = Some(number);
                self.fleet.begin_reload(number, now);
                if let Some(generation) = self.generations.get(&number) {
                    let facts = [("GENERATION", number.to_string())];
                    self.hooks.call(generation.settings(), Hook::OnReload, &facts);
                }
            }
            Err(why) => self.reload_failed(&why),
        }
    }

    /// Opens what is new in the settings; changes nothing else.
    fn prepare(&mut self, loaded: Loaded) -> Result<u32, String> {
        for warning in &loaded.warnings {
            self.journal.warning(warning);
        }
        self.journal.can_follow(&loaded)?;
        let Some(current) = self.generation() else {
            return Err("there is no generation to follow".into());
        };
        let ignored = ignored_changes(&current.loaded, &loaded);
        if !ignored.is_empty() {
            self.journal.warning(&format!(
                "Changed settings that only a restart takes over names={ignored}"
            ));
        }
        let listening = if current.listening.iter().all(|listening| listening.is_inherited()) {
            current.listening.clone()
        } else {
            let (options, known) = (bind_options(&loaded), self.known_listening());
            let shards = shards(&loaded, &known);
            Listening::open(&loaded.addresses, &known, shards, &options, &self.found)
                .map_err(|error| crate::generation::OpenError::from(error).explained())?
        };
        let number = self.last_generation + 1;
        let opened = listening.clone();
        let made = Generation::new(number, loaded, listening)
            .map_err(|error| chain(&error))
            .and_then(|generation| Arbiter::fits(&generation).map(|()| generation));
        let generation = match made {
            Ok(generation) => generation,
            Err(why) => {
                Listening::close_unused(opened);
                return Err(why);
            }
        };
        drop(opened);
        if generation.wants_embedded() {
            self.want_companion();
        }
        self.last_generation = number;
        self.generations.insert(number, generation);
        Ok(number)
    }

    /// Everything that any generation listens on, the newest first: an address that an older one has is not bound again.
    fn known_listening(&self) -> Vec<Rc<Listening>> {
        let current = self.generation().into_iter();
        let all = current.chain(self.generations.values().rev());
        all.flat_map(|generation| &generation.listening).map(Rc::clone).collect()
    }

    /// The canary was ready: its generation is the server's from now on.
    pub(super) fn prove(&mut self, number: u32, now: Instant) {
        let Some(new) = self.generations.get(&number) else { return };
        let settings = new.settings();
        let new_limits = limits(settings);
        let old = self.generations.get(&self.fleet.generation);
        // The operator's TTIN and TTOU stay in force until somebody writes another number.
        let target = match old {
            Some(old) if old.settings().workers == settings.workers && 0 < self.fleet.target => {
                self.fleet.target
            }
            _ => settings.workers.min(SLOTS_MAX),
        };
        let is_kept = |listening: &&Rc<Listening>| {
            new.listening.iter().any(|kept| Rc::ptr_eq(kept, listening))
        };
        let known = self.known_listening();
        let mut drain_from = now;
        for listening in &known {
            let changed = if is_kept(&listening) {
                // It may have been given up by a reload whose old workers still finish.
                listening.revive()
            } else if listening.is_held_elsewhere() {
                Ok(())
            } else {
                // The last stop of an address: new connections are turned away, begun ones still arrive.
                drain_from = now + settings.settle_time;
                listening.retire()
            };
            if let Err(error) = changed {
                let address = listening.group.addr();
                self.journal.warning(&format!(
                    "Cannot change who may connect address={address} error={error:?}"
                ));
            }
        }
        let is_new_address = old.is_some_and(|old| old.addresses() != new.addresses());
        if is_new_address {
            self.report_listening(new);
        }
        self.journal.reconfigure(settings, &self.found);
        // Workers that open it have their own; this one is for those of them that die.
        if let Err(error) = self.journal.obituaries.open(settings, &self.found) {
            self.journal.error(&format!("Cannot open the access log error={error:?}"));
        }
        if let Some(who) = &new.loaded.credentials {
            self.journal.give_to(who.uid, who.gid);
        }
        self.set_title(new);
        self.fleet.prove(number, new_limits, drain_from, now);
        let before = self.fleet.target;
        let wanted = self.fleet.set_target(target, now);
        let (settings, as_who) = (settings.clone(), new.loaded.credentials.clone());
        self.reload.candidate = None;
        self.want_admin(&settings, as_who.as_ref());
        self.workers_changed(before, wanted);
    }

    pub(super) fn finish_reload(&mut self, now: Instant) {
        self.fleet.end_reload();
        self.count_reload(true);
        let took_ms = self.took_ms(now);
        let (generation, workers) = (self.fleet.generation, self.fleet.target);
        self.journal
            .info(&format!("Reloaded generation={generation} workers={workers} took_ms={took_ms}"));
        self.reload_concluded(&Ok(serde_json::json!({
            "message": format!("reloaded: generation {generation}, {workers} workers, {took_ms} ms"),
            "generation": generation, "workers": workers, "took_ms": took_ms as u64,
        })));
        self.end_reload();
    }

    /// Compares with what was before: whoever changes the fleet calls this, because any failure may end a reload.
    pub(super) fn reload_may_have_failed(&mut self, before: Reload, why: &str) {
        if before != Reload::Idle && self.fleet.reload == Reload::Idle && self.stop.is_none() {
            let progress = match before {
                Reload::Rolling { .. } => "; the workers that were replaced already stay",
                _ => "",
            };
            self.reload_failed(&format!("{why}{progress}"));
        }
    }

    fn reload_failed(&mut self, why: &str) {
        let now = self.now();
        self.fleet.end_reload();
        self.count_reload(false);
        let (serving, took_ms) = (self.fleet.serving(), self.took_ms(now));
        let generation = self.fleet.generation;
        self.journal.error(&format!(
            "Reload failed, still serving generation={generation} workers={serving} took_ms={took_ms} reason={why}"
        ));
        self.reload_concluded(&Err(format!(
            "reload failed, generation {generation} serves on: {why}"
        )));
        self.end_reload();
    }

    fn end_reload(&mut self) {
        let asked_again = self.reload.asked_again;
        self.reload = ReloadBook::default();
        self.forget_generations();
        let status = self.status();
        self.manager.tell(&format!("READY=1\nSTATUS={status}"));
        // Begun in the next turn: a failing reload that was asked for again and again must not keep this one from ending.
        self.reload.asked_again = asked_again;
    }

    /// Begins what was asked for while it could not be done.
    pub(super) fn catch_up_on_reload(&mut self) {
        if self.reload.asked_again && self.stop.is_none() && self.reload_waits_for().is_none() {
            self.begin_reload();
        }
    }

    fn took_ms(&self, now: Instant) -> u128 {
        self.reload.began.map_or(0, |began| now.saturating_duration_since(began).as_millis())
    }

    /// Closes what only this generation listened on.
    pub(super) fn close(&self, generation: Generation) {
        for listening in generation.listening {
            let address = listening.group.addr().to_string();
            let Some(listening) = Rc::into_inner(listening) else { continue };
            self.close_listening(listening, &address);
        }
    }

    pub(super) fn close_listening(&self, listening: Listening, address: &str) {
        if self.is_held_outside(&listening) {
            return;
        }
        if let Err(error) = listening.group.close_and_unlink() {
            self.journal
                .warning(&format!("Cannot remove the socket address={address} error={error:?}"));
        }
    }
}

/// Names of settings that differ although a reload cannot change them.
fn ignored_changes(old: &Loaded, new: &Loaded) -> String {
    let changed = |name: &str| {
        let texts = |loaded: &Loaded| loaded.resolved.value(name).map(|value| value.texts.clone());
        texts(old) != texts(new)
    };
    let names: Vec<&str> = SETTINGS
        .iter()
        .filter(|setting| setting.on_reload == OnReload::Restart && changed(setting.name))
        .map(|setting| setting.name)
        .collect();
    names.join(",")
}

/// An error with its reasons, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string().replace('\n', "; ");
    let mut source = error.source();
    while let Some(reason) = source {
        line += &format!(": {reason}");
        source = reason.source();
    }
    line
}
