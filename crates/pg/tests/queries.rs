//! Asking a real server: results, errors, batches, types.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, Loop};
use futures_util::future::join_all;
use pg::{Config, Prepare};

#[test]
fn rows_of_many_types_and_null() {
    let cluster = Cluster::shared();
    for url in [cluster.tcp(), cluster.unix()] {
        let mut looped = Loop::up(&url);
        let db = looped.db.clone();
        looped.run(async {
            let statement = db.statement(
                "SELECT $1::int4 + 1, $2::text || '!', NULL::int4, $3::int8, 1.5::float8, true AS yes, ARRAY[1,2]",
            );
            let row = db.query_one(&statement, &[&41_i32, &"text", &None::<i64>]).await.unwrap();
            assert_eq!(row.int4(0).unwrap(), 42);
            assert_eq!(row.get::<i32>(0).unwrap(), 42);
            assert_eq!(row.str(1).unwrap(), "text!");
            assert_eq!(row.get::<Option<i32>>(2).unwrap(), None);
            assert!(row.int4(2).is_err() && row.get::<i32>(2).is_err());
            assert_eq!(row.get::<Option<i64>>(3).unwrap(), None);
            assert_eq!(row.get::<f64>(4).unwrap(), 1.5);
            assert!(row.get::<bool>(5).unwrap());
            assert_eq!(row.get::<Vec<i32>>(6).unwrap(), [1, 2]);
            let mut values = row.row().values();
            assert_eq!(values.int4().unwrap(), 42);
            assert_eq!(values.str().unwrap(), "text!");
            assert!(values.int4().is_err(), "NULL, which counts as read");
            assert_eq!(values.get::<Option<i64>>().unwrap(), None);
            assert!(values.get::<i32>().is_err(), "another type, which counts as read");
            assert!(values.get::<bool>().unwrap());
            assert_eq!(values.get::<Vec<i32>>().unwrap(), [1, 2]);
            assert!(values.int4().is_err() && values.get::<Option<i32>>().is_err(), "the end");
            assert!(row.get::<i64>(0).is_err(), "another type");
            assert!(row.get::<i32>(7).is_err(), "no such column");
            assert_eq!(row.row().column("yes"), Some(5));
        });
    }
}

#[test]
fn counts_of_rows() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.unix());
    let db = looped.db.clone();
    looped.run(async {
        let some = db.statement("SELECT i, repeat('x', i) FROM generate_series(1, $1::int4) i");
        for count in [0_usize, 1, 2, 1000] {
            let limit = i32::try_from(count).unwrap();
            let rows = db.query(&some, &[&limit]).await.unwrap();
            assert_eq!(
                (rows.len(), rows.affected(), rows.is_empty()),
                (count, count as u64, count == 0)
            );
            assert_eq!(rows.iter().count(), count);
            for (index, row) in rows.iter().enumerate() {
                assert_eq!(row.get::<i32>(0).unwrap() as usize, index + 1);
                assert_eq!(row.str(1).unwrap().len(), index + 1);
            }
            assert_eq!(db.query_one(&some, &[&limit]).await.is_ok(), count == 1);
            assert_eq!(
                db.query_opt(&some, &[&limit]).await.map(|row| row.is_some()).ok(),
                match count {
                    0 => Some(false),
                    1 => Some(true),
                    _ => None,
                }
            );
            if let Err(error) = db.query_one(&some, &[&limit]).await {
                assert!(error.is_row_count() && !error.is_unavailable());
            }
        }
        let empty = db.statement("");
        assert_eq!(db.query(&empty, &[]).await.unwrap().len(), 0);
    });
}

#[test]
fn a_thousand_queries_in_few_writes_come_back_in_order() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    let statement = db.statement("SELECT $1::int4");
    looped.run(db.prepare(&statement)).unwrap();
    let queries = (0..1000_i32).map(|number| {
        let (db, statement) = (&db, &statement);
        async move { db.query_one(statement, &[&number]).await.unwrap().int4(0).unwrap() }
    });
    assert_eq!(looped.run(join_all(queries)), (0..1000).collect::<Vec<_>>());
    assert_eq!(db.counters().in_flight, 0);
    assert_eq!(db.counters().queries, 1000);
}

#[test]
fn an_error_in_a_batch_harms_no_other() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    looped.run(async {
        let divide = db.statement("SELECT 100 / $1::int4");
        let text = db.statement("SELECT $1::text");
        let mut batch = db.batch();
        for number in [1_i32, 0, 2, 0, 4] {
            batch.push(&divide, &[&number]).await.unwrap();
        }
        batch.push(&text, &[&"last"]).await.unwrap();
        assert!(batch.push(&text, &[&1_i32]).await.is_err());
        assert_eq!(batch.len(), 6);
        let replies = batch.send().await.unwrap();
        assert_eq!(replies.len(), 6);
        let mut found = Vec::new();
        for reply in replies.iter() {
            found.push(match reply {
                Ok(mut rows) => {
                    let row = rows.next().unwrap();
                    row.int4(0).map_or_else(
                        |_| row.str(0).unwrap().to_owned(),
                        |number| number.to_string(),
                    )
                }
                Err(error) => error.as_sql().unwrap().code().to_owned(),
            });
        }
        assert_eq!(found, ["100", "22012", "50", "22012", "25", "last"]);
        assert!(db.batch().send().await.unwrap().is_empty());

        let error = db.query(&divide, &[&0_i32]).await.err().unwrap();
        let sql = error.as_sql().unwrap();
        assert_eq!((sql.severity(), sql.message()), ("ERROR", "division by zero"));
        assert!(!error.is_unavailable());
    });
}

#[test]
fn many_queries_of_one_statement_are_added_at_once_or_not_at_all() {
    let cluster = Cluster::shared();
    for prepare in [Prepare::Named, Prepare::Unnamed] {
        let mut config = Config::parse(&cluster.unix()).unwrap();
        config.prepare = prepare;
        let mut looped = Loop::with(config);
        looped.until(pg::Database::is_up);
        let db = looped.db.clone();
        looped.run(async {
            let sum = db.statement("SELECT $1::int4 + $2::int4");
            let text = db.statement("SELECT $1::text");
            let mut batch = db.batch();
            batch.push_all(&sum, (0..3).map(|number| [number, 10 * number])).await.unwrap();
            assert!(batch.push_all(&sum, [[1_i64, 2]]).await.is_err(), "another type");
            assert!(batch.push_all(&sum, [[1_i32]]).await.is_err(), "one is missing");
            assert_eq!(batch.len(), 3, "as it was before");
            batch.push_all(&text, [[Some("a")], [None]]).await.unwrap();
            batch.push_all(&sum, [[7, 7]]).await.unwrap();
            let replies = batch.send().await.unwrap();
            let found: Vec<_> = replies
                .iter()
                .map(|rows| {
                    let row = rows.unwrap().next().unwrap();
                    let text = || row.get::<Option<&str>>(0).unwrap().map(str::to_owned);
                    row.int4(0).map_or_else(|_| text(), |number| Some(number.to_string()))
                })
                .collect();
            let want = [Some("0"), Some("11"), Some("22"), Some("a"), None, Some("14")];
            assert_eq!(found, want.map(|text| text.map(str::to_owned)));
        });
    }
}

#[test]
fn a_statement_that_cannot_be_prepared_says_so_each_time() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    looped.run(async {
        let missing = db.statement("SELECT * FROM not_yet_there");
        for _ in 0..2 {
            let error = db.query(&missing, &[]).await.err().unwrap();
            assert_eq!(error.as_sql().unwrap().code(), "42P01");
        }
        let all = join_all((0..10).map(|_| db.query(&missing, &[]))).await;
        assert!(all.iter().all(Result::is_err));
        let create = db.statement("CREATE TABLE not_yet_there (id int4)");
        assert_eq!(db.execute(&create, &[]).await.unwrap(), 0);
        assert_eq!(db.query(&missing, &[]).await.unwrap().len(), 0);
        let drop = db.statement("DROP TABLE not_yet_there");
        db.execute(&drop, &[]).await.unwrap();
    });
}

#[test]
fn types_that_are_not_built_in_are_looked_up() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    looped.run(async {
        for sql in [
            "CREATE TYPE mood AS ENUM ('sad', 'happy')",
            "CREATE TABLE person (id int4, mood mood)",
        ] {
            db.execute(&db.statement(sql), &[]).await.unwrap();
        }
        let all = db.statement("SELECT id, mood FROM person WHERE id = $1");
        let other = db.statement("SELECT 7");
        // Ordinary queries go on beside the lookup.
        let asked = async { db.query(&all, &[&1_i32]).await.unwrap().len() };
        let beside = join_all(
            (0..50).map(|_| async { db.query_one(&other, &[]).await.unwrap().int4(0).unwrap() }),
        );
        let (none, beside) = futures_util::future::join(asked, beside).await;
        assert_eq!((none, beside), (0, vec![7; 50]));

        let insert = db.statement("INSERT INTO person VALUES (1, 'happy'), (2, NULL)");
        assert_eq!(db.execute(&insert, &[]).await.unwrap(), 2);
        let row = db.query_one(&all, &[&1_i32]).await.unwrap();
        #[derive(Debug, PartialEq)]
        struct Label(String);
        impl<'a> pg::FromSql<'a> for Label {
            fn from_sql(
                kind: &pg::Type,
                raw: &'a [u8],
            ) -> Result<Label, Box<dyn std::error::Error + Sync + Send>> {
                assert_eq!(kind.name(), "mood");
                Ok(Label(std::str::from_utf8(raw)?.to_owned()))
            }
            fn accepts(kind: &pg::Type) -> bool {
                matches!(kind.kind(), pg::tokio_postgres::types::Kind::Enum(_))
            }
        }
        assert_eq!(row.get::<Label>(1).unwrap(), Label("happy".into()));
        let row = db.query_one(&all, &[&2_i32]).await.unwrap();
        assert_eq!(row.get::<Option<Label>>(1).unwrap(), None);
        for sql in ["DROP TABLE person", "DROP TYPE mood"] {
            db.execute(&db.statement(sql), &[]).await.unwrap();
        }
    });
}

#[test]
fn rows_larger_than_the_buffers() {
    let cluster = Cluster::shared();
    for url in [cluster.tcp(), cluster.unix()] {
        let mut looped = Loop::up(&url);
        let db = looped.db.clone();
        looped.run(async {
            let large = db.statement("SELECT $1::int4, repeat('x', $1) FROM generate_series(1, 3)");
            let sizes = [0_i32, 1, 65_530, 65_536, 200_000, 5_000_000, 10];
            let queries = sizes.iter().map(|size| async {
                let rows = db.query(&large, &[size]).await.unwrap();
                assert_eq!(rows.len(), 3);
                for row in &rows {
                    assert_eq!(row.int4(0).unwrap(), *size);
                    let text = row.str(1).unwrap();
                    assert!(text.len() == *size as usize && text.bytes().all(|byte| byte == b'x'));
                }
            });
            join_all(queries).await;
            let sent = "y".repeat(3_000_000);
            let length = db.statement("SELECT length($1::text)");
            assert_eq!(db.query_one(&length, &[&sent]).await.unwrap().int4(0).unwrap(), 3_000_000);
        });
    }
}

#[test]
fn dropping_a_future_discards_its_answer_alone() {
    let cluster = Cluster::shared();
    let mut looped = Loop::up(&cluster.tcp());
    let db = looped.db.clone();
    let statement = db.statement("SELECT $1::int4");
    looped.run(db.prepare(&statement)).unwrap();
    for _ in 0..50 {
        {
            let mut asked = std::pin::pin!(db.query(&statement, &[&1_i32]));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(asked.as_mut().poll(&mut context).is_pending());
        }
        let number = looped
            .run(async { db.query_one(&statement, &[&2_i32]).await.unwrap().int4(0).unwrap() });
        assert_eq!(number, 2);
    }
    assert_eq!(db.counters().in_flight, 0);
}

#[test]
fn few_prepared_statements_give_way_to_many() {
    let cluster = Cluster::shared();
    let mut config = Config::parse(&cluster.tcp()).unwrap();
    config.statements_max = 3;
    let mut looped = Loop::with(config);
    looped.until(pg::Database::is_up);
    let db = looped.db.clone();
    looped.run(async {
        let held = db.statement("SELECT count(*)::int4 FROM pg_prepared_statements");
        let all: Vec<_> =
            (0..10).map(|number| db.statement(&format!("SELECT {number}, $1::int4"))).collect();
        for round in 0..3_i32 {
            for (number, statement) in all.iter().enumerate() {
                let row = db.query_one(statement, &[&round]).await.unwrap();
                assert_eq!((row.int4(0).unwrap() as usize, row.int4(1).unwrap()), (number, round));
            }
            // A batch with more statements than may be held at a time.
            let mut batch = db.batch();
            for statement in all.iter().chain(all.iter().rev()) {
                batch.push(statement, &[&round]).await.unwrap();
            }
            let replies = batch.send().await.unwrap();
            for (index, reply) in replies.iter().enumerate() {
                let row = reply.unwrap().next().unwrap();
                assert_eq!(
                    row.int4(0).unwrap() as usize,
                    if index < 10 { index } else { 19 - index }
                );
            }
            assert!(db.query_one(&held, &[]).await.unwrap().int4(0).unwrap() <= 3);
        }
    });
}

#[test]
fn unnamed_statements_leave_nothing_behind() {
    let cluster = Cluster::shared();
    let mut config = Config::parse(&cluster.tcp()).unwrap();
    config.prepare = Prepare::Unnamed;
    let mut looped = Loop::with(config);
    looped.until(pg::Database::is_up);
    let db = looped.db.clone();
    looped.run(async {
        let add = db.statement("SELECT $1::int4 + 1");
        let held = db.statement("SELECT count(*)::int4 FROM pg_prepared_statements");
        let mut batch = db.batch();
        for number in 0..20_i32 {
            batch.push(&add, &[&number]).await.unwrap();
        }
        let replies = batch.send().await.unwrap();
        for (number, reply) in (1..).zip(replies.iter()) {
            assert_eq!(reply.unwrap().next().unwrap().int4(0).unwrap(), number);
        }
        assert_eq!(db.query_one(&held, &[]).await.unwrap().int4(0).unwrap(), 0);
    });
}

#[test]
fn a_change_of_schema_is_noticed() {
    let cluster = Cluster::shared();
    for prepare in [Prepare::Named, Prepare::Unnamed] {
        let mut config = Config::parse(&cluster.tcp()).unwrap();
        config.prepare = prepare;
        let mut looped = Loop::with(config);
        looped.until(pg::Database::is_up);
        let db = looped.db.clone();
        looped.run(async {
            let table = format!("changing_{prepare:?}");
            db.execute(&db.statement(&format!("CREATE TABLE {table} AS SELECT 1 AS a")), &[])
                .await
                .unwrap();
            let all = db.statement(&format!("SELECT * FROM {table}"));
            assert_eq!(db.query_one(&all, &[]).await.unwrap().row().len(), 1);
            for change in
                ["ADD COLUMN b text DEFAULT 'b'", "ALTER COLUMN a TYPE int8", "DROP COLUMN b"]
            {
                db.execute(&db.statement(&format!("ALTER TABLE {table} {change}")), &[])
                    .await
                    .unwrap();
                // A named plan may fail once.
                if let Err(error) = db.query(&all, &[]).await {
                    assert_eq!(
                        (prepare, error.as_sql().unwrap().code()),
                        (Prepare::Named, "0A000")
                    );
                }
                let row = db.query_one(&all, &[]).await.unwrap();
                match change.split(' ').next() {
                    Some("ADD") => assert_eq!(row.str(1).unwrap(), "b"),
                    Some("DROP") => assert_eq!(row.row().len(), 1),
                    _ => assert_eq!(row.get::<i64>(0).unwrap(), 1),
                }
            }
            db.execute(&db.statement(&format!("DROP TABLE {table}")), &[]).await.unwrap();
        });
    }
}

#[test]
fn waiting_for_several_replies_holds_up_none_for_long() {
    let cluster = Cluster::shared();
    let mut config = Config::parse(&cluster.tcp()).unwrap();
    config.low_water = true;
    let mut looped = Loop::with(config);
    looped.until(pg::Database::is_up);
    let db = looped.db.clone();
    let texts = db.statement("SELECT repeat('x', $1::int4)");
    let slow = db.statement("SELECT pg_sleep(0.5)");
    looped.run(async {
        db.prepare(&slow).await.unwrap();
        // Long replies first, so that short ones are less than is expected.
        for length in [2000_i32, 0, 100, 0] {
            for count in [1, 3, 4, 7, 8, 9, 20, 100] {
                let begun = Instant::now();
                let mut batch = db.batch();
                for _ in 0..count {
                    batch.push(&texts, &[&length]).await.unwrap();
                }
                let replies = batch.send().await.unwrap();
                assert!(replies.iter().all(|reply| reply.is_ok()));
                assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
            }
        }
        let begun = Instant::now();
        let quick = join_all((0..5).map(|_| async {
            db.query(&texts, &[&1_i32]).await.unwrap();
            begun.elapsed()
        }));
        let behind = join_all((0..5).map(|_| db.query(&slow, &[])));
        let (quick, behind) = futures_util::future::join(quick, behind).await;
        assert!(behind.iter().all(Result::is_ok));
        assert!(quick.iter().all(|took| *took < Duration::from_millis(400)), "{quick:?}");
    });
}
