//! HUP under load, with good and with bad settings and programs; and the last stop.

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Folder, Load, Server, get};

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
fn shutdown_delay_serves_on_and_says_close() {
    let mut server = Server::start(&["--shutdown-delay", "1"]);
    server.signal(Signal::SIGTERM);
    server.wait_for_line("Handling signal: term");
    std::thread::sleep(Duration::from_millis(200)); // Within the delay.
    let answer = get(&server.address(), "/json").expect("served during the delay");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(server.wait(), Some(0));
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
