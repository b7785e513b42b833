//! The queries of the tests through xitca-postgres, which sends a Sync after each.

use std::future::IntoFuture;

use peer_common::{
    Fortune, SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS, World, fortunes_page, random_number,
    random_numbers,
};
use xitca_io::bytes::BytesStr;
use xitca_postgres::iter::AsyncLendingIterator;
use xitca_postgres::types::Type;
use xitca_postgres::{Client, Execute, Postgres, RowStream, Statement};

pub use xitca_postgres::Error;

pub struct Database {
    client: Client,
    select_world: Statement,
    select_fortunes: Statement,
    update_worlds: Statement,
}

impl Database {
    /// Connects, prepares the statements and leaves the connection to a task of this thread.
    pub async fn connect(url: String) -> Result<Database, Error> {
        let (client, driver) = Postgres::new(socket_file(&url)).connect().await?;
        tokio::task::spawn(driver.into_future());
        let select_world =
            Statement::named(SELECT_WORLD, &[Type::INT4]).execute(&client).await?.leak();
        let select_fortunes = Statement::named(SELECT_FORTUNES, &[]).execute(&client).await?.leak();
        let update_worlds = Statement::named(UPDATE_WORLDS, &[Type::INT4_ARRAY, Type::INT4_ARRAY])
            .execute(&client)
            .await?
            .leak();
        Ok(Database { client, select_world, select_fortunes, update_worlds })
    }

    pub async fn world(&self) -> Result<World, Error> {
        world_of(self.select_world.bind([random_number()]).query(&self.client).await?).await
    }

    /// Each row by a SELECT of its own; all are sent before the first answer is awaited.
    pub async fn worlds(&self, count: usize) -> Result<Vec<World>, Error> {
        let mut asked = Vec::with_capacity(count);
        for id in random_numbers(count) {
            asked.push(self.select_world.bind([id]).query(&self.client).await?);
        }
        let mut worlds = Vec::with_capacity(count);
        for rows in asked {
            worlds.push(world_of(rows).await?);
        }
        Ok(worlds)
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
        self.update_worlds.bind([&ids, &numbers]).execute(&self.client).await?;
        Ok(worlds)
    }

    pub async fn fortunes(&self) -> Result<String, Error> {
        let mut rows = self.select_fortunes.query(&self.client).await?;
        let mut found: Vec<(i32, BytesStr)> = Vec::new();
        while let Some(row) = rows.try_next().await? {
            found.push((row.get(0), row.get_zc(1)));
        }
        Ok(fortunes_page(found.iter().map(|(id, message)| Fortune { id: *id, message }).collect()))
    }
}

/// This client takes a host that begins with a slash for the socket itself, not for the folder it is in.
fn socket_file(url: &str) -> String {
    let parameter = |name: &str| {
        let (_, rest) = url.split_once(name)?;
        rest.split('&').next()
    };
    match parameter("host=/") {
        Some(folder) => {
            let port = parameter("port=").unwrap_or("5432");
            url.replace(&format!("host=/{folder}"), &format!("host=/{folder}/.s.PGSQL.{port}"))
        }
        None => url.to_owned(),
    }
}

async fn world_of(mut rows: RowStream<'_>) -> Result<World, Error> {
    let row =
        rows.try_next().await?.ok_or_else(|| Error::from(std::io::Error::other("no such row")))?;
    Ok(World { id: row.get(0), random_number: row.get(1) })
}
