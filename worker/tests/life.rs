//! A worker's life: start, signals, orders from its master, drain, end.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{PATIENCE, Signal, begin_with, bundled, example, start, until};
use shared::contract::Order;
use shared::settings::LogLevel;
use sys::pidfd::Exit;

#[test]
fn a_worker_says_when_it_comes_and_goes() {
    // Under a master, whose own line says more, its first words are for developers.
    let mut worker = start(bundled(), |settings| settings.loglevel = LogLevel::Debug);
    let pid = worker.pid();
    assert!(worker.log().contains(&format!("[{pid}] [DEBUG] Booting worker with pid: {pid}")));
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Exit::Code(0));
    assert!(worker.log().contains(&format!("[{pid}] [INFO] Worker exiting (pid: {pid})")));
}

#[test]
fn an_application_that_cannot_be_built_is_reported_and_exits_4() {
    let (mut worker, message) = begin_with(example("features"), |_| (), &["FEATURES_BROKEN=1"]);
    assert_eq!(
        message,
        "ERRNO=4\nSTATUS=Application cannot be loaded: the variable FEATURES_BROKEN is set"
    );
    assert_eq!(worker.wait(), Exit::Code(4));
    worker.await_log("[ERROR] Application cannot be loaded: the variable FEATURES_BROKEN is set");
}

#[test]
fn the_masters_own_signals_are_ignored() {
    let worker = start(bundled(), |_| ());
    for signal in [
        Signal::SIGHUP,
        Signal::SIGWINCH,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
    ] {
        worker.signal(signal);
        worker.get("/json").expect(200);
    }
    worker.stop();
}

#[test]
fn a_draining_worker_answers_what_is_in_hand_and_says_close() {
    let mut worker = start(example("features"), |_| ());
    let mut slow = worker.connect();
    slow.get("/hello/first");
    slow.send("GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut half = worker.connect();
    half.get("/hello/first");
    half.send("GET /hello/half HTTP/1.1\r\nHo");
    until(|| worker.get("/hello/sync").status == 200, String::new);
    worker.signal(Signal::SIGTERM);
    let reply = slow.reply().expect(200);
    assert!(reply.closes(), "{}", reply.head);
    assert_eq!(reply.text(), "slept\n");
    half.send("st: a\r\n\r\n");
    let reply = half.reply().expect(200);
    assert!(reply.closes(), "{}", reply.head);
    drop((slow, half));
    assert_eq!(worker.wait(), Exit::Code(0));
}

#[test]
fn an_idle_connection_has_its_next_request_answered_during_a_drain() {
    let mut worker = start(bundled(), |settings| settings.keepalive = Duration::from_secs(60));
    let mut client = worker.connect();
    client.get("/json").expect(200);
    worker.signal(Signal::SIGTERM);
    // A proxy may pick this connection long after the drain began.
    std::thread::sleep(Duration::from_millis(300));
    assert!(worker.is_running());
    let reply = client.get("/json").expect(200);
    assert!(reply.closes());
    assert_eq!(client.rest(), "");
    drop(client);
    assert_eq!(worker.wait(), Exit::Code(0));
}

#[test]
fn an_idle_connection_that_is_not_used_ends_with_its_keep_alive_time() {
    let mut worker = start(bundled(), |settings| settings.keepalive = Duration::from_millis(400));
    let mut client = worker.connect();
    client.get("/json").expect(200);
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Exit::Code(0));
    assert_eq!(client.rest(), "");
}

#[test]
fn a_large_response_to_a_slow_reader_survives_the_drain() {
    const BYTES: usize = 8 << 20;
    let mut worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    client.send(&format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.stream.read_exact(&mut [0; 1000]).unwrap();
    worker.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(100));
    let rest = client.rest();
    assert!(rest.len() > BYTES - 1000, "{} of {BYTES} bytes", rest.len());
    assert_eq!(worker.wait(), Exit::Code(0));
}

#[test]
fn a_slow_download_outlasts_the_wait_for_idle_connections() {
    const BYTES: usize = 12 << 20;
    /// Longer than idle connections are waited for at the last stop.
    const DOWNLOAD: Duration = Duration::from_millis(3000);
    for is_final in [true, false] {
        let mut worker =
            start(example("features"), |settings| settings.keepalive = Duration::from_millis(500));
        let mut client = worker.connect();
        client.send(&format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.stream.read_exact(&mut [0; 1000]).unwrap();
        if is_final {
            worker.order(Order::Final);
        }
        worker.signal(Signal::SIGTERM);
        let began = Instant::now();
        let mut piece = vec![0; BYTES / 100];
        let mut read = 1000;
        loop {
            let count = client.stream.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            read += count;
            let due = DOWNLOAD.mul_f64(read as f64 / BYTES as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        assert!(
            BYTES < read,
            "final: {is_final}: {read} of {BYTES} bytes, {:?}, log:\n{}",
            began.elapsed(),
            worker.log()
        );
        drop(client);
        assert_eq!(worker.wait(), Exit::Code(0));
    }
}

#[test]
fn what_waits_at_a_drain_is_left_to_others() {
    let mut worker = start(example("features"), |_| ());
    let mut busy = worker.connect();
    busy.send("GET /block/300 HTTP/1.1\r\nHost: a\r\n\r\n");
    // While the worker cannot accept, the next one waits in the listener's queue.
    std::thread::sleep(Duration::from_millis(50));
    worker.signal(Signal::SIGTERM);
    let waiting = TcpStream::connect(worker.address).unwrap();
    busy.reply().expect(200);
    drop(busy);
    let end = worker.wait();
    assert_eq!(end, Exit::Code(0));
    let (_, from) = worker.listener.accept().unwrap();
    assert_eq!(from, waiting.local_addr().unwrap());
}

#[test]
fn at_the_final_stop_everything_that_waits_is_answered() {
    let mut worker = start(example("features"), |_| ());
    let mut busy = worker.connect();
    busy.send("GET /block/300 HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    let mut waiting: Vec<_> = (0..50).map(|_| worker.connect()).collect();
    for client in &mut waiting {
        client.send("GET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    worker.order(Order::Final);
    worker.signal(Signal::SIGTERM);
    for mut client in waiting {
        let reply = client.reply().expect(200);
        assert!(reply.closes());
        assert_eq!(client.rest(), "");
    }
    busy.reply().expect(200);
    drop(busy);
    assert_eq!(worker.wait(), Exit::Code(0));
}

#[test]
fn before_a_stop_every_response_says_close_and_all_goes_on() {
    let mut worker = start(bundled(), |_| ());
    let mut client = worker.connect();
    assert!(!client.get("/json").closes());
    worker.order(Order::SayClose);
    until(
        || {
            let mut client = worker.connect();
            client.get("/json").expect(200).closes()
        },
        || "no response says close".to_owned(),
    );
    assert!(client.get("/json").expect(200).closes());
    assert!(worker.is_running());
    drop(client);
    worker.stop();
}

#[test]
fn a_worker_whose_master_is_gone_finishes_and_ends() {
    let mut worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    client.send("GET /sleep/200 HTTP/1.1\r\nHost: a\r\n\r\n");
    until(|| worker.get("/hello/sync").status == 200, String::new);
    worker.cut_lifeline();
    assert!(client.reply().expect(200).closes());
    drop(client);
    assert_eq!(worker.wait(), Exit::Code(0));
    worker.await_log("[WARNING] The master is gone");
}

#[test]
fn re_arming_loses_nothing() {
    let mut worker = start(bundled(), |_| ());
    for _ in 0..50 {
        worker.order(Order::ReArm);
        worker.get("/json").expect(200);
    }
    worker.stop();
}

#[test]
fn quit_ends_at_once() {
    for signal in [Signal::SIGQUIT, Signal::SIGINT] {
        let mut worker = start(example("features"), |_| ());
        let mut client = worker.connect();
        client.send("GET /sleep/60000 HTTP/1.1\r\nHost: a\r\n\r\n");
        // What its handlers do when they are dropped is no matter.
        let mut bad: Vec<_> = (0..2).map(|_| worker.connect()).collect();
        for client in &mut bad {
            client.send("GET /panic/at/the/end HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        worker.get("/panic/at/the/end/of/a/task").expect(200);
        until(|| worker.get("/hello/sync").status == 200, String::new);
        let began = Instant::now();
        worker.signal(signal);
        assert_eq!(worker.wait(), Exit::Code(0));
        assert!(began.elapsed() < PATIENCE / 2);
        assert_eq!(worker.log().matches("[ERROR] A handler's end failed").count(), 3);
    }
}

#[test]
fn the_drain_ends_with_the_graceful_timeout() {
    let mut worker = start(example("features"), |settings| {
        settings.graceful_timeout = Duration::from_millis(500)
    });
    let mut client = worker.connect();
    client.send("GET /sleep/60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    until(|| worker.get("/hello/sync").status == 200, String::new);
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Exit::Code(0));
    worker.await_log("[WARNING] Connections cut at the end connections=1");
}

#[test]
fn the_log_is_opened_again_for_rotation() {
    let directory =
        std::env::temp_dir().join(format!("monoceros-worker-log-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (path, old) = (directory.join("error.log"), directory.join("error.log.1"));
    let mut worker = start(bundled(), |settings| {
        settings.errorlog = Some(path.to_str().unwrap().to_owned());
        settings.loglevel = LogLevel::Debug;
    });
    std::fs::rename(&path, &old).unwrap();
    worker.signal(Signal::SIGUSR1);
    until(|| path.exists(), || "the log was not opened again".to_owned());
    worker.signal(Signal::SIGTERM);
    worker.wait();
    assert!(std::fs::read_to_string(&old).unwrap().contains("Booting worker"));
    assert!(std::fs::read_to_string(&path).unwrap().contains("Worker exiting"));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_silent_worker_says_what_it_was_doing() {
    let mut worker = start(example("features"), |_| ());
    let mut client = worker.connect();
    client.send("GET /block/60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    worker.signal(Signal::SIGABRT);
    assert!(matches!(worker.wait(), Exit::Signal(number, _) if number == Signal::SIGABRT as i32));
    let log = worker.log();
    assert!(log.contains("[CRITICAL] Worker aborted with a request in hand"), "{log}");
    assert!(log.contains("method=GET path=/block/60000 peer=127.0.0.1"), "{log}");
}

#[test]
fn connections_that_were_read_leave_no_reset_behind() {
    // A close with bytes unread would reset the connection and could destroy the answer.
    let worker = start(example("features"), |_| ());
    for _ in 0..20 {
        let mut client = worker.connect();
        client.send("GET /close HTTP/1.1\r\nHost: a\r\n\r\n");
        client.stream.write_all(&[b'x'; 30_000]).unwrap();
        client.reply().expect(200);
        client.half_close();
        assert_eq!(client.rest(), "");
    }
    worker.stop();
}

#[test]
fn a_last_answer_is_whole_though_its_client_sends_on() {
    const BYTES: usize = 4_000_000;
    let folder = std::env::temp_dir().join(format!("monoceros-last-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::File::create(folder.join("big")).unwrap().set_len(BYTES as u64).unwrap();
    // Every answer is the last of its connection, as in a drain. What the client pipelined is not answered.
    let at_once = |settings: &mut shared::settings::Settings| settings.keepalive = Duration::ZERO;
    let files = format!("BODIES_FILES={}", folder.display());
    let (bodies, _) = common::begin_with(example("bodies"), at_once, &[&files]);
    let features = start(example("features"), at_once);
    for (worker, path) in [
        (&features, format!("/big/{BYTES}")),
        (&bodies, format!("/stream/{BYTES}/of/{BYTES}")),
        (&bodies, "/static/big".to_owned()),
    ] {
        for field in ["", "Connection: close\r\n"] {
            let mut client = worker.connect();
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
            client.wait_readable();
            client.send(&"GET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000));
            let reply = client.reply().expect(200);
            assert!(reply.closes() && reply.body.len() == BYTES, "{path}: {}", reply.head);
            client.half_close();
            assert_eq!(client.rest(), "", "{path}");
        }
    }
    features.stop();
    bodies.stop();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_last_answer_is_whole_though_its_client_ends_behind_what_is_unread() {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::AsRawFd;

    const BYTES: usize = 200_000;
    let log = std::env::temp_dir().join(format!("monoceros-life-{}", std::process::id()));
    let worker = start(example("features"), |settings| {
        settings.keepalive = Duration::ZERO;
        settings.accesslog = Some(log.to_str().unwrap().to_owned());
    });
    let answered = || std::fs::read_to_string(&log).unwrap_or_default().matches("/big/").count();
    for round in 1..=10 {
        let mut client = worker.connect();
        client.send(&format!("GET /big/{BYTES} HTTP/1.1\r\nHost: a\r\n\r\n"));
        // The kernel has the answer, and much of it is still on the worker's side.
        until(|| answered() == round, || worker.log());
        // Bytes and the end come together.
        let more = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
        assert_eq!(send(client.stream.as_raw_fd(), &[b'x'; 10_000], more), Ok(10_000));
        client.half_close();
        for _ in 0..2 {
            worker.get("/hello/you").expect(200); // By the second it has seen them.
        }
        assert_eq!(client.reply().expect(200).body.len(), BYTES);
        assert_eq!(client.rest(), "");
    }
    worker.stop();
    std::fs::remove_file(log).unwrap();
}

#[test]
fn without_a_master_a_worker_binds_and_serves_by_itself() {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new(bundled())
        .env_clear()
        .env("MONOCEROS_BIND", "127.0.0.1:0")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = lines
        .find_map(|line| Some(line.unwrap().split_once("Listening at: http://")?.1.to_owned()));
    let address = listening.unwrap().split(' ').next().unwrap().parse().unwrap();
    let mut client = common::Client::to(address);
    client.get("/json").expect(200);
    drop(client);
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_setting_that_cannot_be_understood_is_told_and_ends_the_boot() {
    let output = std::process::Command::new(bundled())
        .env_clear()
        .env("MONOCEROS_KEEPALIVE", "soon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("[ERROR] cannot take over the settings: "), "{log}");
    assert!(log.contains("MONOCEROS_KEEPALIVE"), "{log}");
}
