//! Which peers are trusted: addresses, networks, or everybody.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::Peer;

/// A list of addresses and networks, as gunicorn's `forwarded_allow_ips` has it.
///
/// ```
/// use net::AllowList;
///
/// let list = AllowList::parse(["127.0.0.1", "10.0.0.0/8"]).expect("valid");
/// assert!(list.contains("10.1.2.3".parse().expect("an address")));
/// assert!(!list.contains("11.0.0.1".parse().expect("an address")));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    everybody: bool,
    networks: Vec<Network>,
}

/// An address, a network, or `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Everybody,
    Network(Network),
}

/// The first address of a network and the length of its prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is neither an address, a network nor `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowError {
    text: String,
    why: &'static str,
}

impl fmt::Display for AllowError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {}", self.text, self.why)
    }
}

impl std::error::Error for AllowError {}

impl AllowList {
    /// Makes a list of its entries; white space around them counts for nothing.
    ///
    /// # Errors
    ///
    /// The first entry that is none. A network with bits beyond its prefix is an error, because one of the two is a slip.
    pub fn parse<T: AsRef<str>>(
        entries: impl IntoIterator<Item = T>,
    ) -> Result<AllowList, AllowError> {
        let mut list = AllowList::default();
        for entry in entries {
            match entry.as_ref().trim().parse()? {
                Entry::Everybody => list.everybody = true,
                Entry::Network(network) => list.networks.push(network),
            }
        }
        Ok(list)
    }

    /// Whether `address` is on the list. An IPv4 address in IPv6 clothes counts as itself.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.everybody || {
            let address = address.to_canonical();
            self.networks.iter().any(|network| network.contains(address))
        }
    }

    /// Whether a peer is trusted. One on a unix socket is: the file's permissions say who may connect.
    #[must_use]
    pub fn trusts(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Ip(address) => self.contains(address.ip()),
            Peer::Unix => true,
        }
    }
}

impl Network {
    /// One of IPv4 addresses in IPv6 clothes (`::ffff:10.0.0.0/104`) as what it is: addresses are compared without them.
    fn canonical(self) -> Network {
        match (self.address.to_canonical(), self.bits.checked_sub(96)) {
            (address @ IpAddr::V4(_), Some(bits)) if self.address.is_ipv6() => {
                Network { address, bits }
            }
            _ => self,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                prefix(u128::from(own.to_bits()) << 96, self.bits)
                    == prefix(u128::from(other.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                prefix(own.to_bits(), self.bits) == prefix(other.to_bits(), self.bits)
            }
            _ => false,
        }
    }
}

/// The first `bits` bits of `address`, all others 0.
fn prefix(address: u128, bits: u8) -> u128 {
    match u32::from(bits) {
        0 => 0,
        bits => address & (u128::MAX << 128u32.saturating_sub(bits)),
    }
}

impl FromStr for Entry {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Entry, AllowError> {
        let fault = |why| AllowError { text: text.to_owned(), why };
        if text == "*" {
            return Ok(Entry::Everybody);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| fault("is neither an address, a network nor *"))?;
        let (value, widest) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let Some(bits) = bits else {
            return Ok(Entry::Network(Network { address, bits: widest }.canonical()));
        };
        let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        match bits.parse() {
            Ok(bits) if is_number && bits <= widest => {
                if prefix(value, bits) == value {
                    Ok(Entry::Network(Network { address, bits }.canonical()))
                } else {
                    Err(fault("has bits set beyond its prefix"))
                }
            }
            _ => Err(fault("has no valid prefix length")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let list = AllowList::parse(["10.0.0.0/8", " 192.168.1.7 ", "fd00::/8", "::1"]).unwrap();
        for inside in ["10.255.255.255", "192.168.1.7", "fdff::1", "::1", "::ffff:10.0.0.1"] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.0", "9.255.255.255", "192.168.1.8", "fc00::1", "::2", "a00::"] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(list.trusts(&Peer::Unix));
    }

    #[test]
    fn ipv4_in_ipv6_clothes_is_ipv4() {
        let list = AllowList::parse(["::ffff:10.0.0.0/104", "::ffff:192.168.1.7"]).unwrap();
        for inside in ["10.255.0.1", "::ffff:10.1.2.3", "192.168.1.7"] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.168.1.8", "::a00:1"] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
        let every = AllowList::parse(["::ffff:0:0/96"]).unwrap();
        assert!(every.contains("203.0.113.9".parse().unwrap()));
        assert!(!every.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn everybody_is_a_star_and_nobody_an_empty_list() {
        let address = "203.0.113.9".parse().unwrap();
        assert!(AllowList::parse(["*"]).unwrap().contains(address));
        assert!(AllowList::parse(["0.0.0.0/0"]).unwrap().contains(address));
        assert!(!AllowList::default().contains(address));
    }

    #[test]
    fn slips_are_errors() {
        for slip in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "localhost",
            "::/129",
            "10.0.0",
        ] {
            assert!(AllowList::parse([slip]).is_err(), "{slip:?}");
        }
        assert_eq!(
            AllowList::parse(["10.0.0.1/8"]).unwrap_err().to_string(),
            "\"10.0.0.1/8\" has bits set beyond its prefix"
        );
    }
}
