//! One connection in every state while a reload or a stop passes over it.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::time::Duration;

use testkit::http::{Connection, request_bytes};
use testkit::{Server, Signal};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

fn start() -> Server {
    let args = ["--workers", "2", "--keep-alive", "75"];
    let server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    server
}

/// Reloads, and waits until the old workers have let go of the listeners: then all they still do is drain.
fn reload(server: &Server) {
    let old = server.workers();
    let mark = server.log_mark();
    server.signal(Signal::SIGHUP);
    server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
    testkit::wait_until("the old workers to drain", BOUND, || {
        old.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/fd/3")).exists())
    });
}

fn get(path: &str) -> Vec<u8> {
    request_bytes("GET", path, &[], b"", true)
}

/// The body of a POST that is on its way when the reload comes.
const BODY: &[u8] = b"0123456789";

/// Puts one connection into each state; the bytes are what it still has to send.
fn connections(server: &Server) -> Vec<(&'static str, Connection, Vec<u8>)> {
    let open = || Connection::open(server.endpoint()).expect("connected");
    let post = request_bytes("POST", "/json", &[], BODY, true);
    let (get, head_only) = (get("/json"), post.len() - BODY.len());
    let mut states = vec![
        ("silent", open(), get.clone()),
        ("idle", open(), get.clone()),
        ("head half sent", open(), get[9..].to_vec()),
        ("body not sent", open(), post[head_only..].to_vec()),
        ("body half sent", open(), post[head_only + 5..].to_vec()),
    ];
    states[1].1.send(&get).expect("sent");
    let first = states[1].1.response(false).expect("answered");
    assert!(first.status == 200 && !first.says_close(), "{}", first.head);
    states[2].1.send(&get[..9]).expect("sent");
    states[3].1.send(&post[..head_only]).expect("sent");
    states[4].1.send(&post[..head_only + 5]).expect("sent");
    // A request after theirs, on a connection of its own: by its answer both workers have had their turn.
    for _ in 0..8 {
        server.get("/json");
    }
    states
}

/// Sends the rest on each connection: an answer, after a reload a goodbye, and a clean end.
fn finish(states: Vec<(&'static str, Connection, Vec<u8>)>, is_reload: bool) {
    for (state, mut connection, rest) in states {
        let mut ask = |bytes: &[u8]| {
            let sent = connection.send(bytes);
            assert!(sent.is_ok(), "{state}: {sent:?}");
            let response = connection.response(false);
            let response = response.unwrap_or_else(|error| panic!("{state}: {error}"));
            assert!(matches!(response.status, 200 | 405), "{state}: {}", response.head);
            response
        };
        let mut response = ask(&rest);
        // The bundled application takes no POST and says so before it has read the body: maybe before the reload.
        if is_reload && response.status == 405 && !response.says_close() {
            response = ask(&get("/json"));
        }
        // A stop begins with a moment in which all goes on.
        assert!(response.says_close() || !is_reload, "{state}: no goodbye in {}", response.head);
        let end = connection.rest();
        assert!(end.as_ref().is_ok_and(Vec::is_empty), "{state}: {end:?}");
    }
}

#[test]
fn a_connection_in_any_state_is_answered_after_a_reload() {
    let mut server = start();
    let states = connections(&server);
    reload(&server);
    finish(states, true);
    // Nobody waits for anything now, so the old workers are gone at once.
    server.wait_for_workers(2, BOUND);
    server.assert_log_clean(&[]);
    server.stop();
}

#[test]
fn a_request_under_way_is_answered_during_a_stop() {
    let mut server = start();
    // The silent and the idle one promised nothing; they may be closed.
    let states: Vec<_> = connections(&server).into_iter().skip(2).collect();
    server.signal(Signal::SIGTERM);
    server.wait_for_log("Handling signal: term", BOUND);
    finish(states, false);
    assert_eq!(server.wait_for_exit(BOUND).code(), Some(0));
    server.assert_log_clean(&[]);
}

#[test]
fn pipelined_requests_at_a_reload_end_with_a_whole_answer() {
    let mut server = start();
    for _ in 0..5 {
        let mut connection = Connection::open(server.endpoint()).expect("connected");
        let burst = get("/plaintext").repeat(32);
        let mark = server.log_mark();
        server.signal(Signal::SIGHUP);
        let mut answers = 0;
        // Always more requests under way than answered: when the old worker says goodbye some are unread.
        let closing = 'rounds: loop {
            // After the goodbye was sent the rest may be refused by a reset; what was answered must still arrive.
            let _ = connection.send(&burst);
            for _ in 0..32 {
                let response = connection.response(false).expect("an answer up to the goodbye");
                assert_eq!((response.status, response.text()), (200, "Hello, World!"));
                answers += 1;
                if response.says_close() {
                    break 'rounds response;
                }
            }
            assert!(answers < 5_000_000, "no goodbye");
        };
        assert!(closing.says_close());
        let end = connection.rest();
        assert!(end.as_ref().is_ok_and(Vec::is_empty), "{end:?}");
        server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
    }
    server.assert_log_clean(&[]);
    server.stop();
}
