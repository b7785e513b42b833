//! What a thread says of one response, on its way to the loop.
//!
//! - The thread speaks, the loop takes: what is said together is taken together, and wakes the loop once.
//! - [`WAITING_BYTES_MAX`] and one piece may wait here, and about as much in the loop's output; then the thread waits.
//! - Neither side holds the lock while it does anything else; the loop never waits for the interpreter.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use pyo3::prelude::*;
use worker::http1::{self, Exchange, FieldBlock, Version};
use worker::{HostError, Responder};

use crate::seats::Seat;

/// Bytes of a body that may wait for the loop before the thread does. The loop's output holds as many again.
const WAITING_BYTES_MAX: usize = 512 * 1024;

/// A word of a response.
enum Word {
    Interim { status: u16, fields: Vec<(String, Vec<u8>)> },
    Head { status: u16, reason: Vec<u8>, length: Option<u64>, fields: FieldBlock },
    Piece(Vec<u8>),
    File { file: File, offset: u64, length: u64 },
    Fail,
    End,
}

/// What lies between a thread and the loop.
pub struct Outbox {
    said: Mutex<Said>,
    /// There is room again, or nobody is there any more.
    room: Condvar,
    waker: Waker,
}

#[derive(Default)]
struct Said {
    words: Vec<Word>,
    /// Bytes of the body in them.
    bytes: usize,
    /// Nobody takes anything any more.
    is_closed: bool,
}

impl Outbox {
    /// `waker` wakes the loop for this response.
    pub fn new(waker: Waker) -> Arc<Outbox> {
        Arc::new(Outbox { said: Mutex::default(), room: Condvar::new(), waker })
    }

    /// Passes on what was said; `true`: that was all. The loop's side.
    pub fn tell(&self, responder: &mut Responder<'_>) -> bool {
        let words = {
            let mut said = self.lock();
            said.bytes = 0;
            std::mem::take(&mut said.words)
        };
        self.room.notify_one();
        let mut is_over = false;
        for word in words {
            match word {
                Word::Interim { status, fields } => {
                    let fields: Vec<(&str, &[u8])> =
                        fields.iter().map(|(name, value)| (&**name, &**value)).collect();
                    // The thread has seen to it that they are valid; a client that is gone is noticed below.
                    let _ = responder.interim(status, &fields);
                }
                Word::Head { status, reason, length, fields } => {
                    let given = responder.head(status, &reason, length, |encoder| {
                        encoder.block(&fields);
                        Ok::<(), HostError>(())
                    });
                    if given.is_err() {
                        responder.fail();
                    }
                }
                Word::Piece(piece) => responder.append(&piece),
                Word::File { file, offset, length } => responder.send_file(file, offset, length),
                Word::Fail => responder.fail(),
                Word::End => is_over = true,
            }
        }
        if !is_over {
            // What becomes of a client that is gone is the loop's own business.
            let _ = responder.send();
        }
        is_over
    }

    /// Nobody is there to take anything: the thread's next word is refused. The loop's side.
    pub fn close(&self) {
        let mut said = self.lock();
        said.is_closed = true;
        said.words.clear();
        drop(said);
        self.room.notify_one();
    }

    /// Wakes the loop.
    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// Waits until there is room, or nobody to take anything; `true`: the latter.
    ///
    /// The loop ends this wait: it takes what there is, or closes when the client has taken nothing for too long.
    fn wait_for_room(&self) -> bool {
        let mut said = self.lock();
        while WAITING_BYTES_MAX <= said.bytes && !said.is_closed {
            said = self.room.wait(said).unwrap_or_else(PoisonError::into_inner);
        }
        said.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side of an outbox.
pub struct Speaker {
    outbox: Arc<Outbox>,
    seat: Arc<Seat>,
    is_head: bool,
    knows_interim: bool,
    has_begun: bool,
    has_ended: bool,
    /// What is to go with the next [`Speaker::send`].
    words: Vec<Word>,
    bytes: usize,
    /// Bytes of the body so far.
    sent: u64,
}

impl Speaker {
    pub fn new(outbox: Arc<Outbox>, seat: Arc<Seat>, exchange: &Exchange) -> Speaker {
        Speaker {
            outbox,
            seat,
            is_head: exchange.is_head,
            knows_interim: exchange.version != Version::Http10,
            has_begun: false,
            has_ended: false,
            words: Vec::new(),
            bytes: 0,
            sent: 0,
        }
    }

    pub fn is_head(&self) -> bool {
        self.is_head
    }

    pub fn head(&mut self, status: u16, reason: &[u8], length: Option<u64>, fields: &FieldBlock) {
        self.has_begun = true;
        let (reason, fields) = (reason.to_vec(), fields.clone());
        self.words.push(Word::Head { status, reason, length, fields });
    }

    pub fn append(&mut self, piece: &[u8]) {
        self.bytes += piece.len();
        self.sent += piece.len() as u64;
        match self.words.last_mut() {
            Some(Word::Piece(before)) => before.extend_from_slice(piece),
            _ => self.words.push(Word::Piece(piece.to_vec())),
        }
    }

    /// How many bytes of the body were given so far; a response to HEAD has none.
    pub fn sent(&self) -> u64 {
        if self.is_head { 0 } else { self.sent }
    }

    pub fn send_file(&mut self, file: File, offset: u64, length: u64) {
        self.sent += length;
        self.words.push(Word::File { file, offset, length });
    }

    pub fn interim(&mut self, status: u16, fields: &[(&str, &[u8])]) -> Result<(), HostError> {
        if !self.knows_interim || self.has_begun {
            return Ok(());
        }
        // What is wrong with it is to be known here and now.
        http1::interim(&mut Vec::new(), status, fields)?;
        let fields = fields.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        self.words.push(Word::Interim { status, fields });
        Ok(())
    }

    pub fn fail(&mut self) {
        self.words.push(Word::Fail);
    }

    /// Hands over what there is, and waits while too much does; the application's other threads run meanwhile.
    pub fn send(&mut self, py: Python<'_>) -> Result<(), HostError> {
        if self.hand_over()? < WAITING_BYTES_MAX {
            return Ok(());
        }
        self.seat.waits();
        let is_closed = py.detach(|| self.outbox.wait_for_room());
        self.seat.moves();
        if is_closed { Err(HostError::Gone) } else { Ok(()) }
    }

    /// Whether nobody takes anything any more.
    pub fn is_gone(&self) -> bool {
        self.outbox.lock().is_closed
    }

    /// Says that this was all. Nothing that is said later is heard.
    pub fn finish(&mut self) {
        if !self.has_ended {
            self.words.push(Word::End);
            // Whoever is gone need not be told.
            let _ = self.hand_over();
            self.has_ended = true;
        }
    }

    /// Returns how many bytes wait now.
    fn hand_over(&mut self) -> Result<usize, HostError> {
        let (mut words, bytes) = (std::mem::take(&mut self.words), std::mem::take(&mut self.bytes));
        self.seat.moves();
        let mut said = self.outbox.lock();
        if said.is_closed || self.has_ended {
            return Err(HostError::Gone);
        }
        // As long as there is something the loop has been woken, or waits for its client and looks again by itself.
        let is_news = said.words.is_empty() && !words.is_empty();
        said.words.append(&mut words);
        said.bytes += bytes;
        let waiting = said.bytes;
        drop(said);
        if is_news {
            self.outbox.wake();
        }
        Ok(waiting)
    }
}

/// A thread that leaves a response in its middle has failed.
impl Drop for Speaker {
    fn drop(&mut self) {
        if !self.has_ended {
            self.fail();
            self.finish();
        }
    }
}
