//! The World table: statements, counts, random numbers and JSON.

use serde::Serialize;

/// Reads one row; sent once for each row, each with its own Sync.
pub const SELECT_WORLD: &str = "SELECT id, randomnumber FROM world WHERE id = $1";
/// Writes many rows in one statement. Its text has no word SELECT: the rows it reads are not rows asked for.
pub const UPDATE_WORLDS: &str = "UPDATE world SET randomnumber = new.number \
     FROM unnest($1::int[], $2::int[]) AS new (id, number) WHERE world.id = new.id";
/// Reads all fortunes.
pub const SELECT_FORTUNES: &str = "SELECT id, message FROM fortune";

/// One row of World.
#[derive(Clone, Copy, Serialize)]
pub struct World {
    /// 1 to 10,000.
    pub id: i32,
    /// 1 to 10,000.
    #[serde(rename = "randomNumber")]
    pub random_number: i32,
}

/// The object of the JSON test, made anew for each request.
#[derive(Serialize)]
pub struct Message {
    /// `Hello, World!`
    pub message: &'static str,
}

/// Serialises into a buffer that has room for `capacity` bytes to begin with.
pub fn json<T: Serialize>(value: &T, capacity: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(capacity);
    // Writing to memory cannot fail, nor can these types.
    let _ = sonic_rs::to_writer(&mut body, value);
    body
}

/// A number from 1 to 10,000.
pub fn random_number() -> i32 {
    fastrand::i32(1..=10_000)
}

/// So many numbers from 1 to 10,000; they may repeat.
pub fn random_numbers(count: usize) -> impl Iterator<Item = i32> {
    std::iter::repeat_with(random_number).take(count)
}

/// The count asked for by the first parameter of a query string, whatever its name.
pub fn count_in_query(query: Option<&str>) -> usize {
    let value =
        query.and_then(|query| query.split('&').next()).and_then(|first| first.split_once('='));
    clamped(value.map(|(_, value)| value))
}

/// The count asked for by the last segment of a path such as `/queries/20`.
pub fn count_in_path(path: &str) -> usize {
    clamped(path.rsplit('/').next())
}

fn clamped(text: Option<&str>) -> usize {
    text.and_then(|text| text.parse().ok()).map_or(1, |count: usize| count.clamp(1, 500))
}
