//! gunicorn's configuration file at start, at a reload and at a check. The interpreter is a script that answers as the
//! package does; `crates/pyhost/tests/suite` has the same with a real one.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Folder, Server, command, get, run};

/// Answers with the file `answer` once there is no file `slow`, and writes down what else it is asked.
const INTERPRETER: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$1 $2 $3" in
"-c "*) ;;
"-m monoceros.config "*)
    echo "$3 in $PWD" >>"$here/asked"
    while [ -e "$here/slow" ]; do sleep 0.02; done
    . "$here/answer" ;;
"-m monoceros.hook "*)
    printf '%s' "$MONOCEROS_HOOK_SETTINGS" >"$here/settings"
    echo "$4 slot=$MONOCEROS_HOOK_SLOT" >>"$here/hooks" ;;
"-m monoceros --check")
    echo "loading $4 with $VALUE"
    . "$here/check" ;;
esac
"#;

/// An answer: names as `name kind text`, then hooks.
fn answer(names: &[(&str, &str, &str)], hooks: &[&str]) -> String {
    let names: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(line, (name, kind, text))| {
            let line = line + 1;
            format!(
                r#"{{"name": "{name}", "kind": "{kind}", "texts": ["{text}"], "is_empty": false, "line": {line}, "column": 5}}"#
            )
        })
        .collect();
    let hooks: Vec<String> = hooks.iter().map(|hook| format!(r#"["{hook}", 9, 1]"#)).collect();
    let (names, hooks) = (names.join(", "), hooks.join(", "));
    format!("cat <<'END'\n{{\"names\": [{names}], \"hooks\": [{hooks}]}}\nEND\n")
}

/// A folder with an interpreter, an empty `gunicorn.conf.py`, and what the interpreter says of it.
fn folder(answer: &str) -> Folder {
    let folder = Folder::new();
    folder.write_program("python", INTERPRETER);
    folder.write("gunicorn.conf.py", "");
    folder.write("answer", answer);
    folder
}

const OPTIONS: [&str; 4] = ["--python", "./python", "-c", "gunicorn.conf.py"];

#[test]
fn the_file_stands_between_variables_and_command_lines() {
    let names = [("timeout", "int", "7"), ("keepalive", "int", "7"), ("backlog", "int", "7")];
    let folder = folder(&answer(&names, &["on_exit"]));
    let output = command(&folder, &[&OPTIONS[..], &["--print-config"]].concat())
        .env("MONOCEROS_TIMEOUT", "8")
        .env("MONOCEROS_ON_EXIT", "true")
        .env("GUNICORN_CMD_ARGS", "--keep-alive 9")
        .output()
        .unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    for line in [
        "\ntimeout = 7  # gunicorn.conf.py:1:5\n",
        "\nkeepalive = 9  # environment GUNICORN_CMD_ARGS\n",
        "\nbacklog = 7  # gunicorn.conf.py:3:5\n",
        // A command that somebody wrote goes before the function.
        "\non_exit = \"true\"  # environment MONOCEROS_ON_EXIT\n",
    ] {
        assert!(page.contains(line), "{line:?} is missing in:\n{page}");
    }
}

#[test]
fn a_python_file_is_read_unasked_for_python_applications_only() {
    let folder = folder(&answer(&[("workers", "int", "3")], &[]));
    for (args, is_read) in [
        (&["app:app"][..], true),
        (&[], false),
        (&["./native"], false),
        (&["--", "true"], false),
        (&["-c", "other.toml", "app:app"], false),
    ] {
        folder.write_program("native", "#!/bin/sh\n");
        folder.write("other.toml", "");
        let _ = fs::remove_file(folder.path("asked"));
        let args = [&["--python", "./python", "--print-config"], args].concat();
        let (code, page) = run(&folder, &args);
        assert_eq!(code, Some(0), "{args:?}: {page}");
        assert_eq!(folder.path("asked").exists(), is_read, "{args:?}");
        assert_eq!(page.contains("\nworkers = 3  # gunicorn.conf.py:1:5\n"), is_read, "{page}");
    }
    folder.write("monoceros.toml", "workers = 2");
    let (_, page) = run(&folder, &["--python", "./python", "--print-config", "app:app"]);
    assert!(page.contains("\nworkers = 2  # monoceros.toml:1:11\n"), "{page}");
}

#[test]
fn whatever_is_wrong_with_it_is_one_clear_end() {
    let raised = r#"cat <<'END'
{"error": "Traceback:\n  File \"gunicorn.conf.py\", line 3\nNameError: no such", "error_line": 3}
END
"#;
    let bad = answer(&[("workers", "str", "four"), ("certfile", "str", "a.pem")], &[]);
    for (answer, parts) in [
        (
            raised,
            &["Traceback:", "cannot read settings file gunicorn.conf.py: line 3: NameError"][..],
        ),
        ("exit 9", &["cannot read settings file gunicorn.conf.py: ", "/python ended with code=9"]),
        ("kill -9 $$", &["ended with signal=SIGKILL"]),
        ("echo hello", &["the interpreter's answer is not understood"]),
        ("exec yes", &["it says more than 1048576 bytes"]),
        (
            &bad,
            &[
                "gunicorn.conf.py:1:5: workers is \"four\", expected a whole number",
                "gunicorn.conf.py:2:5: certfile is not offered: there is no TLS yet",
            ],
        ),
    ] {
        let (code, text) = run(&folder(answer), &OPTIONS);
        assert_eq!(code, Some(78), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }
    let (code, text) = run(&folder(""), &["--python", "/bin/false", "-c", "gunicorn.conf.py"]);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("/bin/false -m pip install monoceros"), "{text}");
}

#[test]
fn all_goes_on_while_a_reload_waits_for_the_file() {
    let folder = folder(&answer(&[("workers", "int", "1")], &[]));
    let mut server = Server::start_in(folder, &OPTIONS);
    let address = server.address();
    server.folder.write("slow", "");
    server
        .folder
        .write("answer", &answer(&[("workers", "int", "1"), ("timeout", "int", "9")], &[]));
    server.signal(Signal::SIGHUP);
    server.wait_until("the second question", || {
        fs::read_to_string(server.folder.path("asked")).unwrap().lines().count() == 2
    });
    get(&address, "/json").unwrap();
    server.signal(Signal::SIGTTIN);
    server.wait_for_line("Number of workers wanted=2 before=1");
    server.wait_for_lines("Worker ready", 2);
    server.signal(Signal::SIGHUP);
    server.signal(Signal::SIGUSR2);
    server.wait_for_line("The reload comes after the one under way");
    server.wait_for_line("No upgrade: a reload is under way");
    server.expect("No upgrade");
    assert_eq!(server.count("Reloaded generation="), 0, "{}", server.log());
    fs::remove_file(server.folder.path("slow")).unwrap();
    server.wait_for_line("Reloaded generation=1 workers=2");
    server.wait_for_line("Reloaded generation=2 workers=2");
    server.stop();
}

#[test]
fn a_file_that_breaks_leaves_the_service_alone() {
    let folder = folder(&answer(&[], &[]));
    let mut server = Server::start_in(folder, &OPTIONS);
    server.expect("Reload failed, still serving");
    for (round, answer) in ["exit 1", "echo x", "exec yes"].into_iter().enumerate() {
        server.folder.write("answer", answer);
        server.signal(Signal::SIGHUP);
        server.wait_for_lines("Reload failed, still serving generation=0", round + 1);
    }
    get(&server.address(), "/json").unwrap();
    server.folder.write("answer", &answer(&[], &[]));
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    server.stop();
}

#[test]
fn a_stop_waits_for_no_file() {
    let server = Server::start_in(folder(&answer(&[], &[])), &OPTIONS);
    server.folder.write("slow", "");
    server.signal(Signal::SIGHUP);
    server.wait_until("the second question", || {
        fs::read_to_string(server.folder.path("asked")).unwrap().lines().count() == 2
    });
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn functions_of_the_master_are_called_and_those_of_workers_need_python() {
    let hooks = ["on_starting", "pre_fork", "child_exit", "on_exit", "post_fork", "ssl_context"];
    let names = [("database", "str", "postgres://u:secret@h/d")];
    let mut server = Server::start_in(folder(&answer(&names, &hooks)), &OPTIONS);
    server.expect("gunicorn.conf.py:9:1: post_fork is never called: this is no Python application");
    server.expect("Cannot connect to the database");
    server.expect("gunicorn.conf.py:9:1: ssl_context is never called: there is no TLS yet");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    let called = fs::read_to_string(server.folder.path("hooks")).unwrap();
    for line in
        ["on_starting slot=\n", "pre_fork slot=0\n", "child_exit slot=0\n", "on_exit slot=\n"]
    {
        assert!(called.contains(line), "{line:?} is missing in:\n{called}");
    }
    assert_eq!(called.lines().count(), 4, "{called}");
    let settings = fs::read_to_string(server.folder.path("settings")).unwrap();
    assert!(settings.contains("\"workers\":1") && !settings.contains("secret"), "{settings}");
    server.check_log();
}

#[test]
fn the_file_may_name_the_application() {
    let folder = folder(&answer(&[("wsgi_app", "str", "of_the_file:app")], &[]));
    folder.write("check", "");
    for (args, loaded) in [
        (&[][..], "loading of_the_file:app "),
        (&["given:app"], "loading given:app "),
        (&["--", "true"], ""),
    ] {
        let (code, text) = run(&folder, &[&OPTIONS[..], &["--check-config"], args].concat());
        assert_eq!(code, Some(0), "{args:?}: {text}");
        assert!(
            text.starts_with(loaded) && text.is_empty() == loaded.is_empty(),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn a_check_loads_the_application() {
    let folder = folder(&answer(&[("raw_env", "str", "VALUE=of the file")], &[]));
    let args = ["--python", "./python", "--check-config", "app:app"];
    for (check, code, part) in [
        ("", 0, "loading app:app with of the file"),
        ("exit 3", 3, ""),
        ("exit 4", 4, ""),
        ("kill -9 $$", 3, "app:app cannot be loaded: "),
        ("sleep 1000", 3, "app:app was not loaded within boot_timeout"),
    ] {
        folder.write("check", check);
        let (got, text) = run(&folder, &[&["--boot-timeout", "1"], &args[..]].concat());
        assert_eq!(got, Some(code), "{check}: {text}");
        assert!(text.contains(part), "{check}: {text}");
    }
}
