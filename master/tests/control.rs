//! `master ctl` on the real programs: answers, outcomes as exit statuses, and clients that behave badly.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use support::{Folder, Server, get, master};

fn start(args: &[&str]) -> Server {
    let mut all = vec!["--control-socket", "ctl.sock"];
    all.extend(args);
    Server::start(&all)
}

/// Runs `master ctl`; exit code, standard output, standard error.
fn ctl(folder: &Folder, words: &str) -> (Option<i32>, String, String) {
    let output = command(folder, words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn command(folder: &Folder, words: &str) -> Command {
    let mut command = Command::new(master());
    command.arg("ctl").args(words.split(' ')).current_dir(folder.path("")).stdin(Stdio::null());
    command.env_remove("RUNTIME_DIRECTORY");
    command
}

#[test]
fn answers_for_people_and_for_programs() {
    let server = start(&["--workers", "2", "--pid", "m.pid"]);
    let folder = &server.folder;
    let mode = fs::metadata(folder.path("ctl.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (code, out, _) = ctl(folder, "-s ctl.sock ready");
    assert_eq!((code, out.as_str()), (Some(0), "ready  yes\n"));
    // The socket is found by the settings, or through the pidfile.
    let settings = folder.write("found.toml", "control_socket = 'ctl.sock'\n");
    let by_settings = format!("-c {} status", settings.display());
    for words in ["-s ctl.sock status", "--pidfile m.pid status", &by_settings] {
        let (code, out, err) = ctl(folder, words);
        assert_eq!(code, Some(0), "{words}: {err}");
        let pid = format!(" {}\n", server.pid());
        assert!(out.contains(" running\n") && out.contains(&pid), "{words}: {out}");
    }
    let (_, out, _) = ctl(folder, "-s ctl.sock show workers");
    assert!(out.contains("SLOT") && out.contains("ready"), "{out}");
    let (_, out, _) = ctl(folder, "-s ctl.sock listeners");
    assert!(out.contains("http://127.0.0.1:") && out.contains("control"), "{out}");
    let (_, out, _) = ctl(folder, "-s ctl.sock config");
    assert!(out.contains("graceful_timeout") && out.contains("command line"), "{out}");

    let (code, out, _) = ctl(folder, "-s ctl.sock -j workers +1");
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with(r#"{"id":1,"status":"ok","data":{"#)
            && out.contains(r#""workers_target":3"#),
        "{out}"
    );
    server.wait_for_line("wanted=3 before=2");
    assert!(ctl(folder, "-s ctl.sock workers -1").1.starts_with("2 workers wanted"));
    server.wait_until("two workers", || server.workers().len() == 2);

    let before = server.workers();
    let (code, out, _) = ctl(folder, "-s ctl.sock worker kill 0");
    assert_eq!(code, Some(0), "{out}");
    server.wait_for_line("reason=ctl");
    server
        .wait_until("another worker", || server.workers().len() == 2 && server.workers() != before);
    let (code, _, err) = ctl(folder, "-s ctl.sock worker kill 77");
    assert_eq!(code, Some(1));
    assert!(err.contains("no worker in slot 77"), "{err}");

    assert_eq!(ctl(folder, "-s ctl.sock fly").0, Some(1));
    assert_eq!(ctl(folder, "-s ctl.sock status --fly").0, Some(2));
    assert_eq!(ctl(folder, "-s nowhere.sock status").0, Some(69));
    assert_eq!(ctl(folder, "-s ctl.sock reopen").0, Some(0));
    assert_eq!(ctl(folder, "-s ctl.sock stop").0, Some(0));
    let mut server = server;
    assert_eq!(server.wait(), Some(0));
    assert!(!server.folder.path("ctl.sock").exists(), "the socket goes with its master");
    server.check_log();
}

#[test]
fn the_outcome_of_a_reload_is_the_exit_status() {
    let folder = Folder::new();
    folder.write("monoceros.toml", "graceful_timeout = 20\n");
    let mut server = Server::start_in(folder, &["--control-socket", "ctl.sock"]);
    let (code, out, err) = ctl(&server.folder, "reload --wait -s ctl.sock");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("reloaded: generation 1, 1 workers"), "{out}");
    assert!(server.log().contains("Reloaded generation=1"), "it came back too early");

    server.expect("Reload failed");
    server.folder.write("monoceros.toml", "wrokers = 1\n");
    let (code, out, err) = ctl(&server.folder, "reload --wait -s ctl.sock");
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("monoceros.toml:1:1"), "{err}");

    // An application that cannot boot.
    server.expect("exited with code 4");
    let broken = server.folder.write_program("broken", "#!/bin/sh\nexit 4\n");
    server.folder.write("monoceros.toml", &format!("app = '{}'\n", broken.display()));
    let (code, _, err) = ctl(&server.folder, "reload --wait -s ctl.sock");
    assert_eq!(code, Some(1));
    assert!(err.contains("could not boot"), "{err}");
    assert!(get(&server.address(), "/json").is_ok());

    // One who asks during a reload waits for the next one, which begins after that.
    server.folder.write("monoceros.toml", "");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            command(&server.folder, "reload --wait -s ctl.sock")
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut client in waiting {
        assert!(client.wait().unwrap().success());
    }
    server.stop();
}

#[test]
fn floods_and_slow_clients_delay_nobody() {
    let server = start(&["--workers", "2"]);
    let connect = || {
        let stream = UnixStream::connect(server.folder.path("ctl.sock")).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        stream
    };
    // Half a request, a length beyond all bounds, rubbish, and clients that ask without ever reading.
    let mut slow: Vec<UnixStream> = (0..4).map(|_| connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"\0\0\0\x20{").unwrap();
    }
    let mut long = connect();
    long.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    long.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("too long"), "{answer:?}");
    let request = br#"{"id":1,"command":"show all","args":[]}"#;
    let frame = [&u32::try_from(request.len()).unwrap().to_be_bytes()[..], request].concat();
    let mut deaf: Vec<UnixStream> = (0..8).map(|_| connect()).collect();
    for stream in &mut deaf {
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        for _ in 0..2_000 {
            if stream.write_all(&frame).is_err() {
                break;
            }
        }
    }
    // Meanwhile a worker dies, and is replaced as fast as ever.
    let victim = server.workers()[0];
    let start = Instant::now();
    kill(victim, Signal::SIGKILL).unwrap();
    server.wait_for_lines("Worker ready", 3);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    // More clients than there is room for: the silent ones make way.
    let _more: Vec<UnixStream> = (0..12).map(|_| connect()).collect();
    let (code, _, err) = ctl(&server.folder, "-s ctl.sock ready");
    assert_eq!(code, Some(0), "{err}");
    let mut server = server;
    server.expect("was sent SIGKILL");
    server.stop();
}

#[test]
fn s25_a_socket_that_cannot_be_made_is_one_line_in_the_log() {
    let server = Server::start(&["--control-socket", "nowhere/ctl.sock"]);
    assert_eq!(server.count("No control socket path=nowhere/ctl.sock"), 1);
    server.stop();
    let server = start(&["--no-control-socket"]);
    assert!(!server.folder.path("ctl.sock").exists());
    server.stop();
}

#[test]
fn an_upgrade_takes_the_socket_along_and_its_verdict_is_the_exit_status() {
    let folder = Folder::new();
    for program in ["master", "worker"] {
        fs::copy(master().with_file_name(program), folder.path(program)).unwrap();
    }
    let log = fs::File::create(folder.path("log")).unwrap();
    let mut command = Command::new(folder.path("master"));
    command.args(["--bind", "127.0.0.1:0", "--control-socket", "ctl.sock", "--pid", "m.pid"]);
    command
        .current_dir(folder.path(""))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let child = command.spawn().unwrap();
    let mut server = Server::adopt(child, folder);
    server.wait_for_line("Ready workers=");
    server.expect("Upgrade failed");

    server.folder.write_program("master", "#!/bin/sh\nexit 1\n");
    let (code, _, err) = ctl(&server.folder, "-s ctl.sock upgrade --wait");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("it ended without giving a reason"), "{err}");

    fs::remove_file(server.folder.path("master")).unwrap();
    fs::copy(master(), server.folder.path("master")).unwrap();
    let (code, out, err) = ctl(&server.folder, "-s ctl.sock upgrade --wait");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("the new master is "), "{out}");
    assert_eq!(server.wait(), Some(0));
    let pid = out.trim().rsplit(' ').next().unwrap().to_owned();
    let (code, out, err) = ctl(&server.folder, "-s ctl.sock status -j");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&format!("\"pid\":{pid},")), "{out}");
    assert_eq!(ctl(&server.folder, "-s ctl.sock stop").0, Some(0));
    server.wait_until("the end", || !server.folder.path("m.pid").exists());
    assert!(!server.folder.path("ctl.sock").exists());
    server.check_log();
}
