//! A request, as a handler sees it: borrowed from the read buffer, nothing copied.
//!
//! - Fields keep wire order and case; what is text is decoded when asked for.
//! - An [`OwnedRequest`] is a copy for handlers that are an `async fn`; [`owned`](crate::owned) makes it for them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

use http1::{Fields, Head, Method, Version};
use net::Peer;
use router::Params;
use serde::de::DeserializeOwned;

use crate::body::RequestBody;
use crate::error::Error;
use crate::percent;
use crate::service::Content;
use crate::spool::Spooled;
use crate::trailers::Trailers;
use crate::via::{Trace, Via};

/// A request. Valid while the handler function runs; what a future needs of it is taken out before.
pub struct Request<'r> {
    pub(crate) head: &'r Head<'r>,
    pub(crate) via: &'r Via<'r>,
    pub(crate) params: Params<'r, 'r>,
    pub(crate) content: Content<'r>,
}

impl<'r> Request<'r> {
    /// The method.
    #[must_use]
    pub fn method(&self) -> Method<'r> {
        self.head.method()
    }

    /// The path as sent, not decoded; begins with `/`.
    #[must_use]
    pub fn path(&self) -> &'r str {
        text(self.head.path())
    }

    /// The request target as sent: path and query.
    #[must_use]
    pub fn target(&self) -> &'r str {
        text(self.head.target())
    }

    /// The protocol version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// The decoded part of the path that stands in the place of `{name}` in the route.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Cow<'r, str>> {
        self.params.get(name).map(|raw| percent::decode(raw, false))
    }

    /// The decoded value of the first pair called `name` in the query; empty for a name without `=`.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'r, str>> {
        self.head.query().and_then(|query| percent::find(query, name))
    }

    /// The query as sent: what stands after `?`.
    #[must_use]
    pub fn query_string(&self) -> Option<&'r str> {
        self.head.query().map(text)
    }

    /// The value of the first field called `name` (case does not matter), if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'r str> {
        self.head.field(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All header fields, in wire order.
    #[must_use]
    pub fn headers(&self) -> Fields<'r> {
        self.head.fields()
    }

    /// The host and port that were asked for.
    #[must_use]
    pub fn host(&self) -> Option<&'r str> {
        self.head.host().and_then(|host| std::str::from_utf8(host).ok())
    }

    /// Who sent it.
    #[must_use]
    pub fn peer(&self) -> &'r Peer {
        self.via.peer
    }

    /// `https` if a trusted proxy says that its client came by it, else `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.via.scheme()
    }

    /// The client's address: the peer's, or with the setting `real_ip` whom trusted proxies name. `None`: a unix socket,
    /// and nobody was named.
    #[must_use]
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.via.client(self.head)
    }

    /// The request's id: what the client sent as X-Request-ID, if that is plain; with the setting `request_id` there
    /// always is one.
    #[must_use]
    pub fn request_id(&self) -> Option<&'r str> {
        self.via.request_id(self.head)
    }

    /// The trace that the request belongs to, if `traceparent` names one.
    #[must_use]
    pub fn trace(&self) -> Option<Trace<'r>> {
        self.head.field("traceparent").and_then(Trace::parse)
    }

    /// The whole body: it was gathered before a plain handler is called. Empty in an asynchronous handler,
    /// which has [`Request::body`].
    ///
    /// One that was too long for memory (`body_memory_max`) is read back here; [`Request::spooled`] is its file.
    #[must_use]
    pub fn bytes(&self) -> &'r [u8] {
        match self.content {
            Content::Gathered(body) => body.slice(),
            Content::None | Content::Stream { .. } => &[],
        }
    }

    /// The body of a plain handler's request where it was gathered: memory, or a file. `None` without a body.
    #[must_use]
    pub fn spooled(&self) -> Option<&'r Spooled> {
        match self.content {
            Content::Gathered(body) => Some(body),
            Content::None | Content::Stream { .. } => None,
        }
    }

    /// The fields after a plain handler's chunked body. In an asynchronous handler: [`RequestBody::trailers`].
    #[must_use]
    pub fn trailers(&self) -> &'r Trailers {
        const NONE: &Trailers = &Trailers::NONE;
        self.spooled().map_or(NONE, Spooled::trailers)
    }

    /// The whole body of a plain handler's request, read as JSON; 400 by `?` if it is not what was asked for.
    ///
    /// # Errors
    ///
    /// A refusal (400).
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(self.bytes()).map_err(|_| Error::status(400))
    }

    /// The body, to be read in an asynchronous handler's future. The first call takes it; later ones get an empty one.
    #[must_use]
    pub fn body(&self) -> RequestBody {
        match self.content {
            Content::None | Content::Gathered(_) => RequestBody::none(),
            Content::Stream { channel, bytes_max } => match channel.borrow_mut().take() {
                Some(channel) => RequestBody::of(&channel, bytes_max),
                None => RequestBody::none(),
            },
        }
    }

    /// A copy that can be kept; it takes the body with it.
    #[must_use]
    pub fn to_owned(&self) -> OwnedRequest {
        OwnedRequest::of(self)
    }
}

/// Paths, targets and queries hold visible ASCII only: the parser saw to it.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A request that can be kept: what [`owned`](crate::owned) hands to an `async fn`.
pub struct OwnedRequest {
    /// Everything that was copied, one after the other; the ranges below say what is where.
    bytes: Vec<u8>,
    method: Range<usize>,
    target: Range<usize>,
    path: Range<usize>,
    query: Option<Range<usize>>,
    fields: Vec<(Range<usize>, Range<usize>)>,
    params: Vec<(Range<usize>, Range<usize>)>,
    version: Version,
    peer: Peer,
    scheme: &'static str,
    client_addr: Option<IpAddr>,
    request_id: Option<Range<usize>>,
    body: RequestBody,
}

impl OwnedRequest {
    fn of(request: &Request<'_>) -> OwnedRequest {
        let mut bytes = Vec::with_capacity(2 * request.head.len());
        let mut keep = |part: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            start..bytes.len()
        };
        let head = request.head;
        let method = keep(head.method().as_str().as_bytes());
        let target = keep(head.target());
        let path = keep(head.path());
        let query = head.query().map(&mut keep);
        let fields =
            head.fields().iter().map(|field| (keep(field.name), keep(field.value))).collect();
        let params = request
            .params
            .iter()
            .map(|(name, value)| (keep(name.as_bytes()), keep(value)))
            .collect();
        let request_id = request.request_id().map(|id| keep(id.as_bytes()));
        OwnedRequest {
            bytes,
            method,
            target,
            path,
            query,
            fields,
            params,
            version: head.version(),
            peer: *request.via.peer,
            scheme: request.scheme(),
            client_addr: request.client_addr(),
            request_id,
            body: request.body(),
        }
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// The method, such as `GET`.
    #[must_use]
    pub fn method(&self) -> &str {
        text(self.part(&self.method))
    }

    /// The path as sent, not decoded.
    #[must_use]
    pub fn path(&self) -> &str {
        text(self.part(&self.path))
    }

    /// The request target as sent: path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        text(self.part(&self.target))
    }

    /// The protocol version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// As [`Request::param`].
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.params.iter().find(|(key, _)| self.part(key) == name.as_bytes())?;
        Some(percent::decode(self.part(value), false))
    }

    /// As [`Request::query`].
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query.as_ref().and_then(|query| percent::find(self.part(query), name))
    }

    /// As [`Request::header`].
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) =
            self.headers().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(value).ok()
    }

    /// Names and values of all header fields, in wire order.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (self.part(name), self.part(value)))
    }

    /// Who sent it.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// As [`Request::scheme`].
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// As [`Request::client_addr`].
    #[must_use]
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.client_addr
    }

    /// As [`Request::request_id`].
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref().map(|range| text(self.part(range)))
    }

    /// As [`Request::trace`].
    #[must_use]
    pub fn trace(&self) -> Option<Trace<'_>> {
        Trace::parse(self.header("traceparent")?.as_bytes())
    }

    /// The body, to be read piece by piece.
    pub fn body_mut(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// The body alone.
    #[must_use]
    pub fn into_body(self) -> RequestBody {
        self.body
    }
}
