//! Hooks: each is run at its moment, and one that fails, hangs, talks without end or is not there harms nothing.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Folder, Server, get};

/// A hook that writes down what it was told.
const WITNESS: &str = "#!/bin/sh
echo \"$MONOCEROS_HOOK workers=$MONOCEROS_HOOK_WORKERS slot=$MONOCEROS_HOOK_SLOT \
exit=$MONOCEROS_HOOK_EXIT_CODE$MONOCEROS_HOOK_EXIT_SIGNAL\" >> \"$1\"
";

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn with_hooks(hooks: &str, args: &[&str]) -> Server {
    let folder = Folder::new();
    folder.write("monoceros.toml", &format!("[hooks]\n{hooks}"));
    Server::start_in(folder, args)
}

#[test]
fn each_hook_is_run_at_its_moment() {
    let folder = Folder::new();
    let (witness, told) = (folder.write_program("witness", WITNESS), folder.path("told"));
    let mut hooks = String::from("workers = 2\n[hooks]\n");
    for name in [
        "on_starting",
        "when_ready",
        "on_all_ready",
        "on_reload",
        "post_fork",
        "post_worker_init",
        "child_exit",
        "worker_exit",
        "nworkers_changed",
        "on_exit",
    ] {
        hooks += &format!("{name} = '{} {}'\n", witness.display(), told.display());
    }
    folder.write("monoceros.toml", &hooks);
    let mut server = Server::start_in(folder, &[]);
    // Waited for, so it comes first.
    assert!(read(&told).starts_with("on_starting workers= slot= exit=\n"), "{}", read(&told));
    let wait_for = |line: &str| {
        server.wait_until(line, || read(&told).lines().any(|told| told.starts_with(line)));
    };
    for line in [
        "when_ready",
        "post_fork workers= slot=1",
        "post_worker_init workers= slot=0",
        "on_all_ready workers=2",
    ] {
        wait_for(line);
    }
    server.signal(Signal::SIGTTOU);
    wait_for("nworkers_changed workers=1");
    wait_for("child_exit workers= slot=1 exit=0");
    wait_for("worker_exit workers= slot=1 exit=0");
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    wait_for("on_reload");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    // Waited for, so it is there, and it is the last.
    assert!(read(&told).ends_with("on_exit workers= slot= exit=0\n"), "{}", read(&told));
    server.check_log();
}

#[test]
fn a_failing_or_missing_hook_is_a_warning() {
    let mut server = with_hooks(
        "on_starting = 'false'\nwhen_ready = '/no/such/program x'\non_all_ready = 'no-such-program'\n\
         post_fork = \"sh -c 'kill -9 $$'\"\non_exit = \"sh -c 'echo goodbye; exit 7'\"",
        &[],
    );
    server.expect("Hook failed");
    server.wait_for_line(
        "Hook failed hook=on_all_ready command=\"no-such-program\" error=no such program",
    );
    server.wait_for_line("Hook failed hook=on_starting pid=");
    for end in [" code=1", " error=\"cannot execute the program: No such file", " signal=SIGKILL"] {
        server.wait_for_line(end);
    }
    get(&server.address(), "/json").unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    assert!(server.count("Hook says hook=on_exit goodbye") == 1, "{}", server.log());
    assert!(server.count("Hook failed hook=on_exit") == 1, "{}", server.log());
    server.check_log();
}

#[test]
fn hanging_hooks_are_ended_and_nobody_waits_longer_than_that() {
    let began = Instant::now();
    let hang = "= \"sh -c 'trap : TERM; sleep 1000 & wait; sleep 1000'\"\n";
    let names = ["on_starting", "when_ready", "post_fork", "child_exit", "on_exit"];
    let hooks: String = names.iter().map(|name| format!("{name} {hang}")).collect();
    let mut server = with_hooks(&format!("{hooks}hook_timeout = 1"), &["--workers", "3"]);
    server.expect("Hook failed");
    server.wait_for_lines("reason=hook_timeout", 5);
    for _ in 0..20 {
        server.signal(Signal::SIGTTIN);
        server.signal(Signal::SIGTTOU);
        get(&server.address(), "/json").unwrap();
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}\n{}", began.elapsed(), server.log());
    server.expect("Hook not run");
    server.expect("Hook left behind");
    server.check_log();
}

#[test]
fn a_hook_that_talks_without_end_fills_nothing() {
    let mut server = with_hooks("when_ready = 'yes a very long story'\nhook_timeout = 1", &[]);
    server.expect("Hook failed hook=when_ready");
    server.wait_for_line("Hook said more hook=when_ready left_out_bytes=");
    assert!(server.log().len() < 200_000, "{} bytes", server.log().len());
    get(&server.address(), "/json").unwrap();
    server.stop();
}

#[test]
fn orphans_of_hooks_and_hooks_themselves_leave_no_zombies() {
    let server = with_hooks("post_fork = \"sh -c 'sleep 0 & true'\"", &["--workers", "2"]);
    for round in 1..=3 {
        server.signal(Signal::SIGHUP);
        server.wait_for_lines("Reloaded generation=", round);
    }
    let is_zombie =
        |pid: &nix::unistd::Pid| read(Path::new(&format!("/proc/{pid}/stat"))).contains(") Z ");
    server.wait_until("two workers and no zombie", || {
        let children = server.workers();
        children.len() == 2 && !children.iter().any(is_zombie)
    });
    server.stop();
}
