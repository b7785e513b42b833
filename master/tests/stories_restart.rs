//! A listener that somebody else holds, as systemd does with a socket unit: restarts lose nothing.

use std::net::TcpListener;
use std::time::Duration;

use testkit::{Load, Mode, Server};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

#[test]
fn restarts_with_a_held_listener_lose_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let start = || {
        let copy = listener.try_clone().expect("a copy");
        let builder = Server::builder(env!("CARGO_BIN_EXE_master")).listener(copy);
        let server = builder.args(["--workers", "2"]).start();
        server.wait_for_log("Ready workers=", BOUND);
        server
    };
    let mut server = start();
    assert_eq!(server.endpoint().tcp(), listener.local_addr().expect("bound"));
    let loads = [
        Load::get(server.endpoint(), "/json", Mode::OpenLoop { rate: 200.0 }).clients(64),
        Load::get(server.endpoint(), "/json", Mode::CloseEach).clients(4),
    ];
    let running = loads.map(|mut load| {
        // Requests wait in the queue for as long as a restart takes.
        load.limit = BOUND;
        load.duration(5 * BOUND).start()
    });
    for _ in 0..4 {
        running[0].wait_for(50, BOUND);
        server.stop();
        server.assert_log_clean(&[]);
        server = start();
    }
    running[0].wait_for(50, BOUND);
    for running in running {
        running.stop().assert_nothing_lost(200);
    }
    server.stop();
}
