//! Several workers on several listeners of one address: nobody's connection depends on one worker.

#![allow(clippy::unwrap_used)] // What cannot go on fails its test.

mod common;

use std::time::{Duration, Instant};

use common::{Client, PATIENCE, Signal, Worker, begin_on, example, until};
use net::{BindAddr, BindOptions, ListenerGroup};
use shared::contract::{Order, SLOT};

fn bind(shards: usize) -> ListenerGroup {
    let address: BindAddr = "127.0.0.1:0".parse().unwrap();
    ListenerGroup::bind(&address, shards, &BindOptions::default()).unwrap()
}

fn start(group: &ListenerGroup, slot: usize) -> Worker {
    let slot = format!("{SLOT}={slot}");
    let change = |settings: &mut shared::settings::Settings| settings.keepalive = PATIENCE;
    let (worker, message) = begin_on(group.shards(), example("features"), change, &[&slot]);
    assert!(message.contains("READY=1"), "{message}");
    worker
}

#[test]
fn one_worker_serves_every_shard() {
    let group = bind(4);
    let worker = start(&group, 2);
    // The kernel spreads them over all four queues.
    for _ in 0..40 {
        worker.get("/hello/you").expect(200);
    }
    worker.stop();
}

#[test]
fn a_busy_worker_makes_nobody_wait() {
    let group = bind(2);
    let (first, second) = (start(&group, 0), start(&group, 1));
    // Two at once block both workers only if one worker takes both; then there is still nobody else.
    let mut busy = first.connect();
    busy.send("GET /block/1500 HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    let mut slowest = Duration::ZERO;
    for _ in 0..60 {
        let began = Instant::now();
        first.get("/hello/you").expect(200);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_millis(700), "{slowest:?}");
    busy.reply().expect(200);
    drop(busy);
    first.stop();
    second.stop();
}

#[test]
fn what_waits_at_a_dead_worker_is_taken_by_the_others() {
    let group = bind(2);
    let (first, mut second) = (start(&group, 0), start(&group, 1));
    for _ in 0..5 {
        // Connections are made all the time while one worker dies, and none is lost in a queue.
        let dying = start(&group, 1);
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..20 {
            clients.push(first.connect());
        }
        dying.signal(Signal::SIGKILL);
        for _ in 0..20 {
            clients.push(first.connect());
        }
        second.order(Order::ReArm);
        let mut dead = 0;
        for client in &mut clients {
            dead += usize::from(!is_answered(client));
        }
        // Accepted by the one that died, before it could answer: these cannot be saved.
        assert!(dead <= 20, "{dead} of 40");
        first.get("/hello/you").expect(200);
    }
    drop((first, second));
}

/// Whether a request on this connection is answered; `false`: its worker died. Silence is neither.
fn is_answered(client: &mut Client) -> bool {
    use std::io::{Read, Write};
    let mut byte = [0];
    client
        .stream
        .write_all(b"GET /hello/you HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .is_ok()
        && match client.stream.read(&mut byte) {
            Ok(count) => count == 1,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("neither answered nor closed: {error}"),
        }
}

#[test]
fn workers_come_and_go_without_a_lost_request() {
    let group = bind(2);
    let mut workers = vec![start(&group, 0), start(&group, 1)];
    let address = workers[0].address;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let answered = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // One connection a request, and one that is kept until the server says close.
                    assert!(is_answered(&mut Client::to(address)));
                    let mut kept = Client::to(address);
                    while !kept.get("/hello/you").expect(200).closes() {
                        let count = answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if count.is_multiple_of(50) {
                            break;
                        }
                    }
                }
            });
        }
        for round in 0..6 {
            let before = answered.load(std::sync::atomic::Ordering::Relaxed);
            let successor = start(&group, round % 2);
            let predecessor = std::mem::replace(&mut workers[round % 2], successor);
            predecessor.stop();
            until(
                || before + 100 < answered.load(std::sync::atomic::Ordering::Relaxed),
                || "the load has stopped".to_owned(),
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for worker in workers {
        worker.stop();
    }
}

/// Sockets that a process has.
fn sockets(worker: &Worker) -> usize {
    let folder = format!("/proc/{}/fd", worker.pid());
    let links = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// How many of the new connections each worker has.
fn spread(workers: &[Worker], connect: impl FnOnce() -> Vec<Client>) -> Vec<usize> {
    let before: Vec<usize> = workers.iter().map(sockets).collect();
    let clients = connect();
    let found = workers.iter().zip(before).map(|(worker, before)| sockets(worker) - before);
    let found: Vec<usize> = found.collect();
    assert_eq!(found.iter().sum::<usize>(), clients.len());
    found
}

#[test]
fn connections_that_come_all_at_once_are_spread_over_the_shards_owners() {
    let group = bind(2);
    let workers = [start(&group, 0), start(&group, 1)];
    let found = spread(&workers, || {
        let mut clients: Vec<Client> = (0..64).map(|_| workers[0].connect()).collect();
        for client in &mut clients {
            client.send("GET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            client.reply().expect(200);
        }
        clients
    });
    // The kernel chooses a shard by chance: 16 and 48 would be four standard deviations off.
    assert!(found.iter().all(|&count| 12 <= count), "{found:?}");
    for worker in workers {
        worker.stop();
    }
}

#[test]
fn kept_connections_are_spread_over_the_workers_that_share_a_listener() {
    let group = bind(1);
    let workers = [start(&group, 0), start(&group, 1)];
    let found = spread(&workers, || {
        let connect = |_| {
            let mut client = workers[0].connect();
            client.get("/hello/you").expect(200);
            client
        };
        (0..64).map(connect).collect()
    });
    assert!(found.iter().all(|&count| 16 <= count), "{found:?}");
    for worker in workers {
        worker.stop();
    }
}
