//! What a batch of 20 queries costs: this crate beside tokio-postgres, on the same private PostgreSQL.
//!
//! `cargo run --release -p pg --example batch_cost [SECONDS] [TASKS] [unix|tcp]`
//!
//! Both run on one thread and pipeline over one connection; each of TASKS tasks asks its next batch when it has the
//! answers to the last. Printed: CPU microseconds per batch of this process and of the server's backend (scheduler
//! statistics), batches per second, turns of our loop and sleeps of the backend per batch. Rounds alternate; only
//! ratios within one run mean anything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::{Cluster, Loop};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

const QUERIES: usize = 20;
/// Each runs so often, in turn; the medians are printed.
const ROUNDS: usize = 11;
const WORLDS: i32 = 10_000;
const SQL: &str = "SELECT id, randomnumber FROM world WHERE id = $1";

/// How often a process has waited so far.
fn sleeps(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Nanoseconds on a CPU so far.
fn cpu(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[derive(Clone, Copy)]
struct Cost {
    sleeps: f64,
    client: f64,
    server: f64,
    rate: f64,
    turns: f64,
}

fn measure(backend: u32, run: impl FnOnce() -> u64) -> Cost {
    let (client, server, begun) = (cpu(std::process::id()), cpu(backend), Instant::now());
    let slept = sleeps(backend);
    let batches = run() as f64;
    let slept = sleeps(backend) - slept;
    let (client, server) = (cpu(std::process::id()) - client, cpu(backend) - server);
    Cost {
        sleeps: slept as f64 / batches,
        client: client as f64 / 1000.0 / batches,
        server: server as f64 / 1000.0 / batches,
        rate: batches / begun.elapsed().as_secs_f64(),
        turns: f64::NAN,
    }
}

/// Tasks and the queue of those that were woken.
#[derive(Default)]
struct Ready(Mutex<Vec<usize>>);

struct Task {
    number: usize,
    ready: Arc<Ready>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.0.lock().unwrap().push(self.number);
    }
}

#[inline(never)]
fn ours(looped: &mut Loop, tasks: usize, seconds: f64) -> u64 {
    let db = looped.db.clone();
    let statement = db.statement(SQL);
    let batches = Rc::new(Cell::new(0));
    let ready = Arc::new(Ready::default());
    let over = Rc::new(Cell::new(false));
    let mut running: Vec<_> = (0..tasks)
        .map(|number| {
            let (db, statement, batches, over) =
                (db.clone(), statement.clone(), batches.clone(), over.clone());
            let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                while !over.get() {
                    let mut batch = db.batch();
                    for _ in 0..QUERIES {
                        batch.push(&statement, &[&fastrand::i32(1..=WORLDS)]).await.unwrap();
                    }
                    let replies = batch.send().await.unwrap();
                    for rows in replies.iter() {
                        let row = rows.unwrap().next().unwrap();
                        std::hint::black_box((row.int4(0).unwrap(), row.int4(1).unwrap()));
                    }
                    batches.set(batches.get() + 1);
                }
            });
            let waker = Waker::from(Arc::new(Task { number, ready: ready.clone() }));
            waker.wake_by_ref();
            (future, waker)
        })
        .collect();
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut left = tasks;
    let mut woken = Vec::new();
    while left > 0 {
        std::mem::swap(&mut woken, &mut *ready.0.lock().unwrap());
        for number in woken.drain(..) {
            let (future, waker) = &mut running[number];
            if let Poll::Ready(()) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                left -= 1;
            }
        }
        over.set(Instant::now() >= until);
        looped.turn(Duration::from_millis(100));
    }
    batches.get()
}

#[inline(never)]
fn theirs(
    runtime: &tokio::runtime::Runtime,
    client: &Rc<pg::tokio_postgres::Client>,
    tasks: usize,
    seconds: f64,
) -> u64 {
    let local = tokio::task::LocalSet::new();
    local.block_on(runtime, async {
        let statement = client.prepare(SQL).await.unwrap();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let running: Vec<_> = (0..tasks)
            .map(|_| {
                let (client, statement) = (client.clone(), statement.clone());
                tokio::task::spawn_local(async move {
                    let mut batches = 0;
                    while Instant::now() < until {
                        let mut queries: FuturesUnordered<_> = (0..QUERIES)
                            .map(|_| {
                                let (client, statement) = (&client, &statement);
                                async move {
                                    let id = fastrand::i32(1..=WORLDS);
                                    client.query_one(statement, &[&id]).await.unwrap()
                                }
                            })
                            .collect();
                        while let Some(row) = queries.next().await {
                            std::hint::black_box((row.get::<_, i32>(0), row.get::<_, i32>(1)));
                        }
                        batches += 1;
                    }
                    batches
                })
            })
            .collect();
        let mut all = 0;
        for task in running {
            all += task.await.unwrap();
        }
        all
    })
}

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(0.3, |text| text.parse().unwrap());
    let tasks: usize = args.next().map_or(64, |text| text.parse().unwrap());
    let unix = args.next().is_some_and(|text| text == "unix");
    let cluster = Cluster::new("trust");
    let url = if unix { cluster.unix() } else { cluster.tcp() };

    let config = |low_water| {
        let mut config = pg::Config::parse(&url).unwrap();
        config.low_water = low_water;
        config
    };
    let [mut looped, mut eager] = [true, false].map(|low_water| {
        let mut looped = Loop::with(config(low_water));
        looped.until(pg::Database::is_up);
        looped
    });
    let pid = "SELECT pg_backend_pid()";
    let db = eager.db.clone();
    let eager_backend =
        eager.run(async { db.query_one(&db.statement(pid), &[]).await.unwrap().int4(0).unwrap() });
    let db = looped.db.clone();
    let backend = looped.run(async {
        for sql in [
            "CREATE TABLE world (id int4 PRIMARY KEY, randomnumber int4 NOT NULL)",
            "INSERT INTO world SELECT i, 1 + i * 7919 % 10000 FROM generate_series(1, 10000) i",
            "VACUUM ANALYZE world",
        ] {
            db.execute(&db.statement(sql), &[]).await.unwrap();
        }
        db.query_one(&db.statement("SELECT pg_backend_pid()"), &[]).await.unwrap().int4(0).unwrap()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, theirs_backend) = runtime.block_on(async {
        let (client, connection) =
            pg::tokio_postgres::connect(&url, pg::tokio_postgres::NoTls).await.unwrap();
        runtime.spawn(connection);
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        (Rc::new(client), backend)
    });

    println!(
        "{QUERIES} queries a batch, {tasks} tasks, {}",
        if unix { "unix socket" } else { "TCP" }
    );
    println!(
        "{:>16} {:>10} {:>10} {:>12} {:>8} {:>8} {:>8}",
        "", "client µs", "server µs", "batches/s", "turns", "sleeps", "ratio"
    );
    let mut found = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let run = |looped: &mut Loop, backend: i32| {
            let turns = looped.turns;
            let cost = measure(backend.cast_unsigned(), || ours(looped, tasks, seconds));
            let turns = (looped.turns - turns) as f64 / (cost.rate * seconds);
            Cost { turns, ..cost }
        };
        found[0].push(run(&mut looped, backend));
        found[1].push(run(&mut eager, eager_backend));
        let them = theirs_backend.cast_unsigned();
        found[2].push(measure(them, || theirs(&runtime, &client, tasks, seconds)));
    }
    let median = |costs: &[Cost], of: fn(&Cost) -> f64| {
        let mut values: Vec<_> = costs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let theirs = median(&found[2], |cost| cost.client);
    for (name, costs) in ["this crate", "no low water", "tokio-postgres"].iter().zip(&found) {
        let client = median(costs, |cost| cost.client);
        println!(
            "{name:>16} {client:>10.1} {:>10.1} {:>12.0} {:>8.2} {:>8.2} {:>8.2}",
            median(costs, |cost| cost.server),
            median(costs, |cost| cost.rate),
            median(costs, |cost| cost.turns),
            median(costs, |cost| cost.sleeps),
            client / theirs,
        );
    }
}
