//! Tables of slot states, and stories told to the fleet by a fake arbiter that does what the plan says.

use std::time::{Duration, Instant};

use super::*;

const LIMITS: Limits = Limits {
    timeout: Some(Duration::from_secs(30)),
    request_timeout: Some(Duration::from_secs(5)),
    boot_timeout: Some(Duration::from_secs(60)),
    graceful_timeout: Duration::from_secs(20),
};

const JITTER: f64 = 0.5;

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// A fleet with a clock, and an arbiter that performs every plan at once.
struct Story {
    fleet: Fleet,
    now: Instant,
    ids: u64,
    /// What was done, in short words.
    done: Vec<String>,
}

impl Story {
    fn new(target: usize) -> Story {
        let now = Instant::now();
        let mut fleet = Fleet::new(target, LIMITS, now);
        fleet.stage = Stage::Running;
        Story { fleet, now, ids: 0, done: Vec::new() }
    }

    /// All slots booted and ready.
    fn serving(target: usize) -> Story {
        let mut story = Story::new(target);
        story.act();
        for id in 1..=target as u64 {
            story.ready(id);
        }
        story.done.clear();
        story
    }

    fn act(&mut self) {
        for _ in 0..20 {
            let plan = self.fleet.plan(self.now);
            if plan.is_empty() {
                return;
            }
            for action in plan {
                self.perform(action);
            }
        }
        panic!(
            "the plan never comes to rest: {:?} for {:?}",
            self.fleet.plan(self.now),
            self.fleet
        );
    }

    fn perform(&mut self, action: Action) {
        let deadline = self.now + self.fleet.limits.graceful_timeout;
        match action {
            Action::Spawn { slot, generation } => {
                self.ids += 1;
                let worker = Worker { id: Id(self.ids), generation, since: self.now };
                self.fleet.spawned(slot, worker);
                self.done.push(format!("spawn {} in {slot} of {generation}", self.ids));
            }
            Action::Drain { id, .. } => {
                self.fleet.told(id, Manner::Draining { deadline }, self.now, JITTER);
                self.done.push(format!("drain {}", id.0));
            }
            Action::AbortSilent { id, .. }
            | Action::AbortOverdue { id }
            | Action::AbortBoot { id } => {
                self.fleet.told(id, Fleet::aborting(self.now), self.now, JITTER);
                self.done.push(format!("abort {}", id.0));
            }
            Action::Kill { id } => {
                self.fleet.told(id, Manner::Killed { since: self.now }, self.now, JITTER);
                self.done.push(format!("kill {}", id.0));
            }
            Action::FinishReload => {
                self.fleet.end_reload();
                self.done.push("reloaded".into());
            }
            Action::Settle => {
                self.fleet.stage = Stage::Settling { until: self.now + seconds(0.15) };
                self.done.push("settle".into());
            }
            Action::StopAll => {
                self.fleet.stop_all(deadline);
                self.done.push("stop".into());
            }
        }
    }

    fn wait(&mut self, time: f64) {
        self.now += seconds(time);
        self.act();
    }

    fn ready(&mut self, id: u64) -> Promotion {
        let promotion = self.fleet.ready(Id(id), self.now);
        if promotion == Promotion::Canary
            && let Reload::Canary { generation } = self.fleet.reload
        {
            self.fleet.prove(generation, LIMITS, self.now, self.now);
        }
        self.act();
        promotion
    }

    fn exit(&mut self, id: u64) -> Departure {
        let (_, departure) = self.fleet.exited(Id(id), self.now, JITTER).expect("one of ours");
        self.act();
        departure
    }

    #[track_caller]
    fn did(&mut self, want: &[&str]) {
        assert_eq!(std::mem::take(&mut self.done), want);
    }
}

#[test]
fn boot_fills_every_slot_at_once() {
    let mut story = Story::new(3);
    story.act();
    story.did(&["spawn 1 in 0 of 0", "spawn 2 in 1 of 0", "spawn 3 in 2 of 0"]);
    assert!(!story.fleet.is_settled());
    for id in 1..=3 {
        assert_eq!(story.ready(id), Promotion::Serves);
    }
    assert!(story.fleet.is_settled());
    assert_eq!(story.ready(2), Promotion::Ignored);
}

#[test]
fn companions_come_before_the_first_worker() {
    let mut story = Story::new(1);
    story.fleet.stage = Stage::Waiting;
    story.act();
    story.did(&[]);
}

#[test]
fn first_boot_gives_up_only_when_every_slot_has_failed() {
    let mut story = Story::new(2);
    story.act();
    assert_eq!(story.exit(1), Departure::BootFailed { retry_in: None, failures: 1 });
    story.wait(40.0);
    assert!(!story.fleet.is_hopeless(), "the other may still come up");
    story.exit(2);
    assert!(story.fleet.is_hopeless());
    story.did(&["spawn 1 in 0 of 0", "spawn 2 in 1 of 0"]);
}

#[test]
fn once_ready_the_failed_slot_is_tried_again() {
    let mut story = Story::new(2);
    story.act();
    story.exit(1);
    story.wait(1.0);
    story.done.clear();
    story.ready(2);
    story.did(&["spawn 3 in 0 of 0"]);
    story.exit(2);
    story.exit(3);
    story.wait(30.0);
    assert!(!story.fleet.is_hopeless(), "never give up once healthy");
}

#[test]
fn a_crash_is_made_good_at_once_and_a_crash_loop_slower_and_slower() {
    let mut story = Story::serving(2);
    assert_eq!(story.exit(1), Departure::Crashed { retry_in: Duration::ZERO, failures: 1 });
    story.did(&["spawn 3 in 0 of 0"]);
    story.ready(3);
    assert_eq!(story.exit(3), Departure::Crashed { retry_in: seconds(0.1), failures: 2 });
    story.wait(0.09);
    story.did(&[]);
    assert_eq!(story.fleet.next_deadline(story.now), Some(story.now + seconds(0.01)));
    story.wait(0.01);
    story.did(&["spawn 4 in 0 of 0"]);
    let departure = story.exit(4);
    assert_eq!(departure, Departure::BootFailed { retry_in: Some(seconds(0.2)), failures: 3 });
    story.wait(0.2);
    story.ready(5);
    story.wait(HEALTHY_AFTER.as_secs_f64());
    let departure = story.exit(5);
    assert_eq!(
        departure,
        Departure::Crashed { retry_in: Duration::ZERO, failures: 1 },
        "forgotten"
    );
}

#[test]
fn a_fork_that_fails_is_never_tried_again_at_once() {
    let mut story = Story::serving(1);
    story.fleet.exited(Id(1), story.now, JITTER);
    let failure = story.fleet.spawn_failed(0, 0, story.now, JITTER);
    assert_eq!(failure, SpawnFailure::RetryIn(seconds(0.1)));
    story.act();
    story.did(&[]);
}

#[test]
fn a_canary_that_cannot_be_spawned_is_tried_again_at_a_growing_pace_and_then_the_reload_ends() {
    for limit in [Some(seconds(2.0)), None] {
        let mut story = Story::serving(2);
        story.fleet.limits.boot_timeout = limit;
        story.fleet.begin_reload(1, story.now);
        let (began, mut attempts) = (story.now, 0);
        while story.fleet.reload != Reload::Idle {
            let plan = story.fleet.plan(story.now);
            if plan.is_empty() {
                let next = story.fleet.next_deadline(story.now).expect("an attempt is to come");
                assert!(story.now < next, "a deadline that is past wakes nobody");
                story.now = next;
                continue;
            }
            assert_eq!(plan, [Action::Spawn { slot: 0, generation: 1 }]);
            attempts += 1;
            if story.fleet.spawn_failed(0, 1, story.now, JITTER) == SpawnFailure::EndsReload {
                break;
            }
            assert_eq!(story.fleet.plan(story.now), [], "not in the same turn");
        }
        // Waits of 0.1, 0.2, 0.4, 0.8 and 1.6 s; or as many as are allowed at all.
        let want = if limit.is_some() { 6 } else { SPAWN_FAILURES_MAX };
        assert_eq!(attempts, want);
        assert!(limit.is_none_or(|limit| story.now <= began + limit + seconds(1.2)));
        assert_eq!((story.fleet.reload, story.fleet.serving()), (Reload::Idle, 2));
        story.act();
        story.did(&[]);
    }
}

#[test]
fn a_reload_after_one_that_could_not_spawn_begins_at_once() {
    let mut story = Story::serving(1);
    for generation in [1, 2] {
        story.fleet.begin_reload(generation, story.now);
        assert_eq!(story.fleet.plan(story.now), [Action::Spawn { slot: 0, generation }]);
        story.fleet.spawn_failed(0, generation, story.now, JITTER);
        story.fleet.end_reload();
    }
    // Midway it ends as well, and what is replaced stays.
    let mut story = Story::serving(2);
    story.fleet.begin_reload(1, story.now);
    story.act();
    story.fleet.ready(Id(3), story.now);
    story.fleet.prove(1, LIMITS, story.now, story.now);
    for attempt in 1..=SPAWN_FAILURES_MAX {
        let ends = story.fleet.spawn_failed(1, 1, story.now, JITTER) == SpawnFailure::EndsReload;
        assert_eq!(ends, attempt == SPAWN_FAILURES_MAX);
    }
    assert_eq!(story.fleet.reload, Reload::Idle);
}

#[test]
fn silence_is_aborted_replaced_at_once_and_killed() {
    let mut story = Story::serving(2);
    story.fleet.heard(Id(1), story.now);
    story.wait(29.0);
    story.fleet.heard(Id(1), story.now - seconds(28.0));
    story.did(&[]);
    story.wait(1.9);
    story.did(&[]);
    story.wait(0.2);
    story.did(&["abort 1", "spawn 3 in 0 of 0"]);
    story.wait(2.0);
    story.did(&["kill 1"]);
    assert!(matches!(story.exit(1), Departure::Asked(Manner::Killed { .. })));
}

#[test]
fn a_request_that_has_a_worker_for_too_long_ends_with_it() {
    let mut story = Story::serving(2);
    story.fleet.limits.timeout = None;
    story.fleet.busy(Id(1), Some(story.now));
    let at = story.now + seconds(5.0) + REQUEST_GRACE;
    assert_eq!(story.fleet.next_deadline(story.now), Some(at));
    story.wait(6.9);
    story.did(&[]);
    // Another request has it by now.
    story.fleet.busy(Id(1), Some(story.now));
    story.wait(6.9);
    story.did(&[]);
    story.wait(0.2);
    story.did(&["abort 1", "spawn 3 in 0 of 0"]);
    story.ready(3);
    // None has it, and the time of a pause of the master's own does not count.
    story.fleet.busy(Id(2), None);
    story.wait(100.0);
    story.did(&["kill 1"]);
    story.fleet.busy(Id(2), Some(story.now - seconds(100.0)));
    story.fleet.resumed_at = story.now;
    story.act();
    story.did(&[]);
    story.now += seconds(100.0);
    story.fleet.excuse(Id(2), story.now);
    story.act();
    story.did(&[]);
}

#[test]
fn a_worker_that_never_gives_a_sign_is_not_silent() {
    let mut story = Story::serving(1);
    story.wait(10_000.0);
    story.did(&[]);
}

#[test]
fn silence_before_the_masters_own_pause_does_not_count() {
    let mut story = Story::serving(1);
    story.fleet.heard(Id(1), story.now);
    story.now += seconds(100.0);
    story.fleet.resumed_at = story.now;
    story.act();
    story.did(&[]);
    story.wait(29.9);
    story.did(&[]);
    story.wait(0.2);
    story.did(&["abort 1", "spawn 2 in 0 of 0"]);
}

#[test]
fn a_boot_that_hangs_is_aborted() {
    let mut story = Story::serving(1);
    story.exit(1);
    story.wait(60.0);
    story.did(&["spawn 2 in 0 of 0", "abort 2"]);
    story.wait(0.1);
    story.did(&["spawn 3 in 0 of 0"]);
}

#[test]
fn reload_sends_a_canary_first_and_drains_only_what_is_replaced() {
    let mut story = Story::serving(3);
    story.fleet.begin_reload(1, story.now);
    story.act();
    story.did(&["spawn 4 in 0 of 1"]);
    story.wait(5.0);
    story.did(&[]);
    assert_eq!(story.ready(4), Promotion::Canary);
    story.did(&["drain 1", "spawn 5 in 1 of 1"]);
    story.ready(5);
    story.did(&["drain 2", "spawn 6 in 2 of 1"]);
    story.exit(1);
    story.exit(2);
    story.ready(6);
    story.did(&["drain 3", "reloaded"]);
    assert!(story.fleet.is_settled());
}

#[test]
fn a_canary_that_dies_or_hangs_changes_nothing() {
    for hangs in [false, true] {
        let mut story = Story::serving(2);
        story.fleet.begin_reload(1, story.now);
        story.act();
        if hangs {
            story.wait(60.0);
            story.did(&["spawn 3 in 0 of 1", "abort 3"]);
        } else {
            assert_eq!(story.exit(3), Departure::BootFailed { retry_in: None, failures: 1 });
            story.did(&["spawn 3 in 0 of 1"]);
        }
        assert_eq!(story.fleet.reload, Reload::Idle);
        assert_eq!((story.fleet.serving(), story.fleet.generation), (2, 0));
        story.wait(1.0);
        story.did(&[]);
    }
}

#[test]
fn a_reload_that_fails_midway_keeps_the_old_ones() {
    let mut story = Story::serving(3);
    story.fleet.begin_reload(1, story.now);
    story.act();
    story.ready(4);
    story.exit(5);
    assert_eq!(story.fleet.reload, Reload::Idle);
    story.did(&["spawn 4 in 0 of 1", "drain 1", "spawn 5 in 1 of 1"]);
    story.exit(1);
    story.wait(100.0);
    story.did(&[]);
    assert_eq!(story.fleet.serving(), 3);
}

#[test]
fn an_old_worker_that_dies_during_a_reload_is_replaced_from_what_is_proven() {
    let mut story = Story::serving(2);
    story.fleet.begin_reload(1, story.now);
    story.act();
    story.exit(2);
    story.did(&["spawn 3 in 0 of 1", "spawn 4 in 1 of 0"]);
    story.ready(3);
    // The one that boots from the old settings would only have to be replaced.
    story.did(&["drain 1", "drain 4", "spawn 5 in 1 of 1"]);
    // The predecessor in the canary's slot dies: the canary simply has the slot.
    let mut story = Story::serving(1);
    story.fleet.begin_reload(1, story.now);
    story.act();
    story.exit(1);
    assert_eq!(story.ready(2), Promotion::Canary);
    story.did(&["spawn 2 in 0 of 1", "reloaded"]);
}

#[test]
fn drains_wait_until_retired_addresses_have_settled() {
    let mut story = Story::serving(1);
    story.fleet.begin_reload(1, story.now);
    story.act();
    story.fleet.ready(Id(2), story.now);
    story.fleet.prove(1, LIMITS, story.now + seconds(0.15), story.now);
    story.act();
    story.did(&["spawn 2 in 0 of 1"]);
    assert_eq!(story.fleet.next_deadline(story.now), Some(story.now + seconds(0.15)));
    story.wait(0.15);
    story.did(&["drain 1", "reloaded"]);
}

#[test]
fn more_and_fewer_workers() {
    let mut story = Story::serving(1);
    story.fleet.set_target(3, story.now);
    story.act();
    story.did(&["spawn 2 in 1 of 0", "spawn 3 in 2 of 0"]);
    story.ready(2);
    story.fleet.set_target(1, story.now);
    story.act();
    story.did(&["drain 2", "drain 3"]);
    assert!(story.fleet.is_settled());
    assert_eq!(story.fleet.set_target(0, story.now), 1, "never none");
    assert_eq!(story.fleet.set_target(1 << 20, story.now), SLOTS_MAX);
}

#[test]
fn a_dismissed_fleet_comes_back_by_reload() {
    let mut story = Story::serving(2);
    story.fleet.dismiss_all();
    story.act();
    story.did(&["drain 1", "drain 2"]);
    assert!(story.fleet.is_settled() && !story.fleet.is_hopeless());
    story.fleet.begin_reload(1, story.now);
    story.act();
    story.did(&["spawn 3 in 0 of 1"]);
    assert_eq!(story.fleet.ready(Id(3), story.now), Promotion::Canary);
    story.fleet.prove(1, LIMITS, story.now, story.now);
    story.fleet.set_target(2, story.now);
    story.act();
    story.ready(4);
    assert!(story.fleet.is_settled() && story.fleet.serving() == 2);
}

#[test]
fn a_worn_worker_is_replaced_one_at_a_time_and_ready_first() {
    let mut story = Story::serving(3);
    story.fleet.wear(Id(1));
    story.fleet.wear(Id(2));
    story.act();
    story.did(&["spawn 4 in 0 of 0"]);
    story.exit(4);
    story.act();
    story.did(&["spawn 5 in 0 of 0"]);
    story.ready(5);
    story.did(&["drain 1", "spawn 6 in 1 of 0"]);
}

#[test]
fn a_drain_beyond_its_time_is_killed_once() {
    let mut story = Story::serving(2);
    story.fleet.set_target(1, story.now);
    story.act();
    story.wait(19.9);
    story.did(&["drain 2"]);
    story.wait(0.1);
    story.did(&["kill 2"]);
    story.wait(100.0);
    story.did(&[]);
    assert_eq!(story.fleet.next_deadline(story.now), None);
}

#[test]
fn stop_goes_through_its_stages() {
    let mut story = Story::serving(2);
    story.fleet.stage = Stage::SayingClose { until: story.now + seconds(5.0) };
    story.exit(1);
    story.did(&["spawn 3 in 0 of 0"]);
    story.wait(5.0);
    story.did(&["settle"]);
    story.exit(3);
    story.wait(0.15);
    story.did(&["stop"]);
    assert!(!story.fleet.is_empty());
    story.wait(20.0);
    story.did(&["kill 2"]);
    story.exit(2);
    assert!(story.fleet.is_empty());
}

#[test]
fn any_order_of_events_leaves_a_sane_fleet() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut story = Story::serving(1 + random.usize(..4));
        let mut generation = 0;
        for _ in 0..200 {
            let living: Vec<u64> = story
                .fleet
                .workers()
                .map(|(_, w)| w.id.0)
                .chain(story.fleet.leaving.iter().map(|l| l.worker.id.0))
                .collect();
            let any = living.get(random.usize(..=living.len())).copied().unwrap_or(0);
            match random.u8(..9) {
                0 => {
                    story.fleet.exited(Id(any), story.now, random.f64());
                }
                1..=3 => {
                    story.ready(any);
                }
                4 => story.fleet.heard(Id(any), story.now),
                5 => {
                    story.fleet.set_target(random.usize(..6), story.now);
                }
                6 if story.fleet.reload == Reload::Idle => {
                    generation += 1;
                    story.fleet.begin_reload(generation, story.now);
                }
                7 => story.fleet.wear(Id(any)),
                _ => story.now += seconds(random.f64() * 70.0),
            }
            let ready = story.fleet.serving();
            story.act();
            assert!(story.fleet.slots.len() <= SLOTS_MAX);
            let _ = ready;
        }
        // Left in peace, with workers that boot, it comes to rest as wanted.
        for _ in 0..100 {
            let booting: Vec<u64> = story.fleet.workers().map(|(_, w)| w.id.0).collect();
            for id in booting {
                story.ready(id);
                story.fleet.heard(Id(id), story.now);
            }
            for id in story.fleet.leaving.iter().map(|l| l.worker.id).collect::<Vec<_>>() {
                story.fleet.exited(id, story.now, JITTER);
            }
            story.wait(1.0);
        }
        assert!(story.fleet.is_settled(), "seed {seed}: {:?}", story.fleet);
        assert_eq!(story.fleet.serving(), story.fleet.target);
        assert_eq!(story.fleet.reload, Reload::Idle, "seed {seed}");
    }
}
