//! Signals in any order and at any rate leave a sane server.

use std::time::Duration;

use testkit::{Load, Mode, Server, Signal};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(120);

/// Signals sent; each pause between two of them is below 8 ms.
const SIGNALS: u32 = 600;

/// A sequence that is the same in every run: the middle bits of a linear congruential generator.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn a_storm_of_signals_under_load_ends_with_a_sane_server() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &["--workers", "2"]);
    server.wait_for_log("Ready workers=", BOUND);
    let descriptors = server.open_descriptors();
    let loads = [
        Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(4),
        Load::get(server.endpoint(), "/json", Mode::KeepAlive { pause: Duration::from_millis(20) }),
    ];
    let running = loads.map(|load| load.duration(5 * BOUND).start());
    let mut random = Sequence(42);
    for _ in 0..SIGNALS {
        // As many up as down; a reload now and then. All others must change nothing.
        let signal = match random.below(16) {
            0..4 => Signal::SIGTTIN,
            4..8 => Signal::SIGTTOU,
            8..10 => Signal::SIGHUP,
            10..12 => Signal::SIGUSR1,
            12..14 => Signal::SIGWINCH,
            _ => Signal::SIGCHLD,
        };
        server.signal(signal);
        std::thread::sleep(Duration::from_millis(random.below(8)));
    }
    // Down to one: the number before is not known, since equal signals that wait together are one.
    let mark = server.log_mark();
    let mut sent = 0;
    testkit::wait_until("one worker to be wanted", BOUND, || {
        if server.count_log_since(mark, "Handling signal: ttou") >= sent {
            server.signal(Signal::SIGTTOU);
            sent += 1;
        }
        server.count_log_since(mark, "wanted=1 ") > 0
    });
    server.wait_for_workers(1, BOUND);
    for running in running {
        running.stop().assert_nothing_lost(200);
    }
    testkit::wait_until("no zombie and no leaked descriptor", BOUND, || {
        server.zombies() == 0 && server.open_descriptors() <= descriptors
    });
    assert_eq!(server.get("/json").status, 200);
    server.assert_log_clean(&[]);
    server.stop();
}
