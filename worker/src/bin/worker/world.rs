//! `/db`, `/queries` and `/updates`: rows of the table `world`.

use worker::{Buffer, Context, Request, Response, Result, pg};

use crate::{State, count};

pub const SELECT: &str = "SELECT id, randomnumber FROM world WHERE id = $1";

/// One statement for all rows; the ids come sorted, so that two updates never wait for each other in a circle.
pub const UPDATE: &str = "UPDATE world SET randomnumber = u.n \
     FROM unnest($1::int[], $2::int[]) AS u(id, n) WHERE world.id = u.id";

/// Rows of the table, and the largest value of both columns.
pub const ROWS: i32 = 10_000;

/// One row.
#[derive(Clone, Copy)]
pub struct World {
    pub id: i32,
    pub random_number: i32,
}

impl World {
    pub fn from_row(row: pg::Row<'_>) -> Result<World> {
        let mut values = row.values();
        Ok(World { id: values.int4()?, random_number: values.int4()? })
    }

    /// Appends the row as JSON. By hand: with names and values such as these there is nothing to be escaped.
    fn write(self, body: &mut Buffer) {
        body.extend_from_slice(b"{\"id\":");
        body.extend_from_slice(itoa::Buffer::new().format(self.id).as_bytes());
        body.extend_from_slice(b",\"randomNumber\":");
        body.extend_from_slice(itoa::Buffer::new().format(self.random_number).as_bytes());
        body.push(b'}');
    }
}

/// The answer with these rows.
pub fn list(worlds: &[World], mut body: Buffer) -> Response {
    append(worlds, &mut body);
    Response::bytes("application/json", body)
}

fn append(worlds: &[World], body: &mut Buffer) {
    body.push(b'[');
    for (place, world) in worlds.iter().enumerate() {
        if place != 0 {
            body.push(b',');
        }
        world.write(body);
    }
    body.push(b']');
}

/// A value from 1 to 10,000.
pub fn random() -> i32 {
    fastrand::i32(1..=ROWS)
}

/// `/db`: one random row.
pub fn one(_: &Request<'_>, cx: &Context<State>) -> impl Future<Output = Result> + use<> {
    let cx = cx.clone();
    async move {
        let record = cx.database().query_one(&cx.state().world, &[&random()]).await?;
        let mut body = cx.buffer();
        World::from_row(record.row())?.write(&mut body);
        Ok(Response::bytes("application/json", body))
    }
}

/// `/queries`: as many random rows as asked for, each by a query of its own.
pub fn several(request: &Request<'_>, cx: &Context<State>) -> impl Future<Output = Result> + use<> {
    let rows = count::of(request, "queries");
    let cx = cx.clone();
    async move {
        let worlds = read(&cx, (0..rows).map(|_| random())).await?;
        Ok(list(&worlds, cx.buffer()))
    }
}

/// `/updates`: reads random rows, each by a query of its own, gives each a new number, and writes them back.
pub fn update(request: &Request<'_>, cx: &Context<State>) -> impl Future<Output = Result> + use<> {
    let rows = count::of(request, "queries");
    let cx = cx.clone();
    async move {
        let ids = distinct(rows);
        let mut worlds = read(&cx, ids.iter().copied()).await?;
        for world in &mut worlds {
            world.random_number = random();
        }
        let numbers: Vec<i32> = worlds.iter().map(|world| world.random_number).collect();
        cx.database().execute(&cx.state().update, &[&ids, &numbers]).await?;
        Ok(list(&worlds, cx.buffer()))
    }
}

/// Reads the rows with these ids, in their order: a query and a Sync for each, all of them in one write.
pub async fn read(cx: &Context<State>, ids: impl Iterator<Item = i32>) -> Result<Vec<World>> {
    let mut batch = cx.database().batch();
    batch.push_all(&cx.state().world, ids.map(|id| [id])).await?;
    let replies = batch.send().await?;
    let mut worlds = Vec::with_capacity(replies.len());
    for rows in replies.iter() {
        for row in rows? {
            worlds.push(World::from_row(row)?);
        }
    }
    Ok(worlds)
}

/// So many different ids, sorted.
fn distinct(count: usize) -> Vec<i32> {
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        ids.extend((ids.len()..count).map(|_| random()));
        ids.sort_unstable();
        ids.dedup();
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_as_a_json_library_would() {
        let rows =
            [(1, 10_000), (10_000, 1)].map(|(id, random_number)| World { id, random_number });
        let mut body = Buffer::new();
        rows[0].write(&mut body);
        assert_eq!(&body[..], br#"{"id":1,"randomNumber":10000}"#);
        let value = |id, number| serde_json::json!({ "id": id, "randomNumber": number });
        let mut body = Buffer::new();
        append(&rows, &mut body);
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(list, serde_json::json!([value(1, 10_000), value(10_000, 1)]));
    }

    #[test]
    fn ids_to_be_updated_are_distinct_sorted_and_in_range() {
        for count in [1, 20, 500] {
            let ids = distinct(count);
            assert_eq!(ids.len(), count);
            assert!(ids.is_sorted_by(|a, b| a < b));
            assert!(ids.iter().all(|id| (1..=ROWS).contains(id)));
        }
    }
}
