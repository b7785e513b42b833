//! `/metrics`: Prometheus text.
//!
//! Labels hold slots, never process ids, and routes as the application wrote them, never paths as clients did: the
//! number of series is bounded whatever happens.

use std::fmt::Write;
use std::time::Duration;

use scoreboard::{Counter, Fact, Gauge, Histogram, LATENCY_BOUNDS_NS, Phase};

use crate::observer::{Doing, View};
use crate::proc;

/// A page under construction.
struct Page {
    text: String,
}

impl Page {
    /// Begins a family of samples.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    fn counter(&mut self, name: &'static str, help: &str, value: impl Into<Number>) {
        self.family(name, "counter", help).sample(&[], value);
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: impl Into<Number>) {
        self.family(name, "gauge", help).sample(&[], value);
    }
}

/// Samples of one name.
struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        self.sample_of("", labels, None, value);
    }

    fn sample_of(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<f64>,
        value: impl Into<Number>,
    ) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut opening = '{';
        for (name, value) in labels {
            let _ = write!(self.text, "{opening}{name}=\"{}\"", escaped(value));
            opening = ',';
        }
        match bound {
            Some(bound) if bound.is_finite() => {
                let _ = write!(self.text, "{opening}le=\"{bound}\"");
                opening = ',';
            }
            Some(_) => {
                let _ = write!(self.text, "{opening}le=\"+Inf\"");
                opening = ',';
            }
            None => (),
        }
        if opening == ',' {
            self.text.push('}');
        }
        let _ = match value.into() {
            Number::Whole(value) => writeln!(self.text, " {value}"),
            Number::Fraction(value) => writeln!(self.text, " {value}"),
        };
    }

    fn histogram(&mut self, labels: &[(&str, &str)], durations: &Histogram) {
        let bounds = LATENCY_BOUNDS_NS.iter().map(|&bound| bound as f64 / 1e9);
        let mut count = 0;
        for (bound, more) in bounds.chain([f64::INFINITY]).zip(durations.counts) {
            count = more.wrapping_add(count);
            self.sample_of("_bucket", labels, Some(bound), count);
        }
        self.sample_of("_sum", labels, None, durations.sum);
        self.sample_of("_count", labels, None, count);
    }
}

/// The value of a sample. Times are seconds.
enum Number {
    Whole(u64),
    Fraction(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<Duration> for Number {
    fn from(value: Duration) -> Number {
        Number::Fraction(value.as_secs_f64())
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The whole page.
pub fn page(view: &View) -> String {
    let mut page = Page { text: String::with_capacity(32 * 1024) };
    http(&mut page, view);
    database(&mut page, view);
    workers(&mut page, view);
    slots(&mut page, view);
    master(&mut page, view);
    process(&mut page, view);
    page.text
}

fn http(page: &mut Page, view: &View) {
    let mut family = page.family(
        "http_server_request_duration_seconds",
        "histogram",
        "Time from a request's head to its response.",
    );
    let mut series: Vec<_> = view.snapshot.series.iter().collect();
    series.sort_by_key(|series| (&series.route, series.verb, series.status));
    for series in series {
        let status = if series.status == 0 { "_OTHER".into() } else { series.status.to_string() };
        let labels = [
            ("http_request_method", series.verb.name()),
            ("http_route", series.route.as_str()),
            ("http_response_status_code", status.as_str()),
        ];
        family.histogram(&labels, &series.durations);
    }
    page.gauge(
        "http_server_active_requests",
        "Requests taken in hand and not yet answered.",
        view.active(),
    );
    let mut family =
        page.family("http_server_connections", "gauge", "Client connections, by what they do.");
    for (state, gauge) in [
        ("reading", Gauge::ConnectionsReading),
        ("writing", Gauge::ConnectionsWriting),
        ("idle", Gauge::ConnectionsIdle),
    ] {
        family.sample(&[("state", state)], view.gauge(gauge));
    }
    page.counter(
        "http_server_connections_accepted_total",
        "Client connections accepted.",
        view.total(Counter::ConnectionsAccepted),
    );
    let mut family = page.family(
        "http_server_request_errors_total",
        "counter",
        "Requests that were refused, or lost their client.",
    );
    for (reason, counter) in [
        ("bad_request", Counter::RefusedBadRequest),
        ("header_timeout", Counter::RefusedHeaderTimeout),
        ("body_timeout", Counter::RefusedBodyTimeout),
        ("write_timeout", Counter::RefusedWriteTimeout),
        ("too_large", Counter::RefusedTooLarge),
        ("aborted", Counter::RequestsAborted),
    ] {
        family.sample(&[("reason", reason)], view.total(counter));
    }
    page.counter(
        "http_server_receive_bytes_total",
        "Bytes read from clients, heads included.",
        view.total(Counter::BytesIn),
    );
    page.counter(
        "http_server_transmit_bytes_total",
        "Bytes written to clients, heads included.",
        view.total(Counter::BytesOut),
    );
    page.counter(
        "http_server_handler_errors_total",
        "Handlers that failed or panicked.",
        view.total(Counter::HandlerErrors),
    );
}

fn database(page: &mut Page, view: &View) {
    let mut family = page.family("db_client_connections", "gauge", "Database connections.");
    family.sample(&[("state", "up")], view.gauge(Gauge::DatabaseConnectionsUp));
    family.sample(&[("state", "connecting")], view.gauge(Gauge::DatabaseConnectionsConnecting));
    page.gauge(
        "db_client_in_flight",
        "Queries sent and not yet answered.",
        view.gauge(Gauge::DatabaseInFlight),
    );
    let mut family = page.family(
        "db_client_connects_total",
        "counter",
        "Attempts to connect to the database, by their result.",
    );
    family.sample(&[("result", "ok")], view.total(Counter::DatabaseConnects));
    family.sample(&[("result", "error")], view.total(Counter::DatabaseConnectFailures));
    page.counter(
        "db_client_operations_total",
        "Queries answered by the database.",
        view.total(Counter::DatabaseQueries),
    );
    let mut family = page.family(
        "db_client_operation_errors_total",
        "counter",
        "Queries that failed, by reason.",
    );
    for (reason, counter) in [
        ("refused", Counter::DatabaseRefused),
        ("timeout", Counter::DatabaseTimeouts),
        ("overload", Counter::DatabaseOverloads),
        ("unavailable", Counter::DatabaseUnavailable),
    ] {
        family.sample(&[("reason", reason)], view.total(counter));
    }
    page.family(
        "db_client_operation_duration_seconds",
        "histogram",
        "Time from a query's sending to its answer.",
    )
    .histogram(&[], &view.snapshot.totals.query_durations());
}

fn workers(page: &mut Page, view: &View) {
    let mut family =
        page.family("monoceros_workers", "gauge", "Worker processes, by what they do.");
    for doing in Doing::ALL {
        family.sample(&[("state", doing.name())], view.doing(doing));
    }
    page.gauge("monoceros_workers_target", "Workers wanted.", view.fact(Fact::Target));
    page.counter(
        "monoceros_worker_spawns_total",
        "Worker processes spawned.",
        view.fact(Fact::Spawns),
    );
    page.counter(
        "monoceros_worker_spawn_failures_total",
        "Worker processes that the system refused to make.",
        view.fact(Fact::SpawnFailures),
    );
    let mut family = page.family(
        "monoceros_worker_exits_total",
        "counter",
        "Worker processes that ended, by reason.",
    );
    for (reason, fact) in EXITS {
        family.sample(&[("reason", reason)], view.fact(fact));
    }
    let mut family = page.family(
        "monoceros_log_lines_total",
        "counter",
        "Lines of the error log from warnings on, of master and workers.",
    );
    for (level, lines) in log_lines(view) {
        family.sample(&[("level", level)], lines);
    }
}

/// Why workers end.
pub const EXITS: [(&str, Fact); 8] = [
    ("ok", Fact::ExitsOk),
    ("signal", Fact::ExitsSignal),
    ("error", Fact::ExitsError),
    ("timeout", Fact::ExitsTimeout),
    ("boot_error", Fact::ExitsBoot),
    ("max_requests", Fact::ExitsRecycled),
    ("reload", Fact::ExitsReload),
    ("scale", Fact::ExitsScale),
];

fn log_lines(view: &View) -> [(&'static str, u64); 3] {
    let both = |counter, fact| view.total(counter).wrapping_add(view.fact(fact));
    [
        ("critical", both(Counter::LogCritical, Fact::LogCriticals)),
        ("error", both(Counter::LogError, Fact::LogErrors)),
        ("warning", both(Counter::LogWarning, Fact::LogWarnings)),
    ]
}

fn slots(page: &mut Page, view: &View) {
    let names: Vec<String> = (0..view.slots.len()).map(|slot| slot.to_string()).collect();
    let slots = || names.iter().zip(&view.slots);
    let mut family = page.family(
        "monoceros_worker_requests_total",
        "counter",
        "Requests answered by the workers of a slot.",
    );
    slots().for_each(|(name, slot)| family.sample(&[("worker", name)], slot.requests));
    let mut family = page.family(
        "monoceros_worker_busy_seconds_total",
        "counter",
        "Time that the workers of a slot did not wait for something to do.",
    );
    slots().for_each(|(name, slot)| family.sample(&[("worker", name)], slot.busy));
    let mut family = page.family(
        "monoceros_worker_cpu_seconds_total",
        "counter",
        "Processor time of the workers of a slot.",
    );
    slots().for_each(|(name, slot)| family.sample(&[("worker", name)], slot.cpu));

    // Two processes share a slot while one replaces the other.
    let living =
        |slot: usize| view.workers.iter().filter(move |worker| worker.facts.slot == slot as u64);
    let mut family = page.family(
        "monoceros_worker_resident_memory_bytes",
        "gauge",
        "Resident memory of the workers in a slot.",
    );
    for (slot, name) in names.iter().enumerate().filter(|(slot, _)| living(*slot).count() != 0) {
        let bytes: u64 = living(slot).filter_map(|worker| worker.resident_bytes).sum();
        family.sample(&[("worker", name)], bytes);
    }
    let mut family = page.family(
        "monoceros_worker_heartbeat_age_seconds",
        "gauge",
        "Time since the last sign of life of the most silent worker in a slot.",
    );
    for (slot, name) in names.iter().enumerate() {
        if let Some(silence) = living(slot).filter_map(|worker| worker.silence).max() {
            family.sample(&[("worker", name)], silence);
        }
    }
    let mut family = page.family(
        "monoceros_worker_start_time_seconds",
        "gauge",
        "Unix time at which the newest worker in a slot was spawned.",
    );
    for (slot, name) in names.iter().enumerate() {
        if let Some(age) = living(slot).map(|worker| worker.age).min() {
            family.sample(&[("worker", name)], view.now_unix.saturating_sub(age));
        }
    }
}

fn master(page: &mut Page, view: &View) {
    let mut family = page.family(
        "monoceros_listen_queue_length",
        "gauge",
        "Connections that wait to be accepted, looked at once a second.",
    );
    for listener in &view.listeners {
        family.sample(&[("listener", &listener.name)], listener.length);
    }
    let mut family = page.family(
        "monoceros_listen_queue_limit",
        "gauge",
        "Connections that may wait to be accepted.",
    );
    for listener in &view.listeners {
        family.sample(&[("listener", &listener.name)], listener.limit);
    }
    let mut family = page.family("monoceros_reloads_total", "counter", "Reloads, by their result.");
    family.sample(&[("result", "ok")], view.fact(Fact::ReloadsSucceeded));
    family.sample(&[("result", "error")], view.fact(Fact::ReloadsFailed));
    page.gauge(
        "monoceros_config_last_reload_successful",
        "Whether the settings in force are the last that were asked for.",
        u64::from(view.fact(Fact::LastReload) != 2),
    );
    page.gauge(
        "monoceros_config_last_reload_success_timestamp_seconds",
        "Unix time of the last successful reload, or of the start.",
        Duration::from_millis(view.fact(Fact::LastReloadSuccessUnixMs)),
    );
    page.gauge(
        "monoceros_generation",
        "Number of the reading of the settings that is in force.",
        view.fact(Fact::Generation),
    );
    let mut family =
        page.family("monoceros_state", "gauge", "What the server is doing: one of them is 1.");
    for phase in Phase::ALL {
        family.sample(&[("state", phase.name())], u64::from(view.phase == phase));
    }
    let mut family = page.family("monoceros_build_info", "gauge", "Version of the server.");
    family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
}

fn process(page: &mut Page, view: &View) {
    let pid = view.fact(Fact::Pid);
    if let Some(cpu) = view.master.cpu {
        page.counter("process_cpu_seconds_total", "Processor time of the master.", cpu);
    }
    if let Some(bytes) = view.master.resident_bytes {
        page.gauge("process_resident_memory_bytes", "Resident memory of the master.", bytes);
    }
    if let Some(count) = proc::open_fds(pid) {
        page.gauge("process_open_fds", "Open descriptors of the master.", count);
    }
    if let Some(count) = proc::max_fds(pid) {
        page.gauge("process_max_fds", "Descriptors that the master may open.", count);
    }
    page.gauge(
        "process_start_time_seconds",
        "Unix time at which the master started.",
        Duration::from_millis(view.fact(Fact::StartedUnixMs)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Observer;
    use scoreboard::{Call, Scoreboard, Verb};

    fn sample() -> String {
        let mut board = Scoreboard::create(2).unwrap();
        let index = board.acquire(0, 1).unwrap();
        let block = board.block(index).unwrap();
        block.start(std::process::id());
        for nanoseconds in [90_000, 90_000, 3_000_000, 60_000_000_000] {
            let call =
                Call { verb: Verb::of(b"GET"), route: 1, pattern: "/a/{\"b\\}", status: 200 };
            block.finish(&call, nanoseconds);
        }
        page(&Observer::new(board.leak()).look())
    }

    #[test]
    fn buckets_are_cumulated_and_labels_escaped() {
        let page = sample();
        let labels = "http_request_method=\"GET\",http_route=\"/a/{\\\"b\\\\}\",http_response_status_code=\"200\"";
        for line in [
            format!("http_server_request_duration_seconds_bucket{{{labels},le=\"0.0001\"}} 2"),
            format!("http_server_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 3"),
            format!("http_server_request_duration_seconds_bucket{{{labels},le=\"10\"}} 3"),
            format!("http_server_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("http_server_request_duration_seconds_count{{{labels}}} 4"),
            "monoceros_worker_requests_total{worker=\"0\"} 4".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in:\n{page}");
        }
    }

    #[test]
    fn every_family_has_help_and_type_and_stands_in_the_manual() {
        let manual = include_str!("../../../docs/metrics.md");
        let page = sample();
        let mut families = Vec::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(page.contains(&format!("# HELP {name} ")), "{name}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                assert!(manual.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
                families.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(families.last().is_some_and(|family| name.starts_with(family)), "{line}");
            }
        }
        assert!(30 < families.len(), "{families:?}");
    }
}
