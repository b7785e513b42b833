//! Whose word is taken about a request: trusted proxies, the scheme and the client they name, ids they pass on.
//!
//! - Trust belongs to the peer of the connection, never to what a header says.
//! - What is only asked for now and then (the client's address, the trace) is looked for when it is asked for.

mod client;
mod id;

use std::net::IpAddr;

use http1::{Fields, Head};
use net::{AllowList, Peer, ProxyVersion};
use shared::settings::{ProxyProtocol, RealIp, Settings};

#[cfg(fuzzing)]
pub(crate) use client::{forwarded, x_forwarded_for};
pub use id::Trace;
pub(crate) use id::{Ids, hex, is_valid_id};

/// What the settings say about proxies, ready for use.
#[derive(Debug)]
pub(crate) struct Trust {
    forwarders: AllowList,
    senders: AllowList,
    /// Versions of the PROXY header that connections begin with; `None`: they begin with HTTP.
    pub(crate) proxy: Option<ProxyVersion>,
    /// Fields that name the scheme.
    scheme_fields: Vec<SchemeField>,
    /// Bit N: one of these names has N bytes (modulo 64).
    scheme_lengths: u64,
    real_ip: RealIp,
    /// Whether every request gets an id.
    pub(crate) gives_ids: bool,
}

/// A field by which a proxy says how its client came.
#[derive(Debug)]
struct SchemeField {
    name: Box<[u8]>,
    /// The value that means https; every other means http.
    secure: Box<[u8]>,
}

/// Fields of a request contradict each other about the scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction;

impl Trust {
    pub(crate) fn of(settings: &Settings) -> Trust {
        // Checked when they were read; settings that are not checked trust nobody.
        let list = |entries: &[String]| AllowList::parse(entries).unwrap_or_default();
        let scheme_fields: Vec<SchemeField> = settings
            .secure_scheme_headers
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| SchemeField {
                name: name.as_bytes().into(),
                secure: value.as_bytes().into(),
            })
            .collect();
        Trust {
            forwarders: list(&settings.forwarded_allow_ips),
            senders: list(&settings.proxy_allow_ips),
            proxy: match settings.proxy_protocol {
                ProxyProtocol::Off => None,
                ProxyProtocol::V1 => Some(ProxyVersion::V1),
                ProxyProtocol::V2 => Some(ProxyVersion::V2),
                ProxyProtocol::Auto => Some(ProxyVersion::Any),
            },
            scheme_lengths: scheme_fields
                .iter()
                .fold(0, |mask, field| mask | 1 << (field.name.len() % 64)),
            scheme_fields,
            real_ip: settings.real_ip,
            gives_ids: settings.request_id,
        }
    }

    /// Whether a peer's forwarding fields are believed.
    pub(crate) fn trusts(&self, peer: &Peer) -> bool {
        self.forwarders.trusts(peer)
    }

    /// Whether a peer may send a PROXY header.
    pub(crate) fn may_send_proxy_header(&self, peer: &Peer) -> bool {
        self.senders.trusts(peer)
    }

    /// Whether a trusted peer says that its client came by https.
    #[inline]
    pub(crate) fn says_https(&self, fields: Fields<'_>) -> Result<bool, Contradiction> {
        let mut said = None;
        for field in fields.iter() {
            if self.scheme_lengths >> (field.name.len() % 64) & 1 == 0 {
                continue;
            }
            for SchemeField { name, secure } in &self.scheme_fields {
                if field.name.eq_ignore_ascii_case(name) {
                    let is_secure = field.value == &**secure;
                    if *said.get_or_insert(is_secure) != is_secure {
                        return Err(Contradiction);
                    }
                }
            }
        }
        Ok(said.unwrap_or(false))
    }
}

/// How a request came here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Via<'r> {
    pub(crate) peer: &'r Peer,
    is_trusted: bool,
    is_https: bool,
    trust: &'r Trust,
    /// The id that the request was given.
    id: Option<&'r str>,
}

impl<'r> Via<'r> {
    pub(crate) fn new(
        peer: &'r Peer,
        is_trusted: bool,
        is_https: bool,
        trust: &'r Trust,
        id: Option<&'r str>,
    ) -> Via<'r> {
        Via { peer, is_trusted, is_https, trust, id }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// The client: the peer, or whom a trusted peer names.
    pub(crate) fn client(&self, head: &Head<'_>) -> Option<IpAddr> {
        let peer = match self.peer {
            Peer::Ip(address) => Some(address.ip()),
            Peer::Unix => None,
        };
        let is_trusted = |address| self.trust.forwarders.contains(address);
        match self.trust.real_ip {
            RealIp::Off => peer,
            // Whom a PROXY header names stands nearer than all that the fields say: if that is a stranger, it is the client.
            _ if !self.is_trusted || !self.trust.trusts(self.peer) => peer,
            RealIp::XForwardedFor => client::x_forwarded_for(head.fields(), is_trusted).or(peer),
            RealIp::Forwarded => client::forwarded(head.fields(), is_trusted).or(peer),
        }
    }

    /// The id that was given, or a plain one that the client sent.
    pub(crate) fn request_id<'h>(&self, head: &Head<'h>) -> Option<&'h str>
    where
        'r: 'h,
    {
        self.id.or_else(|| sent_id(head))
    }
}

/// The client's X-Request-ID, if it is a plain one.
pub(crate) fn sent_id<'h>(head: &Head<'h>) -> Option<&'h str> {
    let value = std::str::from_utf8(head.field("x-request-id")?).ok()?;
    is_valid_id(value).then_some(value)
}
