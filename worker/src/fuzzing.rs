//! What `scripts/fuzz` feeds that no application can reach by itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use http1::{Fields, Method};

use crate::{files, percent, via};

/// The client by X-Forwarded-For, and by Forwarded.
pub fn clients(fields: Fields<'_>, is_trusted: fn(IpAddr) -> bool) -> [Option<IpAddr>; 2] {
    [via::x_forwarded_for(fields, is_trusted), via::forwarded(fields, is_trusted)]
}

/// The trace that a `traceparent` names.
#[must_use]
pub fn trace(value: &[u8]) -> Option<via::Trace<'_>> {
    via::Trace::parse(value)
}

/// The file beneath a folder that the end of a request's path names.
#[must_use]
pub fn file_path(raw: &[u8]) -> Option<PathBuf> {
    files::clean(raw).map(|(path, _)| path)
}

/// First and last byte of a file of `len` bytes that a GET request with these fields is to get, if it is a part.
#[must_use]
pub fn file_part(fields: Fields<'_>, len: u64) -> Option<(u64, u64)> {
    let now = UNIX_EPOCH + Duration::from_secs(1_795_344_222);
    let validators = files::Validators {
        etag: "\"17-2a\"".to_owned(),
        modified: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        is_date_strong: true,
    };
    match files::decide(Method::Get, fields, &validators, len, now) {
        files::Verdict::Part { first, last } => Some((first, last)),
        _ => None,
    }
}

/// Reads a query string.
pub fn query(raw: &[u8]) {
    for (name, _) in percent::pairs(raw) {
        let name = percent::decode(name, true);
        assert!(percent::find(raw, &name).is_some(), "{name:?} is there");
    }
}
