//! The PROXY protocol, versions 1 and 2, without I/O: who the client of a load balancer really is.
//!
//! - The verdict does not depend on how the bytes were split: a prefix is incomplete or has the same verdict.
//! - A header is bounded ([`V1_BYTES_MAX`], [`V2_BYTES_MAX`]); what is longer is refused before it has arrived.
//! - Source: `doc/proxy-protocol.txt` of HAProxy.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1 in bytes, line end included.
pub const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2 in bytes: addresses and as much of additional fields (TLVs) as anybody sends.
pub const V2_BYTES_MAX: usize = 4096;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// Which versions are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
    /// Either.
    Any,
}

/// A header that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes it takes; HTTP begins after them.
    pub len: usize,
    /// The client. `None`: the connection's own peer is meant, as for a health check (`LOCAL`) or `UNKNOWN`.
    pub source: Option<SocketAddr>,
    /// Where the client connected to; there is one with every `source`.
    pub destination: Option<SocketAddr>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The connection does not begin with a header of an accepted version.
    Missing,
    /// It begins like a header and is none.
    Malformed,
    /// It does not have the checksum that it says it has.
    Damaged,
    /// It is longer than any header may be.
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ProxyError::Missing => "the PROXY header is missing",
            ProxyError::Malformed => "the PROXY header is malformed",
            ProxyError::Damaged => "the PROXY header has the wrong checksum",
            ProxyError::TooLong => "the PROXY header is too long",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Parses the header at the beginning of a connection. `Ok(None)`: nothing wrong so far, more bytes are needed.
///
/// # Errors
///
/// The first certain fault.
pub fn parse_proxy(bytes: &[u8], version: ProxyVersion) -> Result<Option<ProxyHeader>, ProxyError> {
    let (one, two) = match version {
        ProxyVersion::V1 => (true, false),
        ProxyVersion::V2 => (false, true),
        ProxyVersion::Any => (true, true),
    };
    match bytes.first() {
        None => Ok(None),
        Some(b'P') if one => parse_v1(bytes),
        Some(b'\r') if two => parse_v2(bytes),
        Some(_) => Err(ProxyError::Missing),
    }
}

/// Whether `bytes` begin with `start`; `None`: they end before that is certain.
fn begins_with(bytes: &[u8], start: &[u8]) -> Option<bool> {
    let common = bytes.len().min(start.len());
    if bytes[..common] != start[..common] {
        return Some(false);
    }
    (common == start.len()).then_some(true)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    match begins_with(bytes, b"PROXY ") {
        None => return Ok(None),
        Some(false) => return Err(ProxyError::Missing),
        Some(true) => (),
    }
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() == V1_BYTES_MAX { Err(ProxyError::TooLong) } else { Ok(None) };
    };
    let line = &bytes[..end];
    let ends = if begins_with(line, b"PROXY UNKNOWN ") == Some(true) {
        // What else it says is to be skipped, whatever it is.
        None
    } else {
        let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
        v1_ends(line).ok_or(ProxyError::Malformed)?
    };
    Ok(Some(ProxyHeader::new(end + 2, ends)))
}

impl ProxyHeader {
    fn new(len: usize, ends: Option<Ends>) -> ProxyHeader {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (source, destination) = ends.map(|(from, to)| (canonical(from), canonical(to))).unzip();
        ProxyHeader { len, source, destination }
    }
}

/// Source and destination.
type Ends = (SocketAddr, SocketAddr);

/// `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT`, or `PROXY UNKNOWN`.
fn v1_ends(line: &str) -> Option<Option<Ends>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    if family == "UNKNOWN" {
        return words.next().is_none().then_some(None);
    }
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    let ends = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    words.next().is_none().then_some(Some(ends))
}

/// A port without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    match begins_with(bytes, SIGNATURE) {
        None => return Ok(None),
        Some(false) => return Err(ProxyError::Missing),
        Some(true) => (),
    }
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed),
    };
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    // What a LOCAL connection says of addresses is to be skipped, whatever it is.
    let address_bytes = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        // Datagrams do not arrive over a stream; the rest is reserved.
        _ => return Err(ProxyError::Malformed),
    };
    let (Some(&high), Some(&low)) = (bytes.get(14), bytes.get(15)) else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest < address_bytes {
        return Err(ProxyError::Malformed);
    }
    let len = V2_FIXED_BYTES + rest;
    if V2_BYTES_MAX < len {
        return Err(ProxyError::TooLong);
    }
    let Some(body) = bytes.get(V2_FIXED_BYTES..len) else { return Ok(None) };
    if !is_local && !is_intact(&bytes[..len], V2_FIXED_BYTES + address_bytes) {
        return Err(ProxyError::Damaged);
    }
    let ends = match (is_local, family) {
        (false, 0x11) => v2_ends::<4>(body),
        (false, 0x21) => v2_ends::<16>(body),
        _ => None,
    };
    Ok(Some(ProxyHeader::new(len, ends)))
}

/// What is in front of `body`: two addresses of `N` bytes, then two ports.
fn v2_ends<const N: usize>(body: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let end = |address: usize, port: usize| {
        let address = body.get(address..)?.first_chunk::<N>()?;
        let port = body.get(port..)?.first_chunk::<2>()?;
        Some(SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port)))
    };
    Some((end(0, 2 * N)?, end(N, 2 * N + 2)?))
}

/// The kind of additional field that holds a checksum.
const CHECKSUM_KIND: u8 = 3;

/// Whether a header has the checksum that it names, if it does. Additional fields stand in `header` from `at` on; one that
/// is too long for the rest ends the search.
fn is_intact(header: &[u8], mut at: usize) -> bool {
    while let Some(&[kind, high, low]) = header.get(at..).and_then(|rest| rest.first_chunk::<3>()) {
        let start = at + 3;
        let Some(end) = start.checked_add(usize::from(u16::from_be_bytes([high, low]))) else {
            break;
        };
        let Some(value) = header.get(start..end) else { break };
        if kind == CHECKSUM_KIND {
            // It counts as zeros itself.
            let (before, after) = (&header[..start], &header[end..]);
            let counted = before.iter().chain(&[0; 4]).chain(after);
            return value == crc32c(counted).to_be_bytes();
        }
        at = end;
    }
    true
}

/// The checksum CRC-32C (Castagnoli), bit by bit: headers are short, and one comes per connection.
fn crc32c<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    !bytes.fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}
