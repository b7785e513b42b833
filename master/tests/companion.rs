//! The embedded database: up before the first worker, gone after the last.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Folder, Server, get};

#[test]
fn embedded_database_lives_beside_the_workers() {
    if !std::path::Path::new("/usr/lib/postgresql").exists() {
        eprintln!("skipped: no PostgreSQL is installed");
        return;
    }
    let folder = Folder::new();
    let state = folder.path("state");
    folder.write("monoceros.toml", "database = \"embedded\"\n");
    let mut server = Server::start_in(folder, &["--database-directory", state.to_str().unwrap()]);
    server.expect("Companion (pid:");
    server.expect("atabase");
    server.expect("left behind");
    let answer = get(&server.address(), "/db").unwrap();
    assert!(answer.contains("randomNumber"), "{answer}");
    let log = server.log();
    let at =
        |words: &str| log.find(words).unwrap_or_else(|| panic!("{words:?} is missing in:\n{log}"));
    assert!(at("Companion ready") < at("Booting worker with pid"), "{log}");

    // Killed, it comes back, and the workers find it again by themselves.
    let from = at("Booting companion with pid: ") + "Booting companion with pid: ".len();
    let pid: i32 = log[from..].split(' ').next().unwrap().parse().unwrap();
    let workers = server.workers();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    server.wait_for_lines("Companion ready", 2);
    server.wait_until("the database again", || get(&server.address(), "/db").is_ok());
    assert!(
        workers
            .iter()
            .filter(|worker| worker.as_raw() != pid)
            .all(|worker| server.workers().contains(worker))
    );

    // A reload without it sends it away, and one with it brings it back.
    server.folder.write("monoceros.toml", "");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Companion exited");
    assert!(!state.join("postgresql/data/postmaster.pid").exists());
    get(&server.address(), "/json").unwrap();
    server.folder.write("monoceros.toml", "database = \"embedded\"\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Companion ready", 3);
    server.wait_until("the database once more", || get(&server.address(), "/db").is_ok());

    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    let log = server.log();
    assert!(log.rfind("Worker exited") < log.rfind("Companion exited"), "{log}");
    assert!(
        !state.join("postgresql/data/postmaster.pid").exists(),
        "PostgreSQL was stopped, not left behind"
    );
    server.check_log();
}

#[test]
fn an_embedded_database_that_cannot_be_had_is_one_clear_end() {
    let folder = Folder::new();
    folder.write("state", "a file where a folder is needed");
    let args = ["-b", "127.0.0.1:0", "--database", "embedded", "--database-directory", "state"];
    let (code, log) = support::run(&folder, &args);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("Reason: Companion failed to boot."), "{log}");
    assert!(!log.contains("Booting worker"), "{log}");
}
