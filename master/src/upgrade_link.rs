//! The link between the two masters of an upgrade: a socket pair with a line of JSON for each word.
//!
//! The two may be of different versions: what one does not understand it passes over, and what is missing has a default.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest line; who sends a longer one is not understood at all.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Longest reason that is passed on, in characters.
const REASON_CHARS_MAX: usize = 1_000;

/// What one master tells the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// New to old: from now on it hears what it is told.
    Begun {},
    /// New to old: every slot is served.
    Ready {
        /// Which of the passed listeners it uses, by their place.
        #[serde(default)]
        kept: Vec<usize>,
        /// The pidfile that it will have.
        #[serde(default)]
        pidfile: Option<PathBuf>,
    },
    /// New to old: it cannot serve, and ends.
    Failed {
        /// Why, in one line.
        reason: String,
    },
    /// Old to new: everything is yours.
    Go {
        /// The number of workers wanted, if somebody changed it meanwhile.
        #[serde(default)]
        workers: Option<usize>,
        /// A reload was asked for meanwhile.
        #[serde(default)]
        reload: bool,
    },
    /// Old to new: you are not wanted.
    Stop {},
}

/// What came over the link.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A word.
    Word(Word),
    /// The other master is gone, or cannot be understood. Nothing more will come.
    End,
}

/// One end of the link.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    unread: Vec<u8>,
    is_over: bool,
}

impl Link {
    /// Takes over one end; it will never block.
    ///
    /// # Errors
    ///
    /// None that an open socket can cause.
    pub fn new(stream: UnixStream) -> io::Result<Link> {
        stream.set_nonblocking(true)?;
        Ok(Link { stream, unread: Vec::new(), is_over: false })
    }

    /// A second handle on the same end, for saying more.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Link> {
        let stream = self.stream.try_clone()?;
        Ok(Link { stream, unread: Vec::new(), is_over: false })
    }

    /// Says `word`. That the other one is gone is seen by hearing.
    pub fn say(&self, word: &Word) {
        if let Ok(mut line) = serde_json::to_vec(word) {
            line.push(b'\n');
            // A line is far shorter than the socket's buffer, so it is written whole or not at all.
            let _ = (&self.stream).write(&line);
        }
    }

    /// Says why we cannot serve.
    pub fn say_failed(&self, why: &str) {
        let reason = why.chars().map(|c| if c.is_control() { ' ' } else { c });
        self.say(&Word::Failed { reason: reason.take(REASON_CHARS_MAX).collect() });
    }

    /// Takes what has come; the end is told once.
    pub fn hear(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut buffer = [0; 1024];
        while !self.is_over {
            match (&self.stream).read(&mut buffer) {
                Ok(length) => {
                    self.is_over = length == 0;
                    self.unread.extend_from_slice(&buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.is_over = true,
            }
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                heard.extend(serde_json::from_slice(&line).ok().map(Heard::Word));
            }
            self.is_over |= LINE_BYTES_MAX < self.unread.len();
            if self.is_over {
                heard.push(Heard::End);
            }
        }
        heard
    }

    /// Whether there is somebody at the other end, as far as was heard.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_over
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_whole_and_strange_ones_are_passed_over() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut link = Link::new(one).unwrap();
        (&other).write_all(b"{\"begun\":{}}\n{\"future\":{\"x\":1}}\nnonsense\n{\"go\"").unwrap();
        assert_eq!(link.hear(), [Heard::Word(Word::Begun {})]);
        (&other).write_all(b":{\"reload\":true,\"more\":1}}\n").unwrap();
        assert_eq!(link.hear(), [Heard::Word(Word::Go { workers: None, reload: true })]);
        Link::new(other).unwrap().say_failed("a\nb");
        let want = Heard::Word(Word::Failed { reason: "a b".into() });
        assert_eq!(link.hear(), [want, Heard::End]);
        assert_eq!((link.hear(), link.is_open()), (vec![], false));
    }

    #[test]
    fn endless_lines_end_the_link() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut link = Link::new(one).unwrap();
        (&other).write_all(&vec![b'x'; LINE_BYTES_MAX + 1]).unwrap();
        assert_eq!(link.hear(), [Heard::End]);
    }
}
