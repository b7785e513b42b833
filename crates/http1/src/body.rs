//! Request bodies: where the data is and where it ends, piece by piece.
//!
//! - A decoder sees every byte after the head once, in order, and says which are data. It copies none of them, except
//!   trailers, which are kept (bounded) for whoever asks.
//! - It consumes up to the end of the body and not one byte further: what follows is the next request.
//! - After an error it stays in error: where the body ends is unknown for good.

use std::ops::Range;

use crate::chars::{self, TOKEN, VALUE};
use crate::error::BodyError;
use crate::head::{Field, Framing};
use crate::rules::Limits;
use crate::scan;

/// Most bytes of chunk extensions in one body (RFC 9112 §7.1.1 asks for a limit).
pub const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of trailers in one body, line ends included. They are kept in memory.
pub const TRAILER_BYTES_MAX: usize = 64 * 1024;
/// Most digits of a chunk size: 2^64 - 1 has as many.
const SIZE_DIGITS_MAX: u8 = 16;

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are dealt with once `data` has been taken: take them from the buffer's front.
    pub consumed: usize,
    /// Where in the input the data stands; may be empty.
    pub data: Range<usize>,
    /// Whether the body has ended. The rest of the input belongs to the next request.
    pub done: bool,
}

/// Finds the data in the bytes that follow a head.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    limits: Limits,
    line_bytes: usize,
    extension_bytes: usize,
    trailers: Option<Box<Trailers>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a body with Content-Length are missing.
    Length(u64),
    /// In a chunk's size.
    Size {
        size: u64,
        digits: u8,
    },
    /// In what follows the size on its line.
    Extension {
        size: u64,
        place: Place,
    },
    /// At the LF of that line.
    SizeLf {
        size: u64,
    },
    /// So many bytes of a chunk are missing.
    Data(u64),
    /// At the CR, then the LF, after a chunk's data.
    DataCr,
    DataLf,
    /// In the trailers, or at the empty line that ends them.
    Trailer,
    Done,
    Failed(BodyError),
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS value ] )` a chunk extension stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// White space before a `;`, which must follow.
    BeforeSemicolon,
    BeforeName,
    Name,
    /// White space after a name: `=` or `;` must follow.
    AfterName,
    BeforeValue,
    Token,
    Quoted,
    QuotedPair,
    /// After a closing quote.
    AfterQuoted,
}

#[derive(Clone, Debug, Default)]
struct Trailers {
    /// The lines so far, each with its CRLF.
    bytes: Vec<u8>,
    /// Where the unfinished line begins.
    line: usize,
    count: usize,
    place: TrailerPlace,
}

/// Where in a trailer line the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TrailerPlace {
    #[default]
    Start,
    Name,
    Value,
    /// At the LF of a line, the empty one at the end included.
    Lf,
}

impl BodyDecoder {
    /// Creates a decoder for a body framed so. `limits` bounds the lines of chunk sizes and the trailers.
    #[must_use]
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
        };
        BodyDecoder { state, limits: *limits, line_bytes: 0, extension_bytes: 0, trailers: None }
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns how many bytes of data are missing; `None` if that is not known (chunked).
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(remaining) => Some(remaining),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Iterates over the trailers; none before the body has ended.
    pub fn trailers(&self) -> impl Iterator<Item = Field<'_>> {
        let bytes = match &self.trailers {
            Some(trailers) if self.is_done() => trailers.bytes.as_slice(),
            _ => &[],
        };
        bytes.split(|&byte| byte == b'\n').filter_map(move |line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let span = scan::field(line, 0).ok()?;
            Some(Field { name: span.name.of(line), value: span.value.of(line) })
        })
    }

    /// Takes the next bytes: framing up to and including the next piece of data.
    ///
    /// Call again with the bytes after `consumed` until `done`, or until nothing was consumed: then more are needed.
    /// Every call with input makes progress, so the loop ends.
    ///
    /// # Errors
    ///
    /// The body is malformed. Every later call says the same.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Done => return Ok(Step { consumed: at, data: at..at, done: true }),
                State::Failed(error) => return Err(error),
                State::Length(remaining) | State::Data(remaining) => {
                    let taken = usize::try_from(remaining).unwrap_or(usize::MAX).min(rest.len());
                    let left = remaining - taken as u64;
                    let is_chunk = matches!(self.state, State::Data(_));
                    self.state = match (is_chunk, left) {
                        (true, 0) => State::DataCr,
                        (true, _) => State::Data(left),
                        (false, 0) => State::Done,
                        (false, _) => State::Length(left),
                    };
                    return Ok(Step {
                        consumed: at + taken,
                        data: at..at + taken,
                        done: self.is_done(),
                    });
                }
                _ => (),
            }
            let Some(&byte) = rest.first() else {
                return Ok(Step { consumed: at, data: at..at, done: false });
            };
            match self.step(byte) {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
            at += 1;
        }
    }

    /// Moves over one byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        if matches!(self.state, State::Size { .. } | State::Extension { .. }) {
            self.line_bytes += 1;
            if self.limits.field_line() < self.line_bytes {
                return Err(BodyError::ChunkLineTooLong);
            }
        }
        match self.state {
            State::Size { size, digits } => match (byte as char).to_digit(16) {
                Some(_) if digits == SIZE_DIGITS_MAX => Err(BodyError::ChunkSize),
                Some(digit) => {
                    Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
                }
                None if digits == 0 => Err(BodyError::ChunkSize),
                None => match byte {
                    b'\r' => Ok(State::SizeLf { size }),
                    b';' => self.extension(size, Place::BeforeName),
                    b' ' | b'\t' => self.extension(size, Place::BeforeSemicolon),
                    b'\n' => Err(BodyError::ChunkEnd),
                    _ => Err(BodyError::ChunkSize),
                },
            },
            State::Extension { size, place } => {
                if byte == b'\r' {
                    return match place {
                        Place::Name | Place::Token | Place::AfterQuoted => {
                            Ok(State::SizeLf { size })
                        }
                        _ => Err(BodyError::ChunkExtension),
                    };
                }
                let place = next_place(place, byte).ok_or(BodyError::ChunkExtension)?;
                self.extension(size, place)
            }
            State::SizeLf { size } => {
                self.line_bytes = 0;
                match (byte, size) {
                    (b'\n', 0) => Ok(State::Trailer),
                    (b'\n', _) => Ok(State::Data(size)),
                    _ => Err(BodyError::ChunkEnd),
                }
            }
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::Size { size: 0, digits: 0 }),
            State::DataCr | State::DataLf => Err(BodyError::ChunkEnd),
            State::Trailer => self.trailer(byte),
            state @ (State::Length(_) | State::Data(_) | State::Done | State::Failed(_)) => {
                Ok(state)
            }
        }
    }

    fn extension(&mut self, size: u64, place: Place) -> Result<State, BodyError> {
        self.extension_bytes += 1;
        if EXTENSION_BYTES_MAX < self.extension_bytes {
            return Err(BodyError::ExtensionsTooLong);
        }
        Ok(State::Extension { size, place })
    }

    fn trailer(&mut self, byte: u8) -> Result<State, BodyError> {
        let limits = &self.limits;
        let trailers = self.trailers.get_or_insert_default();
        let line_len = trailers.bytes.len() - trailers.line;
        if TRAILER_BYTES_MAX <= trailers.bytes.len() || limits.field_line() <= line_len {
            return Err(BodyError::TrailersTooLarge);
        }
        trailers.bytes.push(byte);
        trailers.place = match (trailers.place, byte) {
            (TrailerPlace::Start | TrailerPlace::Value, b'\r') => TrailerPlace::Lf,
            (TrailerPlace::Start, _) if limits.fields() <= trailers.count => {
                return Err(BodyError::TrailersTooLarge);
            }
            (TrailerPlace::Start | TrailerPlace::Name, _) if chars::is(byte, TOKEN) => {
                TrailerPlace::Name
            }
            (TrailerPlace::Name, b':') => TrailerPlace::Value,
            (TrailerPlace::Value, _) if chars::is(byte, VALUE) => TrailerPlace::Value,
            (TrailerPlace::Lf, b'\n') => return trailers.finish_line(),
            _ => return Err(BodyError::Trailer),
        };
        Ok(State::Trailer)
    }
}

impl Trailers {
    /// Judges the line that has just ended.
    fn finish_line(&mut self) -> Result<State, BodyError> {
        let content = self.bytes[self.line..].strip_suffix(b"\r\n").ok_or(BodyError::Trailer)?;
        if content.is_empty() {
            self.bytes.truncate(self.line);
            return Ok(State::Done);
        }
        let span = scan::field(content, 0).map_err(|_| BodyError::Trailer)?;
        if is_forbidden(span.name.of(content)) {
            return Err(BodyError::TrailerForbidden);
        }
        self.count += 1;
        self.line = self.bytes.len();
        self.place = TrailerPlace::Start;
        Ok(State::Trailer)
    }
}

fn next_place(place: Place, byte: u8) -> Option<Place> {
    let is_space = matches!(byte, b' ' | b'\t');
    let is_token = chars::is(byte, TOKEN);
    Some(match (place, byte) {
        (Place::BeforeSemicolon, _) if is_space => Place::BeforeSemicolon,
        (
            Place::BeforeSemicolon
            | Place::Name
            | Place::AfterName
            | Place::Token
            | Place::AfterQuoted,
            b';',
        ) => Place::BeforeName,
        (Place::BeforeName, _) if is_space => Place::BeforeName,
        (Place::BeforeName | Place::Name, _) if is_token => Place::Name,
        (Place::Name | Place::AfterName, b'=') => Place::BeforeValue,
        (Place::Name | Place::AfterName, _) if is_space => Place::AfterName,
        (Place::BeforeValue, _) if is_space => Place::BeforeValue,
        (Place::BeforeValue, b'"') => Place::Quoted,
        (Place::BeforeValue | Place::Token, _) if is_token => Place::Token,
        (Place::Token | Place::AfterQuoted, _) if is_space => Place::BeforeSemicolon,
        (Place::Quoted, b'"') => Place::AfterQuoted,
        (Place::Quoted, b'\\') => Place::QuotedPair,
        (Place::Quoted | Place::QuotedPair, _) if chars::is(byte, VALUE) => Place::Quoted,
        _ => return None,
    })
}

/// Fields that may not stand in a trailer: those needed before the content (RFC 9110 §6.5.1).
pub(crate) fn is_forbidden(name: &[u8]) -> bool {
    const FORBIDDEN: [&[u8]; 16] = [
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"max-forwards",
        b"proxy-authorization",
        b"range",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    FORBIDDEN.iter().any(|known| name.eq_ignore_ascii_case(known))
}
