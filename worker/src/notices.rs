//! What the worker tells its master, until it is taken: a full queue is no answer.
//!
//! The queue of the master's socket holds a handful of messages, and anybody on the machine may fill it.

use std::io;
use std::time::{Duration, Instant};

use net::notify::Notifier;

/// Time between two attempts to say what was not taken.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// Longest time that a worker which cannot boot stays for its reason to be taken; its exit code says the rest.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// The worker's end of the conversation.
#[derive(Debug)]
pub(crate) struct Notices {
    notifier: Option<Notifier>,
    /// What was said and not taken, and when it is said again.
    untold: Option<(String, Instant)>,
}

impl Notices {
    /// `None`: nobody wants to be told.
    pub(crate) fn new(notifier: Option<Notifier>) -> Notices {
        Notices { notifier, untold: None }
    }

    /// Says `message`, now or as soon as it is taken. Only the latest one waits.
    pub(crate) fn say(&mut self, message: &str, now: Instant) {
        self.untold = (!self.is_taken(message)).then(|| (message.to_owned(), now + RETRY_EVERY));
    }

    /// Says again what was not taken, if it is time.
    pub(crate) fn retry(&mut self, now: Instant) {
        if let Some((message, _)) = self.untold.take_if(|(_, at)| *at <= now) {
            self.say(&message, now);
        }
    }

    /// Time until [`Notices::retry`] has something to do.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.untold.as_ref().map(|(_, at)| at.saturating_duration_since(now))
    }

    /// Says why this worker ends. Waits for it to be taken, for the worker has nothing else to do.
    pub(crate) fn say_at_the_end(&mut self, message: &str) {
        let until = Instant::now() + LAST_WORD_MAX;
        while !self.is_taken(message) && Instant::now() < until {
            std::thread::sleep(RETRY_EVERY);
        }
    }

    /// The notifier, for a copy of this process that has a conversation of its own.
    pub(crate) fn into_notifier(self) -> Option<Notifier> {
        self.notifier
    }

    /// Whether there is no need to say it again. A master that is gone is noticed by the lifeline.
    fn is_taken(&self, message: &str) -> bool {
        let sent = self.notifier.as_ref().map_or(Ok(()), |notifier| notifier.send(message));
        !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests {
    use net::notify::Receiver;

    use super::*;

    /// Messages that fill any queue.
    const FLOOD: usize = 100_000;

    fn full() -> (Receiver, Notices) {
        let receiver = Receiver::open().unwrap();
        let notifier = Notifier::to(receiver.name()).unwrap();
        assert!((0..FLOOD).any(|_| notifier.send("STATUS=x").is_err()), "the queue never fills");
        (receiver, Notices::new(Some(notifier)))
    }

    #[test]
    fn what_a_full_queue_did_not_take_is_said_again_at_a_bounded_pace() {
        let (receiver, mut notices) = full();
        let now = Instant::now();
        notices.say("READY=1", now);
        assert_eq!(notices.wait(now), Some(RETRY_EVERY));
        notices.retry(now + RETRY_EVERY);
        assert_eq!(notices.wait(now + RETRY_EVERY), Some(RETRY_EVERY), "it is full still");
        while receiver.receive().unwrap().is_some_and(|(_, text)| text == "STATUS=x") {}
        notices.retry(now + RETRY_EVERY);
        assert_eq!(receiver.receive().unwrap(), None, "too early");
        notices.retry(now + 2 * RETRY_EVERY);
        assert_eq!(receiver.receive().unwrap().unwrap().1, "READY=1");
        assert_eq!(notices.wait(now), None);
    }

    #[test]
    fn nobody_and_a_master_that_is_gone_are_told_once() {
        let (receiver, mut gone) = full();
        drop(receiver);
        let now = Instant::now();
        for notices in [&mut gone, &mut Notices::new(None)] {
            notices.say("READY=1", now);
            assert_eq!(notices.wait(now), None);
            notices.say_at_the_end("ERRNO=4");
        }
    }
}
