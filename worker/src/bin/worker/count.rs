//! How many rows a request asks for.

use std::num::{IntErrorKind, ParseIntError};

use worker::Request;

/// Most rows of one request.
const ROWS_MAX: usize = 500;

/// The number in the path (`/queries/20`) or in the query (`/queries?queries=20`), from 1 to 500; 1 if there is none.
pub fn of(request: &Request<'_>, name: &str) -> usize {
    request.param("count").or_else(|| request.query(name)).map_or(1, |text| clamp(text.parse()))
}

fn clamp(number: Result<usize, ParseIntError>) -> usize {
    match number {
        Ok(number) => number.clamp(1, ROWS_MAX),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => ROWS_MAX,
        Err(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_lies_between_1_and_500() {
        for (text, rows) in [
            ("20", 20),
            ("0", 1),
            ("-7", 1),
            ("", 1),
            ("foo", 1),
            ("1.5", 1),
            ("501", 500),
            ("99999999999999999999999", 500),
        ] {
            assert_eq!(clamp(text.parse()), rows, "{text}");
        }
    }
}
