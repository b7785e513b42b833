//! `/cached-queries`: random rows through a cache in which the row not used for longest gives way.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use lru::LruCache;
use worker::{Context, Request, Result};

use crate::world::{self, World};
use crate::{State, count};

/// Rows that one worker keeps.
const CACHED_ROWS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The cache of one worker. Filled as rows are asked for.
pub struct CachedWorlds {
    rows: RefCell<LruCache<i32, World>>,
}

impl CachedWorlds {
    pub fn new() -> CachedWorlds {
        CachedWorlds { rows: RefCell::new(LruCache::new(CACHED_ROWS_MAX)) }
    }

    fn get(&self, id: i32) -> Option<World> {
        self.rows.borrow_mut().get(&id).copied()
    }

    fn put(&self, world: World) {
        self.rows.borrow_mut().put(world.id, world);
    }
}

/// `/cached-queries`: rows that are not in the cache are read from the database, all in one go.
pub fn several(request: &Request<'_>, cx: &Context<State>) -> impl Future<Output = Result> + use<> {
    let rows = count::of(request, "count");
    let cx = cx.clone();
    async move {
        let cache = &cx.state().cached;
        let mut worlds = Vec::with_capacity(rows);
        let mut missing = Vec::new();
        for _ in 0..rows {
            let id = world::random();
            match cache.get(id) {
                Some(world) => worlds.push(world),
                None => missing.push(id),
            }
        }
        if !missing.is_empty() {
            for world in world::read(&cx, missing.into_iter()).await? {
                cache.put(world);
                worlds.push(world);
            }
        }
        Ok(world::list(&worlds, cx.buffer()))
    }
}
