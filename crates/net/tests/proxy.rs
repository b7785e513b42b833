//! PROXY headers: each is cut at every byte and must have the same outcome.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use net::{ProxyError, ProxyHeader, ProxyVersion, V2_BYTES_MAX, parse_proxy};

type Outcome = Result<Option<ProxyHeader>, ProxyError>;

#[track_caller]
fn check(bytes: &[u8], version: ProxyVersion, want: Outcome) {
    assert_eq!(parse_proxy(bytes, version), want, "{}", bytes.escape_ascii());
    for cut in 0..bytes.len() {
        let early = parse_proxy(&bytes[..cut], version);
        assert!(
            early == Ok(None) || early == want,
            "{} cut at {cut}: {early:?}",
            bytes.escape_ascii()
        );
    }
}

/// With a request behind it. `ends`: the client, and where it connected to.
#[track_caller]
fn accepted(header: &[u8], version: ProxyVersion, ends: Option<(&str, &str)>) {
    let (source, destination) =
        ends.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).unzip();
    let whole = [header, b"GET / HTTP/1.1\r\n"].concat();
    check(&whole, version, Ok(Some(ProxyHeader { len: header.len(), source, destination })));
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

/// Of the header in `a_checksum_in_version_2_is_heeded`, computed by another program.
const SUM: [u8; 4] = [0x6a, 0xb2, 0x25, 0xde];

#[test]
fn version_1_names_the_client() {
    use ProxyVersion::{Any, V1};
    accepted(
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        V1,
        Some(("192.0.2.1:56324", "198.51.100.2:443")),
    );
    accepted(
        b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
        Any,
        Some(("[2001:db8::1]:1", "[::1]:65535")),
    );
    accepted(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 1\r\n", Any, Some(("192.0.2.1:0", "[::1]:1")));
    // The longest there can be.
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
    assert_eq!(longest.len(), 107);
    accepted(longest.as_bytes(), V1, None);
    accepted(b"PROXY UNKNOWN\r\n", V1, None);
    // Whatever it says, in whatever bytes.
    accepted(b"PROXY UNKNOWN \xff\0 ::1\r\n", V1, None);
}

#[test]
fn version_1_is_strict() {
    for line in [
        "PROXY",
        "PROXY ",
        "PROXY TCP4",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 ",
        "PROXY TCP4  192.0.2.1 198.51.100.2 56324 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 056324 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 443",
        "PROXY TCP4 ::1 ::1 1 443",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 443",
        "PROXY tcp4 192.0.2.1 198.51.100.2 1 443",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 443",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 443\n",
        "PROXY UNKNOWN\u{e9} 1",
        "PROXY \u{fffd}",
    ] {
        let want = if line == "PROXY" { ProxyError::Missing } else { ProxyError::Malformed };
        check(format!("{line}\r\n").as_bytes(), ProxyVersion::V1, Err(want));
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 15));
    check(long.as_bytes(), ProxyVersion::V1, Err(ProxyError::TooLong));
    check(b"PROXY TCP4 \xff\r\n", ProxyVersion::V1, Err(ProxyError::Malformed));
}

#[test]
fn version_2_names_the_client_and_its_additional_fields_are_skipped() {
    use ProxyVersion::{Any, V2};
    let four = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 1, 187];
    accepted(&v2(0x21, 0x11, &four), V2, Some(("192.0.2.1:56324", "198.51.100.2:443")));
    let tlvs = [&four[..], &[4, 0, 2, 1, 2], &[0xff; 500]].concat();
    accepted(&v2(0x21, 0x11, &tlvs), Any, Some(("192.0.2.1:56324", "198.51.100.2:443")));
    let mut six = vec![0x20, 1, 0x0d, 0xb8];
    six.extend([0; 28]);
    six.extend([0, 80, 1, 187]);
    accepted(&v2(0x21, 0x21, &six), V2, Some(("[2001:db8::]:80", "[::]:443")));
    accepted(&v2(0x21, 0x31, &[b'a'; 216]), V2, None);
    accepted(&v2(0x21, 0x00, b""), V2, None);
}

#[test]
fn a_checksum_in_version_2_is_heeded() {
    let four = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 1, 187];
    let with = |sum: [u8; 4]| {
        v2(0x21, 0x11, &[&four[..], b"\x02\0\x01a", &[3, 0, 4], &sum, b"\x04\0\0"].concat())
    };
    let ends = Some(("192.0.2.1:56324", "198.51.100.2:443"));
    accepted(&with(SUM), ProxyVersion::V2, ends);
    for bad in [[0; 4], [SUM[0], SUM[1], SUM[2], SUM[3] ^ 1]] {
        check(&with(bad), ProxyVersion::V2, Err(ProxyError::Damaged));
    }
    // A checksum has four bytes.
    let short = v2(0x21, 0x11, &[&four[..], &[3, 0, 1, 0]].concat());
    check(&short, ProxyVersion::V2, Err(ProxyError::Damaged));
    // A damaged address is what it is for.
    let mut damaged = with(SUM);
    damaged[16] ^= 1;
    check(&damaged, ProxyVersion::V2, Err(ProxyError::Damaged));
}

#[test]
fn health_checks_of_haproxy_are_local_and_empty() {
    accepted(&v2(0x20, 0x00, b""), ProxyVersion::V2, None);
    // Whatever addresses it names, and of whatever family, they are not the client's.
    accepted(&v2(0x20, 0x11, &[1; 12]), ProxyVersion::V2, None);
    accepted(&v2(0x20, 0xff, &[1; 3]), ProxyVersion::V2, None);
}

#[test]
fn version_2_is_strict() {
    use ProxyError::{Malformed, TooLong};
    for (command, family) in [
        (0x11, 0x11),
        (0x22, 0x11),
        (0x00, 0),
        (0x21, 0x12),
        (0x21, 0x22),
        (0x21, 0x41),
        (0x21, 0x13),
    ] {
        check(&v2(command, family, &[1; 216]), ProxyVersion::V2, Err(Malformed));
    }
    // Too short for its addresses.
    check(&v2(0x21, 0x11, &[1; 11]), ProxyVersion::V2, Err(Malformed));
    check(&v2(0x21, 0x21, &[1; 35]), ProxyVersion::V2, Err(Malformed));
    accepted(&v2(0x20, 0, &vec![0; V2_BYTES_MAX - 16]), ProxyVersion::V2, None);
    check(&v2(0x20, 0, &vec![0; V2_BYTES_MAX - 15]), ProxyVersion::V2, Err(TooLong));
}

#[test]
fn what_is_no_header_of_an_accepted_version_is_missing() {
    use ProxyVersion::{Any, V1, V2};
    let (one, two) = (&b"PROXY UNKNOWN\r\n"[..], v2(0x20, 0, b""));
    for (bytes, version) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], Any),
        (b"POST / HTTP/1.1\r\n\r\n", Any),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", Any),
        (&two, V1),
        (one, V2),
    ] {
        check(bytes, version, Err(ProxyError::Missing));
    }
}
