//! The database side of the peers over tokio-postgres: one pipelined connection per worker. Every statement is sent with
//! a Sync of its own; those of one request, and of all requests of the thread, leave together.

#![forbid(unsafe_code)]

pub use tokio_postgres::Error;

use futures_util::future::try_join_all;
use peer_common::{
    Fortune, SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS, World, fortunes_page, random_number,
    random_numbers,
};
use tokio_postgres::{Client, NoTls, Row, Statement};

pub struct Database {
    client: Client,
    select_world: Statement,
    select_fortunes: Statement,
    update_worlds: Statement,
}

impl Database {
    /// Connects, prepares the statements and leaves the connection to a task of this thread.
    pub async fn connect(url: &str) -> Result<Database, Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::task::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("lost PostgreSQL: {error}");
            }
        });
        let select_world = client.prepare(SELECT_WORLD).await?;
        let select_fortunes = client.prepare(SELECT_FORTUNES).await?;
        let update_worlds = client.prepare(UPDATE_WORLDS).await?;
        Ok(Database { client, select_world, select_fortunes, update_worlds })
    }

    pub async fn world(&self) -> Result<World, Error> {
        self.world_of(random_number()).await
    }

    async fn world_of(&self, id: i32) -> Result<World, Error> {
        let row = self.client.query_one(&self.select_world, &[&id]).await?;
        Ok(World { id: row.get(0), random_number: row.get(1) })
    }

    /// Each row by a SELECT of its own; all are sent before the first answer is awaited.
    pub async fn worlds(&self, count: usize) -> Result<Vec<World>, Error> {
        try_join_all(random_numbers(count).map(|id| self.world_of(id))).await
    }

    /// Reads the rows, gives each a new number, and writes all of them in one statement.
    pub async fn update(&self, count: usize) -> Result<Vec<World>, Error> {
        let mut worlds = self.worlds(count).await?;
        // Two updates that lock the same rows in the same order cannot deadlock.
        worlds.sort_unstable_by_key(|world| world.id);
        let (mut ids, mut numbers) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for world in &mut worlds {
            world.random_number = random_number();
            ids.push(world.id);
            numbers.push(world.random_number);
        }
        self.client.execute(&self.update_worlds, &[&ids, &numbers]).await?;
        Ok(worlds)
    }

    pub async fn fortunes(&self) -> Result<String, Error> {
        let rows = self.client.query(&self.select_fortunes, &[]).await?;
        let mut fortunes = Vec::new();
        fortunes.extend(rows.iter().map(fortune));
        Ok(fortunes_page(fortunes))
    }
}

fn fortune(row: &Row) -> Fortune<'_> {
    Fortune { id: row.get(0), message: row.get(1) }
}
