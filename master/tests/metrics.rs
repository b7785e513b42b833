//! Metrics, health checks and StatsD, on the real programs.

#![allow(clippy::unwrap_used)] // In helpers too: a test may panic.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Folder, Load, PATIENCE, Server, get};

/// One request; status and body.
fn ask(mut stream: impl Read + Write, path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The address of the program `admin`, once it is there.
#[track_caller]
fn admin(server: &Server) -> String {
    server.wait_for_line("Admin at: http://");
    let log = server.log();
    let line = log.lines().rfind(|line| line.contains("Admin at: ")).unwrap();
    line.split("http://").nth(1).unwrap().split([' ', ',']).next().unwrap().to_owned()
}

fn start(args: &[&str]) -> (Server, String) {
    let mut all = vec!["--admin-bind", "127.0.0.1:0"];
    all.extend(args);
    let server = Server::start(&all);
    let admin = admin(&server);
    (server, admin)
}

fn metrics(admin: &str) -> BTreeMap<String, f64> {
    let (status, page) = ask(tcp(admin), "/metrics");
    assert_eq!(status, 200, "{page}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn status(admin: &str) -> serde_json::Value {
    serde_json::from_str(&ask(tcp(admin), "/status.json").1).unwrap()
}

fn worker_pids(admin: &str) -> Vec<Pid> {
    let status = status(admin);
    let workers = status["workers"].as_array().unwrap();
    workers.iter().map(|w| Pid::from_raw(w["pid"].as_i64().unwrap() as i32)).collect()
}

fn is_counter(name: &str) -> bool {
    let family = name.split('{').next().unwrap();
    ["_total", "_bucket", "_count", "_sum"].iter().any(|end| family.ends_with(end))
}

/// The pid of `admin`, from its last line in the log.
fn admin_pid(server: &Server) -> Pid {
    let log = server.log();
    let line = log.lines().rfind(|line| line.contains("Booting admin with pid: ")).unwrap();
    Pid::from_raw(line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn counters_never_fall_whoever_comes_and_goes() {
    let (mut server, admin) = start(&["--workers", "3", "--max-requests", "60"]);
    server.expect("was sent SIGKILL");
    let load = Load::start(&server.address(), 3, Duration::from_millis(2));
    let is_over = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut last, mut looks) = (BTreeMap::<String, f64>::new(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let now = metrics(&admin);
                for (name, value) in last.iter().filter(|(name, _)| is_counter(name)) {
                    let seen = now.get(name).unwrap_or_else(|| panic!("{name} is gone"));
                    assert!(value <= seen, "{name} fell from {value} to {seen}");
                }
                (last, looks) = (now, looks + 1);
            }
            looks
        });
        for round in 1..=3 {
            kill(worker_pids(&admin)[0], Signal::SIGKILL).unwrap();
            server.wait_for_lines("was sent SIGKILL", round);
            server.signal(Signal::SIGHUP);
            server.wait_for_lines("Reloaded generation=", round);
        }
        let recycled = "monoceros_worker_exits_total{reason=\"max_requests\"}";
        server.wait_until("a worker is recycled", || 0.0 < metrics(&admin)[recycled]);
        is_over.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    let (answered, _) = load.finish();
    assert!(10 < looks, "{looks}");

    let now = metrics(&admin);
    let count = "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_route=\"/json\",\
                 http_response_status_code=\"200\"}";
    // What a killed worker answered and did not count yet is lost with it: a turn's worth.
    assert!((now[count] - f64::from(answered)).abs() <= 9.0, "{} and {answered}", now[count]);
    let of_slots: f64 = (0..3)
        .map(|slot| now[&format!("monoceros_worker_requests_total{{worker=\"{slot}\"}}")])
        .sum();
    assert_eq!(of_slots, now[count]);
    assert_eq!(now["monoceros_worker_exits_total{reason=\"signal\"}"], 3.0);
    assert!(8.0 <= now["monoceros_worker_exits_total{reason=\"reload\"}"]);
    assert_eq!(now["monoceros_reloads_total{result=\"ok\"}"], 3.0);
    assert_eq!(now["monoceros_generation"], 3.0);
    assert!(!now.keys().any(|name| name.contains("pid")), "pids would be series without end");
    assert_eq!(server.count("Booting admin with pid"), 1, "nothing of it changed");
    server.stop();
}

#[test]
fn s16_a_stopped_worker_is_seen_and_so_is_who_waits_for_it() {
    let (server, admin) = start(&["--workers", "1"]);
    let pid = worker_pids(&admin)[0];
    let age = "monoceros_worker_heartbeat_age_seconds{worker=\"0\"}";
    assert!(metrics(&admin)[age] < 1.0);
    kill(pid, Signal::SIGSTOP).unwrap();
    let address = server.address();
    let waiting: Vec<TcpStream> = (0..3).map(|_| tcp(&address)).collect();
    let queue = format!("monoceros_listen_queue_length{{listener=\"http://{address}\"}}");
    server.wait_until("silence and queue are seen", || {
        let now = metrics(&admin);
        1.0 < now[age] && now[&queue] == 3.0
    });
    assert!(3.0 < metrics(&admin)[&queue.replace("_length", "_limit")]);
    kill(pid, Signal::SIGCONT).unwrap();
    drop(waiting);
    server.wait_until("it is back", || {
        let now = metrics(&admin);
        now[age] < 1.0 && now[&queue] == 0.0
    });
    server.stop();
}

#[test]
fn readiness_fails_from_the_first_moment_of_term() {
    let (mut server, admin) = start(&["--workers", "2", "--shutdown-delay", "1.5"]);
    let address = server.address();
    assert_eq!(ask(tcp(&admin), "/readyz"), (200, "{\"status\":\"ok\"}\n".into()));
    assert_eq!(ask(tcp(&admin), "/livez").0, 200);
    server.signal(Signal::SIGTERM);
    server.wait_for_line("Handling signal: term");
    assert_eq!(ask(tcp(&admin), "/readyz"), (503, "{\"status\":\"draining\"}\n".into()));
    assert_eq!(ask(tcp(&admin), "/livez").0, 200, "a drain is no reason for a kill");
    // A balancer that has not noticed yet is still served.
    assert!(get(&address, "/json").is_ok());
    assert_eq!(metrics(&admin)["monoceros_state{state=\"stopping\"}"], 1.0);
    // A scraper that keeps its connection does not keep the server.
    let _idle = tcp(&admin);
    let began = Instant::now();
    assert_eq!(server.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    server.check_log();
}

#[test]
fn it_is_not_ready_before_somebody_serves() {
    // A program that says nothing counts as ready after two seconds.
    let args = ["--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--", "sleep", "600"];
    let server = Server::spawn(Folder::new(), &args);
    let admin = admin(&server);
    assert_eq!(ask(tcp(&admin), "/readyz"), (503, "{\"status\":\"starting\"}\n".into()));
    server.wait_for_line("Ready workers=");
    server.wait_until("ready", || ask(tcp(&admin), "/readyz").0 == 200);
    let now = metrics(&admin);
    assert_eq!(now["monoceros_workers{state=\"idle\"}"], 1.0, "foreign programs are seen too");
    assert!(0.0 < now["monoceros_worker_resident_memory_bytes{worker=\"0\"}"]);
    server.stop();
}

#[test]
fn its_end_is_repaired_and_its_hanging_harms_nobody() {
    let (mut server, first) = start(&["--workers", "1"]);
    server.expect("Admin (pid:");
    let address = server.address();
    let pid = admin_pid(&server);
    kill(pid, Signal::SIGKILL).unwrap();
    server.wait_for_lines("Admin at: ", 2);
    assert_eq!(admin(&server), first, "the address stays");
    get(&address, "/json").unwrap();
    assert_eq!(metrics(&first)["monoceros_worker_spawns_total"], 1.0);
    // Hanging: the server goes on, and stops without waiting for it.
    kill(admin_pid(&server), Signal::SIGSTOP).unwrap();
    get(&address, "/json").unwrap();
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn a_reload_moves_it_without_a_gap() {
    let folder = Folder::new();
    let socket = folder.path("admin.sock");
    folder.write("monoceros.toml", "workers = 1\n");
    let server = Server::start_in(folder, &[]);
    assert_eq!(server.count("Booting admin"), 0, "nothing listens that was not asked for");

    let text = "workers = 1\nadmin_bind = [\"unix:admin.sock\"]\n";
    server.folder.write("monoceros.toml", text);
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Admin at: unix:");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let first = admin_pid(&server);
    let ask_unix = |path: &str| ask(UnixStream::connect(&socket).unwrap(), path);
    assert_eq!(ask_unix("/readyz").0, 200);
    assert!(ask_unix("/status").1.contains("http-equiv=refresh"));
    assert!(ask_unix("/status?auto").1.contains("\nIdleWorkers: 1\nScoreboard: _\n"));
    assert_eq!(ask_unix("/nothing").0, 404);

    // Nothing of its own changed: it stays. Its settings changed: another one takes over, on the same socket.
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Reloaded generation=", 2);
    assert_eq!(admin_pid(&server), first);
    server.folder.write("monoceros.toml", &format!("{text}statsd_host = \"127.0.0.1:9\"\n"));
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Reloaded generation=", 3);
    while server.count("Admin at: unix:") < 2 {
        assert_eq!(ask_unix("/livez").0, 200, "no gap");
    }
    assert_ne!(admin_pid(&server), first);

    server.folder.write("monoceros.toml", "workers = 1\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_lines("Reloaded generation=", 4);
    server.wait_until("its socket is gone", || !socket.exists());
    server.stop();
}

#[test]
fn an_address_in_use_keeps_nobody_from_serving() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let mut server = Server::start(&["--admin-bind", &address]);
    server.expect("Cannot start admin");
    server.wait_for_line("Cannot start admin");
    get(&server.address(), "/json").unwrap();
    drop(holder);
    assert_eq!(admin(&server), address);
    assert_eq!(ask(tcp(&address), "/readyz").0, 200);
    server.stop();
}

/// Values by name, added up, from datagrams until `is_enough`.
fn collect(
    mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
    is_enough: impl Fn(&BTreeMap<String, Vec<f64>>) -> bool,
) -> BTreeMap<String, Vec<f64>> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut datagram = [0; 65_536];
    let end = Instant::now() + PATIENCE;
    while !is_enough(&values) {
        assert!(Instant::now() < end, "{values:?}");
        let length = receive(&mut datagram).unwrap();
        assert!(length <= 1432, "{length} bytes");
        for line in std::str::from_utf8(&datagram[..length]).unwrap().lines() {
            let (line, tags) = line.rsplit_once("|#").unwrap();
            assert_eq!(tags, "env:test,team:web");
            let (name, rest) = line.split_once(':').unwrap();
            let (value, kind) = rest.split_once('|').unwrap();
            values
                .entry(format!("{name}|{}", kind.split('|').next().unwrap()))
                .or_default()
                .push(value.parse().unwrap());
        }
    }
    values
}

#[test]
fn statsd_gets_gunicorns_names_every_second() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = format!("localhost:{}", receiver.local_addr().unwrap().port());
    let server = Server::start(&[
        "--workers=2",
        "--statsd-host",
        &host,
        "--statsd-prefix=shop",
        "--dogstatsd-tags=env:test,team:web",
        "--enable-backlog-metric",
    ]);
    server.wait_for_line("Admin at: statsd only");
    for _ in 0..5 {
        get(&server.address(), "/json").unwrap();
    }
    get(&server.address(), "/nothing").unwrap_err();
    let sum = |values: &BTreeMap<String, Vec<f64>>, name: &str| {
        values.get(name).map_or(0.0, |values| values.iter().sum::<f64>())
    };
    let values = collect(
        |buffer| receiver.recv(buffer),
        |values| {
            // The number of workers does not change, and is sent all the same.
            6.0 <= sum(values, "shop.gunicorn.requests|c")
                && values.get("shop.gunicorn.workers|g").is_some_and(|sent| 3 <= sent.len())
        },
    );
    assert_eq!(sum(&values, "shop.gunicorn.requests|c"), 6.0);
    assert_eq!(sum(&values, "shop.gunicorn.request.status.200|c"), 5.0);
    assert_eq!(sum(&values, "shop.gunicorn.request.status.404|c"), 1.0);
    assert_eq!(values["shop.gunicorn.workers|g"].last(), Some(&2.0));
    assert_eq!(values["shop.gunicorn.backlog|h"].last(), Some(&0.0));
    assert!(values["shop.gunicorn.request.duration|ms"].iter().all(|ms| 0.0 < *ms));
    server.stop();
}

#[test]
fn statsd_may_be_a_unix_socket_that_comes_late() {
    let folder = Folder::new();
    let path = folder.path("statsd.sock");
    let server = Server::start_in(
        folder,
        &["--statsd-host=unix://statsd.sock", "--dogstatsd-tags=env:test,team:web"],
    );
    server.wait_for_line("Admin at: statsd only");
    get(&server.address(), "/json").unwrap();
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let seen = |values: &BTreeMap<String, Vec<f64>>| values.contains_key("gunicorn.workers|g");
    collect(|buffer| receiver.recv(buffer), seen);
    // The last second counts too: it is sent at the end.
    get(&server.address(), "/json").unwrap();
    let seen = |values: &BTreeMap<String, Vec<f64>>| values.contains_key("gunicorn.requests|c");
    server.stop();
    collect(|buffer| receiver.recv(buffer), seen);
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let (server, admin) = start(&["--workers", "2"]);
    get(&server.address(), "/json").unwrap();
    let page = ask(tcp(&admin), "/metrics").1;
    server.stop();
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        let _ =
            writeln!(std::io::stderr(), "skipped: promtool is not installed (Debian: prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
