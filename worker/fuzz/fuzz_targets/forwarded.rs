//! Fields by which proxies name their client: what the client itself put in front of them changes nothing.

#![no_main]

use std::net::IpAddr;

use http1::{FieldStorage, Parsed, Progress, Rules, parse_head};
use libfuzzer_sys::fuzz_target;
use worker::fuzzing::{clients, trace};

/// Addresses of proxies: 10.0.0.0/8 and fd00::/8.
fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    }
}

/// By X-Forwarded-For, and by Forwarded.
fn named(lines: &[u8]) -> Option<[Option<IpAddr>; 2]> {
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n"].concat();
    let mut storage = FieldStorage::new();
    let parsed = parse_head(&head, &Rules::default(), &mut Progress::default(), &mut storage);
    let Ok(Parsed::Complete(head)) = parsed else { return None };
    let _ = head.field("traceparent").map(trace);
    Some(clients(head.fields(), is_ours))
}

fuzz_target!(|bytes: &[u8]| {
    // As whole lines, and as the values of both fields.
    for value in [bytes, &[b"192.0.2.1, ", bytes].concat()] {
        let lines = [b"X-Forwarded-For: ", value, b"\r\nForwarded: ", value, b"\r\n"].concat();
        check(&lines);
    }
    check(bytes);
});

fn check(lines: &[u8]) {
    let Some(found) = named(lines) else { return };
    let front = b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6;by=\"\r\n";
    let spoofed = named(&[front, lines].concat());
    for (found, spoofed) in found.into_iter().zip(spoofed.into_iter().flatten()) {
        match found {
            // A stranger: nobody vouches for what he says.
            Some(address) if !is_ours(address) => assert_eq!(spoofed, found),
            _ => (),
        }
    }
}
