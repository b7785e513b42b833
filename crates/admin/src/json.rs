//! `/status.json`: everything, for programs.

use scoreboard::{Counter, Fact, Gauge};
use serde_json::{Value, json};

use crate::health;
use crate::observer::{View, Worker};
use crate::prometheus::EXITS;

/// The whole page.
pub fn page(view: &View) -> String {
    let exits: serde_json::Map<String, Value> = EXITS
        .iter()
        .map(|(reason, fact)| ((*reason).to_owned(), view.fact(*fact).into()))
        .collect();
    let listeners: Vec<Value> = view
        .listeners
        .iter()
        .map(|l| json!({"address": l.name, "queue_length": l.length, "queue_limit": l.limit}))
        .collect();
    let mut workers: Vec<&Worker> = view.workers.iter().collect();
    workers.sort_by_key(|worker| (worker.facts.slot, worker.facts.started));
    let page = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": view.fact(Fact::Pid),
        "uptime_s": view.uptime().as_secs_f64(),
        "state": view.phase.name(),
        "ready": health::ready(view).0 == 200,
        "generation": view.fact(Fact::Generation),
        "workers_target": view.fact(Fact::Target),
        "workers_booting": view.fact(Fact::Booting),
        "workers_ready": view.fact(Fact::Serving),
        "workers_draining": view.fact(Fact::Leaving),
        "worker_spawns": view.fact(Fact::Spawns),
        "worker_exits": exits,
        "reloads": {
            "ok": view.fact(Fact::ReloadsSucceeded),
            "error": view.fact(Fact::ReloadsFailed),
            "last": match view.fact(Fact::LastReload) { 1 => "ok", 2 => "error", _ => "none" },
            "last_success_unix_s": view.fact(Fact::LastReloadSuccessUnixMs) as f64 / 1e3,
        },
        "requests": view.total(Counter::RequestsDone),
        "requests_active": view.active(),
        "connections_accepted": view.total(Counter::ConnectionsAccepted),
        "bytes_received": view.total(Counter::BytesIn),
        "bytes_sent": view.total(Counter::BytesOut),
        "listeners": listeners,
        "workers": workers.into_iter().map(worker).collect::<Vec<_>>(),
    });
    format!("{page:#}\n")
}

fn worker(worker: &Worker) -> Value {
    let facts = &worker.facts;
    json!({
        "slot": facts.slot,
        "pid": facts.pid,
        "generation": facts.generation,
        "state": worker.doing.name(),
        "age_s": worker.age.as_secs_f64(),
        "heartbeat_age_s": worker.silence.map(|silence| silence.as_secs_f64()),
        "requests": facts.counters.get(Counter::RequestsDone),
        "requests_active": facts.active(),
        "busy_s": facts.counters.get(Counter::BusyNanoseconds) as f64 / 1e9,
        "cpu_s": worker.cpu.map(|cpu| cpu.as_secs_f64()),
        "resident_memory_bytes": worker.resident_bytes,
        "connections": {
            "reading": facts.gauge(Gauge::ConnectionsReading),
            "writing": facts.gauge(Gauge::ConnectionsWriting),
            "idle": facts.gauge(Gauge::ConnectionsIdle),
        },
        "request": facts.request.as_ref().map(|request| json!({
            "method": request.method,
            "path": request.path,
            "peer": request.peer,
            "age_s": worker.request_age().as_secs_f64(),
        })),
    })
}
