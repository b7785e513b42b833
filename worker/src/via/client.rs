//! The client behind trusted proxies: X-Forwarded-For, and Forwarded (RFC 7239).
//!
//! Each proxy appends whom it saw, so the list is read from its end: the first address that is not itself trusted is the
//! client, for nobody vouches for what stands before it. What cannot be read ends the search.

use std::net::{IpAddr, SocketAddr};

use http1::Fields;

/// Most addresses looked at: a longer chain of proxies does not exist.
const HOPS_MAX: usize = 64;

/// The rightmost untrusted address of X-Forwarded-For, or the leftmost if all are trusted.
pub(crate) fn x_forwarded_for(
    fields: Fields<'_>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let named = |name: &[u8]| name.eq_ignore_ascii_case(b"x-forwarded-for");
    let nodes = fields
        .iter()
        .rev()
        .filter(|field| named(field.name))
        .flat_map(|field| field.value.rsplit(|&byte| byte == b','))
        .map(|node| address(node.trim_ascii()));
    pick(nodes, is_trusted)
}

/// As [`x_forwarded_for`], from the `for` parameters of Forwarded.
pub(crate) fn forwarded(fields: Fields<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let named = |name: &[u8]| name.eq_ignore_ascii_case(b"forwarded");
    let mut nodes = Vec::new();
    for field in fields.iter().filter(|field| named(field.name)) {
        // A field that breaks the grammar says nothing, and nothing before it can be vouched for.
        match elements(field.value) {
            Some(found) => nodes.extend(found),
            None => nodes = vec![None],
        }
    }
    pick(nodes.into_iter().rev(), is_trusted)
}

fn pick(
    nodes: impl Iterator<Item = Option<IpAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut last = None;
    for node in nodes.take(HOPS_MAX) {
        // Hidden or unreadable: the last one who is known is as far as we can see.
        let Some(node) = node else { break };
        last = Some(node);
        if !is_trusted(node) {
            break;
        }
    }
    last
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. A port
/// may be hidden behind a name (RFC 7239, §6.3): `192.0.2.1:_secret`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.split_once(":_").map_or(text, |(node, _)| node);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let found = match bare.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(found.to_canonical())
}

/// The node of each element of a Forwarded field; `None` in the place of one that is hidden. `None`: broken.
fn elements(value: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    let mut found = Vec::new();
    let mut node = None;
    let mut is_empty = true;
    let mut rest = value;
    loop {
        rest = rest.trim_ascii_start();
        if !matches!(rest, [] | [b',' | b';', ..]) {
            is_empty = false;
            let (name, after) = token(rest)?;
            let (value, after) = match after.strip_prefix(b"=")? {
                [b'"', quoted @ ..] => unquote(quoted)?,
                plain => token(plain).map(|(value, after)| (value.to_vec(), after))?,
            };
            if name.eq_ignore_ascii_case(b"for") {
                node = address(&value);
            }
            rest = after.trim_ascii_start();
        }
        match rest {
            [b';', after @ ..] => {
                rest = after;
                continue;
            }
            [] | [b',', ..] => (),
            _ => return None,
        }
        // An empty element of a list is none (RFC 9110, §5.6.1).
        if !std::mem::replace(&mut is_empty, true) {
            found.push(node.take());
        }
        match rest {
            [_, after @ ..] => rest = after,
            [] => return Some(found),
        }
    }
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
    (end != 0).then(|| text.split_at(end))
}

/// The inside of a quoted string, and what stands behind it.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut plain = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((plain, &text[at + 1..])),
            b'\\' => plain.push(*bytes.next()?.1),
            byte => plain.push(byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http1::{FieldStorage, Parsed, Progress, Rules, parse_head};
    use net::AllowList;

    #[track_caller]
    fn check(lines: &[&str], want: Option<&str>) {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", lines.join("\r\n"));
        let mut storage = FieldStorage::new();
        let parsed =
            parse_head(head.as_bytes(), &Rules::default(), &mut Progress::default(), &mut storage);
        let Ok(Parsed::Complete(head)) = parsed else { panic!("{parsed:?}") };
        let trusted = AllowList::parse(["127.0.0.1", "10.0.0.0/8", "fd00::/8"]).unwrap();
        let is_trusted = |address| trusted.contains(address);
        let found = if lines[0].starts_with("Forwarded") {
            forwarded(head.fields(), is_trusted)
        } else {
            x_forwarded_for(head.fields(), is_trusted)
        };
        assert_eq!(found, want.map(|text| text.parse().unwrap()), "{lines:?}");
    }

    #[test]
    fn the_rightmost_address_that_nobody_trusts_is_the_client() {
        check(&["X-Forwarded-For: 192.0.2.1"], Some("192.0.2.1"));
        // What stands before it may have been sent by the client itself.
        check(&["X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.3"], Some("192.0.2.1"));
        check(
            &["X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 192.0.2.1,10.1.1.1"],
            Some("192.0.2.1"),
        );
        check(&["X-Forwarded-For: 10.0.0.9, 10.0.0.3"], Some("10.0.0.9"));
        check(&["X-Forwarded-For: [2001:db8::1]:443, fd00::1"], Some("2001:db8::1"));
        check(&["X-Forwarded-For: ::ffff:192.0.2.1"], Some("192.0.2.1"));
        check(&["X-Forwarded-For: 192.0.2.1:80"], Some("192.0.2.1"));
        // What cannot be read hides everything before it.
        check(&["X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.3"], Some("10.0.0.3"));
        check(&["X-Forwarded-For: unknown"], None);
        check(&["X-Forwarded-For: 192.0.2.1, "], None);
        check(&["X-Other: 192.0.2.1"], None);
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        check(&["Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43"], Some("192.0.2.60"));
        check(&["Forwarded: For=\"[2001:db8:cafe::17]:4711\""], Some("2001:db8:cafe::17"));
        check(&["Forwarded: for=6.6.6.6, for=192.0.2.43 , for=10.0.0.1"], Some("192.0.2.43"));
        check(
            &["Forwarded: for=6.6.6.6", "Forwarded: host=\"a,b;for=7.7.7.7\";for=192.0.2.43"],
            Some("192.0.2.43"),
        );
        check(&["Forwarded: for=\"192.0.2.4\\3\""], Some("192.0.2.43"));
        check(&["Forwarded: , for=192.0.2.43,, for=10.0.0.1 , "], Some("192.0.2.43"));
        check(&["Forwarded: for=192.0.2.43", "Forwarded: by=_us, for=10.0.0.1"], Some("10.0.0.1"));
        check(&["Forwarded: for=192.0.2.43, for=_hidden, for=10.0.0.1"], Some("10.0.0.1"));
        check(&["Forwarded: for=unknown"], None);
        check(&["Forwarded: for=\"192.0.2.43:_p1\""], Some("192.0.2.43"));
        check(&["Forwarded: for=\"[2001:db8::17]:_p1\";by=_us"], Some("2001:db8::17"));
        // Broken: no guess is made.
        check(&["Forwarded: for=192.0.2.43, for=\"10.0.0.1"], None);
        check(&["Forwarded: for 192.0.2.43"], None);
    }
}
