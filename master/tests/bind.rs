//! Addresses: every form, who may have them, and what becomes of socket files.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::{Folder, Server, command, get, master, programs_for_everybody, run};

/// One request on a unix socket; the whole answer.
fn ask(mut stream: UnixStream) -> String {
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    stream.write_all(b"GET /json HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn ask_path(path: &Path) {
    let answer = ask(UnixStream::connect(path).unwrap());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Starts a master whose descriptors 3 and 4 are `fds`, in the way of systemd when `names` are given.
fn start_with(folder: Folder, fds: [OwnedFd; 2], names: Option<&str>, args: &[&str]) -> Server {
    // The shell's pid becomes the master's; its standard error is the log.
    let mut script = "exec 3<&0 4>&1 0</dev/null 1>&2; ".to_owned();
    if let Some(names) = names {
        script += &format!("export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES={names}; ");
    }
    script += "exec \"$0\" \"$@\"";
    let log = fs::File::create(folder.path("log")).unwrap();
    let [third, fourth] = fds.map(Stdio::from);
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script).arg(master()).args(args).current_dir(folder.path(""));
    let child = shell.stdin(third).stdout(fourth).stderr(log).spawn().unwrap();
    Server::adopt(child, folder)
}

/// `http://…` addresses in the order of the log's first "Listening at:".
fn addresses(server: &Server) -> Vec<String> {
    let log = server.log();
    let line = log.lines().find(|line| line.contains("Listening at: ")).unwrap();
    let list = line.split("Listening at: ").nth(1).unwrap().split(' ').next().unwrap();
    list.split(',').map(|address| address.trim_start_matches("http://").to_owned()).collect()
}

#[test]
fn every_form_is_served_and_several_at_once() {
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed_at = passed.local_addr().unwrap().to_string();
    let folder = Folder::new();
    let abstract_name = format!("monoceros-test-{}", std::process::id());
    let abstract_bind = format!("unix:@{abstract_name}");
    let mut args = vec!["--workers", "2", "--bind", "localhost:0", "--bind", "fd://3"];
    args.extend(["--bind", "unix:m.sock", "--bind", &abstract_bind]);
    let has_v6 = TcpListener::bind("[::1]:0").is_ok();
    if has_v6 {
        args.extend(["--bind", "[::1]:0"]);
    } else {
        eprintln!("skipped: IPv6 is off");
    }
    let spare = fs::File::open("/dev/null").unwrap().into();
    let server = start_with(folder, [passed.try_clone().unwrap().into(), spare], None, &args);
    server.wait_for_line("Ready workers=2");

    let addresses = addresses(&server);
    assert_eq!(addresses[1], passed_at);
    assert_eq!(addresses[2..4], ["unix:m.sock".to_owned(), abstract_bind]);
    get(&addresses[0], "/json").unwrap();
    get(&passed_at, "/json").unwrap();
    if has_v6 {
        assert!(addresses[4].starts_with("[::1]:"), "{addresses:?}");
        get(&addresses[4], "/json").unwrap();
    }
    ask_path(&server.folder.path("m.sock"));
    let name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    assert!(ask(UnixStream::connect_addr(&name).unwrap()).starts_with("HTTP/1.1 200"));

    let path = server.folder.path("m.sock");
    server.signal(Signal::SIGTERM);
    server.wait_until("the socket file's end", || !path.exists());
    let mut server = server;
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    assert!(TcpStream::connect(&addresses[0]).is_err(), "closed");
    TcpStream::connect(&passed_at).expect("whoever passed it holds it still");
    server.check_log();
}

#[test]
fn passed_listeners_are_told_apart_by_their_names() {
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [web, admin] = listeners.each_ref().map(|l| l.local_addr().unwrap().to_string());
    let copies = listeners.each_ref().map(|l| l.try_clone().unwrap().into());
    let server = start_with(Folder::new(), copies, Some("http:admin"), &[]);
    server.wait_for_line("Ready workers=");
    server.wait_for_line(&format!("Admin at: http://{admin}"));
    get(&web, "/json").unwrap();
    assert!(get(&admin, "/json").is_err(), "no application there");
    assert!(get(&admin, "/metrics").unwrap().contains("monoceros_"));
    assert!(get(&web, "/metrics").is_err(), "no metrics for everybody");
    // A reload keeps both.
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    get(&web, "/json").unwrap();
    get(&admin, "/readyz").unwrap();
    server.stop();
}

#[test]
fn a_taken_port_is_refused_and_its_holder_named() {
    // A server that shares its port would take a part of the connections in silence.
    let options = net::BindOptions::default();
    let stray = net::ListenerGroup::bind(&"127.0.0.1:0".parse().unwrap(), 2, &options).unwrap();
    let address = stray.addr().ip().unwrap().to_string();
    let folder = Folder::new();
    let (code, text) = run(&folder, &["--bind", &address, "--pid", "m.pid"]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains(&format!("Connection in use: {address}")), "{text}");
    let holder = std::process::id();
    assert!(text.contains(&format!("{holder}")), "the holder's pid is {holder}: {text}");
    assert!(!folder.path("m.pid").exists());
}

#[test]
fn s23_a_socket_file_belongs_to_whoever_serves_it() {
    let folder = Folder::new();
    let path = folder.path("m.sock");
    // The dead leave their files behind.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = Server::spawn(folder, &["--bind", "unix:m.sock"]);
    server.wait_for_line("Ready workers=");
    ask_path(&path);
    let inode = fs::metadata(&path).unwrap().ino();

    let second = Folder::new();
    let bind = format!("unix:{}", path.display());
    let (code, text) = run(&second, &["--bind", &bind]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("Connection in use"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "not stolen, not removed");
    ask_path(&path);

    // Somebody put another server's socket there: it stays.
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let mut server = server;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    UnixStream::connect(&path).unwrap();
    drop(other);
    server.check_log();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    folder.write("m.sock", "precious");
    let (code, text) = run(&folder, &["--bind", "unix:m.sock"]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("not a socket"), "{text}");
    assert_eq!(fs::read_to_string(folder.path("m.sock")).unwrap(), "precious");
}

#[test]
fn a_dead_servers_path_is_replaced_without_a_gap() {
    let folder = Folder::new();
    let path = folder.path("m.sock");
    drop(UnixListener::bind(&path).unwrap());
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (path, is_over) = (path.clone(), std::sync::Arc::clone(&is_over));
        move || {
            let mut gaps = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                gaps += usize::from(!path.exists());
            }
            gaps
        }
    });
    let server = Server::spawn(folder, &["--bind", "unix:m.sock"]);
    server.wait_for_line("Ready workers=");
    ask_path(&path);
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(watcher.join().unwrap(), 0, "the path was missing for a moment");
    server.stop();
}

#[test]
fn a_socket_file_has_the_mode_and_the_owner_that_were_asked_for() {
    let server = Server::spawn(Folder::new(), &["--bind", "unix:m.sock", "--umask", "0027"]);
    server.wait_for_line("Ready workers=");
    let meta = fs::metadata(server.folder.path("m.sock")).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.mode() & 0o777, 0o750);
    server.stop();
    if !geteuid().is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    let args = ["--bind", "unix:m.sock", "--user", "65534", "--group", "65533", "--", "sleep", "9"];
    let server = Server::spawn(Folder::new(), &args);
    server.wait_for_line("Ready workers=");
    let meta = fs::metadata(server.folder.path("m.sock")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (65534, 65533, 0o777));
    server.stop();
}

#[test]
fn a_low_port_is_served_by_workers_without_privileges() {
    let in_own_network = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c"]).arg(format!("ip link set lo up && {then}"));
        command
    };
    let is_possible = in_own_network("true").stderr(Stdio::null()).status();
    if !geteuid().is_root() || !is_possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine makes no network namespaces");
        return;
    }
    let folder = Folder::new();
    let log = fs::File::create(folder.path("log")).unwrap();
    let mut command = in_own_network("exec \"$0\" --bind 127.0.0.1:80 --user 65534 --group 65533");
    command.arg(programs_for_everybody(&folder)).current_dir(folder.path(""));
    let child = command.stderr(log).stdin(Stdio::null()).spawn().unwrap();
    let server = Server::adopt(child, folder);
    server.wait_for_line("Ready workers=");
    let status = fs::read_to_string(format!("/proc/{}/status", server.workers()[0])).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let pid = server.pid().to_string();
    let mut curl = Command::new("nsenter");
    curl.args(["-n", "-t", &pid, "curl", "-s", "-m", "20", "http://127.0.0.1/plaintext"]);
    let answer = curl.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "Hello, World!", "{}", server.log());
    server.stop();
}

#[test]
fn workers_get_their_users_groups_when_asked_and_never_the_masters() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can change users");
        return;
    }
    let groups_of_worker = |args: &[&str]| {
        let folder = Folder::new();
        let log = fs::File::create(folder.path("log")).unwrap();
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--groups", "4,24"]).arg(master()).args(["--bind", "127.0.0.1:0"]);
        setpriv.args(args).args(["--", "sleep", "1000"]).current_dir(folder.path(""));
        let child = setpriv.stderr(log).spawn().unwrap();
        let server = Server::adopt(child, folder);
        server.wait_for_line("Ready workers=");
        let groups = |pid: nix::unistd::Pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
            line.trim().to_owned()
        };
        assert_eq!(groups(server.pid()), "4 24");
        let found = groups(server.workers()[0]);
        server.stop();
        found
    };
    assert_eq!(groups_of_worker(&["--user", "www-data"]), "");
    assert_eq!(groups_of_worker(&["--user", "www-data", "--initgroups"]), "33");
}

#[test]
fn a_backlog_beyond_the_kernels_limit_is_reported() {
    let mut server = Server::start(&["--backlog", "1000000"]);
    server.expect("The kernel caps the backlog");
    assert_eq!(server.count("[WARNING] The kernel caps the backlog address=http://127.0.0.1:"), 1);
    assert_eq!(server.count("see=net.core.somaxconn"), 1);
    server.stop();
}

#[test]
fn a_wrong_address_is_a_wrong_setting_and_a_foreign_one_cannot_be_bound() {
    let folder = Folder::new();
    for wrong in ["127.0.0.1:99999", "unix:", "fd://1", "[::1", "a b:80"] {
        let (code, text) = run(&folder, &["--bind", wrong]);
        assert_eq!(code, Some(78), "{wrong}: {text}");
        assert!(text.contains("bind"), "{wrong}: {text}");
    }
    // An address of documentation, which no machine has.
    let (code, text) = run(&folder, &["--bind", "192.0.2.1:0"]);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("Invalid address: 192.0.2.1:0"), "{text}");
    let mut closed = command(&folder, &["--bind", "fd://99"]);
    assert_eq!(closed.stderr(Stdio::null()).status().unwrap().code(), Some(69));
}

#[test]
fn many_workers_on_many_addresses_share_what_can_be_passed() {
    let folder = Folder::new();
    let addresses: Vec<String> =
        (0..280).map(|host| format!("127.0.{}.{}:0", 1 + host / 250, 1 + host % 250)).collect();
    let binds = |count: usize| format!("bind = {:?}\nworkers = 4\n", &addresses[..count]);
    folder.write("monoceros.toml", &binds(270));
    // 4 × 270 descriptors are more than a process can be passed.
    let server = Server::spawn(folder, &[]);
    server.wait_for_line("Ready workers=4");
    server.folder.write("monoceros.toml", &binds(280));
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    server.stop();
}
