//! HUP under load, with good and with bad settings and programs; and the last stop.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Folder, Load, Server, get};
use testkit::Mode;

#[test]
fn reloads_lose_nothing() {
    let server = Server::start(&["--workers", "2"]);
    let light = Load::start(&server.address(), 3, Duration::from_millis(3));
    let heavy = Load::start(&server.address(), 2, Duration::ZERO);
    for round in 1..=10 {
        server.signal(Signal::SIGHUP);
        server.wait_for_lines("Reloaded generation=", round);
    }
    let (answered, failed) = light.finish();
    let (more, failed_too) = heavy.finish();
    assert!(
        failed.is_empty() && failed_too.is_empty(),
        "{answered} and {more} answered, {failed:?} {failed_too:?}"
    );
    server.wait_until("the old ones' end", || server.workers().len() == 2);
    server.stop();
}

#[test]
fn reload_takes_over_new_settings_and_addresses() {
    let folder = Folder::new();
    let first = folder.path("first.sock");
    let second = folder.path("second.sock");
    let settings = |path: &std::path::Path, workers: u32| {
        format!("bind = ['127.0.0.1:0', 'unix:{}']\nworkers = {workers}\n", path.display())
    };
    folder.write("monoceros.toml", &settings(&first, 1));
    let mut server = Server::spawn(folder, &[]);
    server.expect("Reload failed");
    server.wait_for_line("Ready workers=1");
    assert!(first.exists());
    let address = server.address();
    server.folder.write("monoceros.toml", "bind = ['127.0.0.1:0', 'unix:/nowhere/at/all']\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reload failed, still serving generation=0 workers=1");
    server.folder.write("monoceros.toml", &settings(&second, 3));
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1 workers=3");
    assert!(second.exists());
    std::os::unix::net::UnixStream::connect(&second).unwrap();
    get(&address, "/json").expect("the address that stayed is served on");
    server.wait_until("the old address is given up", || !first.exists());
    server.stop();
}

#[test]
fn reload_with_a_program_that_cannot_boot_keeps_serving() {
    let folder = Folder::new();
    support::master();
    let worker = support::master().with_file_name("worker");
    let good = format!("#!/bin/sh\nexec {}\n", worker.display());
    let program = folder.write_program("app", &good);
    let mut server = Server::start_in(folder, &["--workers", "2", program.to_str().unwrap()]);
    server.expect("Reload failed");
    server.expect("exited with code 3");
    server.expect("reason=");
    let before = server.workers();
    let load = Load::start(&server.address(), 3, Duration::from_millis(3));

    server.folder.write_program("app", "#!/bin/sh\nexit 3\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Reload failed, still serving generation=0 workers=2", 1);
    server.folder.write_program("app", "#!/nowhere/interpreter\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Reload failed", 2);
    assert!(server.log().contains("cannot execute the program"), "{}", server.log());
    assert_eq!(server.workers(), before);

    server.folder.write_program("app", &good);
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=");
    let (answered, failed) = load.finish();
    assert!(failed.is_empty() && 0 < answered, "{answered} answered, failed: {failed:?}");
    server.stop();
}

#[test]
fn many_reloads_at_once_become_one_more() {
    let server = Server::start(&["--workers", "2"]);
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Hang up: Master");
    for round in 1..=5 {
        server.signal(Signal::SIGHUP);
        server.wait_for_lines("Handling signal: hup", 1 + round);
    }
    server.wait_for_lines("Reloaded", 2);
    get(&server.address(), "/json").unwrap();
    let reloads = server.count("Hang up: Master");
    assert!(reloads <= 4, "{reloads} for six signals: {}", server.log());
    server.stop();
}

#[test]
fn stop_answers_every_request_sent_before_it() {
    let mut server = Server::start(&["--workers", "2"]);
    let load = Load::start(&server.address(), 6, Duration::from_millis(1));
    std::thread::sleep(Duration::from_millis(300)); // The load itself.
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    let (answered, failed) = load.finish();
    // Refused is what a client must see once the port is closed; anything else was lost.
    let lost: Vec<&String> =
        failed.iter().filter(|error| !error.contains("Connection refused")).collect();
    assert!(lost.is_empty() && 50 < answered, "{answered} answered, lost: {lost:?}");
    server.check_log();
}

#[test]
fn s05_shutdown_delay_serves_on_and_says_close() {
    let mut server = Server::start(&["--shutdown-delay", "1"]);
    server.signal(Signal::SIGTERM);
    server.wait_for_line("Handling signal: term");
    std::thread::sleep(Duration::from_millis(200)); // Within the delay.
    let answer = get(&server.address(), "/json").expect("served during the delay");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(server.wait(), Some(0));
}

/// Settings that bind `addresses`, and leave idle connections more time than the test takes.
fn binding(addresses: &[&str]) -> String {
    format!("bind = {addresses:?}\nworkers = 2\nkeepalive = 75\n")
}

/// The address at this place in the last list of addresses in the log.
fn listed(server: &Server, place: usize) -> String {
    let log = server.log();
    let line = log.lines().rfind(|line| line.contains("Listening at: ")).unwrap();
    let list = line.split("Listening at: ").nth(1).unwrap().split(" (").next().unwrap();
    list.split(',').nth(place).unwrap().trim_start_matches("http://").to_owned()
}

#[test]
fn a_changed_bind_list_loses_nothing_of_what_stays_and_nothing_of_what_was_connected() {
    let folder = Folder::new();
    folder.write("monoceros.toml", &binding(&["127.0.0.1:0", "[::1]:0"]));
    let server = Server::spawn(folder, &["--graceful-timeout", "20"]);
    server.wait_for_line("Ready workers=2");
    let (stays, goes) = (listed(&server, 0), listed(&server, 1));
    let endpoint = testkit::Endpoint::Tcp(stays.parse().unwrap());
    let modes = [Mode::CloseEach, Mode::KeepAlive { pause: Duration::from_millis(30) }];
    let loads = modes.map(|mode| testkit::Load::get(&endpoint, "/json", mode).start());
    // Longer between two requests than a stop leaves to idle connections.
    let slow = Mode::KeepAlive { pause: Duration::from_secs(4) };
    let slow = testkit::Load::get(&endpoint, "/json", slow).start();
    let connected: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(&goes).expect("connected")).collect();

    server.folder.write("monoceros.toml", &binding(&["127.0.0.1:0", "127.0.0.2:0"]));
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    get(&listed(&server, 1), "/json").expect("the new address is served");
    for mut stream in connected {
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        stream.write_all(b"GET /json HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("every connection made before is served");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    server.wait_until("two rounds of the slow ones", || 3 * 8 <= slow.answered());
    for load in loads.into_iter().chain([slow]) {
        let report = load.stop();
        report.assert_nothing_lost(8);
        assert_eq!(report.idle_closes, 0, "closed without a word: {report}");
    }
    server.wait_until("the old address is closed", || TcpStream::connect(&goes).is_err());
    server.stop();
}

#[test]
fn a_changed_bind_list_can_be_taken_back_while_old_workers_finish() {
    let folder = Folder::new();
    let path = folder.path("taken-back.sock");
    let unix = format!("unix:{}", path.display());
    let (first, second) = (["127.0.0.1:0", unix.as_str()], ["[::1]:0"]);
    folder.write("monoceros.toml", &binding(&first));
    let server = Server::spawn(folder, &["--graceful-timeout", "25"]);
    server.wait_for_line("Ready workers=2");
    let address = listed(&server, 0);
    // Keeps a worker of the first generation there, for it waits for one more request.
    let mut idle = TcpStream::connect(&address).expect("connected");
    let request = b"GET /json HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut answer = [0; 4096];
    idle.write_all(request).unwrap();
    assert_ne!(idle.read(&mut answer).unwrap(), 0);
    for (addresses, generation) in
        [(&second[..], 1), (&first[..], 2), (&second[..], 3), (&first[..], 4)]
    {
        server.folder.write("monoceros.toml", &binding(addresses));
        server.signal(Signal::SIGHUP);
        server.wait_for_line(&format!("Reloaded generation={generation} "));
    }
    assert_eq!(listed(&server, 0), address, "it is the same socket");
    for _ in 0..10 {
        get(&address, "/json").expect("served again");
        UnixStream::connect(&path).expect("the path is served again");
    }
    idle.write_all(request).unwrap();
    assert_ne!(idle.read(&mut answer).unwrap(), 0, "and the old worker was there all the time");
    server.stop();
    assert!(!path.exists());
}

#[test]
fn a_failed_reload_leaves_no_traces() {
    let folder = Folder::new();
    let [socket, log, good] =
        ["new.sock", "new-access.log", "good.sh"].map(|name| folder.path(name));
    folder.write_program("good.sh", &format!("#!/bin/sh\nexec {}\n", support::features()));
    let app = |addresses: &str, access: &str| {
        format!("bind = {addresses}\napp = {good:?}\naccesslog = {access:?}\n")
    };
    folder.write("monoceros.toml", &app("['127.0.0.1:0']", "access.log"));
    let mut server = Server::spawn(folder, &[]);
    server.expect("Reload failed");
    server.expect("exited with code");
    server.expect("was sent SIGKILL!");
    server.wait_for_line("Ready workers=1");
    let address = server.address();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let before = descriptors();
    let both = format!("['127.0.0.1:0', 'unix:{}']", socket.display());

    // An address after it that cannot be bound; then a program that cannot boot.
    let unbindable =
        format!("['127.0.0.1:0', 'unix:{}', 'unix:/nowhere/at/all']", socket.display());
    server.folder.write("monoceros.toml", &app(&unbindable, log.to_str().unwrap()));
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Reload failed", 1);
    assert!(!socket.exists(), "the socket of a refused setting stays");
    server.folder.write("monoceros.toml", &app(&both, log.to_str().unwrap()));
    server.folder.write_program("good.sh", "#!/bin/sh\nexit 3\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Reload failed", 2);
    server.wait_until("the socket of a refused setting is gone", || !socket.exists());
    server.wait_until("all is closed", || descriptors() == before);

    // What the master itself writes into the access log still goes where the settings in force say.
    let mut held = TcpStream::connect(&address).unwrap();
    held.write_all(b"GET /block/20000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let worker = server.workers()[0];
    // A blocked worker has left its wait for clients.
    server.wait_until("the worker blocks", || {
        let wait = std::fs::read_to_string(format!("/proc/{worker}/wchan")).unwrap_or_default();
        wait.contains("nanosleep")
    });
    nix::sys::signal::kill(worker, Signal::SIGKILL).unwrap();
    let access = server.folder.path("access.log");
    server.wait_until("its line", || {
        std::fs::read_to_string(&access).is_ok_and(|text| text.contains("GET /block/20000"))
    });
    assert_eq!(std::fs::read_to_string(&log).unwrap_or_default(), "");
    server.stop();
}

#[test]
fn a_name_server_that_does_not_answer_stops_only_the_reload() {
    let folder = Folder::new();
    // Silence on the port of name servers, in a network and with a file of its own.
    let silence = "import os, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.9', 53))
open('silent', 'w').close()
master = os.getppid()
while os.getppid() == master:
    time.sleep(0.1)
";
    folder.write("silence.py", silence);
    folder.write("resolv.conf", "nameserver 127.0.0.9\n");
    let line = "ip link set lo up && mount --bind resolv.conf /etc/resolv.conf && \
                { python3 silence.py & while [ ! -e silent ]; do sleep 0.05; done; } && \
                exec \"$0\" --bind 127.0.0.1:0 --workers 1";
    let unshare = |line: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "-n", "sh", "-c", line]).arg(support::master());
        command.current_dir(folder.path("")).stdin(Stdio::null());
        command
    };
    let mut trial = unshare("mount --bind resolv.conf /etc/resolv.conf && ip link set lo up");
    if !trial.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine makes no namespaces");
        return;
    }
    let log = std::fs::File::create(folder.path("log")).unwrap();
    let child = unshare(line).stderr(log).spawn().unwrap();
    let mut server = Server::adopt(child, folder);
    server.expect("Reload failed");
    server.wait_for_line("Ready workers=1");
    server.folder.write("monoceros.toml", "syslog = true\nsyslog_addr = 'udp://log.example'\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Hang up: Master");
    let began = std::time::Instant::now();
    server.signal(Signal::SIGTTIN);
    server.wait_for_line("Worker ready pid=");
    server.wait_for_lines("Worker ready pid=", 2);
    assert!(server.count("Reload failed") == 0, "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(8), "the loop stood still");
    server.wait_for_line("reason=names were not found within 10 s names=log.example:514");
    server.folder.write("monoceros.toml", "workers = 1\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    server.stop();
}

#[test]
fn names_in_new_settings_are_looked_up_and_used() {
    let server = Server::start(&["--workers", "1"]);
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    server.folder.write(
        "monoceros.toml",
        &format!(
            "syslog = true\nsyslog_addr = 'udp://localhost:{port}'\nadmin_bind = 'localhost:0'\n"
        ),
    );
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    let mut bytes = [0; 200];
    let count = receiver.recv(&mut bytes).expect("a line arrives");
    assert!(String::from_utf8_lossy(&bytes[..count]).starts_with('<'));
    server.stop();
}

#[test]
fn a_program_that_is_built_anew_is_taken_over_by_itself() {
    let folder = Folder::new();
    support::master();
    let worker = support::master().with_file_name("worker");
    let program = folder.path("program");
    let build = |folder: &Folder| {
        // As a linker's driver does it: under another name first.
        std::fs::copy(&worker, folder.path("new")).unwrap();
        std::fs::rename(folder.path("new"), folder.path("program")).unwrap();
    };
    build(&folder);
    let extra = folder.write("notes", "1");
    let mut server = Server::start_in(
        folder,
        &[
            "--workers",
            "2",
            "--reload",
            "--reload-extra-file",
            extra.to_str().unwrap(),
            program.to_str().unwrap(),
        ],
    );
    server.expect("Reloader is on. Use in development only!");
    server.expect("Reload failed");
    let load = Load::start(&server.address(), 2, Duration::from_millis(5));
    build(&server.folder);
    server.wait_for_line("Reloaded generation=1");
    assert_eq!(server.count("program modified"), 1, "{}", server.log());
    std::fs::write(&extra, "12").unwrap();
    server.wait_for_line("notes modified");
    server.wait_for_line("Reloaded generation=2");
    // What cannot boot leaves the old one serving, and the next build is seen.
    std::fs::write(server.folder.path("new"), "#!/bin/false\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(server.folder.path("new"), executable).unwrap();
    std::fs::rename(server.folder.path("new"), &program).unwrap();
    server.wait_for_line("Reload failed, still serving generation=2");
    build(&server.folder);
    server.wait_for_line("Reloaded generation=4");
    let (answered, failed) = load.finish();
    assert!(failed.is_empty() && 100 < answered, "{answered} answered, {failed:?}");
    server.expect("ready=never");
    server.stop();
}
