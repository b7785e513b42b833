//! `/status`: the scoreboard for people. It refreshes itself and needs no script.

use std::fmt::Write;

use scoreboard::{Counter, Fact};

use crate::health;
use crate::observer::{View, Worker};

/// What there is.
pub const INDEX: &str = "<!doctype html><meta charset=utf-8><title>Monoceros</title><ul>\
<li><a href=/status>status</a> (<a href=/status.json>JSON</a>, <a href='/status?auto'>text</a>)\
<li><a href=/metrics>metrics</a><li><a href=/readyz>readyz</a><li><a href=/livez>livez</a></ul>\n";

const HEAD: &str = "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2>\
<title>Monoceros</title><style>body{font:14px system-ui,sans-serif;margin:2em;color:#222;background:#fff}\
table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
th{font-weight:600}td.l,th.l{text-align:left}.busy{background:#fe9}.draining{background:#ddd}.starting{background:#cdf}\
.bad{color:#b00;font-weight:600}</style>";

/// The whole page.
pub fn page(view: &View) -> String {
    let mut page = String::with_capacity(8 * 1024);
    let (status, word) = health::ready(view);
    let class = if status == 200 { "" } else { " class=bad" };
    // Writing into a string cannot fail.
    let _ = write!(
        page,
        "{HEAD}<h1>Monoceros {}</h1><p><span{class}>{word}</span>, {}; {} of {} workers ready, generation {}; up {} s</p>",
        env!("CARGO_PKG_VERSION"),
        view.phase.name(),
        view.fact(Fact::Serving),
        view.fact(Fact::Target),
        view.fact(Fact::Generation),
        view.uptime().as_secs(),
    );
    let _ = write!(
        page,
        "<p>{} requests, {} in hand; {} connections accepted; {} workers spawned; reloads: {} ok, {} failed</p>",
        view.total(Counter::RequestsDone),
        view.active(),
        view.total(Counter::ConnectionsAccepted),
        view.fact(Fact::Spawns),
        view.fact(Fact::ReloadsSucceeded),
        view.fact(Fact::ReloadsFailed),
    );
    page += "<table><tr><th class=l>listener<th>queue<th>limit";
    for listener in &view.listeners {
        let (name, length, limit) = (escaped(&listener.name), listener.length, listener.limit);
        let _ = write!(page, "<tr><td class=l>{name}<td>{length}<td>{limit}");
    }
    page += "</table><table><tr><th>slot<th>pid<th>gen<th class=l>state<th>requests<th>busy<th>memory<th>age<th>silent\
             <th class=l>request";
    let mut workers: Vec<&Worker> = view.workers.iter().collect();
    workers.sort_by_key(|worker| (worker.facts.slot, worker.facts.started));
    for worker in workers {
        row(&mut page, worker);
    }
    page += "</table>\n";
    page
}

fn row(page: &mut String, worker: &Worker) {
    let facts = &worker.facts;
    let state = worker.doing.name();
    let busy = facts.counters.get(Counter::BusyNanoseconds) as f64 / 1e9;
    let share = 100.0 * busy / worker.age.as_secs_f64().max(0.001);
    let megabytes =
        worker.resident_bytes.map_or_else(String::new, |b| format!("{:.1} MB", b as f64 / 1e6));
    let silent = worker
        .silence
        .map_or_else(String::new, |silence| format!("{:.1} s", silence.as_secs_f64()));
    let request = facts.request.as_ref().map_or_else(String::new, |request| {
        let age = worker.request_age().as_secs_f64();
        escaped(&format!("{} {} {} {age:.1} s", request.method, request.path, request.peer))
    });
    let _ = write!(
        page,
        "<tr class={state}><td>{}<td>{}<td>{}<td class=l>{state}<td>{}<td>{share:.1} %<td>{megabytes}<td>{} s<td>{silent}\
         <td class=l>{request}",
        facts.slot,
        facts.pid,
        facts.generation,
        facts.counters.get(Counter::RequestsDone),
        worker.age.as_secs(),
    );
}

/// Paths are the clients' bytes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Observer;
    use scoreboard::Scoreboard;

    #[test]
    fn what_a_client_sends_is_text_and_not_markup() {
        let mut board = Scoreboard::create(1).unwrap();
        let index = board.acquire(0, 1).unwrap();
        board.block(index).unwrap().begin(1, b"GET", b"/<script>alert(1)</script>", b"");
        let page = page(&Observer::new(board.leak()).look());
        assert!(page.contains("/&lt;script&gt;alert") && !page.contains("<script"), "{page}");
    }
}
