//! What the master and a preloader say to each other: a datagram each, on the socket that [`crate::contract::PRELOADER`] names.
//!
//! - A preloader is a process that imports an application once and makes the workers of one generation out of itself.
//! - Each wish is answered once, in any order. A wish brings the worker's end of its lifeline, an answer its pidfd.
//! - `NAME=value` lines, as on the notify socket: unknown ones are ignored.

/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256;

/// The master's wish for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Which one; the answer repeats it.
    pub number: u64,
    /// The slot of the worker.
    pub slot: usize,
    /// Its block in the scoreboard; `None`: all are in use.
    pub block: Option<usize>,
}

/// A preloader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which wish.
    pub number: u64,
    /// The worker's process id, or the `errno` that stood in the way.
    pub outcome: Result<i32, i32>,
}

impl Wish {
    /// The datagram.
    #[must_use]
    pub fn text(&self) -> String {
        let block = self.block.map(|block| format!("\nBLOCK={block}")).unwrap_or_default();
        format!("WORKER={}\nSLOT={}{block}", self.number, self.slot)
    }

    /// Reads a datagram; `None`: it is no wish.
    #[must_use]
    pub fn parse(text: &str) -> Option<Wish> {
        Some(Wish {
            number: value(text, "WORKER")?,
            slot: value(text, "SLOT")?,
            block: value(text, "BLOCK"),
        })
    }
}

impl Answer {
    /// The datagram.
    #[must_use]
    pub fn text(&self) -> String {
        match self.outcome {
            Ok(pid) => format!("WORKER={}\nPID={pid}", self.number),
            Err(errno) => format!("WORKER={}\nERRNO={errno}", self.number),
        }
    }

    /// Reads a datagram; `None`: it is no answer.
    #[must_use]
    pub fn parse(text: &str) -> Option<Answer> {
        let outcome = match value(text, "PID") {
            Some(pid) => Ok(pid),
            None => Err(value(text, "ERRNO")?),
        };
        Some(Answer { number: value(text, "WORKER")?, outcome })
    }
}

fn value<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        for block in [None, Some(3)] {
            let wish = Wish { number: u64::MAX, slot: 511, block };
            assert!(wish.text().len() <= MESSAGE_BYTES_MAX);
            assert_eq!(Wish::parse(&wish.text()), Some(wish));
        }
        for outcome in [Ok(4711), Err(11)] {
            let answer = Answer { number: 7, outcome };
            assert_eq!(Answer::parse(&answer.text()), Some(answer));
        }
    }

    #[test]
    fn nonsense_is_neither() {
        for text in ["", "WORKER=1", "SLOT=1", "WORKER=x\nSLOT=1\nPID=1", "PID=1"] {
            assert_eq!((Wish::parse(text), Answer::parse(text)), (None, None), "{text:?}");
        }
    }
}
