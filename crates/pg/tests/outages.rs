//! A server that goes away, is slow, refuses, or comes back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Cluster, Loop, PASSWORD, chain};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use pg::{Config, Database, Error};

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn recovers_within_a_second_of_the_servers_return() {
    let cluster = Cluster::new("trust");
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    let statement = db.statement("SELECT $1::int4");
    looped.run(db.prepare(&statement)).unwrap();
    for (signal, code) in
        [(Signal::SIGQUIT, Some("57P01")), (Signal::SIGINT, Some("57P01")), (Signal::SIGKILL, None)]
    {
        // Queries are in flight when it ends.
        let slow = db.statement("SELECT pg_sleep(5)");
        let asked = async {
            let queries = (0..20).map(|_| db.query(&slow, &[]));
            let begun = Instant::now();
            let answers = join_all(queries).await;
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "nobody waits for what will not come"
            );
            answers.into_iter().map(|answer| answer.err().unwrap()).collect::<Vec<_>>()
        };
        looped.run(db.prepare(&slow)).unwrap();
        let errors = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(MS(100));
                if signal == Signal::SIGKILL {
                    // The postmaster alone: its children notice and end.
                    cluster.signal(signal);
                }
                cluster.stop(signal);
            });
            looped.run(asked)
        });
        for error in &errors {
            assert!(error.is_unavailable(), "{}", chain(error));
        }
        if let Some(code) = code {
            assert_eq!(
                errors[0].as_sql().map(pg::SqlError::code),
                Some(code),
                "{}",
                chain(&errors[0])
            );
        }
        looped.until(|db| !db.is_up());
        // While it is down, queries fail at once.
        let begun = Instant::now();
        for _ in 0..1000 {
            let error = looped.run(db.query(&statement, &[&1_i32])).err().unwrap();
            assert!(error.is_unavailable(), "{}", chain(&error));
        }
        assert!(begun.elapsed() < MS(500), "{:?}", begun.elapsed());
        // Back-off reaches its longest wait.
        let begun = Instant::now();
        looped.until(|_| begun.elapsed() > MS(2000));
        cluster.start();
        let begun = Instant::now();
        looped.until(Database::is_up);
        let number = looped
            .run(async { db.query_one(&statement, &[&5_i32]).await.unwrap().int4(0).unwrap() });
        assert_eq!(number, 5);
        assert!(begun.elapsed() < MS(1000), "{:?}", begun.elapsed());
    }
    let told = looped.told.lines();
    assert_eq!(told.iter().filter(|line| *line == "connected").count(), 4, "{told:#?}");
    assert_eq!(told.iter().filter(|line| line.starts_with("lost")).count(), 3, "{told:#?}");
    // The first failure and changes of reason; refused, or shutting down for a moment.
    let failures = told.iter().filter(|line| line.starts_with("connect failed")).count();
    assert!((3..=9).contains(&failures), "{told:#?}");
}

#[test]
fn a_terminated_backend_costs_only_what_was_in_flight() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    let statement = db.statement("SELECT $1::int4");
    let myself = db.statement("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)");
    looped.run(async {
        db.query(&statement, &[&1_i32]).await.unwrap();
        let error = db.query(&myself, &[]).await.err().unwrap();
        assert!(error.is_unavailable(), "{}", chain(&error));
        assert_eq!(error.as_sql().unwrap().code(), "57P01");
    });
    looped.until(Database::is_up);
    looped.run(async { db.query(&statement, &[&1_i32]).await.unwrap() });
    assert!(looped.told.lines()[1].contains("57P01"), "{:?}", looped.told.lines());
}

#[test]
fn a_slow_query_ends_at_its_deadline_and_is_cancelled() {
    let cluster = Cluster::new("trust");
    let mut config = Config::parse(&cluster.tcp()).unwrap();
    config.query_timeout = MS(400);
    let mut looped = Loop::with(config);
    looped.until(Database::is_up);
    let db = looped.db.clone();
    let quick = db.statement("SELECT 1");
    let slow = db.statement("SELECT pg_sleep($1::float8)");
    looped.run(async {
        db.prepare(&slow).await.unwrap();
        db.query(&quick, &[]).await.unwrap();
        let begun = Instant::now();
        let asked = join_all([db.query(&slow, &[&20_f64]), db.query(&slow, &[&0_f64])]).await;
        assert!(asked[0].as_ref().err().unwrap().is_timed_out());
        assert!(
            asked[1]
                .as_ref()
                .err()
                .is_some_and(|error| error.is_timed_out() || error.is_unavailable())
        );
        assert!((MS(390)..MS(900)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    });
    looped.until(Database::is_up);
    let running = db.statement("SELECT count(*)::int4 FROM pg_stat_activity WHERE query LIKE '%pg_sleep($1%' AND state = 'active' AND pid <> pg_backend_pid()");
    let begun = Instant::now();
    while looped.run(async { db.query_one(&running, &[]).await.unwrap().int4(0).unwrap() }) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the server was not asked to cancel");
    }

    // A query that is merely behind a slow one with a longer limit costs nobody the connection.
    let patient = db.with_query_timeout(Duration::from_secs(10));
    let hasty = db.with_query_timeout(MS(100));
    let connects = db.counters().connects;
    looped.run(async {
        let begun = Instant::now();
        let (first, second) = futures_util::future::join(
            async {
                let answer = patient.query(&slow, &[&0.8_f64]).await;
                assert!(begun.elapsed() >= MS(790));
                answer
            },
            async {
                let answer = hasty.query(&quick, &[]).await;
                assert!(begun.elapsed() < MS(500));
                answer
            },
        )
        .await;
        assert!(first.is_ok(), "{}", chain(&first.err().unwrap()));
        assert!(second.err().unwrap().is_timed_out());
        db.query(&quick, &[]).await.unwrap();
    });
    assert_eq!(db.counters().connects, connects);
}

#[test]
fn a_frozen_server_holds_nobody_longer_than_the_deadlines() {
    let cluster = Cluster::new("trust");
    let mut config = Config::parse(&cluster.tcp()).unwrap();
    config.connect_timeout = MS(300);
    config.query_timeout = MS(300);
    cluster.signal(Signal::SIGSTOP);
    let mut looped = Loop::with(config);
    let begun = Instant::now();
    // The kernel accepts the connection; nobody answers on it.
    looped.until(Database::is_settled);
    assert!(!looped.db.is_up());
    assert!((MS(290)..MS(800)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(
        looped.told.lines()[0].contains("no session within 300ms"),
        "{:?}",
        looped.told.lines()
    );
    cluster.signal(Signal::SIGCONT);
    let begun = Instant::now();
    looped.until(Database::is_up);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn the_next_host_is_tried_when_one_is_frozen_or_not_there() {
    let cluster = Cluster::shared();
    // Accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = format!("{},{nobody},{}", silent.local_addr().unwrap().port(), cluster.port());
    let url =
        format!("host=127.0.0.1,127.0.0.1,localhost port={ports} user=postgres dbname=postgres");
    for (attrs, works) in [("any", true), ("read-write", true), ("read-only", false)] {
        let mut config = Config::parse(&format!("{url} target_session_attrs={attrs}")).unwrap();
        config.connect_timeout = MS(300);
        let mut looped = Loop::with(config);
        looped.until(Database::is_settled);
        assert_eq!(looped.db.is_up(), works, "{attrs}: {:?}", looped.told.lines());
        if !works {
            // Each address with its own reason.
            assert!(looped.told.lines()[0].contains("no session within 300ms; cannot connect to"));
            assert!(looped.told.lines()[0].contains("Connection refused"));
            assert!(
                looped.told.lines()[0].contains("the server is not read-only"),
                "{:?}",
                looped.told.lines()
            );
        }
    }
}

#[test]
fn logging_in_with_scram_and_being_refused() {
    let cluster = Cluster::new("scram-sha-256");
    let url = |password: &str, database: &str| {
        let password = password.replace(' ', "%20");
        format!("postgresql://postgres:{password}@127.0.0.1:{}/{database}", cluster.port())
    };
    let mut looped = Loop::up(&url(PASSWORD, "postgres"));
    let db = looped.db.clone();
    let one = db.statement("SELECT 1");
    assert_eq!(looped.run(async { db.query_one(&one, &[]).await.unwrap().int4(0).unwrap() }), 1);

    for (password, database, code) in
        [("wrong", "postgres", "28P01"), (PASSWORD, "nowhere", "3D000")]
    {
        let mut looped = Loop::new(&url(password, database));
        looped.until(Database::is_settled);
        let db = looped.db.clone();
        let error = looped.run(db.query(&db.statement("SELECT 1"), &[])).err().unwrap();
        assert!(error.is_unavailable());
        assert_eq!(error.as_sql().unwrap().code(), code);
        let begun = Instant::now();
        looped.until(|_| begun.elapsed() > MS(400));
        let told = looped.told.lines();
        assert_eq!(told.len(), 1, "said once, however often it is tried: {told:?}");
        assert!(told[0].contains(code) && !told[0].contains(PASSWORD), "{told:?}");
        assert!(db.counters().connect_failures > 1);
    }
}

#[test]
fn too_many_connections_is_an_outage() {
    let cluster = Cluster::new("trust");
    let mut others: Vec<_> = (0..50).map(|_| Loop::new(&cluster.tcp())).collect();
    for other in &mut others {
        other.until(Database::is_settled);
    }
    let mut looped = Loop::new(&cluster.tcp());
    looped.until(Database::is_settled);
    let db = looped.db.clone();
    let error: Error = looped.run(db.query(&db.statement("SELECT 1"), &[])).err().unwrap();
    assert!(error.is_unavailable());
    assert_eq!(error.as_sql().unwrap().code(), "53300");
    others.clear();
    looped.until(Database::is_up);
}

/// Plays the server: logs anybody in, then sends `script` for the first thing that is asked.
fn fake(script: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut buffer = [0; 4096];
            let mut play = || {
                let _ = client.read(&mut buffer)?;
                client
                    .write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I")?;
                let _ = client.read(&mut buffer)?;
                client.write_all(script)?;
                // Until the client has had enough.
                while client.read(&mut buffer)? > 0 {}
                Ok::<_, std::io::Error>(())
            };
            let _ = play();
        }
    });
    format!("postgresql://u@127.0.0.1:{port}/d")
}

#[test]
fn nonsense_from_the_server_costs_the_connection_and_nothing_else() {
    let scripts: &[&[u8]] = &[
        b"\0\0\0\0\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"Z\0\0\0\x05I",
        b"Z\0\0\0\x05IZ\0\0\0\x05I",
        b"1\0\0\0\x04Z\0\0\0\x05T",
        b"1\0\0\0\x04Z\0\0\0\x05?",
        b"t\0\0\0\x06\0\x05",
        b"T\0\0\0\x06\0\x05",
        b"T\0\0\0\x06\xff\xff",
        b"E\0\0\0\x05S",
        b"E\0\0\0\x0eSFATAL\0x",
        b"D\0\0\0\x04",
        b"D\0\0\0\x08\0\x01\xff\xff",
        b"G\0\0\0\x07\0\0\0",
        b"H\0\0\0\x07\0\0\0",
        b"R\0\0\0\x08\0\0\0\0",
        b"t\0\0\0\x06\0\0n\0\0\0\x04Z\0\0\0\x05ID\0\0\0\x06\0\0Z\0\0\0\x05I",
    ];
    for script in scripts {
        let mut config = Config::parse(&fake(script)).unwrap();
        config.query_timeout = MS(300);
        let mut looped = Loop::with(config);
        looped.until(Database::is_up);
        let db = looped.db.clone();
        let statement = db.statement("SELECT 1");
        let asked = looped.run(db.query(&statement, &[]));
        // Any verdict will do but a hang, a panic, or an invented row.
        assert!(asked.is_err(), "{script:?}");
    }
}

/// What a statement with a type of its own is learned by may arrive together with the server's goodbye.
#[test]
fn a_statement_whose_types_could_not_be_looked_up_is_asked_about_again() {
    let url = fake(
        b"1\0\0\0\x04t\0\0\0\x06\0\0T\0\0\0\x1a\0\x01n\0\0\0\0\0\0\0\0\0\xff\xff\0\x04\xff\xff\xff\xff\0\0Z\0\0\0\x05I\
          E\0\0\0\x23SFATAL\0VFATAL\0C57P01\0Mgoodbye\0\0",
    );
    let mut config = Config::parse(&url).unwrap();
    config.query_timeout = MS(500);
    let mut looped = Loop::with(config);
    let db = looped.db.clone();
    let statement = db.statement("SELECT NULL::mood");
    for _ in 0..2 {
        looped.until(Database::is_up);
        let error = looped.run(db.query(&statement, &[])).err().unwrap();
        assert!(error.is_unavailable(), "{}", chain(&error));
        assert!(chain(&error).contains("goodbye"), "{}", chain(&error));
    }
}

/// A server that answers before it is asked: the connection is up by the time that it is first looked at.
#[test]
fn a_connection_that_is_up_at_once_is_handed_out_at_once() {
    let directory = std::env::temp_dir().join(format!("pg-test-{}-quick", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut clients = Vec::new();
            while !over.load(Ordering::Relaxed) {
                // No wait: it is to be quicker than the client.
                let Ok((mut client, _)) = listener.accept() else { continue };
                let hello = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";
                client.write_all(hello).unwrap();
                clients.push(client);
            }
        });
        let mut looped = Loop::new(&format!("host={} user=u dbname=d", directory.display()));
        looped.until(Database::is_up);
        let db = looped.db.clone();
        let (mut seen, mut missed, begun) = (0, 0, Instant::now());
        // It wins the race once in some hundred times.
        while seen < 3 && begun.elapsed() < Duration::from_secs(10) {
            let mut asked = pin!(db.dedicated());
            let mut context = Context::from_waker(Waker::noop());
            assert!(asked.as_mut().poll(&mut context).is_pending());
            db.flush(Instant::now());
            if db.counters().up == 2 {
                seen += 1;
                missed += usize::from(asked.as_mut().poll(&mut context).is_pending());
            } else {
                looped.run(asked).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(missed, 0, "of {seen}");
    });
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn nonsense_while_logging_in_is_a_failure_to_connect() {
    for script in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\0\0\0\0\0\0",
        b"R\0\0\0\x08\0\0\0\x63",
        b"Z\0\0\0\x05I",
        b"R\0\0\0\x04",
        b"",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let _ = client.read(&mut [0; 1024]).and_then(|_| client.write_all(script));
            }
        });
        let mut config = Config::parse(&format!("postgresql://u@127.0.0.1:{port}/d")).unwrap();
        config.connect_timeout = MS(300);
        let mut looped = Loop::with(config);
        looped.until(Database::is_settled);
        assert!(!looped.db.is_up());
    }
}
