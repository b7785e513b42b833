//! Syslog over every kind of socket, and what its absence costs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::{Duration, Instant};

use logging::{Level, Log, Syslog, Target, error};

const PATIENCE: Duration = Duration::from_secs(10);

fn received(text: &str, priority: u8) -> String {
    format!("<{priority}>monoceros.test[{}]: {text}", std::process::id())
}

fn path(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("monoceros-syslog-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// Sends what waits until the receiver has a line; a stream is connected without waiting.
fn line(syslog: &mut Syslog, stream: impl std::io::Read + Send + 'static) -> String {
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    });
    let end = Instant::now() + PATIENCE;
    while !reader.is_finished() {
        assert!(Instant::now() < end, "nothing arrives");
        syslog.flush();
        std::thread::sleep(Duration::from_millis(5));
    }
    reader.join().unwrap()
}

#[test]
fn lines_arrive_over_udp() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("udp://{}", receiver.local_addr().unwrap());
    let mut syslog = Syslog::open(&address, 1, "monoceros.test").unwrap();
    syslog.send(Level::Info, b"hello");
    let mut bytes = [0; 100];
    let count = receiver.recv(&mut bytes).unwrap();
    assert_eq!(std::str::from_utf8(&bytes[..count]).unwrap(), received("hello", 14));
    // Away and back: at most the line that found it away is lost.
    let own = receiver.local_addr().unwrap();
    drop(receiver);
    for _ in 0..3 {
        syslog.send(Level::Info, b"to nobody");
    }
    let receiver = UdpSocket::bind(own).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    syslog.send(Level::Error, b"again");
    let count = receiver.recv(&mut bytes).unwrap();
    assert_eq!(std::str::from_utf8(&bytes[..count]).unwrap(), received("again", 11));
}

#[test]
fn lines_arrive_over_a_unix_datagram_socket_and_a_full_one_costs_lines_only() {
    let path = path("datagram");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("unix://{}#dgram", path.display());
    let mut syslog = Syslog::open(&address, 16, "monoceros.test").unwrap();
    let begun = Instant::now();
    for _ in 0..10_000 {
        syslog.send(Level::Warning, b"x");
    }
    assert!(begun.elapsed() < PATIENCE / 2, "it waited");
    assert!(0 < syslog.take_dropped());
    let mut bytes = [0; 100];
    let count = receiver.recv(&mut bytes).unwrap();
    assert_eq!(std::str::from_utf8(&bytes[..count]).unwrap(), received("x", 132));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn lines_arrive_over_streams() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut syslog =
        Syslog::open(&format!("tcp://{}", tcp.local_addr().unwrap()), 3, "monoceros.test").unwrap();
    syslog.send(Level::Critical, b"one");
    let (stream, _) = tcp.accept().unwrap();
    assert_eq!(line(&mut syslog, stream), received("one\n", 26));

    let path = path("stream");
    let unix = UnixListener::bind(&path).unwrap();
    let address = format!("unix://{}#stream", path.display());
    let mut syslog = Syslog::open(&address, 3, "monoceros.test").unwrap();
    syslog.send(Level::Debug, b"two");
    let (stream, _) = unix.accept().unwrap();
    assert_eq!(line(&mut syslog, stream), received("two\n", 31));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_log_sends_its_lines_too_and_an_absent_receiver_harms_nothing() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let file = path("log");
    let log = Log::open(Target::File(file.clone())).unwrap();
    let address = format!("udp://{}", receiver.local_addr().unwrap());
    log.set_syslog(Some(Syslog::open(&address, 1, "monoceros.test").unwrap()));
    error!(log, "forged\n<0>line");
    let mut bytes = [0; 100];
    let count = receiver.recv(&mut bytes).unwrap();
    assert_eq!(std::str::from_utf8(&bytes[..count]).unwrap(), received("forged\\n<0>line", 11));
    log.set_syslog(Some(Syslog::open("unix:///nonexistent/log", 1, "monoceros.test").unwrap()));
    error!(log, "kept");
    assert!(std::fs::read_to_string(&file).unwrap().ends_with("[ERROR] kept\n"));
    std::fs::remove_file(file).unwrap();
    assert!(Syslog::open("nonsense", 1, "x").is_err());
}

#[test]
fn what_syslog_did_not_take_is_told_in_the_log_once_in_a_while() {
    let file = path("lost");
    let log = Log::open(Target::File(file.clone())).unwrap();
    log.set_syslog(Some(Syslog::open("unix:///nonexistent/log", 1, "monoceros.test").unwrap()));
    for _ in 0..50 {
        error!(log, "kept");
        log.flush();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("took no more")).collect();
    let [line] = told[..] else { panic!("told once: {told:?}") };
    assert!(
        line.ends_with("[WARNING] Log lines lost because syslog took no more lines=1"),
        "{line}"
    );
    std::fs::remove_file(file).unwrap();
}
