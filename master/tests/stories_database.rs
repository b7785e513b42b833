//! PostgreSQL goes away and comes back under load.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Authority, Endpoint, Load, Mode, Postgres, Server, Shutdown, Signal, TempDir, http};

/// Longest wait for anything: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

/// Longest time from when PostgreSQL takes connections again to the first answer from it.
const RECOVERY: Duration = Duration::from_secs(1);

fn with_tables() -> Postgres {
    let postgres = Postgres::start();
    make_tables(&postgres);
    postgres
}

fn make_tables(postgres: &Postgres) {
    // Built beside the master when the first server starts, so it may not be there yet.
    let worker = std::path::Path::new(env!("CARGO_BIN_EXE_master")).with_file_name("worker");
    let mut command = Command::new(worker);
    command.arg("--create-tables").env("DATABASE_URL", postgres.url_unix());
    let output = command.output().expect("the bundled worker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_database_that_goes_and_comes_back_is_noticed_by_its_own_routes_only() {
    if !Postgres::is_available() {
        return;
    }
    // A first server without a database builds the programs.
    drop(Server::start(env!("CARGO_BIN_EXE_master"), &[]));
    let mut postgres = with_tables();
    for (url, how) in
        [(postgres.url_unix(), Shutdown::Immediate), (postgres.url_tcp(), Shutdown::Fast)]
    {
        let args = ["--workers", "2", "--database", &url];
        let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
        server.wait_for_log("Ready workers=", BOUND);
        assert_eq!(server.get("/db").status, 200, "{}", server.log_text());
        let workers = server.workers();
        let kept = Mode::KeepAlive { pause: Duration::from_millis(2) };
        let database = Load::get(server.endpoint(), "/queries/5", kept).clients(8);
        let database = database.expecting(&[200, 503]).duration(5 * BOUND).start();
        let other = Load::get(server.endpoint(), "/json", kept).clients(4);
        let other = other.duration(5 * BOUND).start();
        database.wait_for(100, BOUND);

        postgres.stop(how);
        testkit::wait_until("an answer of 503", BOUND, || server.get("/db").status == 503);
        let refused = server.get("/fortunes");
        assert_eq!(refused.status, 503);
        assert!(refused.header("retry-after").is_some(), "{}", refused.head);
        database.wait_for(100, BOUND);

        postgres.resume();
        let back = Instant::now();
        testkit::wait_until("an answer from the database", BOUND, || {
            server.get("/db").status == 200
        });
        assert!(back.elapsed() < RECOVERY, "recovered only after {:?}", back.elapsed());
        // Every worker, not only the one that answered first.
        testkit::wait_until("all workers to be back", BOUND, || {
            (0..20).all(|_| server.get("/db").status == 200)
        });
        other.stop().assert_nothing_lost(100);
        let report = database.stop();
        assert_eq!(report.failed(), 0, "{report}");
        assert!(report.statuses.contains_key(&503), "{report}");
        assert_eq!(server.workers(), workers, "no worker may exit for it");
        server.stop();
    }
}

#[test]
fn the_numbers_of_the_database_are_on_the_metrics_page() {
    if !Postgres::is_available() {
        return;
    }
    drop(Server::start(env!("CARGO_BIN_EXE_master"), &[]));
    let mut postgres = with_tables();
    let url = postgres.url_unix();
    let mut server = Server::start(
        env!("CARGO_BIN_EXE_master"),
        &["--database", &url, "--database-connections", "2", "--admin-bind", "127.0.0.1:0"],
    );
    let line = server.wait_for_log("Admin at: http://", BOUND);
    let address = line.split("http://").nth(1).and_then(|rest| rest.split([' ', ',']).next());
    let admin = Endpoint::Tcp(address.and_then(|text| text.parse().ok()).expect("an address"));
    let await_samples = |samples: &[&str]| {
        testkit::wait_until(&format!("{samples:?}"), BOUND, || {
            let page = http::get(&admin, "/metrics").expect("an answer");
            samples.iter().all(|sample| page.text().lines().any(|line| line == *sample))
        });
    };
    await_samples(&[
        "db_client_connections{state=\"up\"} 2",
        "db_client_connections{state=\"connecting\"} 0",
    ]);
    assert_eq!(server.get("/queries/5").status, 200);
    await_samples(&[
        "db_client_operations_total 5",
        "db_client_operation_duration_seconds_bucket{le=\"+Inf\"} 5",
        "db_client_operation_duration_seconds_count 5",
        "db_client_in_flight 0",
        "db_client_operation_errors_total{reason=\"unavailable\"} 0",
    ]);
    postgres.stop(Shutdown::Immediate);
    await_samples(&[
        "db_client_connections{state=\"up\"} 0",
        "db_client_connections{state=\"connecting\"} 2",
    ]);
    assert_eq!(server.get("/db").status, 503);
    await_samples(&["db_client_operation_errors_total{reason=\"unavailable\"} 1"]);
    server.stop();
}

#[test]
fn reloads_lose_no_database_request() {
    if !Postgres::is_available() {
        return;
    }
    drop(Server::start(env!("CARGO_BIN_EXE_master"), &[]));
    let postgres = with_tables();
    let url = postgres.url_unix();
    let args = ["--workers", "2", "--database", &url];
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    let kept = Mode::KeepAlive { pause: Duration::ZERO };
    let loads = [
        Load::get(server.endpoint(), "/queries/5", kept).clients(4),
        Load::get(server.endpoint(), "/updates/3", Mode::CloseEach).clients(4),
    ];
    let running = loads.map(|load| load.duration(5 * BOUND).start());
    for _ in 0..10 {
        let mark = server.log_mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
        running[1].wait_for(20, BOUND);
    }
    for running in running {
        running.stop().assert_nothing_lost(100);
    }
    server.assert_log_clean(&[]);
    server.stop();
}

#[test]
fn a_database_that_is_not_there_stops_nobody() {
    let url = "postgresql://nobody@127.0.0.1:1/none";
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &["--database", url]);
    server.wait_for_log("Ready workers=", BOUND);
    let refused = http::get(server.endpoint(), "/db").expect("an answer");
    assert_eq!(refused.status, 503);
    assert_eq!(server.get("/json").status, 200);
    // Whoever runs it must learn why from the log.
    assert!(server.log_text().contains("127.0.0.1"), "{}", server.log_text());
    server.stop();
}

#[test]
fn a_database_that_takes_only_tls_is_used_and_one_that_is_not_trusted_is_named() {
    if !Postgres::is_available() {
        return;
    }
    drop(Server::start(env!("CARGO_BIN_EXE_master"), &[]));
    let authority = Authority::new("tests");
    let mut postgres = Postgres::create();
    postgres.demand_tls(&authority.issue("server", &["localhost"]));
    postgres.resume();
    make_tables(&postgres);
    let files = TempDir::new();
    let trusted = files.write("ca.pem", &authority.certificate());
    let insecure = postgres.url_tcp().replace("127.0.0.1", "localhost");
    let url = format!("{insecure}?sslmode=verify-full&sslrootcert={}", trusted.display());
    let args = ["--workers", "2", "--database", &url];
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    let line = server.wait_for_log("Database connected server=", BOUND);
    assert!(line.contains(" tls=1.3"), "{line}");
    for path in ["/db", "/queries/20", "/updates/20", "/fortunes"] {
        assert_eq!(server.get(path).status, 200, "{path}: {}", server.log_text());
    }
    let kept = Mode::KeepAlive { pause: Duration::ZERO };
    let load = Load::get(server.endpoint(), "/queries/20", kept).clients(8);
    let load = load.expecting(&[200, 503]).duration(5 * BOUND).start();
    load.wait_for(100, BOUND);
    postgres.restart();
    testkit::wait_until("an answer from the database", BOUND, || server.get("/db").status == 200);
    let mark = server.log_mark();
    server.signal(Signal::SIGHUP);
    server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
    load.wait_for(100, BOUND);
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    server.stop();

    // Somebody else signed the next server's certificate: the worker says so, and serves what needs no database.
    let other = files.write("other.pem", &Authority::new("others").certificate());
    for (parameters, why) in [
        (
            format!("?sslmode=verify-full&sslrootcert={}", other.display()),
            "the server's certificate is signed by nobody who is trusted (unknown issuer) retry_in_ms=",
        ),
        (String::new(), "no encryption (28000)"),
    ] {
        let url = format!("{insecure}{parameters}");
        let mut server =
            Server::start(env!("CARGO_BIN_EXE_master"), &["--workers", "1", "--database", &url]);
        let line = server.wait_for_log("Cannot connect to the database: ", BOUND);
        assert!(line.contains("[ERROR]") && line.contains(why), "{line}");
        assert_eq!((server.get("/db").status, server.get("/json").status), (503, 200));
        server.stop();
    }
    // Renewed on disk, it is found without a reload.
    let url = format!("{insecure}?sslmode=verify-full&sslrootcert={}", other.display());
    let mut server =
        Server::start(env!("CARGO_BIN_EXE_master"), &["--workers", "1", "--database", &url]);
    server.wait_for_log("Cannot connect to the database: ", BOUND);
    files.write("other.pem", &authority.certificate());
    server.wait_for_log("Database connected server=", BOUND);
    assert_eq!(server.get("/db").status, 200);
    server.stop();
    // What the system trusts.
    let url = format!("{insecure}?sslmode=verify-full");
    let mut server = Server::builder(env!("CARGO_BIN_EXE_master"))
        .args(["--workers", "1", "--database", &url])
        .env("SSL_CERT_FILE", &trusted.display().to_string())
        .start();
    server.wait_for_log("Database connected server=", BOUND);
    server.stop();
}
