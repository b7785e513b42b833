//! The error log: where it goes, how it looks, rotation, and what the application prints.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::fs;
use std::io::Read;
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::{Folder, Server, command, get};

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_reload_moves_the_log_and_changes_its_look() {
    let server = Server::start(&[]);
    let folder = &server.folder;
    let moved = folder.path("moved.log");
    folder.write("monoceros.toml", "errorlog = \"moved.log\"\nlog_format = \"json\"\n");
    server.signal(Signal::SIGHUP);
    server.wait_until("the end of the reload", || text(&moved).contains("Reloaded generation=1"));
    assert!(!server.log().contains("Reloaded generation=1"), "{}", server.log());
    // Workers of the new generation write there too, in the same look.
    server.wait_until("a worker's end", || text(&moved).contains("Worker exited"));
    for line in text(&moved).lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["severity"], "INFO", "{line}");
        assert!(object["time"].is_string() && object["pid"].is_number(), "{line}");
    }

    folder.write("monoceros.toml", "errorlog = \"/nowhere/at/all\"\n");
    server.signal(Signal::SIGHUP);
    server.wait_until("its failure", || text(&moved).contains("Reload failed"));
    assert!(text(&moved).contains("cannot open errorlog /nowhere/at/all"));
    get(&server.address(), "/json").unwrap();
    server.stop();
}

#[test]
fn a_reload_that_moves_the_log_makes_the_new_file_the_workers_own() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can change users");
        return;
    }
    let server = Server::start(&["--user", "65534", "--group", "65533", "--", "sleep", "1000"]);
    let folder = &server.folder;
    let logs = ["moved.log", "moved-access.log"].map(|name| folder.path(name));
    folder.write("monoceros.toml", "errorlog = 'moved.log'\naccesslog = 'moved-access.log'\n");
    server.signal(Signal::SIGHUP);
    server.wait_until("the end", || text(&logs[0]).contains("Reloaded generation=1"));
    for log in &logs {
        let meta = fs::metadata(log).unwrap();
        assert_eq!((meta.st_uid(), meta.st_gid()), (65534, 65533), "{}", log.display());
    }
    server.stop();
}

#[test]
fn s18_info_lines_stay_off_standard_error() {
    let folder = Folder::new();
    let [out, err] = ["out", "log"].map(|name| fs::File::create(folder.path(name)).unwrap());
    let args = ["--bind", "127.0.0.1:0", "--log-split", "--log-level", "debug"];
    let child = command(&folder, &args).stdout(out).stderr(err).spawn().unwrap();
    let mut server = Server::adopt(child, folder);
    let out = server.folder.path("out");
    server.wait_until("readiness", || text(&out).contains("Ready workers="));
    server.expect("Reload failed");
    server.folder.write("monoceros.toml", "wrokers = 1\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("[ERROR] Reload failed");
    let below = |line: &str| ["[INFO]", "[DEBUG]"].iter().any(|level| line.contains(level));
    assert!(text(&out).lines().all(below), "{}", text(&out));
    assert!(text(&out).contains("[DEBUG] Booting worker"), "workers split theirs: {}", text(&out));
    assert!(!server.log().lines().any(below), "{}", server.log());
    server.stop();
}

#[test]
fn a_journal_is_told_each_lines_severity() {
    let folder = Folder::new();
    let (mut journal, theirs) = UnixStream::pair().unwrap();
    let stream = std::os::fd::OwnedFd::from(theirs);
    let meta = fs::metadata(format!("/proc/self/fd/{}", sys::fd::number(&stream))).unwrap();
    let mut master = command(&folder, &["--bind", "127.0.0.1:0"]);
    master.env("JOURNAL_STREAM", format!("{}:{}", meta.st_dev(), meta.st_ino()));
    let mut child = master.stderr(Stdio::from(stream)).spawn().unwrap();
    drop(master);
    journal.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while !said.contains("Ready workers=") {
        let length = journal.read(&mut buffer).unwrap();
        assert!(0 < length, "{said}");
        said += &String::from_utf8_lossy(&buffer[..length]);
    }
    assert!(said.lines().all(|line| line.starts_with("<6>[")), "{said}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_the_application_prints_is_in_the_log() {
    let folder = Folder::new();
    let noisy = "#!/bin/sh\necho said-on-output\necho said-on-error >&2\nexec sleep 1000\n";
    let noisy = folder.write_program("noisy", noisy);
    let args = ["--error-logfile", "m.log", "--capture-output", "-b", "127.0.0.1:0", "--"];
    let args = [&args[..], &[noisy.to_str().unwrap()]].concat();
    let server = Server::spawn(folder, &args);
    let log = server.folder.path("m.log");
    server.wait_until("both", || {
        text(&log).contains("said-on-output") && text(&log).contains("said-on-error")
    });
    assert_eq!(server.log(), "", "nothing goes where the master was started");
    server.wait_until("readiness", || text(&log).contains("Ready workers="));

    // After a rotation, whoever boots prints into the new file.
    fs::rename(&log, server.folder.path("m.log.1")).unwrap();
    server.signal(Signal::SIGUSR1);
    server.wait_until("the new file", || log.exists());
    server.signal(Signal::SIGTTIN);
    server.wait_until("another's words", || text(&log).contains("said-on-error"));
    let mut server = server;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_rotated_log_is_opened_again_by_workers_without_privileges() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can change users");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    fs::set_permissions(folder.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["master", "worker"] {
        let built = support::master().with_file_name(name);
        let copy = folder.path(name);
        fs::hard_link(&built, &copy).or_else(|_| fs::copy(&built, &copy).map(drop)).unwrap();
    }
    let copy = folder.path("master");
    let mut master = std::process::Command::new(&copy);
    master.current_dir(folder.path("")).stdin(Stdio::null());
    master.args(["--error-logfile", "m.log", "--log-level", "debug", "--user", "65534"]);
    let child = master.args(["--group", "65533", "--bind", "127.0.0.1:0"]).spawn().unwrap();
    let server = Server::adopt(child, folder);
    let log = server.folder.path("m.log");
    server.wait_until("readiness", || text(&log).contains("Ready workers="));
    fs::rename(&log, server.folder.path("m.log.1")).unwrap();
    server.signal(Signal::SIGUSR1);
    server.wait_until("the new file", || log.exists());
    let mut server = server;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    let meta = fs::metadata(&log).unwrap();
    assert_eq!((meta.st_uid(), meta.st_gid()), (65534, 65533));
    assert!(text(&log).contains("Worker exiting"), "the worker writes there: {}", text(&log));
    assert!(!text(&log).contains("[ERROR]"), "{}", text(&log));
}

#[test]
fn the_masters_lines_go_to_syslog_too() {
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let to = format!("udp://{}", receiver.local_addr().unwrap());
    let server = Server::start(&["--log-syslog", "--log-syslog-to", &to]);
    let want = format!("[{}]: Ready workers=1 wanted=1", server.pid());
    loop {
        let mut bytes = [0; 1000];
        let count = receiver.recv(&mut bytes).expect("the line comes");
        let line = String::from_utf8_lossy(&bytes[..count]).into_owned();
        // Facility user, severity informational.
        if line.ends_with(&want) {
            assert!(line.starts_with("<14>monoceros."), "{line}");
            break;
        }
    }
    server.stop();
}

#[test]
fn a_full_disk_costs_log_lines_and_nothing_else() {
    let folder = Folder::new();
    fs::create_dir(folder.path("small")).unwrap();
    let unshare = |line: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", line]).arg(support::master());
        command.current_dir(folder.path("")).stdin(Stdio::null());
        command
    };
    let mount = "mount -t tmpfs -o size=64k small small";
    if !unshare(mount).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine makes no mount namespaces");
        return;
    }
    let line = format!(
        "{mount} && exec \"$0\" --bind unix:m.sock --workers 2 --error-logfile small/m.log \
         --access-logfile small/access.log --log-level debug"
    );
    let err = fs::File::create(folder.path("log")).unwrap();
    let child = unshare(&line).stderr(err).spawn().unwrap();
    let server = Server::adopt(child, folder);
    // As the server sees it.
    let seen = |name: &str| {
        let root = format!("/proc/{}/root{}", server.pid(), server.folder.path("small").display());
        Path::new(&root).join(name)
    };
    let log = || text(&seen("m.log"));
    server.wait_until("readiness", || log().contains("Ready workers=2"));
    fs::write(seen("filler"), vec![b'x'; 1 << 20]).expect_err("no space left on this disk");
    let ask = || {
        let mut stream = UnixStream::connect(server.folder.path("m.sock")).unwrap();
        let request = b"GET /json HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    for _ in 0..200 {
        ask();
    }
    // The last page of the file still takes a few lines.
    let mut generation = 0;
    let is_told = |generation: u32| log().contains(&format!("Reloaded generation={generation} "));
    while generation == 0 || is_told(generation) {
        assert!(generation < 30, "the disk is not full");
        generation += 1;
        let before = server.workers();
        server.signal(Signal::SIGHUP);
        server.wait_until("the reload", || {
            let workers = server.workers();
            workers.len() == 2 && workers.iter().all(|worker| !before.contains(worker))
        });
    }
    ask();
    fs::remove_file(seen("filler")).unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_until("the log goes on", || is_told(generation + 1));
    server.wait_until("with its gap explained", || log().contains("Log lines lost"));
    ask();
    server.stop();
}
