//! What the peers share, so that they differ in framework and database client only: the command line, the statements,
//! the JSON objects, the page and the random numbers.

#![forbid(unsafe_code)]

mod options;
mod page;
mod world;

pub use options::{Options, Ready};
pub use page::{ADDITIONAL, Fortune, fortunes_page};
pub use world::{
    Message, SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS, World, count_in_path, count_in_query,
    json, random_number, random_numbers,
};
