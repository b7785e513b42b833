//! A client's address as text, made once per connection.

use std::fmt::{self, Write};

use net::Peer;

/// The address without its port, as the log and the scoreboard show it; empty for a unix socket.
///
/// 46 bytes hold every address: an IPv6 one with a mapped IPv4 tail is the longest.
#[derive(Clone, Copy)]
pub(crate) struct PeerText {
    bytes: [u8; 46],
    length: u8,
}

impl PeerText {
    pub(crate) fn of(peer: &Peer) -> PeerText {
        let mut text = PeerText { bytes: [0; 46], length: 0 };
        if let Peer::Ip(address) = peer {
            // It fits; what would not is cut.
            let _ = write!(text, "{}", address.ip());
        }
        text
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Write for PeerText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = usize::from(self.length);
        let room = self.bytes.len() - start;
        let text = &text.as_bytes()[..text.len().min(room)];
        self.bytes[start..start + text.len()].copy_from_slice(text);
        self.length += text.len() as u8;
        Ok(())
    }
}

impl fmt::Display for PeerText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_text_without_port() {
        let text = |address: &str| PeerText::of(&Peer::Ip(address.parse().unwrap())).to_string();
        assert_eq!(text("127.0.0.1:80"), "127.0.0.1");
        assert_eq!(
            text("[1111:2222:3333:4444:5555:6666:7777:8888]:80"),
            "1111:2222:3333:4444:5555:6666:7777:8888"
        );
        assert_eq!(PeerText::of(&Peer::Unix).to_string(), "");
    }
}
