//! Signals in any order and at any rate, upgrades among them, leave a sane server.
//!
//! A longer storm, or another one: `STORM_SIGNALS=10000 STORM_SEED=7 cargo test -p master --test stories_storm`.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use testkit::{Load, Mode, Server, Signal, TempDir, children_of, is_alive, process_state};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(120);

/// Signals sent when nobody says otherwise; each pause between two of them is below 8 ms.
const SIGNALS: u32 = 600;

/// Workers asked for beyond those at the start.
const WORKERS_MORE_MAX: u64 = 6;

/// Descriptors that one master may have open more than another: what is under way at the moment.
const DESCRIPTORS_MORE_MAX: usize = 8;

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

#[test]
fn a_storm_of_signals_under_load_ends_with_a_sane_server() {
    let (signals, seed) = (setting("STORM_SIGNALS", SIGNALS), setting("STORM_SEED", 42));
    let dir = TempDir::new();
    let pidfile = dir.join("m.pid").display().to_string();
    let args = ["--workers", "2", "--pid", &pidfile];
    let server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    let descriptors = server.open_descriptors();
    let mut newest = Newest { dir, last: server.pid() };
    let loads = [
        Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(4),
        Load::get(server.endpoint(), "/json", Mode::KeepAlive { pause: Duration::from_millis(20) }),
    ];
    let longest = BOUND * 4 + Duration::from_millis(40) * signals;
    let running = loads.map(|load| load.duration(longest).start());
    let mut random = Sequence(seed);
    let (began, mut more) = (Instant::now(), 0);
    for _ in 0..signals {
        // As many up as down; a reload now and then, an upgrade seldom. All others must change nothing.
        let signal = match random.below(64) {
            // Never far up: a hundred workers would make a storm of boots, not of signals.
            0..32 if more < random.below(WORKERS_MORE_MAX) => {
                more += 1;
                Signal::SIGTTIN
            }
            0..32 => {
                more = more.saturating_sub(1);
                Signal::SIGTTOU
            }
            32..34 => Signal::SIGHUP,
            34..44 => Signal::SIGUSR1,
            44..53 => Signal::SIGWINCH,
            53..61 => Signal::SIGCHLD,
            _ => Signal::SIGUSR2,
        };
        newest.signal(signal);
        std::thread::sleep(Duration::from_millis(random.below(8)));
    }
    let storm = began.elapsed();
    // Down to one: the number before is not known, since equal signals that wait together are one. An upgrade under way
    // may take the place of the master that was asked.
    let (mark, mut sent) = (server.log_mark(), 0);
    testkit::wait_until("one worker and one master", BOUND, || {
        let pid = newest.pid();
        let children = children_of(pid);
        let others = server.pid() != pid && is_master(server.pid());
        if children.len() == 1 && !others && server.count_log_since(mark, "wanted=1 ") > 0 {
            return true;
        }
        if server.count_log_since(mark, "Handling signal: ttou") >= sent {
            newest.signal(Signal::SIGTTOU);
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(20)); // Not a storm of its own.
        false
    });
    let reports = running.map(testkit::Running::stop);
    let pid = newest.pid();
    testkit::wait_until("no zombie and no leaked descriptor", BOUND, || {
        let zombies =
            children_of(pid).iter().filter(|&&pid| process_state(pid) == Some('Z')).count();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(usize::MAX, Iterator::count);
        zombies == 0 && open <= descriptors + DESCRIPTORS_MORE_MAX
    });
    for report in &reports {
        report.assert_nothing_lost(200);
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

#[allow(clippy::print_stdout)] // Shown with --nocapture.
fn println(text: &str) {
    println!("{text}");
}
