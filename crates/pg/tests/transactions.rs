//! Connections of their own: transactions, COPY, the pool.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, Loop, chain};
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use pg::{Config, Database};

#[test]
fn commit_keeps_and_drop_undoes() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    looped.run(async {
        db.execute(&db.statement("CREATE TABLE kept (id int4 PRIMARY KEY)"), &[]).await.unwrap();
        let count = db.statement("SELECT count(*)::int4 FROM kept");
        let count = async || db.query_one(&count, &[]).await.unwrap().int4(0).unwrap();

        let transaction = db.transaction().await.unwrap();
        transaction.execute("INSERT INTO kept VALUES ($1)", &[&1_i32]).await.unwrap();
        assert_eq!(count().await, 0, "not seen from outside");
        transaction.commit().await.unwrap();
        assert_eq!(count().await, 1);

        let transaction = db.transaction().await.unwrap();
        transaction.execute("INSERT INTO kept VALUES ($1)", &[&2_i32]).await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(count().await, 1);

        for id in 3..20_i32 {
            let transaction = db.transaction().await.unwrap();
            transaction.execute("INSERT INTO kept VALUES ($1)", &[&id]).await.unwrap();
            drop(transaction);
            // The next one may be on the same connection, and sees none of it.
            let transaction = db.transaction().await.unwrap();
            let row = transaction.query_one("SELECT count(*)::int4 FROM kept", &[]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), 1);
            transaction.commit().await.unwrap();
        }

        // A failed transaction cannot be committed, and says so.
        let transaction = db.transaction().await.unwrap();
        transaction.execute("INSERT INTO kept VALUES (50)", &[]).await.unwrap();
        let error = pg::Error::from(
            transaction.execute("INSERT INTO kept VALUES (50)", &[]).await.unwrap_err(),
        );
        assert_eq!(error.as_sql().unwrap().constraint(), Some("kept_pkey"));
        assert!(transaction.commit().await.is_err());
        assert_eq!(count().await, 1);
        db.execute(&db.statement("DROP TABLE kept"), &[]).await.unwrap();
    });
}

#[test]
fn more_transactions_than_connections_take_turns() {
    let cluster = Cluster::shared();
    let mut config = Config::parse(&cluster.unix()).unwrap();
    config.transactions_max = 2;
    let mut looped = Loop::with(config);
    looped.until(Database::is_up);
    let db = looped.db.clone();
    let tasks = (0..20).map(|_| async {
        let transaction = db.transaction().await.unwrap();
        let row =
            transaction.query_one("SELECT pg_backend_pid(), pg_sleep(0.005)", &[]).await.unwrap();
        let pid: i32 = row.get(0);
        transaction.commit().await.unwrap();
        pid
    });
    let mut pids = looped.run(join_all(tasks));
    pids.sort_unstable();
    pids.dedup();
    assert!(pids.len() <= 2, "{pids:?}");
    // Two, and the shared one.
    assert!(db.counters().connects <= 3);
}

#[test]
fn copy_both_ways() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    looped.run(async {
        let own = db.dedicated().await.unwrap();
        own.batch_execute("CREATE TEMPORARY TABLE copied (id int4, text text); SELECT 1")
            .await
            .unwrap();
        let sink = own.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        let text = "x".repeat(1000);
        for id in 0..5000 {
            sink.send(bytes::Bytes::from(format!("{id}\t{text}\n"))).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 5000);
        let mut stream = std::pin::pin!(own.copy_out("COPY copied TO STDOUT").await.unwrap());
        let mut bytes = 0;
        while let Some(chunk) = stream.next().await {
            bytes += chunk.unwrap().len();
        }
        assert!(bytes > 5_000_000);

        // In a transaction, whose connection then serves the next one.
        for _ in 0..3 {
            let transaction = db.transaction().await.unwrap();
            transaction
                .batch_execute("CREATE TEMPORARY TABLE once (id int4) ON COMMIT DROP")
                .await
                .unwrap();
            let sink =
                transaction.copy_in::<_, bytes::Bytes>("COPY once FROM STDIN").await.unwrap();
            let mut sink = std::pin::pin!(sink);
            sink.send(bytes::Bytes::from("1\n2\n")).await.unwrap();
            assert_eq!(sink.finish().await.unwrap(), 2);
            transaction.commit().await.unwrap();
        }
    });
    assert_eq!(db.counters().connects, 3);
}

#[test]
fn what_needs_a_connection_of_its_own_does_not_work_on_the_shared_one() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    for sql in ["COPY (SELECT 1) TO STDOUT", "BEGIN"] {
        let statement = db.statement(sql);
        let error = looped.run(db.query(&statement, &[])).err().unwrap();
        assert!(chain(&error).contains("connection"), "{}", chain(&error));
        looped.until(Database::is_up);
    }
}

#[test]
fn a_stuck_transaction_ends_at_the_deadline_and_frees_its_place() {
    let cluster = Cluster::shared();
    let mut config = Config::parse(&cluster.tcp()).unwrap();
    config.transactions_max = 1;
    config.query_timeout = Duration::from_millis(300);
    let mut looped = Loop::with(config);
    looped.until(Database::is_up);
    let db = looped.db.clone();
    looped.run(async {
        let begun = Instant::now();
        let transaction = db.transaction().await.unwrap();
        let error =
            pg::Error::from(transaction.batch_execute("SELECT pg_sleep(20)").await.unwrap_err());
        assert!(error.is_unavailable(), "{}", chain(&error));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        // Its place is free although it is still held.
        db.transaction().await.unwrap().commit().await.unwrap();
        drop(transaction);
        let held = db.transaction().await.unwrap();
        let error = db.transaction().await.err().unwrap();
        assert!(error.is_timed_out(), "{}", chain(&error));
        held.commit().await.unwrap();
        db.transaction().await.unwrap().commit().await.unwrap();
    });
}

#[test]
fn a_closed_database_refuses() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    let statement = db.statement("SELECT 1");
    looped.run(db.query(&statement, &[])).unwrap();
    db.close();
    assert!(looped.run(db.query(&statement, &[])).err().unwrap().is_unavailable());
    assert!(looped.run(db.transaction()).err().unwrap().is_unavailable());
    assert_eq!(db.next_deadline(Instant::now()), None);
}
