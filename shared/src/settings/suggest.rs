//! The nearest known name to one that is not known.

/// Most edits that still count as a slip of the keyboard, for a long name.
const EDITS_MAX: usize = 3;

/// The candidate nearest to `name`, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let allowed = (name.len() / 3).clamp(1, EDITS_MAX);
    candidates
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance by bytes; case, `-` and `_` make no difference.
fn edits(a: &str, b: &str) -> usize {
    let fold = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    let (a, b): (Vec<u8>, Vec<u8>) = (a.bytes().map(fold).collect(), b.bytes().map(fold).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_none() {
        let known = ["timeout", "workers", "worker_connections", "bind"];
        for (slip, want) in
            [("timout", Some("timeout")), ("Worker", Some("workers")), ("bnid", None)]
        {
            assert_eq!(nearest(slip, known.into_iter()), want, "{slip}");
        }
        assert_eq!(nearest("worker-conections", known.into_iter()), Some("worker_connections"));
        assert_eq!(nearest("listen", known.into_iter()), None);
    }
}
