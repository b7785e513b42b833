//! Where one client connection stands, from accept to close.
//!
//! - States carry the data valid in them; [`State::next`] alone moves them; interest and deadline are derived.
//! - The caller owns the socket and the buffers, and does what a new state demands: on [`State::Lingering`] it shuts
//!   down its sending side, on [`State::Closing`] it closes.
//! - A request is parsed only in a state where [`State::may_parse`] holds: never while a body is unread, so a pipelined
//!   request is never taken from inside a body.

use std::time::{Duration, Instant};

/// Most bytes of an unread body that are read and thrown away to keep a connection.
pub const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes that a lingering close reads and throws away.
pub const LINGER_BYTES_MAX: u64 = 256 * 1024;

/// What follows the response in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request.
    KeepAlive,
    /// Close: the client asked for it, so it sends nothing more.
    Close,
    /// Close because the server wants to: the client may be sending, and closing on unread bytes would reset the
    /// connection and lose the response. Shut down the sending side, read to the end, then close.
    Linger,
}

impl After {
    /// Decides what follows, from what the client wants and whether the server wants to keep the connection.
    #[must_use]
    pub fn of(client_keeps: bool, server_keeps: bool) -> After {
        match (client_keeps, server_keeps) {
            (true, true) => After::KeepAlive,
            (true, false) => After::Linger,
            (false, _) => After::Close,
        }
    }
}

/// How much of the request's body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// All of it, or there is none.
    Complete,
    /// Not all. `since`: when the last of it came.
    Arriving {
        /// When the last of it came.
        since: Instant,
    },
    /// None, and the client may be waiting for `100 Continue`.
    Awaited {
        /// When the head was parsed.
        since: Instant,
    },
}

/// Where one client connection stands. Only [`State::next`] moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A request has begun to arrive, or the connection is new. `since` starts the header timeout.
    Reading {
        /// The accept, or the first byte.
        since: Instant,
    },
    /// One request is with its handler; pipelined ones wait, unparsed, in the read buffer.
    Handling {
        /// How much of the request's body has come.
        body: Body,
        /// What follows the response.
        after: After,
        /// When the request was complete enough to be handled: starts the request timeout.
        since: Instant,
    },
    /// The response is complete; some of it may not have left yet. What still comes of the body is thrown away.
    Writing {
        /// How much of the request's body has come.
        body: Body,
        /// What follows the response.
        after: After,
        /// When the socket last took bytes: starts the write timeout.
        since: Instant,
    },
    /// The response has left; the rest of the request's body is read and thrown away.
    Discarding {
        /// When the last of it came.
        since: Instant,
    },
    /// Idle between requests. A drain leaves it open, for the next request may be on its way: it is answered with
    /// `Connection: close`.
    KeepAlive {
        /// When the last response had left: starts the keep-alive timeout.
        since: Instant,
    },
    /// Everything was said and the sending side is shut down; what still arrives is thrown away until the peer closes.
    Lingering {
        /// When the sending side was shut down. It is not renewed.
        since: Instant,
    },
    /// Terminal: the event loop closes the socket and forgets the connection.
    Closing,
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were read from the socket.
    BytesRead,
    /// A head was parsed. The response may still decide to close ([`Event::CloseAfter`]).
    HeadParsed {
        /// What follows the response, as far as the head and the server's own plans say.
        after: After,
        /// Whether a body follows the head.
        has_body: bool,
        /// Whether the client may wait for `100 Continue`.
        expects_continue: bool,
    },
    /// `100 Continue` was put into the write buffer.
    ContinueSent,
    /// The end of the request's body was reached.
    BodyDone,
    /// The response in hand says `Connection: close`, its framing demands it, or the request's body turned out to have
    /// no end that can be found.
    CloseAfter,
    /// The whole response is in the write buffer.
    ResponseBuilt,
    /// A refusal is in the write buffer, and nothing the client sends can be understood any more.
    Refused,
    /// The socket took some bytes, not all.
    BytesWritten,
    /// The socket took everything there was.
    Flushed {
        /// Bytes in the read buffer that are not parsed.
        unread: usize,
    },
    /// What is read only to be thrown away is more than its limit, or is no body.
    DiscardGivenUp,
    /// The worker drains and its time is over for idle connections.
    CloseIdle,
    /// The deadline of the state has passed and nothing is to be said about it. To say 408 first: [`Event::Refused`].
    TimedOut,
    /// The peer closed its sending side.
    PeerClosed,
    /// The socket reported an error.
    Failed,
}

/// The time limits of connections; `None` is without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head, or the accept, to its end.
    pub header: Option<Duration>,
    /// Between two pieces of a body.
    pub body_idle: Option<Duration>,
    /// From a request's head to its complete response.
    pub request: Option<Duration>,
    /// Between two times that the socket takes bytes.
    pub write_stall: Option<Duration>,
    /// Idle time between requests.
    pub keep_alive: Option<Duration>,
    /// How long a lingering close waits for the peer.
    pub linger: Option<Duration>,
}

/// What the event loop should be told about by the poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
}

impl State {
    /// The state of a connection that was just accepted.
    #[must_use]
    pub fn new(now: Instant) -> State {
        State::Reading { since: now }
    }

    /// Returns the state after `event`; `now` is the loop's clock, read once per wake-up.
    #[must_use]
    pub fn next(self, event: Event, now: Instant) -> State {
        use {Body as B, Event as E, State as S};
        match (self, event) {
            // From anywhere.
            (S::Closing, _) | (_, E::Failed) => S::Closing,

            // Reading. `since` stays: the header timeout runs from the first byte, or a slow sender renews it.
            (S::KeepAlive { .. }, E::BytesRead) => S::Reading { since: now },
            (S::Reading { .. }, E::BytesRead) => self,
            // From Writing too: a pipelined request is taken first, so one write carries both answers.
            (
                S::Reading { .. }
                | S::KeepAlive { .. }
                | S::Writing { body: B::Complete, after: After::KeepAlive, .. },
                E::HeadParsed { after, has_body, expects_continue },
            ) => {
                let body = match (has_body, expects_continue) {
                    (false, _) => B::Complete,
                    (true, false) => B::Arriving { since: now },
                    (true, true) => B::Awaited { since: now },
                };
                S::Handling { body, after, since: now }
            }

            // The request's body. Bytes that come unasked make `100 Continue` needless.
            (S::Handling { body, after, since }, E::BytesRead | E::ContinueSent) => {
                S::Handling { body: body.renewed(now), after, since }
            }
            (S::Writing { body, after, since }, E::BytesRead) => {
                S::Writing { body: body.renewed(now), after, since }
            }
            (S::Handling { after, since, .. }, E::BodyDone) => {
                S::Handling { body: B::Complete, after, since }
            }
            (S::Writing { after, since, .. }, E::BodyDone) => {
                S::Writing { body: B::Complete, after, since }
            }
            (S::Discarding { .. }, E::BytesRead) => S::Discarding { since: now },
            (S::Discarding { .. }, E::BodyDone) => S::KeepAlive { since: now },

            // The response.
            (S::Handling { body, after, since }, E::CloseAfter) => {
                S::Handling { body, after: after.closing(), since }
            }
            (S::Writing { body, after, since }, E::CloseAfter) => {
                S::Writing { body, after: after.closing(), since }
            }
            (S::Handling { body, after, .. }, E::ResponseBuilt) => {
                S::Writing { body, after, since: now }
            }
            (S::Reading { .. } | S::KeepAlive { .. }, E::Refused) => {
                S::Writing { body: B::Complete, after: After::Linger, since: now }
            }
            (S::Handling { body, .. } | S::Writing { body, .. }, E::Refused) => {
                S::Writing { body, after: After::Linger, since: now }
            }
            (S::Writing { body, after, .. }, E::BytesWritten) => {
                S::Writing { body, after, since: now }
            }
            // A part of a streamed response, or `100 Continue`.
            (S::Handling { .. }, E::BytesWritten | E::Flushed { .. }) => self,
            (S::Writing { body, after, .. }, E::Flushed { unread }) => match (body, after) {
                (B::Complete, After::KeepAlive) if unread == 0 => S::KeepAlive { since: now },
                (B::Complete, After::KeepAlive) => S::Reading { since: now },
                (B::Complete, After::Close) if unread == 0 => S::Closing,
                (B::Arriving { .. }, After::KeepAlive) => S::Discarding { since: now },
                // Whether the body will come without `100 Continue` is the client's choice: no telling what comes next.
                (B::Awaited { .. } | B::Arriving { .. } | B::Complete, _) => {
                    S::Lingering { since: now }
                }
            },

            // The end.
            (S::Lingering { .. }, E::BytesRead) => self,
            (S::Discarding { .. }, E::DiscardGivenUp) => S::Lingering { since: now },
            (S::Lingering { .. }, E::DiscardGivenUp | E::PeerClosed) => S::Closing,
            (S::KeepAlive { .. }, E::CloseIdle) => S::Closing,
            (_, E::CloseIdle) => self,
            // The peer sends no more, but may still read: a complete request gets its answer.
            (S::Handling { body: B::Complete, since, .. }, E::PeerClosed) => {
                S::Handling { body: B::Complete, after: After::Close, since }
            }
            (S::Writing { since, .. }, E::PeerClosed) => {
                S::Writing { body: B::Complete, after: After::Close, since }
            }
            (_, E::PeerClosed | E::TimedOut) => S::Closing,
            // Interim answers and their bytes may be flushed in any state that reads.
            (
                S::Reading { .. }
                | S::KeepAlive { .. }
                | S::Discarding { .. }
                | S::Lingering { .. },
                E::Flushed { .. } | E::BytesWritten,
            ) => self,

            (state, event) => {
                debug_assert!(false, "{event:?} cannot happen in {state:?}");
                S::Closing // A broken invariant costs one connection, not the process.
            }
        }
    }

    /// Whether the next request may be parsed from the read buffer.
    #[must_use]
    pub fn may_parse(&self) -> bool {
        matches!(
            self,
            State::Reading { .. }
                | State::KeepAlive { .. }
                | State::Writing { body: Body::Complete, after: After::KeepAlive, .. }
        )
    }

    /// Whether the response in hand may leave the connection open: what [`Exchange`](crate::Exchange)`::keep_alive` is
    /// to be. False while the client may be waiting for `100 Continue`.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        matches!(
            self,
            State::Handling {
                body: Body::Complete | Body::Arriving { .. },
                after: After::KeepAlive,
                ..
            } | State::Writing {
                body: Body::Complete | Body::Arriving { .. },
                after: After::KeepAlive,
                ..
            }
        )
    }

    /// Whether nobody would miss the connection: no request has begun to arrive.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self, State::KeepAlive { .. })
    }

    /// Returns what to poll for. `has_unsent`: the write buffer is not empty. `wants_body`: whoever reads the body has
    /// room for more of it.
    #[must_use]
    pub fn interest(&self, has_unsent: bool, wants_body: bool) -> Interest {
        let read = match self {
            State::Reading { .. }
            | State::KeepAlive { .. }
            | State::Discarding { .. }
            | State::Lingering { .. } => true,
            State::Handling { body: Body::Arriving { .. } | Body::Awaited { .. }, .. } => {
                wants_body
            }
            // The handler is done with the body, and the client may not read before it has sent all of it.
            State::Writing { body: Body::Arriving { .. }, .. } => true,
            // Back-pressure: no further request is read before the answers to the earlier ones have left.
            State::Handling { .. } | State::Writing { .. } | State::Closing => false,
        };
        Interest { read, write: has_unsent }
    }

    /// Returns when this state has lasted too long; [`Event::TimedOut`] is due then.
    ///
    /// While a request is with its handler the earliest of its limits counts.
    #[must_use]
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        let after = |since: Instant, limit: Option<Duration>| {
            limit.and_then(|limit| since.checked_add(limit))
        };
        match *self {
            State::Reading { since } => after(since, timeouts.header),
            State::Handling { body, since, .. } => {
                let request = after(since, timeouts.request);
                let idle = match body {
                    Body::Complete => None,
                    Body::Arriving { since } | Body::Awaited { since } => {
                        after(since, timeouts.body_idle)
                    }
                };
                match (request, idle) {
                    (Some(request), Some(idle)) => Some(request.min(idle)),
                    (request, idle) => request.or(idle),
                }
            }
            State::Writing { since, .. } => after(since, timeouts.write_stall),
            State::Discarding { since } => after(since, timeouts.body_idle),
            State::KeepAlive { since } => after(since, timeouts.keep_alive),
            State::Lingering { since } => after(since, timeouts.linger),
            State::Closing => None,
        }
    }
}

impl Body {
    fn renewed(self, now: Instant) -> Body {
        match self {
            Body::Complete => Body::Complete,
            Body::Arriving { .. } | Body::Awaited { .. } => Body::Arriving { since: now },
        }
    }
}

impl After {
    fn closing(self) -> After {
        match self {
            After::KeepAlive | After::Linger => After::Linger,
            After::Close => After::Close,
        }
    }
}
