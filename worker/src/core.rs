//! What all connections of a loop share while they are served.

use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http1::{FieldStorage, Head, HeaderMap, Limits, Method, Policy, Rules};
use scoreboard::{Block, Call, Counter, Verb};
use shared::settings::{self, Settings};

use crate::access::AccessLog;
use crate::clock::Date;
use crate::connection::Label;
use crate::context::Kernel;
use crate::drain::Drain;
use crate::error::Chain;
use crate::executor::{ReadyQueue, TaskKey};
use crate::host::{Gate, Host};
use crate::panics;
use crate::peer::PeerText;
use crate::service::Service;
use crate::share::Share;
use crate::spool::SpoolRules;
use crate::via::{Ids, Trust};

/// Bytes asked for in one read. What a read brings is parsed where it lies; only a rest is copied.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Answers that took longer than this, in nanoseconds, are counted by themselves: others behind them took less.
const LONG_NS: u64 = 1_000_000;

/// The time limits of connections; `None` is without limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimits {
    pub(crate) header: Option<Duration>,
    pub(crate) body: Option<Duration>,
    pub(crate) write: Option<Duration>,
    pub(crate) request: Option<Duration>,
    pub(crate) keep_alive: Duration,
    pub(crate) linger: Duration,
    /// Bytes per second that a body must keep up; 0 is without limit.
    pub(crate) body_rate_min: u64,
    /// Bytes per second that a client must take of its response; 0 is without limit.
    pub(crate) write_rate_min: u64,
}

impl TimeLimits {
    pub(crate) fn of(settings: &Settings) -> TimeLimits {
        TimeLimits {
            header: Settings::limit(settings.header_timeout),
            body: Settings::limit(settings.body_timeout),
            write: Settings::limit(settings.write_timeout),
            request: settings.request_limit(),
            keep_alive: settings.keepalive,
            linger: settings.linger_timeout,
            body_rate_min: settings.body_rate_min,
            write_rate_min: settings.write_rate_min,
        }
    }

    /// When further bytes of a body are overdue, now that `bytes` more have come.
    ///
    /// Each byte earns its share of a second on top of `before`, up to the full `body_timeout` from now: so a client
    /// that falls silent, and one that drips below the rate, run out of time alike.
    pub(crate) fn body_deadline(
        &self,
        before: Option<Instant>,
        bytes: usize,
        now: Instant,
    ) -> Option<Instant> {
        let latest = now + self.body?;
        Some(match before {
            Some(before) => earned(before, bytes as u64, self.body_rate_min, latest),
            None => latest,
        })
    }

    /// When a client has left its response alone for too long, now that it has taken `bytes` more of it; not after `latest`,
    /// which is `write_timeout` from now.
    ///
    /// As [`TimeLimits::body_deadline`]; and a client that took nothing has earned nothing, whatever the rate.
    pub(crate) fn write_deadline(&self, before: Instant, bytes: u64, latest: Instant) -> Instant {
        if bytes == 0 { before } else { earned(before, bytes, self.write_rate_min, latest) }
    }
}

/// `before`, and the time that `bytes` have earned; at most `latest`.
fn earned(before: Instant, bytes: u64, rate_min: u64, latest: Instant) -> Instant {
    if rate_min == 0 {
        return latest;
    }
    let earned = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate_min);
    before.checked_add(earned).map_or(latest, |until| until.min(latest))
}

/// What the parser needs to know of the settings, for peers that are trusted.
pub(crate) fn rules(settings: &Settings) -> Rules {
    let limits = Limits {
        request_line_bytes_max: settings.limit_request_line,
        fields_max: settings.limit_request_fields,
        field_bytes_max: settings.limit_request_field_size,
    };
    let policy = Policy {
        header_map: match settings.header_map {
            settings::HeaderMap::Drop => HeaderMap::Drop,
            settings::HeaderMap::Refuse => HeaderMap::Refuse,
            settings::HeaderMap::Dangerous => HeaderMap::Dangerous,
        },
        forwarder_headers: settings
            .forwarder_headers
            .iter()
            .map(|name| name.as_bytes().into())
            .collect(),
        permit_unconventional_http_method: settings.permit_unconventional_http_method,
        permit_https_target: true,
    };
    Rules { limits, policy }
}

/// What a request is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) verb: Verb,
    /// Number of its route; 0 for none.
    pub(crate) route: u16,
}

/// Answers of one kind that were given one after the other.
#[derive(Clone, Copy, Debug)]
struct Answered {
    tag: Tag,
    status: u16,
    count: u64,
}

impl Tag {
    /// Of a request that no route was looked up for.
    pub(crate) fn of(head: &Head<'_>) -> Tag {
        let verb = match head.method() {
            Method::Get => Verb::GET,
            Method::Post => Verb::POST,
            other => Verb::of(other.as_str().as_bytes()),
        };
        Tag { verb, route: 0 }
    }
}

/// What all connections share: the application, the clock, the scoreboard, and memory for one turn.
pub(crate) struct Core {
    pub(crate) service: Box<dyn Service>,
    /// The way to the host, if the worker has one; the service is then asked nothing.
    pub(crate) gate: Option<Gate>,
    pub(crate) kernel: Rc<Kernel>,
    /// The host answers on threads of its own: what they are at is shown, not what the loop is at.
    pub(crate) shows_threads: bool,
    /// For peers that are trusted.
    trusted_rules: Arc<Rules>,
    /// For all others.
    untrusted_rules: Arc<Rules>,
    pub(crate) trust: Trust,
    pub(crate) ids: Ids,
    pub(crate) access: Option<Box<AccessLog>>,
    pub(crate) limits: TimeLimits,
    /// Largest body of any request, in bytes.
    pub(crate) body_bytes_max: u64,
    pub(crate) spool: SpoolRules,
    pub(crate) drain: Drain,
    pub(crate) block: Block<'static>,
    pub(crate) queue: Arc<ReadyQueue>,
    pub(crate) date: Date,
    pub(crate) fields: FieldStorage,
    pub(crate) scratch: Vec<u8>,
    /// `CLOCK_MONOTONIC` in nanoseconds, as it was read last.
    pub(crate) tick: u64,
    /// What the connection that is being attended to has of this turn.
    pub(crate) share: Share,
    /// A task was polled, so that the database may have been asked something.
    pub(crate) has_asked: bool,
    /// Answers given since `tick`, to be counted with the time they took.
    answered: Vec<Answered>,
}

impl Core {
    pub(crate) fn new(
        service: Box<dyn Service>,
        kernel: Rc<Kernel>,
        block: Block<'static>,
        queue: Arc<ReadyQueue>,
        access: Option<Box<AccessLog>>,
    ) -> Core {
        let settings = &kernel.settings;
        let trusted_rules = rules(settings);
        let untrusted_rules =
            Rules { policy: trusted_rules.policy.for_untrusted_peers(), ..trusted_rules.clone() };
        Core {
            shows_threads: false,
            trusted_rules: Arc::new(trusted_rules),
            untrusted_rules: Arc::new(untrusted_rules),
            trust: Trust::of(settings),
            ids: Ids::new(),
            access,
            limits: TimeLimits::of(settings),
            body_bytes_max: match settings.limit_request_body {
                0 => u64::MAX,
                bytes => bytes,
            },
            spool: SpoolRules::of(settings),
            drain: Drain::new(settings.graceful_timeout, settings.keepalive),
            date: Date::new(kernel.clock.now()),
            service,
            gate: None,
            kernel,
            block,
            queue,
            fields: FieldStorage::new(),
            scratch: vec![0; SCRATCH_BYTES],
            tick: sys::clock::monotonic(),
            share: Share::new(0),
            has_asked: true,
            answered: Vec::new(),
        }
    }

    /// The parser's rules for a peer.
    pub(crate) fn rules(&self, is_trusted: bool) -> &Arc<Rules> {
        if is_trusted { &self.trusted_rules } else { &self.untrusted_rules }
    }

    /// The worker has a host: requests are its business.
    pub(crate) fn set_host(&mut self, host: Box<dyn Host>) {
        self.shows_threads = host.has_threads();
        self.gate = Some(Gate::new(host));
    }

    /// Gives the next waiting connection its turn, if the host has capacity.
    pub(crate) fn wake_waiting(&self) {
        if let Some(token) = self.gate.as_ref().and_then(Gate::next) {
            // The low half of a token is the index.
            self.queue.push(TaskKey::Connection(token as u32));
        }
    }

    /// A request has begun: counts it, and shows it as the one in hand.
    pub(crate) fn begin(&self, head: &Head<'_>, peer: &PeerText) {
        if self.shows_threads {
            return self.block.add(Counter::RequestsStarted, 1);
        }
        let method = head.method().as_str().as_bytes();
        self.block.begin(self.tick, method, head.path(), peer.as_bytes());
    }

    /// Shows the request whose code is about to run, until [`Core::let_go`].
    pub(crate) fn hold(&self, method: &[u8], path: &[u8], peer: &PeerText) {
        if !self.shows_threads {
            self.block.hold(self.tick, method, path, peer.as_bytes());
        }
    }

    /// No request's code is running.
    pub(crate) fn let_go(&self) {
        if !self.shows_threads {
            self.block.let_go();
        }
    }

    /// The host, if there is one and it is not being called.
    pub(crate) fn host(&mut self) -> Option<&mut (dyn Host + 'static)> {
        self.gate.as_mut().and_then(Gate::host)
    }

    /// The time of this turn.
    pub(crate) fn now(&self) -> Instant {
        self.kernel.clock.now()
    }

    /// When something that may take `limit` from now is overdue.
    pub(crate) fn after(&self, limit: Option<Duration>) -> Option<Instant> {
        limit.map(|limit| self.now() + limit)
    }

    /// Counts the answers given since the last call, with one look at the clock for all.
    pub(crate) fn settle(&mut self) {
        if !self.answered.is_empty() {
            self.settle_at(sys::clock::monotonic());
        }
    }

    fn settle_at(&mut self, now: u64) {
        let duration = now.saturating_sub(self.tick);
        for answered in &self.answered {
            self.count_many(answered, duration);
        }
        self.answered.clear();
        self.tick = now;
    }

    /// Whether the connection may begin a further request in this turn.
    #[inline]
    pub(crate) fn has_time(&mut self) -> bool {
        self.share.begin() || self.look_at_share()
    }

    #[inline(never)]
    fn look_at_share(&mut self) -> bool {
        let now = sys::clock::monotonic();
        if LONG_NS < now.saturating_sub(self.tick) {
            self.settle_at(now);
        }
        self.share.look(now)
    }

    /// An answer was given: it is counted at the next [`Core::settle`].
    pub(crate) fn answered(&mut self, tag: Tag, status: u16) {
        match self.answered.last_mut() {
            // Pipelined requests are mostly alike.
            Some(last) if (last.tag, last.status) == (tag, status) => last.count += 1,
            _ => self.answered.push(Answered { tag, status, count: 1 }),
        }
    }

    fn count_many(&self, answered: &Answered, duration_ns: u64) {
        let &Answered { tag: Tag { verb, route }, status, count } = answered;
        let pattern = self.service.pattern(route);
        self.block.finish_many(&Call { verb, route, pattern, status }, duration_ns, count);
    }

    /// Counts one answer that took this many nanoseconds.
    pub(crate) fn count(&self, tag: Tag, status: u16, duration_ns: u64) {
        self.count_many(&Answered { tag, status, count: 1 }, duration_ns);
    }

    /// A request could not be understood.
    pub(crate) fn warn_invalid(&self, peer: &PeerText, error: &dyn fmt::Display) {
        self.kernel.log.warning(format_args!("Invalid request from ip={peer}: {error}"));
    }

    /// A handler failed.
    pub(crate) fn report(&self, method: &[u8], path: &[u8], cause: &dyn Error) {
        self.block.add(Counter::HandlerErrors, 1);
        let (method, path) = (method.escape_ascii(), path.escape_ascii());
        self.kernel
            .log
            .error(format_args!("Error handling request {method} {path}: {}", Chain(cause)));
    }

    /// Drops something of the application's, whose code may panic: that ends nothing else.
    pub(crate) fn end<T>(&self, gone: T) {
        if let Err(panic) = panics::catch(|| drop(gone)) {
            self.block.add(Counter::HandlerErrors, 1);
            self.kernel.log.error(format_args!("A handler's end failed: {}", panic.text()));
        }
    }

    /// A response's body is not what its head says.
    pub(crate) fn warn_body(&self, label: &Label, what: &str) {
        self.block.add(Counter::HandlerErrors, 1);
        let (method, path) = (label.method().escape_ascii(), label.path().escape_ascii());
        self.kernel
            .log
            .error(format_args!("Error handling request {method} {path}: the body {what}"));
    }

    /// A handler took too long.
    pub(crate) fn warn_timed_out(&self, method: &[u8], path: &[u8]) {
        let (method, path) = (method.escape_ascii(), path.escape_ascii());
        self.kernel.log.warning(format_args!("Request timed out: {method} {path}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_runs_out_of_time_and_one_that_flows_does_not() {
        let limits = TimeLimits {
            body_rate_min: 500,
            body: Some(Duration::from_secs(15)),
            ..TimeLimits::of(&Settings::default())
        };
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        let ends_after = |bytes: usize| {
            let mut deadline = limits.body_deadline(None, 0, begun);
            for passed in 1..120 {
                let now = begun + second * passed;
                if deadline.is_some_and(|at| at <= now) {
                    return Some(passed);
                }
                deadline = limits.body_deadline(deadline, bytes, now);
            }
            None
        };
        assert_eq!(ends_after(0), Some(15));
        assert_eq!(ends_after(1), Some(16));
        assert_eq!(ends_after(250), Some(29));
        assert_eq!(ends_after(501), None);
        // What came quickly is no credit for dripping later.
        let rich = limits.body_deadline(limits.body_deadline(None, 0, begun), 1 << 20, begun);
        assert_eq!(rich, Some(begun + 15 * second));
    }

    #[test]
    fn a_client_that_takes_too_little_runs_out_of_time_and_a_steady_one_does_not() {
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        let ends_after = |rate: u64, bytes: u64| {
            let limits =
                TimeLimits { write_rate_min: rate, ..TimeLimits::of(&Settings::default()) };
            let mut deadline = begun + 15 * second;
            (1..120).find(|&passed| {
                let now = begun + second * passed;
                deadline = limits.write_deadline(deadline, bytes, now + 15 * second);
                deadline <= now
            })
        };
        assert_eq!(ends_after(500, 0), Some(15));
        assert_eq!(ends_after(500, 250), Some(30));
        assert_eq!(ends_after(500, 501), None);
        assert_eq!(ends_after(0, 0), Some(15));
        assert_eq!(ends_after(0, 1), None);
    }
}
