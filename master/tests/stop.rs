//! The last stop.

mod support;

use std::io::{Read, Write};

use nix::sys::signal::Signal;
use support::Server;

#[test]
fn responses_say_close_while_begun_connections_arrive() {
    let mut server = Server::start(&["--settle-time", "5", "--keep-alive", "60"]);
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut ask = || {
        stream.write_all(b"GET /json HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).to_ascii_lowercase()
    };
    assert!(!ask().contains("connection: close"));
    server.signal(Signal::SIGTERM);
    server.wait_for_line("Handling signal: term");
    // The worker hears of it a moment later; the connection is kept until then.
    let answers = std::iter::repeat_with(ask).take(1000);
    let answer = answers.into_iter().find(|answer| answer.contains("connection: close"));
    let answer = answer.unwrap_or_default();
    assert!(answer.contains("200 ok") && answer.contains("connection: close"), "{answer}");
    assert_eq!(server.count("Worker exiting"), 0, "it settles, nobody drains: {}", server.log());
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
}
