//! The life of a connection: stories, and what holds in every state that can be reached.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use http1::conn::{After, Body, Event, Interest, State, Timeouts};

const NO_BODY: Event =
    Event::HeadParsed { after: After::KeepAlive, has_body: false, expects_continue: false };
const BODY: Event =
    Event::HeadParsed { after: After::KeepAlive, has_body: true, expects_continue: false };
const AWAITED: Event =
    Event::HeadParsed { after: After::KeepAlive, has_body: true, expects_continue: true };
const LAST: Event =
    Event::HeadParsed { after: After::Close, has_body: false, expects_continue: false };
const FLUSHED: Event = Event::Flushed { unread: 0 };
const FLUSHED_MORE: Event = Event::Flushed { unread: 9 };

const TIMEOUTS: Timeouts = Timeouts {
    header: Some(Duration::from_secs(1)),
    body_idle: Some(Duration::from_secs(2)),
    request: Some(Duration::from_secs(4)),
    write_stall: Some(Duration::from_secs(8)),
    keep_alive: Some(Duration::from_secs(16)),
    linger: Some(Duration::from_secs(32)),
};

fn after(events: &[Event]) -> (State, Instant) {
    let now = Instant::now();
    (events.iter().fold(State::new(now), |state, &event| state.next(event, now)), now)
}

#[track_caller]
fn check(events: &[Event], want: impl FnOnce(Instant) -> State) {
    let (state, now) = after(events);
    assert_eq!(state, want(now), "{events:?}");
}

#[test]
fn request_and_response_leave_the_connection_idle() {
    check(&[Event::BytesRead, NO_BODY, Event::ResponseBuilt, FLUSHED], |since| State::KeepAlive {
        since,
    });
    check(&[Event::BytesRead, NO_BODY, Event::ResponseBuilt, FLUSHED_MORE], |since| {
        State::Reading { since }
    });
}

#[test]
fn pipelined_requests_are_answered_in_one_write() {
    let events =
        [Event::BytesRead, NO_BODY, Event::ResponseBuilt, NO_BODY, Event::ResponseBuilt, FLUSHED];
    check(&events, |since| State::KeepAlive { since });
    assert!(after(&events[..3]).0.may_parse());
}

#[test]
fn client_that_asked_for_the_close_gets_it_at_once() {
    check(&[LAST, Event::ResponseBuilt, FLUSHED], |_| State::Closing);
    // It has sent more all the same: closing now would reset the connection under the response.
    check(&[LAST, Event::ResponseBuilt, FLUSHED_MORE], |since| State::Lingering { since });
}

#[test]
fn server_that_wants_to_close_lingers() {
    check(&[NO_BODY, Event::CloseAfter, Event::ResponseBuilt, FLUSHED], |since| State::Lingering {
        since,
    });
    check(&[Event::Refused, FLUSHED], |since| State::Lingering { since });
    check(&[Event::Refused, FLUSHED, Event::BytesRead, Event::PeerClosed], |_| State::Closing);
    check(&[Event::Refused, FLUSHED, Event::DiscardGivenUp], |_| State::Closing);
    assert_eq!(After::of(true, false), After::Linger);
    assert_eq!(After::of(false, false), After::Close);
    assert_eq!(After::of(true, true), After::KeepAlive);
}

#[test]
fn unread_body_is_discarded_before_the_next_request() {
    let events = [BODY, Event::ResponseBuilt, FLUSHED_MORE];
    check(&events, |since| State::Discarding { since });
    assert!(!after(&events[..2]).0.may_parse() && !after(&events).0.may_parse());
    check(&[BODY, Event::ResponseBuilt, FLUSHED, Event::BytesRead, Event::BodyDone], |since| {
        State::KeepAlive { since }
    });
    check(&[BODY, Event::ResponseBuilt, FLUSHED, Event::DiscardGivenUp], |since| {
        State::Lingering { since }
    });
    // The rest may come while the response is leaving, and must be read, or both sides wait for ever.
    assert_eq!(after(&events[..2]).0.interest(true, false), Interest { read: true, write: true });
    check(&[BODY, Event::ResponseBuilt, Event::BytesRead, Event::BodyDone, FLUSHED], |since| {
        State::KeepAlive { since }
    });
    check(&[BODY, Event::ResponseBuilt, Event::CloseAfter, FLUSHED], |since| State::Lingering {
        since,
    });
}

#[test]
fn answer_without_continue_closes() {
    assert!(!after(&[AWAITED]).0.keeps_alive());
    check(&[AWAITED, Event::ResponseBuilt, FLUSHED], |since| State::Lingering { since });
    assert!(after(&[AWAITED, Event::ContinueSent]).0.keeps_alive());
    // It did not wait.
    assert!(after(&[AWAITED, Event::BytesRead]).0.keeps_alive());
    check(&[AWAITED, Event::ContinueSent, Event::BytesRead, Event::BodyDone], |since| {
        State::Handling { body: Body::Complete, after: After::KeepAlive, since }
    });
}

#[test]
fn back_pressure_stops_reading() {
    let read = |events: &[Event], wants_body| after(events).0.interest(false, wants_body).read;
    assert!(read(&[], false) && read(&[NO_BODY, Event::ResponseBuilt, FLUSHED], false));
    assert!(!read(&[NO_BODY], true) && !read(&[NO_BODY, Event::ResponseBuilt], true));
    assert!(read(&[BODY], true) && !read(&[BODY], false));
}

#[test]
fn half_closed_client_still_gets_its_answer() {
    check(&[NO_BODY, Event::PeerClosed, Event::ResponseBuilt, FLUSHED], |_| State::Closing);
    check(&[NO_BODY, Event::ResponseBuilt, Event::PeerClosed, FLUSHED], |_| State::Closing);
    check(&[BODY, Event::PeerClosed], |_| State::Closing);
    check(&[Event::BytesRead, Event::PeerClosed], |_| State::Closing);
}

#[test]
fn end_of_a_drain_closes_idle_connections_only() {
    check(&[NO_BODY, Event::ResponseBuilt, FLUSHED, Event::CloseIdle], |_| State::Closing);
    for events in [
        &[][..],
        &[NO_BODY],
        &[NO_BODY, Event::ResponseBuilt],
        &[BODY, Event::ResponseBuilt, FLUSHED],
    ] {
        let (state, now) = after(events);
        assert_eq!(state.next(Event::CloseIdle, now), state);
    }
}

#[test]
fn slow_head_does_not_renew_its_deadline_and_a_slow_body_does() {
    let start = Instant::now();
    let later = start + Duration::from_millis(900);
    let reading = State::new(start).next(Event::BytesRead, later);
    assert_eq!(reading.deadline(&TIMEOUTS), Some(start + Duration::from_secs(1)));
    let body = State::new(start).next(BODY, start).next(Event::BytesRead, later);
    assert_eq!(body.deadline(&TIMEOUTS), Some(later + Duration::from_secs(2)));
    let request = body.next(Event::BodyDone, later);
    assert_eq!(request.deadline(&TIMEOUTS), Some(start + Duration::from_secs(4)));
    let writing = request
        .next(Event::ResponseBuilt, later)
        .next(Event::BytesWritten, later + Duration::from_secs(1));
    assert_eq!(writing.deadline(&TIMEOUTS), Some(later + Duration::from_secs(9)));
    assert_eq!(body.deadline(&Timeouts { body_idle: None, request: None, ..TIMEOUTS }), None);
}

/// The events that can come in a state.
fn possible(state: State) -> Vec<Event> {
    let mut events = vec![Event::Failed, Event::CloseIdle];
    match state {
        State::Closing => return events,
        State::Reading { .. } | State::KeepAlive { .. } => {
            events.extend([Event::BytesRead, NO_BODY, BODY, AWAITED, LAST, Event::Refused]);
        }
        State::Handling { body, .. } => {
            events.extend([
                Event::CloseAfter,
                Event::ResponseBuilt,
                Event::Refused,
                Event::BytesWritten,
                FLUSHED,
            ]);
            if body != Body::Complete {
                events.extend([Event::BytesRead, Event::ContinueSent, Event::BodyDone]);
            }
        }
        State::Writing { body, after, .. } => {
            events.extend([
                Event::BytesWritten,
                FLUSHED,
                FLUSHED_MORE,
                Event::CloseAfter,
                Event::Refused,
            ]);
            if body != Body::Complete {
                events.extend([Event::BytesRead, Event::BodyDone]);
            } else if after == After::KeepAlive {
                events.extend([NO_BODY, BODY, AWAITED, LAST]);
            }
        }
        State::Discarding { .. } => {
            events.extend([Event::BytesRead, Event::BodyDone, Event::DiscardGivenUp, FLUSHED])
        }
        State::Lingering { .. } => {
            events.extend([Event::BytesRead, Event::DiscardGivenUp, FLUSHED])
        }
    }
    events.extend([Event::TimedOut, Event::PeerClosed]);
    events
}

#[test]
fn what_holds_in_every_state_that_can_be_reached() {
    let now = Instant::now();
    let mut seen = HashSet::new();
    let mut open = vec![State::new(now)];
    while let Some(state) = open.pop() {
        if !seen.insert(format!("{state:?}")) {
            continue;
        }
        let is_closing = state == State::Closing;
        assert_eq!(state.deadline(&TIMEOUTS).is_none(), is_closing, "waits for ever: {state:?}");
        let interest = state.interest(false, true);
        let is_working = matches!(state, State::Handling { .. });
        // Writing with nothing unsent is left by `Flushed` at once, so only the handler may be waited for.
        assert!(
            interest.read || is_working || is_closing || matches!(state, State::Writing { .. }),
            "deaf: {state:?}"
        );
        for event in possible(state) {
            let next = state.next(event, now);
            if is_closing {
                assert_eq!(next, State::Closing);
            }
            if matches!(state, State::Lingering { .. }) {
                assert!(
                    matches!(next, State::Lingering { .. } | State::Closing),
                    "{event:?} revives {state:?}"
                );
            }
            if state.may_parse() {
                assert!(!matches!(
                    state,
                    State::Writing { body: Body::Arriving { .. } | Body::Awaited { .. }, .. }
                        | State::Handling { .. }
                        | State::Discarding { .. }
                ));
            }
            open.push(next);
        }
    }
    // 3 bodies × 3 afters, twice, and the five others, less what cannot come together.
    assert!((15..=23).contains(&seen.len()), "{}: {seen:#?}", seen.len());
}
