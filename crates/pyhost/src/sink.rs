//! Where a response goes: to the loop that this thread is in the middle of, or to the loop of another thread.
//!
//! The application is called, and its pieces are taken, by one code for both: see `host.rs`.

use std::fs::File;

use pyo3::prelude::*;
use worker::http1::FieldBlock;
use worker::{HostError, Responder};

use crate::outbox::Speaker;

/// Takes a response.
pub enum Sink<'s, 'c> {
    /// The loop waits for this call to end.
    Loop(&'s mut Responder<'c>),
    /// The loop is on another thread.
    Thread(&'s mut Speaker),
}

impl Sink<'_, '_> {
    /// Whether the request was HEAD.
    pub fn is_head(&self) -> bool {
        match self {
            Sink::Loop(responder) => responder.is_head(),
            Sink::Thread(speaker) => speaker.is_head(),
        }
    }

    /// Gives the head; `length` is that of the body, where it is known. Nothing is sent yet.
    pub fn head(
        &mut self,
        status: u16,
        reason: &[u8],
        length: Option<u64>,
        fields: &FieldBlock,
    ) -> Result<(), HostError> {
        match self {
            Sink::Loop(responder) => responder.head(status, reason, length, |encoder| {
                encoder.block(fields);
                Ok(())
            }),
            Sink::Thread(speaker) => {
                speaker.head(status, reason, length, fields);
                Ok(())
            }
        }
    }

    /// Adds a piece of the body; it goes out with the next [`Sink::send`], or at the end.
    pub fn append(&mut self, piece: &[u8]) {
        match self {
            Sink::Loop(responder) => responder.append(piece),
            Sink::Thread(speaker) => speaker.append(piece),
        }
    }

    /// Sends what there is. A thread waits while its client has too much to take.
    pub fn send(&mut self, py: Python<'_>) -> Result<(), HostError> {
        match self {
            Sink::Loop(responder) => responder.send(),
            Sink::Thread(speaker) => speaker.send(py),
        }
    }

    /// Waits until the client has room: for a caller that cannot pause.
    pub fn wait_for_room(&mut self, py: Python<'_>) -> Result<(), HostError> {
        match self {
            Sink::Loop(responder) => responder.wait_for_room(|socket, limit| {
                // The client is slow: other threads of the application need not be.
                py.detach(|| sys::fd::wait_writable(&socket, Some(limit)).unwrap_or(false))
            }),
            // It has waited when it sent.
            Sink::Thread(_) => Ok(()),
        }
    }

    /// Whether the caller should return, to be resumed when the client has room or the loop has turned.
    pub fn wants_pause(&self) -> bool {
        match self {
            Sink::Loop(responder) => responder.is_held_up() || responder.is_long(),
            Sink::Thread(_) => false,
        }
    }

    /// Sends `length` bytes of a file from `offset` on, after what was given.
    pub fn send_file(&mut self, file: File, offset: u64, length: u64) {
        match self {
            Sink::Loop(responder) => responder.send_file(file, offset, length),
            Sink::Thread(speaker) => speaker.send_file(file, offset, length),
        }
    }

    /// Sends an interim response, unless it is too late for one or the client knows none.
    pub fn interim(
        &mut self,
        py: Python<'_>,
        status: u16,
        fields: &[(&str, &[u8])],
    ) -> Result<(), HostError> {
        match self {
            Sink::Loop(responder) => responder.interim(status, fields),
            Sink::Thread(speaker) => {
                speaker.interim(status, fields)?;
                speaker.send(py)
            }
        }
    }

    /// The response cannot be completed: 500 if nothing was written, else the connection is cut.
    pub fn fail(&mut self) {
        match self {
            Sink::Loop(responder) => responder.fail(),
            Sink::Thread(speaker) => speaker.fail(),
        }
    }

    /// How many bytes of the body were given so far, a file's included.
    pub fn sent(&self) -> u64 {
        match self {
            Sink::Loop(responder) => responder.sent(),
            Sink::Thread(speaker) => speaker.sent(),
        }
    }

    /// Whether nobody is there to take anything: how it ends is no news then.
    pub fn is_gone(&self) -> bool {
        match self {
            Sink::Loop(responder) => responder.is_gone(),
            Sink::Thread(speaker) => speaker.is_gone(),
        }
    }

    /// Nothing more will come, whatever is still to be done here.
    pub fn finish(&mut self) {
        match self {
            // Its client is gone or not: there is nothing more to say.
            Sink::Loop(responder) => drop(responder.send()),
            Sink::Thread(speaker) => speaker.finish(),
        }
    }
}
