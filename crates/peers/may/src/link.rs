//! One PostgreSQL connection shared by the coroutines of a worker thread.
//!
//! A caller adds its messages to the outbox and waits once for all its replies; the link's coroutine writes what has
//! gathered, reads, and hands each caller its part of the input, uncopied, when its last ReadyForQuery has come.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use may::coroutine;
use may::go;
use may::io::{CoIo, WaitIo, WaitIoWaker};
use may::sync::mpsc::{Receiver, Sender, channel};

use crate::connect::Stream;

/// How far the input buffer is extended at a time; a part that callers hold is not reused before they let go of it.
const EXTEND_BYTES: usize = 64 * 1024;
/// Less room than this is not worth a read.
const READ_BYTES_MIN: usize = 8 * 1024;

/// Where callers leave their messages.
pub struct Link {
    outbox: Mutex<Outbox>,
    waker: WaitIoWaker,
}

#[derive(Default)]
struct Outbox {
    bytes: BytesMut,
    callers: VecDeque<Caller>,
}

struct Caller {
    /// ReadyForQuery messages still to come, one per Sync.
    due: usize,
    replies: Sender<BytesMut>,
}

/// A caller's end of its link; a coroutine keeps one and asks again and again.
pub struct Asker {
    link: Arc<Link>,
    sender: Sender<BytesMut>,
    receiver: Receiver<BytesMut>,
}

impl Asker {
    pub fn new(link: Arc<Link>) -> Asker {
        let (sender, receiver) = channel();
        Asker { link, sender, receiver }
    }

    /// Sends the messages that `encode` writes, with `syncs` Syncs among them, and waits for all replies.
    pub fn ask(
        &self,
        syncs: usize,
        encode: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> io::Result<BytesMut> {
        {
            let mut outbox = self.link.outbox.lock().unwrap_or_else(PoisonError::into_inner);
            encode(&mut outbox.bytes)?;
            outbox.callers.push_back(Caller { due: syncs, replies: self.sender.clone() });
        }
        self.link.waker.wakeup();
        self.receiver.recv().map_err(io::Error::other)
    }
}

impl Link {
    /// Starts the coroutine that serves the connection.
    pub fn start(stream: Stream, worker: usize) -> io::Result<Arc<Link>> {
        let mut stream = CoIo::new(stream).map_err(|error| io::Error::other(error.to_string()))?;
        let link = Arc::new(Link { outbox: Mutex::default(), waker: stream.waker() });
        let shared = link.clone();
        go!(coroutine::Builder::new().id(worker), move || {
            if let Err(error) = shared.serve(&mut stream) {
                eprintln!("lost PostgreSQL: {error}");
                std::process::exit(1);
            }
        })?;
        Ok(link)
    }

    fn serve(&self, stream: &mut CoIo<Stream>) -> io::Result<()> {
        let (mut out, mut input) = (BytesMut::new(), Input::default());
        let mut callers = VecDeque::new();
        loop {
            self.collect(&mut out, &mut callers);
            write_some(stream.inner_mut(), &mut out)?;
            while input.read_some(stream.inner_mut())? {}
            input.deal(&mut callers)?;
            stream.wait_io();
        }
    }

    fn collect(&self, out: &mut BytesMut, callers: &mut VecDeque<Caller>) {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        if out.is_empty() {
            std::mem::swap(out, &mut outbox.bytes);
        } else {
            out.extend_from_slice(&outbox.bytes);
        }
        outbox.bytes.clear();
        callers.append(&mut outbox.callers);
    }
}

fn write_some(stream: &mut Stream, out: &mut BytesMut) -> io::Result<()> {
    while !out.is_empty() {
        match stream.write(out) {
            Ok(written) => out.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What PostgreSQL has sent and nobody has got yet.
#[derive(Default)]
struct Input {
    bytes: BytesMut,
    /// The first so many bytes are input, the others are room.
    filled: usize,
    /// The first so many bytes are whole messages of the first caller's.
    whole: usize,
}

impl Input {
    /// Reads once; `true` says that more may be there.
    fn read_some(&mut self, stream: &mut Stream) -> io::Result<bool> {
        if self.bytes.len() - self.filled < READ_BYTES_MIN {
            self.bytes.resize(self.filled + EXTEND_BYTES, 0);
        }
        let room = &mut self.bytes[self.filled..];
        match stream.read(room) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                let more = read == room.len();
                self.filled += read;
                Ok(more)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives every caller whose replies are complete its part.
    fn deal(&mut self, callers: &mut VecDeque<Caller>) -> io::Result<()> {
        while let Some(&[kind, a, b, c, d]) =
            self.bytes[..self.filled].get(self.whole..self.whole + 5)
        {
            let end = self.whole + 1 + u32::from_be_bytes([a, b, c, d]) as usize;
            if self.filled < end {
                break;
            }
            self.whole = end;
            if kind != b'Z' {
                continue;
            }
            let Some(first) = callers.front_mut() else {
                return Err(io::Error::other("a reply that nobody has asked for"));
            };
            first.due -= 1;
            if first.due == 0 {
                let replies = self.bytes.split_to(self.whole);
                self.filled -= self.whole;
                self.whole = 0;
                if let Some(caller) = callers.pop_front() {
                    // The connection that asked may be gone; then so is its wish for the answer.
                    let _ = caller.replies.send(replies);
                }
            }
        }
        Ok(())
    }
}
