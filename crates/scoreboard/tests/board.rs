//! The scoreboard as master and workers use it: through two mappings of one memory.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use scoreboard::{Call, Counter, Gauge, PATH_BYTES_MAX, SERIES_MAX, Scoreboard, State, Verb};

fn pair(blocks: usize) -> (Scoreboard, Scoreboard) {
    let ours = Scoreboard::create(blocks).expect("created");
    let theirs = Scoreboard::open(ours.share().expect("a copy")).expect("opened");
    (ours, theirs)
}

fn call(pattern: &str, route: u16, status: u16) -> Call<'_> {
    Call { verb: Verb::of(b"GET"), route, pattern, status }
}

#[test]
fn counters_of_the_dead_stay_in_the_totals() {
    let (mut master, worker) = pair(2);
    let index = master.acquire(0, 1).expect("free");
    let block = worker.block(index).expect("valid");
    block.start(4242);
    block.add(Counter::ConnectionsAccepted, 3);
    block.set(Gauge::ConnectionsIdle, 2);
    block.finish(&call("/json", 1, 200), 90_000);
    block.finish(&call("/json", 1, 503), 3_000_000);
    block.add_queries(&[5, 0, 1], 2_000_000);
    assert_eq!(master.gauge(Gauge::ConnectionsIdle), 2);
    let alive = master.totals();

    let last = master.release(index, 0);
    assert_eq!(last.get(Counter::RequestsDone), 2);
    assert_eq!(master.totals(), alive, "a death must not change what was counted");
    assert_eq!(master.gauge(Gauge::ConnectionsIdle), 0, "gauges die with their worker");
    assert_eq!(alive.get(Counter::Responses2xx), 1);
    assert_eq!(alive.get(Counter::Responses5xx), 1);
    let durations = master.durations();
    assert_eq!((durations.counts[0], durations.counts[5]), (1, 1));
    assert_eq!(durations.sum.as_nanos(), 3_090_000);
    let queries = alive.query_durations();
    assert_eq!((queries.counts[0], queries.counts[2], queries.count()), (5, 1, 6));
    assert_eq!(queries.sum.as_nanos(), 2_000_000);

    // Twice is a mistake of the caller, not a way to count twice.
    assert_eq!(master.release(index, 0).get(Counter::RequestsDone), 0);
    assert_eq!(master.totals(), alive);
}

#[test]
fn slots_and_routes_go_on_where_their_dead_ended() {
    let (mut master, worker) = pair(2);
    // Another build of the application numbers its routes otherwise.
    for (generation, number) in [(1, 1), (2, 7)] {
        let index = master.acquire(3, generation).expect("free");
        let block = worker.block(index).expect("valid");
        block.finish(&call("/users/{id}", number, 200), 90_000);
        block.finish(&call("/users/{id}", number, 404), 90_000);
        block.add(Counter::BusyNanoseconds, 50);
        let seen = worker.snapshot();
        let ok = seen.series.iter().find(|series| series.status == 200).expect("counted");
        assert_eq!((ok.verb.name(), ok.route.as_str()), ("GET", "/users/{id}"));
        assert_eq!(ok.durations.count(), generation);
        assert_eq!((seen.slots.len(), seen.slots[3].requests), (4, 2 * generation));
        if generation == 1 {
            master.release(index, 1_000);
        }
    }
    let seen = worker.snapshot();
    assert_eq!(seen.slots[3].cpu_ns, 1_000);
    assert_eq!((seen.slots[3].busy_ns, seen.slots[3].spawns), (100, 2));
    assert_eq!(seen.workers.len(), 1, "the dead are not listed");
}

#[test]
fn no_number_of_series_loses_a_request() {
    let (mut master, worker) = pair(1);
    for generation in 0..12 {
        let index = master.acquire(0, generation).expect("free");
        for route in 0..300 {
            let pattern = format!("/{generation}/{route}");
            worker.block(index).expect("valid").finish(&call(&pattern, route, 200), 1);
        }
        let seen = master.snapshot();
        let count: u64 = seen.series.iter().map(|series| series.durations.count()).sum();
        assert_eq!(count, 300 * (generation + 1));
        assert!(seen.workers[0].counters.get(Counter::RequestsDone) == 300);
        master.release(index, 0);
        assert_eq!(master.durations().count(), count);
    }
    assert!(master.snapshot().series.len() <= 1024 + SERIES_MAX);
}

#[test]
fn what_the_master_says_is_seen_by_others() {
    use scoreboard::{Fact, ListenerFacts, Phase};
    let (master, reader) = pair(1);
    master.master().set_phase(Phase::Stopping);
    master.master().count(Fact::Spawns);
    let listener = |name: &str, length| ListenerFacts { name: name.into(), length, limit: 2048 };
    let both = [listener("http://127.0.0.1:8000", 3), listener("unix:/run/x.sock", 0)];
    master.master().set_listeners(both.clone().into_iter());
    assert_eq!(reader.master().phase(), Phase::Stopping);
    assert_eq!(reader.master().get(Fact::Spawns), 1);
    assert_eq!(reader.master().listeners(), both);
    master.master().set_listeners((0..100).map(|_| listener("x", 0)));
    assert_eq!(reader.master().listeners().len(), scoreboard::LISTENERS_MAX);
}

#[test]
fn a_new_process_finds_its_block_clean() {
    let (mut master, worker) = pair(1);
    let first = master.acquire(0, 1).expect("free");
    assert_eq!(master.acquire(1, 1), None, "both would write one block");
    let block = worker.block(first).expect("valid");
    block.start(1);
    block.set_state(State::Draining);
    block.begin(7, b"GET", b"/old", b"");
    master.release(first, 0);

    let second = master.acquire(5, 2).expect("free again");
    let block = master.block(second).expect("valid");
    assert_eq!((block.slot(), block.generation(), block.pid()), (5, 2, 0));
    assert_eq!((block.state(), block.heartbeat()), (State::Booting, 0));
    assert_eq!(block.request_in_hand(), None);
}

#[test]
fn the_request_in_hand_is_cut_and_cleaned() {
    let (mut master, worker) = pair(1);
    let index = master.acquire(0, 1).expect("free");
    let block = worker.block(index).expect("valid");
    let long = vec![b'x'; 4_000];
    block.begin(99, b"PROPFIND", &long, b"[2001:db8::1]:4000");
    let seen = master.block(index).expect("valid").request_in_hand().expect("in hand");
    assert_eq!((seen.since, seen.method.as_str()), (99, "PROPFIND"));
    assert_eq!(seen.path.len(), PATH_BYTES_MAX);
    assert_eq!(seen.peer, "[2001:db8::1]:4000");
    block.hold(100, b"GET", b"/a\r\n[forged]\x1b[2J", b"");
    let seen = master.block(index).expect("valid").request_in_hand().expect("in hand");
    assert_eq!(seen.path, "/a??[forged]?[2J");
    block.let_go();
    assert_eq!(master.block(index).expect("valid").request_in_hand(), None);
    assert_eq!(master.totals().get(Counter::RequestsStarted), 1, "resumptions are not counted");
}

#[test]
fn nobody_sees_half_of_one_request_and_half_of_another() {
    /// Requests that the reader is to see, while the writer goes on.
    const SEEN: u64 = 1_000;
    /// Far more than it takes on a machine where both share one processor.
    const REQUESTS_MAX: u64 = 200_000_000;
    let (mut master, worker) = pair(1);
    let index = master.acquire(0, 1).expect("free");
    let (seen, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = worker.block(index).expect("valid");
            for number in 1..=REQUESTS_MAX {
                let letter = [b'a' + (number % 26) as u8; PATH_BYTES_MAX];
                let length = 1 + (number as usize * 7) % PATH_BYTES_MAX;
                block.hold(number, &letter[..4], &letter[..length], &letter[..20]);
                if SEEN <= seen.load(Ordering::Relaxed) {
                    break;
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        let block = master.block(index).expect("valid");
        while !done.load(Ordering::SeqCst) {
            let Some(request) = block.request_in_hand() else { continue };
            seen.fetch_add(1, Ordering::Relaxed);
            let letter = char::from(b'a' + (request.since % 26) as u8);
            let whole = format!("{}{}{}", request.method, request.path, request.peer);
            assert!(whole.chars().all(|c| c == letter), "torn: {request:?}");
            assert_eq!(request.path.len(), 1 + (request.since as usize * 7) % PATH_BYTES_MAX);
        }
    });
    assert!(SEEN <= seen.into_inner(), "the reader must have seen something");
}

#[test]
fn totals_never_fall_while_workers_come_and_go() {
    let (mut master, reader) = pair(3);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for generation in 0..20_000 {
                let index = master.acquire(0, generation).expect("free");
                master.block(index).expect("valid").finish(&call("/json", 1, 200), 1_000);
                master.release(index, 0);
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut last = 0;
        while !done.load(Ordering::SeqCst) {
            let now = reader.totals().get(Counter::RequestsDone);
            assert!(last <= now, "fell from {last} to {now}");
            assert!(now <= 20_000, "counted twice: {now}");
            last = now;
        }
    });
    assert_eq!(reader.totals().get(Counter::RequestsDone), 20_000);
}

#[test]
fn strange_memory_is_refused_and_scribbling_is_harmless() {
    let foreign = sys::shm::SharedMemory::create(c"foreign", 65_536).expect("created");
    let copy = std::os::fd::AsFd::as_fd(&foreign).try_clone_to_owned().expect("a copy");
    assert!(Scoreboard::open(copy).is_err());

    let (mut master, worker) = pair(2);
    let index = master.acquire(0, 1).expect("free");
    worker.block(index).expect("valid").start(1);
    let scribbler = sys::shm::SharedMemory::map(master.share().expect("a copy")).expect("mapped");
    for word in scribbler.iter() {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    let block = master.block(index).expect("valid");
    assert_eq!(block.state(), State::Booting);
    assert_eq!(block.request_in_hand(), None);
    let _ = master.totals();
    master.release(index, 0);
    assert!(master.block(2).is_none());
    assert!(Scoreboard::open(master.share().expect("a copy")).is_err());
}
