//! The bundled application against the rules of the TechEmpower tests, as their verifier checks them; then outages.

#![allow(clippy::unwrap_used)] // What cannot go on fails its test.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::postgres::Postgres;
use common::{PATIENCE, Reply, Worker, bundled, start, until};
use serde_json::Value;

fn serve(postgres: &Postgres) -> Worker {
    start(bundled(), |settings| {
        settings.database = Some(postgres.url());
        settings.worker_connections = 2000;
        settings.keepalive = Duration::from_secs(60);
    })
}

/// What the verifier asks of every response.
#[track_caller]
fn check_head(reply: &Reply, content_type: &str) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some(content_type));
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
    assert!(reply.header("server").is_some() && reply.header("date").is_some());
}

#[track_caller]
fn check_world(world: &Value) -> (i64, i64) {
    let keys: Vec<&String> = world.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "randomNumber"]);
    let (id, number) = (world["id"].as_i64().unwrap(), world["randomNumber"].as_i64().unwrap());
    assert!((1..=10_000).contains(&id) && (1..=10_000).contains(&number), "{world}");
    (id, number)
}

#[track_caller]
fn worlds(worker: &Worker, path: &str, count: usize) -> Vec<(i64, i64)> {
    let reply = worker.get(path);
    check_head(&reply, "application/json");
    let list: Value = serde_json::from_slice(&reply.body).unwrap();
    let list: Vec<_> = list.as_array().unwrap().iter().map(check_world).collect();
    assert_eq!(list.len(), count, "{path}");
    list
}

fn table(postgres: &Postgres) -> HashMap<i64, i64> {
    let rows = postgres.query("SELECT id, randomnumber FROM world");
    let row = |line: &str| {
        let (id, number) = line.split_once('|').unwrap();
        (id.parse().unwrap(), number.parse().unwrap())
    };
    rows.lines().map(row).collect()
}

#[test]
fn every_test_is_answered_by_the_rules() {
    let postgres = Postgres::start();
    let worker = serve(&postgres);

    let reply = worker.get("/json");
    check_head(&reply, "application/json");
    assert_eq!(reply.text(), r#"{"message":"Hello, World!"}"#);
    let reply = worker.get("/plaintext");
    check_head(&reply, "text/plain");
    assert_eq!(reply.text(), "Hello, World!");

    let reply = worker.get("/db");
    check_head(&reply, "application/json");
    let before = table(&postgres);
    let (id, number) = check_world(&serde_json::from_slice(&reply.body).unwrap());
    assert_eq!(before[&id], number);

    for (argument, count) in [("2", 2), ("0", 1), ("foo", 1), ("501", 500), ("", 1), ("20", 20)] {
        for base in ["/queries", "/cached-queries"] {
            let name = if base == "/queries" { "queries" } else { "count" };
            for (id, number) in worlds(&worker, &format!("{base}?{name}={argument}"), count) {
                assert_eq!(before[&id], number);
            }
            if !argument.is_empty() {
                worlds(&worker, &format!("{base}/{argument}"), count);
            }
        }
    }
    for (argument, count) in [("2", 2), ("0", 1), ("foo", 1), ("501", 500), ("", 1)] {
        worlds(&worker, &format!("/updates?queries={argument}"), count);
    }
    worlds(&worker, "/updates/7", 7);
    for base in ["/queries", "/updates", "/cached-queries"] {
        worlds(&worker, base, 1);
    }

    // Everything that an update's response lists has been written before it was sent.
    let before = table(&postgres);
    let listed = worlds(&worker, "/updates?queries=501", 500);
    let after = table(&postgres);
    assert!(listed.iter().all(|(id, number)| after[id] == *number));
    let changed = before.iter().filter(|(id, number)| after[id] != **number).count();
    assert!((475..=500).contains(&changed), "{changed} rows changed");

    let reply = worker.get("/fortunes");
    check_head(&reply, "text/html; charset=utf-8");
    let page = reply.text();
    assert_eq!(page.len(), 1226);
    assert!(page.starts_with(
        "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>\
         <tr><th>id</th><th>message</th></tr><tr><td>11</td><td>&lt;script&gt;alert(&quot;This should"
    ));
    let ids: Vec<&str> =
        page.split("<tr><td>").skip(1).map(|row| row.split_once('<').unwrap().0).collect();
    assert_eq!(ids.join(","), "11,4,5,2,8,0,3,7,10,6,9,1,12");
    assert!(
        page.contains("\u{30d5}\u{30ec}\u{30fc}\u{30e0}")
            && page.contains(" \u{2014} Donald Knuth")
    );
    worker.stop();
}

/// Statements that name the table, and the rows they read, between two points in time.
fn statistics(postgres: &Postgres, table: &str, act: impl FnOnce()) -> (u64, u64) {
    postgres.query("SELECT pg_stat_statements_reset()");
    act();
    let sum = postgres.query(&format!(
        "SELECT sum(calls), sum(rows) FROM pg_stat_statements WHERE query ~* '\\m{table}\\M' AND query !~ 'pg_stat'"
    ));
    let (calls, rows) = sum.split_once('|').unwrap();
    (calls.parse().unwrap(), rows.parse().unwrap())
}

#[test]
fn as_many_statements_reach_the_server_as_the_rules_demand() {
    const CLIENTS: usize = 512;
    let postgres = Postgres::start();
    let worker = serve(&postgres);
    let _ = sys::limits::raise_open_files();
    // All at once, each on a connection of its own.
    let ask = |path: &str| {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| worker.connect()).collect();
        for client in &mut clients {
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        }
        for client in &mut clients {
            client.reply().expect(200);
        }
    };
    let clients = CLIENTS as u64;
    assert_eq!(statistics(&postgres, "world", || ask("/db")), (clients, clients));
    assert_eq!(statistics(&postgres, "fortune", || ask("/fortunes")), (clients, 12 * clients));
    assert_eq!(
        statistics(&postgres, "world", || ask("/queries?queries=20")),
        (20 * clients, 20 * clients)
    );
    // Twenty reads and one update of all twenty rows.
    assert_eq!(
        statistics(&postgres, "world", || ask("/updates?queries=20")),
        (21 * clients, 40 * clients)
    );
    worker.stop();
}

#[test]
fn while_the_database_is_away_its_routes_are_503_and_the_others_go_on() {
    let postgres = Postgres::start();
    let worker = serve(&postgres);
    worker.get("/db").expect(200);
    for _ in 0..2 {
        postgres.interrupt();
        for path in ["/db", "/queries?queries=20", "/updates?queries=5", "/fortunes"] {
            let reply = worker.get(path).expect(503);
            assert_eq!(reply.header("retry-after"), Some("1"), "{path}");
            worker.get("/json").expect(200);
        }
        postgres.resume();
        until(|| worker.get("/db").status == 200, || format!("no /db within {PATIENCE:?}"));
        assert!(postgres.up_for() < Duration::from_secs(1), "{:?}", postgres.up_for());
    }
    worker.await_log("[WARNING] Database connection lost");
    // One line for each outage that outlasts an attempt, however many attempts there were.
    assert!(
        worker.log().matches("Cannot connect to the database").count() <= 2,
        "{}",
        worker.log()
    );
}

#[test]
fn without_a_usable_database_everything_else_is_served() {
    for (url, line) in [
        (None, None),
        (
            Some("postgresql://user:secret@host:notaport/db"),
            Some("[ERROR] Cannot use the setting database"),
        ),
        (Some("host=/nonexistent user=nobody"), Some("[ERROR] Cannot connect to the database")),
    ] {
        let worker = start(bundled(), |settings| settings.database = url.map(str::to_owned));
        worker.get("/json").expect(200);
        let reply = worker.get("/db").expect(503);
        assert_eq!(reply.header("retry-after"), Some("1"));
        if let Some(line) = line {
            worker.await_log(line);
        }
        assert!(!worker.log().contains("secret"), "{}", worker.log());
    }
}
