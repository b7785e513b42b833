//! One client connection: bytes in, requests out to the service, bytes back.
//!
//! - A state carries the data valid in it. What is read, and whether anything is read, follows from the state.
//! - One request is in hand at a time; pipelined ones wait unparsed. Answers that are there at once leave in one write.
//! - Readiness is edge-triggered: `is_readable` and `is_writable` remember it until the kernel says "would block".
//! - Every buffer is bounded: input by a head or what one read brought, output by [`OUTPUT_HIGH_BYTES`] plus one response.

mod deadline;
mod dispensable;
mod hosted;
mod preface;
mod produce;
mod receive;
mod record;
mod respond;
mod stall;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use http1::{BodyDecoder, BodyWriter, Exchange, Head, Progress};
use mio::{Registry, Token};
use net::Peer;
use scoreboard::Counter;

use crate::access::Ledger;
use crate::body::SharedChannel;
use crate::buffer::Buffer;
use crate::core::{Core, Tag};
use crate::executor::{TaskKey, TaskWaker};
use crate::outgoing::{Producer, SharedPipe};
use crate::panics;
use crate::peer::PeerText;
use crate::service::Task;
use crate::share::Share;
use crate::spool::Spooled;
use crate::stream::Stream;

/// Output that may wait for its client before no further pipelined request is parsed, in bytes.
const OUTPUT_HIGH_BYTES: usize = 64 * 1024;
/// The field by which a request's id travels.
pub(crate) const REQUEST_ID: &str = "X-Request-ID";
/// Bytes of a file that go to one client in one turn, before the others have theirs.
const FILE_BYTES_PER_TURN_MAX: usize = 1024 * 1024;
/// Files up to this size, in bytes, are copied behind their head, so that both leave in one write.
const FILE_COPIED_BYTES_MAX: u64 = 16 * 1024;
/// Reads of one connection in one turn, before the others have theirs.
const READS_PER_TURN_MAX: u32 = 4;
/// Bytes of an unwanted body that are read and dropped to save the connection; with more it is closed.
const SKIP_BYTES_MAX: u64 = 256 * 1024;
/// Longest that a connection which was closed after an answer is read from, so that no reset overtakes the answer.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// Longest that nothing may come of such a connection while the worker drains: an operator waits.
const LINGER_DRAINING: Duration = Duration::from_secs(1);

/// What the kernel says of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    is_readable: bool,
    is_writable: bool,
    is_ending: bool,
    has_failed: bool,
}

impl Readiness {
    pub(crate) fn of(event: &mio::event::Event) -> Readiness {
        Readiness {
            is_readable: event.is_readable(),
            is_writable: event.is_writable(),
            is_ending: event.is_read_closed(),
            has_failed: event.is_error() || event.is_write_closed(),
        }
    }
}

/// What a connection is doing, for the gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    Idle,
    Reading,
    Writing,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Verdict {
    Keep,
    Close,
}

/// Where a connection stands.
enum State {
    /// A PROXY header is awaited.
    Preface,
    /// Between requests, or a head is arriving.
    Head(Stage),
    /// A body is gathered for its handler.
    Gathering(Box<Gathering>),
    /// A request is with its asynchronous handler, or its response's body is on its way.
    Handling(Handling),
    /// A request is on its way to the host, with it, or on its way back.
    Hosted(hosted::Hosted),
    /// The request is answered; the rest of its body is read and dropped.
    Skipping { decoder: BodyDecoder, left: u64 },
    /// The last response is in the output; `lingers`: the client may still be sending.
    Finishing { lingers: bool },
    /// Our side is closed; the client is read from until it closes too, or falls silent, or it is `until`.
    Lingering { until: Instant },
    /// Nothing more can be done.
    Dead,
}

/// How far a connection that has no request in hand has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not sent anything yet.
    New,
    /// The last answer is on its way to the client, whose time for the next request has not begun.
    Answered,
    /// The client has all of its answers, as far as the kernel knows.
    Idle,
    /// A part of a head has come.
    Arriving,
}

struct Gathering {
    /// The head, to be parsed again when the body is there.
    head: Buffer,
    decoder: BodyDecoder,
    body: Spooled,
    bytes_max: u64,
    /// What a refusal has to know of the request.
    exchange: Exchange,
    tag: Tag,
}

struct Handling {
    work: Work,
    exchange: Exchange,
    /// `CLOCK_MONOTONIC` in nanoseconds when it was taken in hand.
    since: u64,
    /// Method and path, for the log and the scoreboard.
    label: Label,
    /// What it is counted as.
    tag: Tag,
    body: Option<Incoming>,
}

/// How far a request in hand has come.
enum Work {
    /// The handler is at it.
    Answering(Task),
    /// The response's head is out; its body is being made.
    Streaming(Box<Streaming>),
    /// The response's head is out; its body is a file.
    Sending(Box<Sending>),
}

impl Work {
    /// Status of the response whose head is out, and how many bytes of its body are.
    fn progress(&self) -> Option<(u16, u64)> {
        match self {
            Work::Answering(_) => None,
            Work::Streaming(streaming) => Some((streaming.status, streaming.sent)),
            Work::Sending(sending) => Some((sending.status, sending.at - sending.from)),
        }
    }
}

/// A response's body that is made while it is sent.
struct Streaming {
    /// `None`: it is through.
    producer: Option<Producer>,
    pipe: SharedPipe,
    writer: BodyWriter,
    status: u16,
    /// Bytes of the body so far.
    sent: u64,
    /// Why the body will never be whole, for the access log.
    failure: Option<&'static str>,
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.pipe.borrow_mut().close();
    }
}

/// A file on its way to the client.
struct Sending {
    file: File,
    /// Where in the file the body begins.
    from: u64,
    /// Where in the file the next byte is.
    at: u64,
    writer: BodyWriter,
    status: u16,
    /// It goes through the worker's memory.
    is_copied: bool,
}

/// A body on its way to an asynchronous handler.
struct Incoming {
    decoder: BodyDecoder,
    /// How many more bytes of data it may have.
    bytes_left: u64,
    /// Where it goes; `None`: nobody wants it.
    channel: Option<SharedChannel>,
    /// The client waits for `100 Continue`.
    awaits_continue: bool,
    /// When the next bytes are overdue.
    deadline: Option<Instant>,
}

impl Incoming {
    /// More bytes can be passed on.
    fn has_room(&self) -> bool {
        !self.decoder.is_done()
            && self.channel.as_ref().is_some_and(|channel| channel.borrow_mut().room() != 0)
    }

    /// The handler has asked for bytes.
    fn is_wanted(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.borrow().is_wanted())
    }

    /// The handler waits for bytes that have not come.
    fn is_awaited(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.borrow().is_awaited())
    }

    /// What is missing can be read and dropped, as far as anyone knows.
    fn is_small(&self) -> bool {
        // A client that still waits for `100 Continue` may send the body or not: nobody can tell.
        !self.awaits_continue
            && self.decoder.remaining().is_none_or(|bytes| bytes <= SKIP_BYTES_MAX)
    }

    /// The handler can still ask for bytes.
    fn has_reader(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| 1 < Rc::strong_count(channel))
    }
}

/// Method and path of a request, copied.
pub(crate) struct Label {
    text: Buffer,
    method_len: usize,
}

impl Label {
    fn of(head: &Head<'_>) -> Label {
        let mut text = Buffer::new();
        let method = head.method().as_str().as_bytes();
        let path = head.path();
        text.extend_from_slice(method);
        text.extend_from_slice(&path[..path.len().min(scoreboard::PATH_BYTES_MAX)]);
        Label { method_len: method.len(), text }
    }

    pub(crate) fn method(&self) -> &[u8] {
        &self.text[..self.method_len]
    }

    pub(crate) fn path(&self) -> &[u8] {
        &self.text[self.method_len..]
    }
}

/// One client connection.
pub(crate) struct Connection {
    stream: Stream,
    token: Token,
    peer: Peer,
    pub(crate) peer_text: PeerText,
    /// What the peer says of its client is believed. It is the peer of the socket that counts, not the PROXY header's.
    is_trusted: bool,
    /// The client of the request in hand came by https.
    is_https: bool,
    /// Where the client connected to, by the word of a PROXY header.
    proxied: Option<Box<SocketAddr>>,
    /// The id that the request in hand was given, if requests get ids.
    request_id: Option<Box<str>>,
    /// Requests that have no line in the access log yet.
    ledger: Option<Box<Ledger>>,
    state: State,
    /// Bytes that wait: a part of a head, or pipelined requests.
    input: Buffer,
    progress: Progress,
    output: Buffer,
    written: usize,
    is_readable: bool,
    is_writable: bool,
    /// It is registered to be told when it becomes writable.
    waits_to_write: bool,
    /// The kernel announced the client's end, which is behind what can still be read.
    is_ending: bool,
    /// The client has said its last.
    has_ended: bool,
    /// It waits for its place among the long ones: what the kernel said is noted, or a request is left for its next share.
    is_put_off: bool,
    /// The end of the connection ends the response in hand.
    ends_response: bool,
    /// What the host has said of the request in hand: status, and bytes of the body.
    replied: Option<(u16, u64)>,
    /// When the client was last waited for without anything in hand.
    since: Instant,
    /// When the state has lasted too long.
    state_deadline: Option<Instant>,
    /// The client does not take output as quickly as it comes.
    stall: Option<Box<stall::Stall>>,
    waker: Option<(Arc<TaskWaker>, Waker)>,
}

impl Connection {
    pub(crate) fn new(stream: Stream, token: Token, peer: Peer, core: &Core) -> Connection {
        let mut connection = Connection {
            stream,
            token,
            peer_text: PeerText::of(&peer),
            is_trusted: core.trust.trusts(&peer),
            is_https: false,
            proxied: None,
            request_id: None,
            ledger: None,
            peer,
            state: match core.trust.proxy {
                Some(_) => State::Preface,
                None => State::Head(Stage::New),
            },
            input: Buffer::none(),
            progress: Progress::default(),
            output: Buffer::none(),
            written: 0,
            // The first request has often arrived with the connection.
            is_readable: true,
            is_writable: true,
            waits_to_write: false,
            is_ending: false,
            has_ended: false,
            is_put_off: false,
            ends_response: false,
            replied: None,
            since: core.now(),
            state_deadline: None,
            stall: None,
            waker: None,
        };
        connection.state_deadline = core.after(core.limits.header);
        connection
    }

    /// What the connection is doing, for the gauges.
    pub(crate) fn activity(&self) -> Activity {
        match self.state {
            State::Head(Stage::New | Stage::Idle) | State::Preface => Activity::Idle,
            State::Head(Stage::Arriving) | State::Gathering(_) | State::Skipping { .. } => {
                Activity::Reading
            }
            _ => Activity::Writing,
        }
    }

    /// The connection is new: goes as far as it can, then has itself waited for, if it is still there.
    ///
    /// In this order, a connection that brings its only request costs no registration.
    pub(crate) fn on_accept(&mut self, registry: &Registry, core: &mut Core) -> Verdict {
        match self.advance(core) {
            // What happens between the last read and the registration is reported by the registration.
            Verdict::Keep => {
                self.waits_to_write = !self.is_writable;
                match self.stream.register(registry, self.token, self.waits_to_write) {
                    Ok(()) => Verdict::Keep,
                    Err(_) => Verdict::Close,
                }
            }
            Verdict::Close => Verdict::Close,
        }
    }

    /// Has itself woken for writing while, and only while, the client does not take what is there.
    ///
    /// # Errors
    ///
    /// The kernel lacks memory: the connection would never be heard of again.
    pub(crate) fn watch(&mut self, registry: &Registry) -> io::Result<()> {
        let waits = !self.is_writable || self.waits_to_write && self.has_output();
        if std::mem::replace(&mut self.waits_to_write, waits) == waits {
            return Ok(());
        }
        self.stream.reregister(registry, self.token, waits)
    }

    /// Whether something is on its way to the client.
    fn has_output(&self) -> bool {
        self.output_left() != 0 || self.is_long()
    }

    /// Takes note of what the kernel said, and goes as far as it can.
    pub(crate) fn on_ready(&mut self, readiness: Readiness, core: &mut Core) -> Verdict {
        let is_over = readiness.has_failed;
        if is_over && !matches!(self.state, State::Lingering { .. }) {
            // Reset, or closed in both directions: nobody is there to take an answer.
            self.abandon(core);
            return Verdict::Close;
        }
        // Where our side is closed already, the end of the other one makes it both: what came before it is read first.
        self.is_readable |= readiness.is_readable || is_over;
        self.is_writable |= readiness.is_writable;
        self.is_ending |= readiness.is_ending;
        if self.is_long() {
            self.put_off(core);
            return Verdict::Keep;
        }
        self.advance(core)
    }

    /// Whether it is in the middle of a response, or of pipelined requests, that take many turns.
    pub(crate) fn is_long(&self) -> bool {
        self.is_put_off
            || match &self.state {
                State::Handling(handling) => handling.work.progress().is_some(),
                State::Hosted(hosted) => hosted.goes_on(),
                _ => false,
            }
    }

    /// Others, who take less time, go first.
    fn put_off(&mut self, core: &Core) {
        if !std::mem::replace(&mut self.is_put_off, true) {
            core.queue.push(self.task_key());
        }
    }

    /// Resumes the handler's task, if there is one, and goes as far as it can.
    pub(crate) fn on_wake(&mut self, core: &mut Core) -> Verdict {
        self.is_put_off = false;
        if matches!(self.state, State::Handling(_)) {
            self.resume(core);
        }
        self.advance(core)
    }

    /// The connection will be closed where it stands: its client must not take a part of a response for the whole.
    pub(crate) fn cut(&self) {
        let is_unfinished = matches!(self.state, State::Handling(_) | State::Hosted(_));
        if self.ends_response && (is_unfinished || self.output_left() != 0) {
            self.stream.reset_on_close();
        }
    }

    /// Nothing more is read, nothing more is answered; a task in hand is dropped.
    pub(crate) fn abandon(&mut self, core: &mut Core) {
        self.cut();
        self.record_abort(core);
        if matches!(self.state, State::Handling(_) | State::Gathering(_) | State::Hosted(_)) {
            core.block.add(Counter::RequestsAborted, 1);
            // The host is not ours either.
            if let Err(panic) = panics::catch(|| self.abandon_hosted(core)) {
                core.kernel.log.error(format_args!("The host failed: {}", panic.text()));
            }
        }
        self.enter(State::Dead, core);
    }

    /// Leaves the state for `next`, and with it a handler that may be at work.
    fn enter(&mut self, next: State, core: &Core) {
        if let State::Handling(handling) = std::mem::replace(&mut self.state, next) {
            core.end(handling);
        }
    }

    /// The worker leaves: nothing more will come of what is in hand.
    pub(crate) fn give_up(&mut self, core: &mut Core) {
        self.record_cut(core);
        // The worker has its end to come to, whatever the host does.
        let _ = panics::catch(|| self.abandon_hosted(core));
        self.cut();
        self.enter(State::Dead, core);
    }

    /// Reads, answers and writes as far as readiness and back-pressure allow.
    fn advance(&mut self, core: &mut Core) -> Verdict {
        core.share = Share::new(core.tick);
        let mut reads = 0;
        loop {
            if matches!(self.state, State::Hosted(_)) {
                self.go_on_hosted(core);
            }
            self.consume_input(core);
            while self.is_readable && self.wants_bytes() && !core.share.is_over() {
                if reads == READS_PER_TURN_MAX {
                    core.queue.push(self.task_key());
                    break;
                }
                reads += 1;
                self.read(core);
            }
            let was_held_up = OUTPUT_HIGH_BYTES <= self.output_left();
            if self.has_ended && !was_held_up && !core.share.is_over() {
                self.on_end(core);
            }
            let before = std::mem::discriminant(&self.state);
            self.pump(core);
            self.flush(core);
            core.settle();
            if self.output_left() == 0 {
                self.write_records(core);
            }
            // Room in the output lets pipelined requests go on; a closed side leaves the other to be read.
            let is_freed = was_held_up && self.output_left() < OUTPUT_HIGH_BYTES;
            if core.share.is_over() {
                self.put_off(core);
                break;
            }
            if !is_freed && before == std::mem::discriminant(&self.state) {
                break;
            }
        }
        if matches!(self.state, State::Dead) { Verdict::Close } else { Verdict::Keep }
    }

    /// The name of this connection's task.
    fn task_key(&self) -> TaskKey {
        // The low half of the token is the index.
        TaskKey::Connection(self.token.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // Its buffers go back to the pool between requests, so this is nearly all that it costs.
        assert!(size_of::<Connection>() <= 512, "{} bytes", size_of::<Connection>());
    }
}
