//! The queries of the tests: encoding, and decoding rows straight from the replies.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use peer_common::{Fortune, World, fortunes_page, random_number, random_numbers};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use crate::connect::{FORTUNES, UPDATE, WORLD};
use crate::link::{Asker, Link};

/// Binary format, for parameters and columns.
const BINARY: i16 = 1;
const INT4: i32 = 23;

pub struct Database {
    asker: Asker,
}

impl Database {
    pub fn new(link: Arc<Link>) -> Database {
        Database { asker: Asker::new(link) }
    }

    pub fn world(&self) -> io::Result<World> {
        self.worlds(1)?.pop().ok_or_else(malformed)
    }

    /// Each row by a SELECT of its own, each with its own Sync; all are sent before the first answer is awaited.
    pub fn worlds(&self, count: usize) -> io::Result<Vec<World>> {
        let replies = self.asker.ask(count, |out| {
            random_numbers(count).try_for_each(|id| bind(WORLD, [id], put_int4, out))
        })?;
        let mut worlds = Vec::with_capacity(count);
        for_each_row(&replies, |mut row| {
            worlds.push(World {
                id: int4(column(&mut row)?)?,
                random_number: int4(column(&mut row)?)?,
            });
            Ok(())
        })?;
        if worlds.len() == count { Ok(worlds) } else { Err(malformed()) }
    }

    /// Reads the rows, gives each a new number, and writes all of them in one statement.
    pub fn update(&self, count: usize) -> io::Result<Vec<World>> {
        let mut worlds = self.worlds(count)?;
        // Two updates that lock the same rows in the same order cannot deadlock.
        worlds.sort_unstable_by_key(|world| world.id);
        for world in &mut worlds {
            world.random_number = random_number();
        }
        let columns: [fn(&World) -> i32; 2] = [|world| world.id, |world| world.random_number];
        let replies = self.asker.ask(1, |out| {
            bind(UPDATE, columns, |column, out| put_array(&worlds, column, out), out)
        })?;
        for_each_row(&replies, |_| Ok(()))?;
        Ok(worlds)
    }

    pub fn fortunes(&self) -> io::Result<String> {
        let replies = self.asker.ask(1, |out| bind(FORTUNES, std::iter::empty(), put_int4, out))?;
        let mut fortunes = Vec::new();
        for_each_row(&replies, |mut row| {
            let id = int4(column(&mut row)?)?;
            let message = str::from_utf8(column(&mut row)?).map_err(io::Error::other)?;
            fortunes.push(Fortune { id, message });
            Ok(())
        })?;
        Ok(fortunes_page(fortunes))
    }
}

type Written = Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

/// Bind, Execute and Sync of a prepared statement.
fn bind<T>(
    statement: &str,
    values: impl IntoIterator<Item = T>,
    put: impl FnMut(T, &mut BytesMut) -> Written,
    out: &mut BytesMut,
) -> io::Result<()> {
    frontend::bind("", statement, [BINARY], values, put, [BINARY], out)
        .map_err(|_| io::Error::other("parameters that cannot be encoded"))?;
    frontend::execute("", 0, out)?;
    frontend::sync(out);
    Ok(())
}

fn put_int4(value: i32, out: &mut BytesMut) -> Written {
    out.put_i32(value);
    Ok(IsNull::No)
}

/// One dimension, no nulls, counted from 1.
fn put_array(worlds: &[World], column: fn(&World) -> i32, out: &mut BytesMut) -> Written {
    for word in [1, 0, INT4, i32::try_from(worlds.len())?, 1] {
        out.put_i32(word);
    }
    for world in worlds {
        out.put_i32(4);
        out.put_i32(column(world));
    }
    Ok(IsNull::No)
}

/// Calls `each` with the columns of every row; an error of the server's ends it.
fn for_each_row<'a>(
    mut replies: &'a [u8],
    mut each: impl FnMut(&'a [u8]) -> io::Result<()>,
) -> io::Result<()> {
    while let Some((&[kind, a, b, c, d], _)) = replies.split_first_chunk() {
        let (message, rest) = replies
            .split_at_checked(1 + u32::from_be_bytes([a, b, c, d]) as usize)
            .ok_or_else(malformed)?;
        replies = rest;
        match kind {
            // After the header, the number of columns: known.
            b'D' => each(message.get(7..).ok_or_else(malformed)?)?,
            b'E' => return Err(io::Error::other(String::from_utf8_lossy(message).into_owned())),
            _ => (),
        }
    }
    Ok(())
}

/// Takes the next column off a row.
fn column<'a>(row: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let (length, rest) = row.split_first_chunk().ok_or_else(malformed)?;
    let (value, rest) =
        rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(malformed)?;
    *row = rest;
    Ok(value)
}

fn int4(value: &[u8]) -> io::Result<i32> {
    Ok(i32::from_be_bytes(value.try_into().map_err(|_| malformed())?))
}

fn malformed() -> io::Error {
    io::Error::other("a reply that is not understood")
}
