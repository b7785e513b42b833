//! A thousand clients that are slow on purpose: the others do not notice, and the slow ones are let go.

#![allow(clippy::unwrap_used)] // A helper that cannot go on fails its test.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Client, example, start};

/// Slow clients at a time.
const ATTACKERS: usize = 1_000;
/// How long each attack lasts while others are served.
const ATTACK: Duration = Duration::from_secs(4);
/// Between two signs of life of one slow client.
const DRIP_EVERY: Duration = Duration::from_millis(500);
/// The attackers give theirs one after the other, as clients that know nothing of each other: a few in each tick.
const TICK: Duration = Duration::from_millis(1);
/// Longest time for one measurement.
const MEASURE_MAX: Duration = Duration::from_secs(60);
/// How long a slow client may go on before it must have been let go.
const LET_GO_WITHIN: Duration = Duration::from_secs(20);

/// How a client is slow.
struct Attack {
    name: &'static str,
    opening: &'static str,
    /// What it sends from time to time; empty: it reads a few bytes instead.
    drip: &'static [u8],
}

const ATTACKS: [Attack; 3] = [
    Attack { name: "slow head", opening: "GET /json HTTP/1.1\r\nHost: a\r\nX-Slow: ", drip: b"x" },
    Attack {
        name: "slow body",
        opening: "POST /where HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
        drip: b"x",
    },
    Attack {
        name: "slow read",
        opening: "GET /stream/1000000000 HTTP/1.1\r\nHost: a\r\n\r\n",
        drip: b"",
    },
];

#[test]
fn slow_clients_hold_nobody_up_and_are_let_go() {
    let allowed = sys::limits::raise_open_files().unwrap();
    if allowed < 2 * ATTACKERS as u64 {
        println!("skipped: a process may have {allowed} open files only");
        return;
    }
    let worker = start(example("bodies"), |settings| {
        settings.worker_connections = 4 * ATTACKERS;
        settings.header_timeout = Duration::from_secs(2);
        settings.body_timeout = Duration::from_secs(2);
        settings.write_timeout = Duration::from_secs(2);
    });
    for attack in &ATTACKS {
        let quiet = measure(worker.address, ATTACK / 2);
        println!("quiet: {quiet}");
        let siege = Siege::default();
        let (arrival, under_attack, let_go) = std::thread::scope(|scope| {
            let attacking = scope.spawn(|| besiege(worker.address, attack, &siege));
            let arrival =
                measure_until(worker.address, || siege.is_complete.load(Ordering::Relaxed));
            let measured = measure(worker.address, ATTACK);
            siege.is_over.store(true, Ordering::Relaxed);
            (arrival, measured, attacking.join().unwrap())
        });
        let ratio = under_attack.p99.as_secs_f64() / quiet.p99.as_secs_f64();
        println!(
            "{}: {under_attack}, p99 {ratio:.1} times the quiet one; {let_go} were let go; while they came: {arrival}",
            attack.name
        );
        // Every request was answered, or `measure` would have failed. The bound leaves room for a loaded machine,
        // where attackers, server and measurement share the processors.
        assert!(arrival.p99 < Duration::from_millis(500), "{}: {arrival}", attack.name);
        assert!(
            under_attack.p99 < quiet.p99 * 10 + Duration::from_millis(50),
            "{}: {under_attack}, quiet {quiet}",
            attack.name
        );
        assert!(worker.resident_kib() < 300_000, "{} KiB", worker.resident_kib());
    }
    assert!(worker.is_running());
}

#[test]
fn a_client_that_is_slow_for_ever_is_let_go() {
    let worker = start(example("bodies"), |settings| {
        settings.header_timeout = Duration::from_secs(1);
        settings.body_timeout = Duration::from_secs(1);
        settings.write_timeout = Duration::from_secs(1);
    });
    // A client that reads a little again and again does get its answer, so only the first two are ended by force.
    for attack in &ATTACKS[..2] {
        let mut slow = Slow::begin(worker.address, attack);
        let began = Instant::now();
        while slow.go_on(attack) {
            assert!(began.elapsed() < LET_GO_WITHIN, "{} goes on", attack.name);
            std::thread::sleep(DRIP_EVERY / 10);
        }
    }
    drop(worker);
}

#[test]
fn idle_and_slow_clients_do_not_lock_others_out_of_a_full_worker() {
    /// Longer than any wait of the test: nobody is let go by the passing of time alone.
    const LONG: Duration = Duration::from_secs(300);
    /// A second of idleness and a sweep, on a loaded machine.
    const SERVED_WITHIN: Duration = Duration::from_secs(8);
    let kept = "GET /json HTTP/1.1\r\nHost: a\r\n\r\n";
    let upload = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx";
    let allowed = sys::limits::raise_open_files().unwrap();
    for (name, opening) in [
        ("kept", kept),
        ("silent", ""),
        ("dripping", "GET /json HTTP/1.1\r\nX: "),
        ("a slow body", ATTACKS[1].opening),
        ("a slow upload", upload),
        ("a slow read", ATTACKS[2].opening),
    ] {
        let worker = start(example("bodies"), |settings| {
            settings.keepalive = LONG;
            settings.header_timeout = LONG;
            settings.body_timeout = LONG;
            settings.write_timeout = LONG;
        });
        let most = shared::settings::Settings::default().worker_connections;
        if allowed < 2 * most as u64 {
            println!("skipped: a process may have {allowed} open files only");
            return;
        }
        // Who takes its answer steadily has the time for it, however many come.
        let is_over = Arc::new(AtomicBool::new(false));
        let steady = {
            let (mut client, is_over) = (Client::to(worker.address), Arc::clone(&is_over));
            client.send("GET /stream/50000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            std::thread::spawn(move || {
                let mut bytes = 0;
                let mut piece = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = client.stream.read(&mut piece) {
                    bytes += count;
                    if !is_over.load(Ordering::Relaxed) {
                        std::thread::sleep(DRIP_EVERY / 5);
                    }
                }
                bytes
            })
        };
        let begin = || {
            let mut stream = TcpStream::connect(worker.address).unwrap();
            stream.write_all(opening.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        };
        let mut idle: Vec<_> = (1..most + 20).map(|_| begin()).collect();
        for _ in 0..6 {
            let began = Instant::now();
            let mut client = Client::to(worker.address);
            client.get("/json").expect(200);
            assert!(began.elapsed() < SERVED_WITHIN, "{name}: {:?}", began.elapsed());
            // Whoever was let go comes again.
            for stream in &mut idle {
                if matches!(stream.read(&mut [0; 4096]), Ok(0)) {
                    *stream = begin();
                }
            }
        }
        worker.await_log("[WARNING] No room for new connections: closed the idlest");
        is_over.store(true, Ordering::Relaxed);
        let bytes = steady.join().unwrap();
        assert!(50_000_000 < bytes, "{name}: {bytes} of a response that was taken steadily");
    }
}

/// One client that is slow.
struct Slow {
    stream: TcpStream,
}

impl Slow {
    fn begin(address: SocketAddr, attack: &Attack) -> Slow {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(attack.opening.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        Slow { stream }
    }

    /// Gives a sign of life; `false`: the server has said its last.
    fn go_on(&mut self, attack: &Attack) -> bool {
        let would_block = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        if attack.drip.is_empty() {
            return match self.stream.read(&mut [0; 64]) {
                Ok(count) => count != 0,
                Err(error) => would_block(error),
            };
        }
        // An answer, such as 408, is the end of it.
        match self.stream.peek(&mut [0]) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.stream.write_all(attack.drip).map_or_else(would_block, |()| true)
            }
            Err(_) => false,
        }
    }
}

/// How an attack stands.
#[derive(Default)]
struct Siege {
    /// All are there.
    is_complete: AtomicBool,
    is_over: AtomicBool,
}

/// Keeps so many slow clients at it until told to stop; returns how many were let go meanwhile, and replaced.
fn besiege(address: SocketAddr, attack: &Attack, siege: &Siege) -> usize {
    let mut clients: Vec<Slow> = Vec::with_capacity(ATTACKERS);
    let mut let_go = 0;
    let share = ATTACKERS * TICK.as_millis() as usize / DRIP_EVERY.as_millis() as usize;
    let mut next = 0;
    while !siege.is_over.load(Ordering::Relaxed) {
        for _ in 0..share.min(ATTACKERS - clients.len()) * 4 {
            clients.push(Slow::begin(address, attack));
        }
        siege.is_complete.store(clients.len() == ATTACKERS, Ordering::Relaxed);
        for _ in 0..share {
            next = (next + 1) % clients.len();
            if !clients[next].go_on(attack) {
                let_go += 1;
                clients[next] = Slow::begin(address, attack);
            }
        }
        std::thread::sleep(TICK);
    }
    let_go
}

/// What clients that do as they should see.
struct Latency {
    count: usize,
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Display for Latency {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} requests, p50 {:?}, p99 {:?}", self.count, self.p50, self.p99)
    }
}

fn measure(address: SocketAddr, time: Duration) -> Latency {
    let end = Instant::now() + time;
    measure_until(address, || end <= Instant::now())
}

/// Requests one after the other, every tenth on a connection of its own.
fn measure_until(address: SocketAddr, is_over: impl Fn() -> bool) -> Latency {
    let mut client = Client::to(address);
    let mut times = Vec::new();
    let start = Instant::now();
    while times.is_empty() || !is_over() {
        assert!(start.elapsed() < MEASURE_MAX, "the attackers do not get in");
        if times.len() % 10 == 9 {
            client = Client::to(address);
        }
        let began = Instant::now();
        client.get("/json").expect(200);
        times.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    Latency { count: times.len(), p50: at(50), p99: at(99) }
}
