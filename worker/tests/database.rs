//! What a handler's client sees of a database that is slow, goes away in the middle, or refuses.

#![allow(clippy::unwrap_used)] // What cannot go on fails its test.

mod common;

use std::time::Duration;

use common::postgres::Postgres;
use common::{Worker, example, start, until};
use shared::settings::PrepareManner;

fn serve(postgres: &Postgres, query_timeout: Duration) -> Worker {
    start(example("features"), |settings| {
        settings.database = Some(postgres.url());
        settings.database_query_timeout = query_timeout;
    })
}

#[test]
fn a_slow_database_is_504_and_one_line_for_many_requests() {
    let postgres = Postgres::start();
    let worker = serve(&postgres, Duration::from_secs(1));
    worker.get("/database/sleep/10").expect(200);
    for _ in 0..2 {
        worker.get("/database/sleep/20000").expect(504);
        // The connection that was stuck is made anew.
        until(
            || worker.get("/database/sleep/10").status == 200,
            || format!("no answer any more, log:\n{}", worker.log()),
        );
    }
    worker.await_log("[WARNING] Database queries given up timed_out=1 overloaded=0");
    assert_eq!(worker.log().matches("given up").count(), 1, "{}", worker.log());
    assert!(!worker.log().contains("[ERROR]"), "nobody has to act: {}", worker.log());
}

#[test]
fn a_database_that_goes_in_the_middle_of_a_transaction_is_503() {
    let postgres = Postgres::start();
    let worker = serve(&postgres, Duration::from_secs(30));
    worker.get("/database/transaction/10").expect(200);
    let mut client = worker.connect();
    client.send("GET /database/transaction/20000 HTTP/1.1\r\nHost: test\r\n\r\n");
    until(
        || {
            postgres.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
                == "1"
        },
        || "the transaction does not begin".to_owned(),
    );
    postgres.interrupt();
    let reply = client.reply().expect(503);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(!worker.log().contains("/database/transaction"), "{}", worker.log());
}

#[test]
fn a_transaction_whose_client_has_left_is_rolled_back_at_once() {
    let postgres = Postgres::start();
    let worker = serve(&postgres, Duration::from_secs(30));
    let open = || {
        postgres.query("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'")
    };
    let mut client = worker.connect();
    client.send("GET /database/hold/60000 HTTP/1.1\r\nHost: test\r\n\r\n");
    until(|| open() == "1", || "the transaction does not begin".to_owned());
    // An orderly end might be half of one.
    client.reset();
    // Nobody else asks the worker for anything meanwhile: it is this end that makes it act.
    until(|| open() == "0", || "the transaction is still open".to_owned());
}

#[test]
fn an_error_of_sql_is_500_and_is_logged_with_its_code() {
    let postgres = Postgres::start();
    let worker = serve(&postgres, Duration::from_secs(30));
    worker.get("/database/error").expect(500);
    worker.await_log("division by zero (22012)");
}

#[test]
fn statements_without_a_name_leave_none_behind() {
    let postgres = Postgres::start();
    for (manner, prepared) in [(PrepareManner::Named, "1"), (PrepareManner::Unnamed, "0")] {
        let worker = start(example("features"), |settings| {
            settings.database = Some(postgres.url());
            settings.database_prepare = manner;
        });
        for _ in 0..2 {
            assert_eq!(worker.get("/database/prepared").expect(200).text(), prepared);
        }
    }
}
