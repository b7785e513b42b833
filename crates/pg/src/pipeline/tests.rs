//! A server made of bytes: every reply, cut at every place.

use std::task::{Poll, Waker};

use postgres_protocol::message::frontend;
use postgres_types::Type;

use super::*;
use crate::Statement as Handle;
use crate::rows::{Pooled, Replies, Rows};

const LIMIT: Duration = Duration::from_secs(5);

struct Bench {
    pipeline: Pipeline,
    requests: Requests,
    driver: BytesMut,
    now: Instant,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            Some(bytes) => {
                body.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
                body.extend(*bytes);
            }
            None => body.extend([0xff; 4]),
        }
    }
    message(b'D', &body)
}

fn number(value: i32) -> Vec<u8> {
    [message(b'2', b""), row(&[Some(&value.to_be_bytes())]), message(b'C', b"SELECT 1\0"), ready()]
        .concat()
}

fn refusal(code: &str) -> Vec<u8> {
    let body = format!("SERROR\0VERROR\0C{code}\0Mno\0Dbecause\0\0");
    [message(b'E', body.as_bytes()), ready()].concat()
}

/// ParseComplete and the descriptions of one int4 parameter and one int4 column.
fn described() -> Vec<u8> {
    let mut columns = b"\0\x01n\0\0\0\0\0\0\0".to_vec();
    columns.extend(Type::INT4.oid().to_be_bytes());
    columns.extend(b"\0\x04\xff\xff\xff\xff\0\0");
    let params = [&b"\0\x01"[..], &Type::INT4.oid().to_be_bytes()].concat();
    [
        message(b'3', b""),
        message(b'1', b""),
        message(b't', &params),
        message(b'T', &columns),
        ready(),
    ]
    .concat()
}

impl Bench {
    fn new() -> Bench {
        let now = Instant::now();
        let pipeline = Pipeline::new(0, 1, true, 8, now);
        Bench { pipeline, requests: Requests::new(&[]), driver: BytesMut::new(), now }
    }

    /// A statement of which all is known.
    fn statement(&mut self, number: u64) -> Handle {
        let statement = Handle::new("SELECT $1", number, 1);
        self.pipeline.parse(&statement.0, LIMIT).unwrap();
        self.feed(&described(), usize::MAX);
        assert!(statement.0.shape().is_some());
        statement
    }

    fn ask(&mut self, statement: &Handle, value: i32) -> usize {
        let shape = statement.0.shape().unwrap();
        self.pipeline.ask(&statement.0, &shape, &[&value], LIMIT, &mut self.requests).unwrap()
    }

    fn batch(&mut self, statement: &Handle, values: &[i32]) -> usize {
        let shape = statement.0.shape().unwrap();
        let mut answer = Answer::default();
        for value in values {
            encode::query(&statement.0, &shape, true, &[value], &mut answer.asked).unwrap();
            answer
                .units
                .push(Unit { end: answer.asked.len(), ..Unit::new(Rc::clone(&statement.0)) });
        }
        self.pipeline.send(answer, LIMIT, &mut self.requests).unwrap()
    }

    /// Hands over `bytes` in pieces of `size`, as a socket would: what was not taken comes again.
    fn try_feed(&mut self, bytes: &[u8], size: usize) -> Result<(), Broken> {
        let mut unread = Vec::new();
        for piece in bytes.chunks(size.min(bytes.len().max(1))) {
            unread.extend_from_slice(piece);
            let taken =
                self.pipeline.take(&unread, &mut self.driver, &mut self.requests, self.now)?;
            unread.drain(..taken);
        }
        assert!(unread.is_empty(), "everything was whole");
        Ok(())
    }

    #[track_caller]
    fn feed(&mut self, bytes: &[u8], size: usize) {
        self.try_feed(bytes, size).unwrap();
    }

    fn answer(&mut self, slot: usize) -> Option<Result<Pooled, Error>> {
        let pool = Rc::clone(&self.requests.pool);
        match self.requests.poll(slot, Waker::noop()) {
            Poll::Ready(result) => Some(result.map(|answer| Pooled::new(answer, &pool))),
            Poll::Pending => None,
        }
    }

    #[track_caller]
    fn rows(&mut self, slot: usize) -> Result<Rows, Error> {
        self.answer(slot).expect("an answer").and_then(Rows::new)
    }

    fn asked(&mut self) -> Vec<u8> {
        self.pipeline.out.split().to_vec()
    }
}

#[test]
fn the_same_answers_whatever_the_split() {
    let wire = [
        number(1),
        message(b'S', b"TimeZone\0UTC\0"),
        refusal("22012"),
        [message(b'2', b""), message(b'C', b"SELECT 0\0"), ready()].concat(),
        message(b'N', b"SWARNING\0C01000\0Mtake care\0\0"),
        number(-2),
        number(3),
        message(b'A', b"\0\0\0\x01channel\0\0"),
        refusal("22012"),
        [message(b'2', b""), message(b'I', b""), ready()].concat(),
    ]
    .concat();
    for size in 1..=wire.len() {
        let mut bench = Bench::new();
        let statement = bench.statement(1);
        let single: Vec<_> = (0..3).map(|value| bench.ask(&statement, value)).collect();
        let batch = bench.batch(&statement, &[4, 5, 6, 7]);
        bench.feed(&wire, size);
        assert_eq!(bench.pipeline.in_flight(), 0);
        assert_eq!(bench.rows(single[0]).unwrap().first().unwrap().int4(0).unwrap(), 1);
        let error = bench.rows(single[1]).err().unwrap();
        let sql = error.as_sql().unwrap();
        assert_eq!((sql.code(), sql.message(), sql.detail()), ("22012", "no", Some("because")));
        assert!(bench.rows(single[2]).unwrap().is_empty());
        let replies = Replies::new(bench.answer(batch).unwrap().unwrap());
        let found: Vec<_> = replies
            .iter()
            .map(|reply| reply.ok().map(|mut rows| rows.next().map(|row| row.int4(0).unwrap())))
            .collect();
        assert_eq!(found, [Some(Some(-2)), Some(Some(3)), None, Some(None)], "pieces of {size}");
    }
}

#[test]
fn replies_for_tokio_postgres_are_handed_back_whole() {
    let mut asked = BytesMut::new();
    frontend::parse("s0", "SELECT 1", [], &mut asked).unwrap();
    frontend::sync(&mut asked);
    frontend::query("SELECT 2", &mut asked).unwrap();
    let theirs = [
        &message(b'1', b"")[..],
        &ready(),
        &message(b'T', b"\0\0"),
        &message(b'S', b"a\0b\0"),
        &ready(),
    ];
    for size in 1..40 {
        let mut bench = Bench::new();
        let statement = bench.statement(1);
        let before = bench.ask(&statement, 1);
        bench.pipeline.ask_for_driver(&asked, LIMIT);
        let after = bench.ask(&statement, 2);
        bench.feed(&[&number(1)[..], &theirs.concat(), &number(2)].concat(), size);
        assert_eq!(bench.driver, theirs.concat());
        assert!(bench.pipeline.report.driver_fed);
        assert!(bench.rows(before).is_ok() && bench.rows(after).is_ok());
    }
}

#[test]
fn what_was_given_up_is_read_past() {
    let mut bench = Bench::new();
    let statement = bench.statement(1);
    let gone = bench.batch(&statement, &[1, 2]);
    let kept = bench.ask(&statement, 3);
    bench.requests.abandon(gone);
    bench.feed(&[number(1), number(2), number(3)].concat(), 7);
    assert_eq!(bench.rows(kept).unwrap().first().unwrap().int4(0).unwrap(), 3);
    assert_eq!(bench.pipeline.in_flight(), 0);
    assert!(bench.requests.slots.is_empty(), "nobody's slot remains");
}

#[test]
fn deadlines_end_the_wait_and_only_a_stuck_server_costs_the_connection() {
    let mut bench = Bench::new();
    let statement = bench.statement(1);
    let shape = statement.0.shape().unwrap();
    let (second, begun) = (Duration::from_secs(1), bench.now);
    let slow = bench
        .pipeline
        .ask(&statement.0, &shape, &[&1_i32], 10 * second, &mut bench.requests)
        .unwrap();
    let hasty =
        bench.pipeline.ask(&statement.0, &shape, &[&2_i32], second, &mut bench.requests).unwrap();
    assert_eq!(bench.pipeline.date(begun, LIMIT), Some(begun + second));
    assert_eq!(bench.pipeline.date(begun, LIMIT), None);
    assert_eq!(
        bench.pipeline.expire(begun + second, &mut bench.requests),
        Ok(Some(begun + 10 * second))
    );
    assert!(bench.rows(hasty).err().unwrap().is_timed_out());
    // The first is answered; the other, whose asker has left, then has the line to itself for its own second.
    bench.now = begun + 5 * second;
    bench.feed(&number(1), 1);
    assert!(bench.rows(slow).is_ok());
    assert_eq!(bench.pipeline.expire(bench.now, &mut bench.requests), Ok(Some(begun + 6 * second)));
    assert_eq!(bench.pipeline.expire(begun + 6 * second, &mut bench.requests), Err(()));
}

#[test]
fn what_came_too_late_is_in_flight_until_it_comes() {
    let mut bench = Bench::new();
    let statement = bench.statement(1);
    let shape = statement.0.shape().unwrap();
    let (second, begun) = (Duration::from_secs(1), bench.now);
    let first = bench.ask(&statement, 1);
    let late = bench.batch(&statement, &[2, 3]);
    let after = bench
        .pipeline
        .ask(&statement.0, &shape, &[&4_i32], 10 * second, &mut bench.requests)
        .unwrap();
    bench.pipeline.date(begun, LIMIT);
    bench.now = begun + LIMIT - second;
    bench.feed(&number(1), 3);
    assert!(bench.rows(first).is_ok());
    bench.now = begun + LIMIT;
    assert!(bench.pipeline.expire(bench.now, &mut bench.requests).is_ok(), "the line survives");
    assert!(bench.answer(late).unwrap().err().unwrap().is_timed_out());
    // The server owes them still: the socket is to be watched for them, and they count as load.
    assert_eq!(bench.pipeline.in_flight(), 3);
    bench.feed(&[number(2), refusal("22012")].concat(), 5);
    assert_eq!(bench.pipeline.in_flight(), 1);
    // A name that is given up is answered too, and was never counted.
    bench.pipeline.statements_max = 1;
    bench.pipeline.make_room();
    bench.feed(&[number(4), message(b'3', b""), ready()].concat(), 7);
    assert!(bench.rows(after).is_ok());
    assert_eq!(bench.pipeline.in_flight(), 0);
}

#[test]
fn a_flood_waits_unsent_and_keeps_its_order() {
    let mut bench = Bench::new();
    let statement = bench.statement(1);
    let batches: Vec<_> =
        (0..=IN_FLIGHT_MAX / 500 + 4).map(|_| bench.batch(&statement, &[0; 500])).collect();
    let last = bench.ask(&statement, 1);
    assert!(bench.pipeline.in_flight() < IN_FLIGHT_MAX + 500);
    bench.requests.abandon(batches[batches.len() - 1]);
    let mut left = (batches.len() - 1) * 500 + 1;
    while left > 0 {
        let due = bench.pipeline.in_flight().min(1000);
        assert!(due > 0, "{left} are left, none is in flight");
        bench.feed(&number(1).repeat(due), usize::MAX);
        left -= due;
        bench.asked();
        bench.pipeline.release_held(&mut bench.requests);
    }
    assert_eq!(bench.rows(last).unwrap().len(), 1);
    for batch in &batches[..batches.len() - 1] {
        assert_eq!(Replies::new(bench.answer(*batch).unwrap().unwrap()).len(), 500);
    }
    assert!(bench.requests.slots.is_empty());

    // There is an end to what may wait.
    let mut refused = None;
    for _ in 0..HELD_BYTES_MAX / 20_000 + 100 {
        let mut answer = Answer::default();
        let shape = statement.0.shape().unwrap();
        for _ in 0..500 {
            encode::query(&statement.0, &shape, true, &[&1_i32], &mut answer.asked).unwrap();
            answer
                .units
                .push(Unit { end: answer.asked.len(), ..Unit::new(Rc::clone(&statement.0)) });
        }
        refused = bench.pipeline.send(answer, LIMIT, &mut bench.requests).err();
        if refused.is_some() {
            break;
        }
    }
    assert!(refused.unwrap().is_overloaded());
    let why = Error::new(Kind::Unavailable, "over");
    bench.pipeline.fail_all(&why, &mut bench.requests);
    assert_eq!(bench.pipeline.in_flight(), 0);
}

#[test]
fn a_name_the_server_does_not_know_means_a_pooler() {
    let mut bench = Bench::new();
    let statement = bench.statement(1);
    let first = bench.ask(&statement, 1);
    let second = bench.ask(&statement, 2);
    bench.feed(&[refusal("26000"), refusal("26000")].concat(), 5);
    assert_eq!(bench.rows(first).err().unwrap().as_sql().unwrap().code(), "26000");
    assert!(bench.rows(second).is_err());
    assert!(bench.pipeline.report.pooler.take().is_some(), "reported");
    bench.asked();
    // It is prepared anew.
    let third = bench.ask(&statement, 3);
    assert!(bench.asked().starts_with(b"C"), "Close, Parse, Describe come first");
    bench.feed(&[described(), number(3)].concat(), 5);
    assert!(bench.rows(third).is_ok());

    // If it cannot be, that reason is given, not that the name is unknown.
    statement.0.set_unprepared(0);
    let fourth = bench.ask(&statement, 4);
    bench.feed(&[refusal("42P01"), refusal("26000")].concat(), 5);
    assert_eq!(bench.rows(fourth).err().unwrap().as_sql().unwrap().code(), "42P01");
    assert!(bench.pipeline.report.pooler.is_none());
}

#[test]
fn what_the_protocol_does_not_allow_ends_the_connection() {
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mshutting down\0\0");
    let cases: &[(&str, Vec<u8>)] = &[
        ("ready without a conclusion", [message(b'2', b""), ready()].concat()),
        (
            "a transaction left open",
            [message(b'2', b""), message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat(),
        ),
        (
            "an unknown state",
            [message(b'2', b""), message(b'C', b"X\0"), message(b'Z', b"II")].concat(),
        ),
        ("an unknown tag", message(b'?', b"")),
        ("copy", message(b'G', b"\0\0\0")),
        ("a length that is none", b"D\0\0\0\x03".to_vec()),
        ("a huge message", b"D\x7f\xff\xff\xff".to_vec()),
        ("a broken row", message(b'D', b"\0\x01\0\0\0\x09x")),
        ("fatal", fatal.clone()),
    ];
    for (what, wire) in cases {
        for size in 1..=wire.len() {
            let mut bench = Bench::new();
            let statement = bench.statement(1);
            bench.ask(&statement, 1);
            assert!(bench.try_feed(wire, size).is_err(), "{what}");
        }
    }
    let mut bench = Bench::new();
    assert!(
        matches!(bench.try_feed(&fatal, 3), Err(Broken::Farewell(sql)) if sql.code() == "57P01")
    );
    assert!(bench.try_feed(&number(1), 3).is_err(), "an answer to nothing");
}

/// No bytes make it panic: every message of a good conversation with one byte changed.
#[test]
fn changed_bytes_are_errors_or_other_answers() {
    let wire = [described(), number(1), refusal("22012"), number(2)].concat();
    for place in 0..wire.len() {
        for change in [0_u8, 1, 0x7f, 0x80, 0xff, b'Z', b'D', b'E'] {
            let mut changed = wire.clone();
            changed[place] = change;
            let mut bench = Bench::new();
            let statement = bench.statement(1);
            bench.pipeline.parse(&statement.0, LIMIT).unwrap();
            let slots = [bench.ask(&statement, 1), bench.batch(&statement, &[2, 3])];
            let taken =
                bench.pipeline.take(&changed, &mut bench.driver, &mut bench.requests, bench.now);
            if taken.is_err() {
                bench
                    .pipeline
                    .fail_all(&Error::new(Kind::Unavailable, "over"), &mut bench.requests);
            }
            for slot in slots {
                if let Some(Ok(answer)) = bench.answer(slot) {
                    for rows in Replies::new(answer).iter().flatten() {
                        for row in rows {
                            let _ = (row.int4(0), row.str(0), row.get::<Option<i64>>(1));
                        }
                    }
                }
            }
        }
    }
}
