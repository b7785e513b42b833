//! Workers that are worn out are replaced one at a time, each by one that is ready.

mod support;

use std::cell::Cell;
use std::time::Duration;

use support::{Load, Server};

#[test]
fn s06_max_requests_loses_nothing() {
    let server =
        Server::start(&["--workers", "2", "--max-requests", "40", "--max-requests-jitter", "10"]);
    let load = Load::start(&server.address(), 4, Duration::from_millis(2));
    let highest = Cell::new(0);
    server.wait_until("four replacements", || {
        highest.set(highest.get().max(server.workers().len()));
        4 <= server.count("Autorestarting worker")
    });
    let (answered, failed) = load.finish();
    assert!(failed.is_empty() && 100 < answered, "{answered} answered, failed: {failed:?}");
    // Two, one successor, and perhaps its predecessor that drains still.
    assert!(highest.get() <= 4, "one at a time, but there were {}", highest.get());
    assert!(server.log().contains("reason=max_requests"), "{}", server.log());
    server.stop();
}

#[test]
fn s24_age_and_memory_wear_workers_out_too() {
    let server = Server::start(&["--max-worker-lifetime", "0.5"]);
    server.wait_for_line("reason=max_worker_lifetime");
    server.wait_for_lines("Worker exited", 1);
    server.stop();
    let server = Server::start(&["--max-worker-rss", "1k"]);
    server.wait_for_line("reason=max_worker_rss");
    server.wait_for_lines("Worker exited", 1);
    server.stop();
}
