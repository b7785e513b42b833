//! The PROXY header in front of a connection: once it is enabled, nothing is served without it.

use http1::{Exchange, Refusal};
use net::{Peer, parse_proxy};
use scoreboard::Counter;

use super::{Connection, Stage, State};
use crate::access::reason;
use crate::core::Core;
use crate::peer::PeerText;

impl Connection {
    /// Takes the header off the front of `bytes`. From then on the connection has the address that it names.
    pub(super) fn feed_preface(&mut self, bytes: &[u8], core: &mut Core) -> usize {
        let Some(version) = core.trust.proxy else { return 0 };
        if !core.trust.may_send_proxy_header(&self.peer) {
            core.kernel.log.warning(format_args!(
                "PROXY header from a peer that may not send it ip={}",
                self.peer_text
            ));
            self.refuse_preface(bytes, 403, reason::FORBIDDEN, core);
            return bytes.len();
        }
        match parse_proxy(bytes, version) {
            Ok(None) => 0,
            Ok(Some(header)) => {
                if let Some(source) = header.source {
                    self.peer = Peer::Ip(source);
                    self.peer_text = PeerText::of(&self.peer);
                    self.proxied = header.destination.map(Box::new);
                }
                self.state = State::Head(Stage::New);
                header.len
            }
            Err(error) => {
                core.warn_invalid(&self.peer_text, &error);
                self.refuse_preface(bytes, 400, reason::BAD_REQUEST, core);
                bytes.len()
            }
        }
    }

    fn refuse_preface(&mut self, bytes: &[u8], status: u16, reason: &'static str, core: &mut Core) {
        core.block.add(Counter::RefusedBadRequest, 1);
        self.record_raw(bytes, core);
        self.refuse(Refusal::new(status, ""), Exchange::UNKNOWN, reason, core);
    }
}
