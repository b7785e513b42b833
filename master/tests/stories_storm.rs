//! Signals in any order and at any rate, upgrades among them, leave a sane server.
//!
//! Another storm, or a shorter one: `STORM_SIGNALS=600 STORM_SEED=7 cargo test -p master --test stories_storm`.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use testkit::load::Failure;
use testkit::{Load, Mode, Server, Signal, TempDir, children_of, is_alive, process_state};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(120);

/// Signals sent when nobody says otherwise; each pause between two of them is below [`PAUSE_MS`].
const SIGNALS: u32 = 10_000;

/// See [`SIGNALS`].
const PAUSE_MS: u64 = 8;

/// Workers asked for beyond those at the start.
const WORKERS_MORE_MAX: u64 = 6;

/// Servers that are stopped in the middle of a storm.
const STOPS: u32 = 12;

/// A sequence that is the same in every run: the middle bits of a linear congruential generator.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The master that the pidfile names: after an upgrade it is nobody's child here, so it is ended at drop.
struct Newest {
    dir: TempDir,
    last: u32,
}

impl Newest {
    fn pid(&mut self) -> u32 {
        let text = std::fs::read_to_string(self.dir.join("m.pid")).unwrap_or_default();
        // Between two masters there may be no file.
        if let Ok(pid) = text.trim().parse()
            && is_master(pid)
        {
            self.last = pid;
        }
        self.last
    }

    fn signal(&mut self, signal: Signal) {
        let pid = self.pid();
        if is_master(pid) {
            // It may have handed over and left this very moment.
            let _ = kill(raw(pid), signal);
        }
    }
}

impl Drop for Newest {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}

/// A number may have been given to somebody else meanwhile.
fn is_master(pid: u32) -> bool {
    let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    title.starts_with(b"monoceros: master")
}

fn setting<T: FromStr + Display>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the log says of the number of workers wanted, master by master: checks that each TTIN and TTOU that was handled
/// changed it by one, never below one, and nothing else did. Returns the number that each master wants at last.
#[track_caller]
fn check_sums(log: &[String], at_start: i64) -> BTreeMap<String, i64> {
    let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
    // What a TTIN or TTOU asked for, until its outcome is told in the next line of its master.
    let mut asked: BTreeMap<String, i64> = BTreeMap::new();
    for line in log {
        let Some(master) = line.split("] [").nth(1).map(str::to_owned) else { continue };
        let number =
            |key: &str| -> Option<i64> { line.split(key).nth(1)?.split(' ').next()?.parse().ok() };
        let change = match line {
            line if line.ends_with("Handling signal: ttin") => 1,
            line if line.ends_with("Handling signal: ttou") => -1,
            line if line.contains("Number of workers wanted=") => {
                let (new, before) = (number("wanted=").expect("a number"), number("before="));
                let change = asked.remove(&master).expect("somebody asked");
                if let Some(known) = wanted.get(&master) {
                    assert_eq!(before, Some(*known), "nobody asked for this: {line}");
                }
                assert_eq!(Some(new), before.map(|before| (before + change).max(1)), "{line}");
                wanted.insert(master, new);
                continue;
            }
            line if line.contains("The number of workers stays") => {
                asked.remove(&master);
                continue;
            }
            line if line.contains("Reloaded generation=") => {
                // The setting did not change, so what the signals came to stays in force.
                let known = wanted.get(&master).copied().unwrap_or(at_start);
                let workers = number("workers=");
                assert!(!wanted.contains_key(&master) || workers == Some(known), "{line}");
                continue;
            }
            _ => continue,
        };
        assert_eq!(asked.insert(master, change), None, "the one before has no outcome: {line}");
    }
    wanted
}

/// Descriptors that a master has open.
fn descriptors_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(usize::MAX, Iterator::count)
}

fn zombies_of(pid: u32) -> usize {
    children_of(pid).iter().filter(|&&pid| process_state(pid) == Some('Z')).count()
}

#[test]
fn a_storm_of_signals_under_load_ends_with_a_sane_server() {
    let (signals, seed) = (setting("STORM_SIGNALS", SIGNALS), setting("STORM_SEED", 42));
    let dir = TempDir::new();
    let pidfile = dir.join("m.pid").display().to_string();
    let args = ["--workers", "2", "--pid", &pidfile];
    let server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    let mut newest = Newest { dir, last: server.pid() };
    // Compared with a master that came by an upgrade, as the last one will have.
    newest.signal(Signal::SIGUSR2);
    testkit::wait_until("a second master", BOUND, || newest.pid() != server.pid());
    let first = newest.pid();
    testkit::wait_until("its rest", BOUND, || {
        process_state(server.pid()).is_none_or(|state| state == 'Z')
            && children_of(first).len() == 2
    });
    let descriptors = descriptors_of(first);
    let loads = [
        Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(4),
        Load::get(server.endpoint(), "/json", Mode::KeepAlive { pause: Duration::from_millis(20) }),
    ];
    let longest = BOUND * 4 + Duration::from_millis(40) * signals;
    let running = loads.map(|mut load| {
        load.requests_max = u64::MAX;
        load.duration(longest).start()
    });
    let mut random = Sequence(seed);
    let (began, mut more) = (Instant::now(), 0);
    for _ in 0..signals {
        // As many up as down; a reload now and then, an upgrade seldom. All others must change nothing.
        let signal = match random.below(256) {
            // Never far up: a hundred workers would make a storm of boots, not of signals.
            0..128 if more < random.below(WORKERS_MORE_MAX) => {
                more += 1;
                Signal::SIGTTIN
            }
            0..128 => {
                more = more.saturating_sub(1);
                Signal::SIGTTOU
            }
            128..136 => Signal::SIGHUP,
            136..180 => Signal::SIGUSR1,
            180..216 => Signal::SIGWINCH,
            216..252 => Signal::SIGCHLD,
            _ => Signal::SIGUSR2,
        };
        newest.signal(signal);
        std::thread::sleep(Duration::from_millis(random.below(PAUSE_MS)));
    }
    let storm = began.elapsed();
    // At rest: nothing more is logged, and the newest master is the only one and has no reload or upgrade under way.
    let mut seen = (0, Instant::now());
    testkit::wait_until("rest", BOUND, || {
        if server.log_mark() != seen.0 {
            seen = (server.log_mark(), Instant::now());
        }
        let is_quiet = Duration::from_secs(2) < seen.1.elapsed();
        is_quiet && newest.pid() != 0
    });
    let pid = newest.pid();
    let wanted = check_sums(&server.log(), 2).get(&pid.to_string()).copied();
    testkit::wait_until("as many workers as the signals add up to", BOUND, || {
        let workers = children_of(pid).len();
        wanted.map_or(0 < workers, |wanted| usize::try_from(wanted) == Ok(workers))
    });
    // Two of them again, as when the descriptors were counted. One signal at a time, or equal ones would merge.
    testkit::wait_until("two workers", BOUND, || {
        let workers = children_of(pid).len();
        let mark = server.log_mark();
        let signal = match workers {
            0 | 1 => Signal::SIGTTIN,
            2 => return true,
            _ => Signal::SIGTTOU,
        };
        newest.signal(signal);
        server.wait_for_log_since(mark, "Number of workers wanted=", 1, BOUND);
        testkit::wait_until("its effect", BOUND, || children_of(pid).len() != workers);
        false
    });
    let reports = running.map(testkit::Running::stop);
    // No exception: a master at rest has the signals, the notify socket, the scoreboard, the pidfile, the log, a sealed copy
    // of the settings, its listeners, and two for each worker.
    testkit::wait_until("no zombie and no leaked descriptor", BOUND, || {
        zombies_of(pid) == 0 && descriptors_of(pid) == descriptors
    });
    for report in &reports {
        report.assert_nothing_lost(200);
        assert_eq!(report.idle_closes, 0, "closed without a word: {report}");
    }
    assert_eq!(server.get("/json").status, 200);
    let handled = server.count_log_since(0, "Handling signal: ");
    let (reloads, upgrades) =
        (server.count_log_since(0, "Reloaded gen"), server.count_log_since(0, "has been promoted"));
    println(&format!(
        "{signals} signals in {storm:.1?}, {handled} handled, {reloads} reloads, {upgrades} upgrades, {} and {} requests, none lost",
        reports[0].answered, reports[1].answered
    ));
    server.assert_log_clean(&["No upgrade: ", "USR2 signal ignored"]);
    newest.signal(Signal::SIGTERM);
    testkit::wait_until("its end", BOUND, || !is_alive(pid) || process_state(pid) == Some('Z'));
}

#[test]
fn a_stop_in_a_storm_is_a_stop() {
    let mut random = Sequence(setting("STORM_SEED", 42));
    for _ in 0..STOPS {
        let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &["--workers", "2"]);
        let load = Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(3).start();
        let others = [
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGWINCH,
            Signal::SIGCHLD,
        ];
        let stops = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
        let stop = stops[random.below(3) as usize];
        let before = random.below(30);
        for place in 0..before + 30 {
            // The first stop, then any of them at times: a second INT or QUIT shortens what is left.
            let signal = match place {
                place if place == before => stop,
                place if before < place && random.below(8) == 0 => stops[random.below(3) as usize],
                _ => others[random.below(others.len() as u64) as usize],
            };
            // It may have ended already.
            let _ = kill(raw(server.pid()), signal);
            std::thread::sleep(Duration::from_millis(random.below(PAUSE_MS)));
        }
        let status = server.wait_for_exit(BOUND);
        assert!(matches!(status.code(), Some(0 | 130 | 131)), "{status:?}\n{}", server.log_text());
        let report = load.stop();
        // Connections are cut by INT and QUIT alone.
        let is_graceful = !["int", "quit"]
            .iter()
            .any(|name| 0 < server.count_log_since(0, &format!("Handling signal: {name}")));
        let refused = report.failures.get(&Failure::Refused).copied().unwrap_or(0);
        assert!(!is_graceful || report.failed() == refused, "{report}\n{}", server.log_text());
        // An end by the second signal of an impatient operator is one that somebody should know of.
        let quick =
            ["Killing worker", "Shutting down: Master code=13", "Connections cut at the end"];
        server.assert_log_clean(if is_graceful { &[] } else { &quick });
    }
}

#[allow(clippy::print_stdout)] // Shown with --nocapture.
fn println(text: &str) {
    println!("{text}");
}
