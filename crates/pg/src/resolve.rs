//! Host names to addresses, on a thread: the system's resolver blocks.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::{io, thread};

use mio::unix::pipe;
use mio::{Interest, Registry, Token};

/// Lookups under way in one process; one that hangs cannot be ended, only left behind.
const LOOKUPS_MAX: usize = 8;

static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// A lookup under way.
pub(crate) struct Lookup {
    answer: mpsc::Receiver<io::Result<Vec<SocketAddr>>>,
    /// Readable (at its end) once the answer is there.
    _wake: pipe::Receiver,
}

/// Counts a lookup for as long as its thread lives.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lookup {
    pub fn begin(host: &str, port: u16, token: Token, registry: &Registry) -> io::Result<Lookup> {
        if LOOKUPS.fetch_add(1, Ordering::Relaxed) >= LOOKUPS_MAX {
            LOOKUPS.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::other("earlier lookups have not come back"));
        }
        let counted = Counted;
        let (wake, mut woken) = pipe::new()?;
        registry.register(&mut woken, token, Interest::READABLE)?;
        let (sender, answer) = mpsc::sync_channel(1);
        let host = host.to_owned();
        thread::Builder::new().name("resolver".into()).spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Nobody waits any more if this fails.
            let _ = sender.send(found);
            // Closing it is the wake-up, after the answer.
            drop(wake);
            drop(counted);
        })?;
        Ok(Lookup { answer, _wake: woken })
    }

    /// The addresses, once they are there.
    pub fn poll(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("the resolver is gone")))
            }
        }
    }
}
