//! The last words of a worker that was silent for too long: one line that names the request in hand.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};

use crate::Signal;
use crate::clock::{self, LocalTime};

/// Longest line written, in bytes.
const LINE_BYTES_MAX: usize = 512;

static REPORT: OnceLock<AbortReport> = OnceLock::new();

/// Where the handler finds the request in hand: words of shared memory that live as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct AbortReport {
    /// `CLOCK_MONOTONIC` in nanoseconds when the request began; 0: none is in hand.
    pub since: &'static AtomicU64,
    /// Name and text of each fact. Of the words of a text the first is its length in bytes, the rest its bytes in
    /// memory order; a length beyond the words is cut.
    pub facts: [(&'static str, &'static [AtomicU64]); 3],
}

/// Writes a line to standard error when ABRT arrives, then lets the default action (a core dump) happen.
///
/// # Errors
///
/// `AlreadyExists`: a report was registered before.
pub fn report_on_abort(report: AbortReport) -> io::Result<()> {
    REPORT.set(report).map_err(|_| {
        io::Error::new(io::ErrorKind::AlreadyExists, "an abort report is registered already")
    })?;
    let handler = SigHandler::Handler(abort);
    // The default action is back before the handler runs, so a fault inside it ends the process too.
    let action = SigAction::new(handler, SaFlags::SA_RESETHAND, SigSet::empty());
    // SAFETY: `abort` reads atomics and clocks, formats on its stack and calls `write`: all async-signal-safe.
    unsafe { sigaction(Signal::SIGABRT, &action) }?;
    Ok(())
}

extern "C" fn abort(_: libc::c_int) {
    let mut line = Line { bytes: [0; LINE_BYTES_MAX], length: 0 };
    // SAFETY: no memory is touched.
    let pid = unsafe { libc::getpid() };
    frame(&mut line, clock::local_time_cached(), u64::from(pid.unsigned_abs()));
    match REPORT.get() {
        Some(report) if report.since.load(Ordering::Relaxed) != 0 => {
            line.text(b"Worker aborted with a request in hand");
            let since = report.since.load(Ordering::Relaxed);
            line.text(b" age_ms=");
            line.number(clock::monotonic().saturating_sub(since) / 1_000_000, 1);
            for (name, words) in &report.facts {
                line.text(b" ");
                line.text(name.as_bytes());
                line.text(b"=");
                line.words(words);
            }
        }
        _ => line.text(b"Worker aborted with no request in hand"),
    }
    line.bytes[line.length.min(LINE_BYTES_MAX - 1)] = b'\n';
    let length = (line.length + 1).min(LINE_BYTES_MAX);
    // SAFETY: `length` bytes are initialised; nobody is left to tell of a failure.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), length) };
    // Blocked until this handler returns, then taken by the default action.
    // SAFETY: no memory is touched.
    unsafe { libc::raise(libc::SIGABRT) };
}

/// Writes `[2026-01-31 12:00:00 +0000] [4242] [CRITICAL] `.
fn frame(line: &mut Line, time: LocalTime, pid: u64) {
    line.text(b"[");
    line.number(time.year.unsigned_abs().into(), 4);
    for (before, value) in [
        (b"-", time.month),
        (b"-", time.day),
        (b" ", time.hour),
        (b":", time.minute),
        (b":", time.second),
    ] {
        line.text(before);
        line.number(value.into(), 2);
    }
    let offset = time.utc_offset.unsigned_abs();
    line.text(if time.utc_offset < 0 { b" -" } else { b" +" });
    line.number(u64::from(offset / 3_600 * 100 + offset / 60 % 60), 4);
    line.text(b"] [");
    line.number(pid, 1);
    line.text(b"] [CRITICAL] ");
}

/// A line under construction; what does not fit is cut.
struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    length: usize,
}

impl Line {
    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn text(&mut self, text: &[u8]) {
        for &byte in text {
            self.byte(byte);
        }
    }

    fn number(&mut self, mut number: u64, digits_min: usize) {
        let mut digits = [b'0'; 20];
        let mut count = 0;
        while number > 0 || count < digits_min {
            count += 1;
            digits[20 - count] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.text(&digits[20 - count..]);
    }

    /// Appends a text kept in shared words; anything that could forge a line is replaced.
    fn words(&mut self, words: &[AtomicU64]) {
        let Some((length, words)) = words.split_first() else { return };
        let length = (length.load(Ordering::Relaxed) as usize).min(words.len() * 8);
        let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        for byte in bytes.take(length) {
            self.byte(if byte.is_ascii_graphic() { byte } else { b'?' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_the_log_frame_and_texts_cannot_forge_lines() {
        let mut line = Line { bytes: [0; LINE_BYTES_MAX], length: 0 };
        let time = LocalTime {
            year: 2026,
            month: 1,
            day: 31,
            hour: 2,
            minute: 3,
            second: 4,
            utc_offset: -12_600,
        };
        frame(&mut line, time, 4242);
        let mut word = [0; 8];
        word.copy_from_slice(b"/a\nb cde");
        line.words(&[AtomicU64::new(900), AtomicU64::new(u64::from_ne_bytes(word))]);
        assert_eq!(
            std::str::from_utf8(&line.bytes[..line.length]).expect("text"),
            "[2026-01-31 02:03:04 -0330] [4242] [CRITICAL] /a?b?cde"
        );
    }
}
