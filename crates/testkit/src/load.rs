//! Load: clients that never retry, and count every request as answered or as failed in one named way.
//!
//! A request fails when the connection cannot be made, when it ends or is reset before the response is whole, when nothing
//! comes in time, or when the status is not one of the expected ones. The one thing that is no failure: a server that closes
//! an *idle* connection, seen before the next request is sent on it. It is counted as `idle_closes`.

mod client;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use report::{Failure, Report};

use crate::endpoint::Endpoint;
use crate::http::request_bytes;
use client::Client;

/// Largest number of clients, each of which is a thread.
pub const CLIENTS_MAX: usize = 512;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// A connection per request at a fixed rate, whatever the answers do; latency counts from the moment it was due.
    OpenLoop {
        /// Requests per second.
        rate: f64,
    },
    /// Requests over kept connections at a fixed rate, whatever the answers do; latency as above.
    OpenLoopKept {
        /// Requests per second.
        rate: f64,
    },
    /// A connection per request, each client as fast as it is answered.
    CloseEach,
    /// Requests over kept connections, each client as fast as it is answered, after `pause`.
    KeepAlive {
        /// Time a connection idles between requests.
        pause: Duration,
    },
}

impl Mode {
    /// Whether connections are kept for further requests.
    #[must_use]
    pub fn keeps_connections(self) -> bool {
        matches!(self, Mode::KeepAlive { .. } | Mode::OpenLoopKept { .. })
    }
}

/// What load to make. Bounded by time and by count, whichever comes first.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to send it.
    pub endpoint: Endpoint,
    /// How.
    pub mode: Mode,
    /// How many clients; in the open loop the most requests under way at once.
    pub clients: usize,
    /// Request method.
    pub method: String,
    /// Request target.
    pub path: String,
    /// Header fields beside Host, Connection and Content-Length.
    pub fields: Vec<(String, String)>,
    /// Request body.
    pub body: Vec<u8>,
    /// Statuses that are no failure.
    pub expected: Vec<u16>,
    /// Longest wait for a connection and for each read.
    pub limit: Duration,
    /// When to stop by itself.
    pub duration: Duration,
    /// After how many requests to stop by itself.
    pub requests_max: u64,
}

impl Load {
    /// GETs of `path` that expect 200, by 8 clients for at most a minute and a million requests.
    #[must_use]
    pub fn get(endpoint: &Endpoint, path: &str, mode: Mode) -> Load {
        Load {
            endpoint: endpoint.clone(),
            mode,
            clients: 8,
            method: "GET".to_owned(),
            path: path.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            expected: vec![200],
            limit: Duration::from_secs(5),
            duration: Duration::from_secs(60),
            requests_max: 1_000_000,
        }
    }

    /// As [`Load::get`], with a POST of `body`.
    #[must_use]
    pub fn post(endpoint: &Endpoint, path: &str, body: &[u8], mode: Mode) -> Load {
        let mut load = Load::get(endpoint, path, mode);
        load.method = "POST".to_owned();
        load.body = body.to_vec();
        load
    }

    /// With another number of clients.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Load {
        self.clients = clients;
        self
    }

    /// With another duration.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Load {
        self.duration = duration;
        self
    }

    /// With other statuses that are no failure.
    #[must_use]
    pub fn expecting(mut self, statuses: &[u16]) -> Load {
        self.expected = statuses.to_vec();
        self
    }

    /// Makes the load and waits for its end.
    #[must_use]
    pub fn run(self) -> Report {
        self.start().collect()
    }

    /// Makes the load in threads of its own until [`Running::stop`], or one of its bounds.
    #[must_use]
    pub fn start(mut self) -> Running {
        self.clients = self.clients.clamp(1, CLIENTS_MAX);
        let keep_alive = self.mode.keeps_connections();
        let fields: Vec<(&str, &str)> =
            self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = request_bytes(&self.method, &self.path, &fields, &self.body, keep_alive);
        let shared = Arc::new(Shared {
            request,
            to_head: self.method == "HEAD",
            start: Instant::now(),
            stop: AtomicBool::new(false),
            issued: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            load: self,
        });
        let clients = (0..shared.load.clients)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn(move || Client::new(&shared).run())
                    .expect("a thread per client")
            })
            .collect();
        Running { shared, clients }
    }
}

/// What all clients of one load share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) load: Load,
    pub(crate) request: Vec<u8>,
    pub(crate) to_head: bool,
    pub(crate) start: Instant,
    pub(crate) stop: AtomicBool,
    pub(crate) issued: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Shared {
    /// Takes the next request's number. `None`: the load is over.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        (number < self.load.requests_max).then_some(number)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.start.elapsed() >= self.load.duration
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Report>>,
}

impl Running {
    /// Requests answered as expected so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Requests failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Waits until `more` requests were answered from now on; panics after `bound`.
    #[track_caller]
    pub fn wait_for(&self, more: u64, bound: Duration) {
        let want = self.answered() + more;
        crate::wait_until(&format!("{more} more answers"), bound, || self.answered() >= want);
    }

    /// Lets every client finish its request, and returns what they counted.
    #[must_use]
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.collect()
    }

    fn collect(self) -> Report {
        let mut report = Report::default();
        for client in self.clients {
            report.add(client.join().expect("clients do not panic"));
        }
        report.finish(self.shared.start.elapsed());
        report
    }
}
