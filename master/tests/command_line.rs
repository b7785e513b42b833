//! What the program says and how it ends before anything is started.

mod support;

use std::net::TcpListener;

use support::{Folder, Server, command, run};

#[test]
fn exit_codes_tell_usage_from_settings() {
    let folder = Folder::new();
    for (args, code, part) in [
        (&["--help"][..], 0, "Usage: master"),
        (&["--version"], 0, "master "),
        (&["--check-config"], 0, ""),
        (&["--no-such-flag"], 2, "--no-such-flag"),
        (&["--workers"], 2, "--workers"),
        (&["--workers", "0"], 78, "command line: workers is \"0\", expected a whole number"),
        (&["--bind", "host:port", "--check-config"], 78, "command line: bind is \"host:port\""),
        (&["--config", "nowhere.toml"], 78, "cannot read settings file nowhere.toml"),
        (&["--config", "file:nowhere.py"], 78, "cannot read settings file nowhere.py"),
        (&["--config", "python:"], 78, "config is \"python:\", expected a path, or python:MODULE"),
        (&["app:app"], 78, "Python applications"),
        (&["./nowhere"], 78, "no such program"),
        (&["--database", "mysql://x"], 78, "command line: database is neither"),
    ] {
        let (got, text) = run(&folder, args);
        assert_eq!(got, Some(code), "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
    let (_, silence) = run(&folder, &["--check-config"]);
    assert_eq!(silence, "");
}

#[test]
fn what_a_foreign_program_is_told_of_its_database_is_its_own_affair() {
    let folder = Folder::new();
    for (args, code) in [
        (&["--check-config", "--", "sh", "-c", "true"][..], 0),
        (&["--check-config", "--database", "mysql://x", "--", "sh", "-c", "true"], 78),
        // The bundled application would connect.
        (&["--check-config"], 78),
    ] {
        let output =
            command(&folder, args).env("DATABASE_URL", "sqlite:///site.sqlite3").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    }
}

#[test]
fn every_mistake_in_the_file_is_reported_at_once() {
    let folder = Folder::new();
    folder.write("monoceros.toml", "wrokers = 3\ntimeout = 'long'\n\nbacklog = -1\n");
    let (code, text) = run(&folder, &["--check-config"]);
    assert_eq!(code, Some(78));
    for line in [
        "monoceros.toml:1:1: unknown setting \"wrokers\", did you mean \"workers\"?",
        "monoceros.toml:2:11: timeout is a string, expected a number of seconds",
        "monoceros.toml:4:11: backlog is \"-1\", expected a whole number from 1",
        "3 wrong settings, exit code 78",
    ] {
        assert!(text.contains(line), "{line:?} is missing in:\n{text}");
    }
}

#[test]
fn sources_beat_each_other_in_their_order() {
    let folder = Folder::new();
    folder.write("m.toml", "timeout = 2\nkeepalive = 2\nworkers = 2\n");
    let output = command(&folder, &["-c", "m.toml", "--keep-alive", "4", "--print-config"])
        .env("GUNICORN_CMD_ARGS", "--timeout 5 --keep-alive 5 --graceful-timeout 5")
        .env("MONOCEROS_CMD_ARGS", "--timeout 3 --keep-alive 3")
        .env("MONOCEROS_BACKLOG", "100")
        .env("WEB_CONCURRENCY", "9")
        .env("MONOCEROS_WORKERS", "8")
        .env("PORT", "1234")
        .output()
        .unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    for line in [
        "\nkeepalive = 4  # command line\n",
        "\ntimeout = 3  # environment MONOCEROS_CMD_ARGS\n",
        "\nworkers = 2  # m.toml:3:11\n",
        "\nbacklog = 100  # environment MONOCEROS_BACKLOG\n",
        "\nbind = [\"0.0.0.0:1234\"]  # environment PORT\n",
        "\ngraceful_timeout = 5  # environment GUNICORN_CMD_ARGS\n",
        "\nboot_timeout = 60  # default\n",
    ] {
        assert!(page.contains(line), "{line:?} is missing in:\n{page}");
    }
}

#[test]
fn an_address_in_use_is_told_in_gunicorns_words() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = Folder::new();
    let (code, log) = run(&folder, &["--bind", &address, "--pid", "m.pid"]);
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains(&format!("Connection in use: {address}")), "{log}");
    assert!(!folder.path("m.pid").exists(), "nothing is left behind");
}

#[test]
fn pidfile_keeps_a_second_master_out_and_goes_with_the_first() {
    let server = Server::start(&["--pid", "m.pid"]);
    let path = server.folder.path("m.pid");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
    let (code, log) = run(&server.folder, &["--bind", "127.0.0.1:0", "--pid", "m.pid"]);
    assert_eq!(code, Some(1));
    assert!(log.contains(&format!("Already running on PID {}", server.pid())), "{log}");
    server.stop();
    assert!(!path.exists());
}

#[test]
fn stale_pidfile_of_a_killed_master_does_not_block_a_start() {
    let mut server = Server::start(&["--pid", "m.pid"]);
    server.signal(nix::sys::signal::Signal::SIGKILL);
    server.wait_status();
    let folder = Folder::new();
    std::fs::copy(server.folder.path("m.pid"), folder.path("m.pid")).unwrap();
    Server::start_in(folder, &["--pid", "m.pid"]).stop();
}

#[test]
fn chdir_and_relative_paths_agree() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("inner")).unwrap();
    folder.write("inner/monoceros.toml", "errorlog = 'log.txt'\n");
    let mut server = Server::spawn(folder, &["--chdir", "inner", "--bind", "127.0.0.1:0"]);
    let log = server.folder.path("inner/log.txt");
    server.wait_until("the log", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("Ready workers=1"))
    });
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn gunicorns_dead_flags_are_accepted_with_a_warning() {
    let mut server = support::Server::start(&[
        "-k",
        "gthread",
        "--threads",
        "4",
        "--preload",
        "--worker-tmp-dir",
        "/dev/shm",
        "--ssl-version",
        "TLS",
        "--suppress-ragged-eofs",
        "--do-handshake-on-connect",
        "--http-parser",
        "fast",
        "--no-sendfile",
    ]);
    server.expect(" has no effect: ");
    assert_eq!(server.count("[WARNING] command line: "), 8, "{}", server.log());
    assert_eq!(server.count("command line: threads has no effect: "), 1, "{}", server.log());
    server.stop();
}

#[test]
fn flags_that_cannot_be_honoured_are_refused_by_name() {
    let folder = Folder::new();
    for (args, sentence) in [
        (&["--certfile", "a.pem"][..], "certfile is not offered: there is no TLS yet"),
        (&["--http-protocols=h2"], "http_protocols is not offered: there is no HTTP/2 yet"),
        (&["--protocol", "uwsgi"], "protocol is not offered: only HTTP is spoken"),
        (&["--asgi-loop", "uvloop"], "asgi_loop is not offered: ASGI"),
        (
            &["--strip-header-spaces"],
            "strip_header_spaces is not offered: it lets requests through",
        ),
        (&["--paster", "x.ini"], "paste is not offered: PasteDeploy files are not read"),
        (&["--spew"], "spew is not offered: it traces Python"),
        (&["--reload-extra-file", "*.html"], "patterns are for Python applications"),
        (&["--reload-engine", "magic"], "expected `auto`, `poll` or `inotify`"),
        (&["--dirty-workers", "2"], "dirty_workers is not offered: there is no pool"),
    ] {
        let (code, text) = run(&folder, &[&["--check-config"], args].concat());
        assert_eq!(code, Some(78), "{args:?}: {text}");
        assert!(text.contains("command line: ") && text.contains(sentence), "{args:?}: {text}");
    }
}

#[test]
fn a_check_says_what_a_start_would_warn_of_and_looks_at_the_logs() {
    let folder = Folder::new();
    let (code, said) = run(&folder, &["--check-config", "-k", "gevent"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("worker_class has no effect: there is one kind of worker"), "{said}");
    for (name, flag) in [("errorlog", "--error-logfile"), ("accesslog", "--access-logfile")] {
        let args = ["--check-config", flag, "missing/server.log"];
        let (code, said) = run(&folder, &args);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(&format!("cannot open {name} missing/server.log")), "{said}");
        assert_eq!(run(&folder, &["--check-config", flag, "server.log"]), (Some(0), String::new()));
        assert!(!folder.path("server.log").exists(), "a check makes no file");
    }
}

#[test]
fn worker_classes_for_other_protocols_and_misspelt_ones_are_refused() {
    let folder = Folder::new();
    for (class, want) in [
        ("uvicorn.workers.UvicornWorker", "worker_class is not offered: ASGI applications"),
        ("gtread", "worker_class is not offered: no worker class of that name is known"),
    ] {
        let (code, said) = run(&folder, &["--check-config", "-k", class]);
        assert!(code == Some(78) && said.contains(want), "{class}: {said}");
    }
    let harmless = ["--check-config", "--protocol", "http", "--http-protocols", "h1"];
    assert_eq!(run(&folder, &harmless), (Some(0), String::new()));
}
