//! A host: answers come from somewhere else, here from one thread of its own.
//!
//! `cargo run -p worker --example hosted`, then `curl -i http://127.0.0.1:8000/whole/300` or `/pieces/300`: the number is how
//! many milliseconds the thread takes, for a piece of its own in the latter.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use worker::http1::FieldStorage;
use worker::{Detached, Host, HostError, HostRequest, Log, Progress, RequestId, Responder};

/// Pieces of a response that comes in pieces.
const PIECES: u32 = 3;

/// What the thread has said of one response; `true`: that was all.
type Said = Arc<Mutex<(Vec<&'static str>, bool)>>;

struct Job {
    request: Detached,
    said: Said,
    waker: Waker,
}

struct OneThread {
    jobs: Sender<Job>,
    responses: HashMap<RequestId, Said>,
    at_work: Arc<AtomicUsize>,
}

fn main() -> ExitCode {
    let code = worker::run_host(|boot| {
        let (jobs, arrivals) = channel();
        let at_work = Arc::new(AtomicUsize::new(0));
        let (count, log) = (Arc::clone(&at_work), boot.log().clone());
        std::thread::spawn(move || work(&arrivals, &count, &log));
        Ok(Box::new(OneThread { jobs, responses: HashMap::new(), at_work }))
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn work(arrivals: &Receiver<Job>, at_work: &AtomicUsize, log: &Log) {
    let mut fields = FieldStorage::new();
    while let Ok(Job { request, said, waker }) = arrivals.recv() {
        let say = |piece, is_all| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.0.push(piece);
            said.1 = is_all;
            waker.wake_by_ref();
        };
        let path = request.head(&mut fields).map(|head| head.path().to_vec()).unwrap_or_default();
        let path = String::from_utf8_lossy(&path);
        log.info(format_args!("At work path={path}"));
        let time = path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let time = Duration::from_millis(time);
        if path.starts_with("/pieces/") {
            for _ in 0..PIECES {
                say("piece\n", false);
                std::thread::sleep(time);
            }
        } else {
            std::thread::sleep(time);
        }
        say("end\n", true);
        at_work.fetch_sub(1, Ordering::Relaxed);
        waker.wake(); // Others may wait for the thread.
    }
}

impl Host for OneThread {
    fn has_capacity(&self) -> bool {
        self.at_work() == 0
    }

    fn call(&mut self, mut request: HostRequest<'_>, _: &mut Responder<'_>) -> Progress {
        let said = Said::default();
        self.responses.insert(request.id(), Arc::clone(&said));
        self.at_work.fetch_add(1, Ordering::Relaxed);
        let (waker, request) = (request.waker(), request.detach());
        match self.jobs.send(Job { request, said, waker }) {
            Ok(()) => Progress::Pending,
            Err(_) => Progress::Done,
        }
    }

    fn resume(&mut self, id: RequestId, responder: &mut Responder<'_>) -> Progress {
        let Some(said) = self.responses.get(&id) else { return Progress::Done };
        let (pieces, is_all) =
            std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
        for piece in pieces {
            if !responder.has_begun() {
                let begun = responder.head(200, b"OK", None, |_| Ok::<(), HostError>(()));
                debug_assert!(begun.is_ok(), "a status that is none");
            }
            responder.append(piece.as_bytes());
        }
        if is_all {
            self.responses.remove(&id);
            return Progress::Done;
        }
        // A client that is gone is the loop's business.
        let _ = responder.send();
        Progress::Pending
    }

    fn cancel(&mut self, id: RequestId) {
        self.responses.remove(&id);
    }

    fn before_park(&mut self) {}

    fn after_park(&mut self) {}

    fn has_threads(&self) -> bool {
        true
    }

    fn at_work(&self) -> usize {
        self.at_work.load(Ordering::Relaxed)
    }
}
