//! Liveness and readiness.

use std::time::Duration;

use scoreboard::{Fact, Phase};

use crate::observer::View;

/// The arbiter's loop goes round at least once a second; without it for this long, the master does not supervise.
const MASTER_SILENCE_MAX: Duration = Duration::from_secs(15);

/// An HTTP status, and the word for it.
pub type Health = (u16, &'static str);

/// Whether the master's loop goes round.
pub fn live(view: &View) -> Health {
    if view.master_silence <= MASTER_SILENCE_MAX { (200, "ok") } else { (503, "stalled") }
}

/// Whether new connections are welcome.
pub fn ready(view: &View) -> Health {
    decide(view.phase, view.fact(Fact::Serving))
}

fn decide(phase: Phase, serving: u64) -> Health {
    match phase {
        Phase::Starting => (503, "starting"),
        Phase::Stopping => (503, "draining"),
        Phase::Running | Phase::Reloading if serving == 0 => (503, "unavailable"),
        Phase::Running | Phase::Reloading => (200, "ok"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_no_reason_to_stay_away_and_a_stop_is() {
        assert_eq!(decide(Phase::Reloading, 1), (200, "ok"));
        assert_eq!(decide(Phase::Running, 0), (503, "unavailable"));
        assert_eq!(decide(Phase::Stopping, 4), (503, "draining"));
        assert_eq!(decide(Phase::Starting, 0), (503, "starting"));
    }
}
