//! gunicorn's settings that are not ours: accepted without effect, or refused, each with the reason in one sentence.
//!
//! - A setting of gunicorn is in [`super::SETTINGS`] or here, never in both; `docs/gunicorn.md` has a row for each.
//! - Nothing that would change what a server does is ignored: what is asked for and cannot be had is a mistake.

use Fate::{Ignored, Refused};
use Takes::{Nothing, Value};

/// A setting of gunicorn that is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// gunicorn's name for it.
    pub name: &'static str,
    /// gunicorn's flags without their dashes; one letter is a short one.
    pub flags: &'static [&'static str],
    /// What stands behind the flag.
    pub takes: Takes,
    /// What becomes of it.
    pub fate: Fate,
    /// The reason, without a full stop.
    pub why: &'static str,
}

/// What a flag is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A value.
    Value,
    /// Nothing.
    Nothing,
}

/// What becomes of a setting that is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has no effect, and a warning says so: leaving it away is the same.
    Ignored,
    /// The server does not start with it.
    Refused,
}

impl Retired {
    /// The setting of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Retired> {
        RETIRED.iter().find(|retired| retired.name == name)
    }

    /// What it comes to with this value. `None`: it asks for what there is anyway, so nothing has to be said.
    #[must_use]
    pub fn with(&self, value: &str) -> Option<Retired> {
        let value = value.trim();
        let is_harmless = |(name, values): &&(&str, &[&str])| {
            *name == self.name && values.iter().any(|harmless| harmless.eq_ignore_ascii_case(value))
        };
        if HARMLESS.iter().any(|harmless| is_harmless(&harmless)) {
            return None;
        }
        let refused = |why| Some(Retired { fate: Refused, why, ..*self });
        match self.name {
            "worker_class" if is_asgi(value) => refused(NO_ASGI),
            "worker_class" if !is_gunicorns_worker(value) => refused(
                "no worker class of that name is known; there is one kind of worker, an event loop",
            ),
            _ => Some(*self),
        }
    }

    /// What is said to whoever uses it.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.fate {
            Ignored => format!("{} has no effect: {}", self.name, self.why),
            Refused => format!("{} is not offered: {}", self.name, self.why),
        }
    }
}

const fn row(
    name: &'static str,
    flags: &'static [&'static str],
    takes: Takes,
    fate: Fate,
    why: &'static str,
) -> Retired {
    Retired { name, flags, takes, fate, why }
}

const NO_TLS: &str = "there is no TLS yet, let a proxy end it";
const NO_HTTP2: &str = "there is no HTTP/2 yet, let a proxy speak it";
const NO_UWSGI: &str = "only HTTP is spoken, let the proxy use proxy_pass";
const NO_ASGI: &str =
    "ASGI applications are not hosted by the workers; run their own server behind `--`";
const NO_DIRTY: &str = "there is no pool of task processes; run one as a service of its own";
const NO_PASTE: &str = "PasteDeploy files are not read";
const NO_PYTHON_LOG: &str =
    "Python's logging is not used; see errorlog, accesslog, loglevel and syslog";
const UNSAFE: &str = "it lets requests through that a proxy may understand differently";
const PER_REQUEST: &str =
    "no command is run per request; in gunicorn's Python configuration file it is a function";

/// Values with which a setting that is refused asks for what there is anyway: gunicorn's defaults.
const HARMLESS: &[(&str, &[&str])] = &[
    ("protocol", &["http"]),
    ("http_protocols", &["h1"]),
    ("http2_cleartext", &["off", "false"]),
    ("cert_reqs", &["0"]),
];

/// gunicorn's own workers, by their short names. They run WSGI applications, and so do ours.
const GUNICORNS_WORKERS: &[&str] =
    &["sync", "gthread", "gevent", "gevent_wsgi", "gevent_pywsgi", "eventlet", "tornado"];

/// Whether it is one of gunicorn's own workers, by its short name or the path of its class.
fn is_gunicorns_worker(name: &str) -> bool {
    let name = name.strip_prefix("egg:gunicorn#").unwrap_or(name);
    GUNICORNS_WORKERS.contains(&name) || name.starts_with("gunicorn.workers.")
}

/// Whether it is a worker for ASGI applications: gunicorn's, uvicorn's or another one.
fn is_asgi(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("uvicorn") || name.contains("asgi")
}

/// The settings, in gunicorn's order.
pub static RETIRED: &[Retired] = &[
    row(
        "worker_class",
        &["k", "worker-class"],
        Value,
        Ignored,
        "there is one kind of worker, an event loop",
    ),
    row(
        "spew",
        &["spew"],
        Nothing,
        Refused,
        "it traces Python; use strace, perf or loglevel debug",
    ),
    row(
        "worker_tmp_dir",
        &["worker-tmp-dir"],
        Value,
        Ignored,
        "heartbeats are in shared memory, no file is used",
    ),
    row("logger_class", &["logger-class"], Value, Refused, NO_PYTHON_LOG),
    row("logconfig", &["log-config"], Value, Refused, NO_PYTHON_LOG),
    row("logconfig_dict", &[], Value, Refused, NO_PYTHON_LOG),
    row("logconfig_json", &["log-config-json"], Value, Refused, NO_PYTHON_LOG),
    row(
        "default_proc_name",
        &[],
        Value,
        Ignored,
        "it is gunicorn's own; proc_name names the processes",
    ),
    row("paste", &["paste", "paster"], Value, Refused, NO_PASTE),
    row(
        "worker_int",
        &[],
        Value,
        Refused,
        "no command is run then; in gunicorn's Python configuration file it is a function",
    ),
    row("pre_request", &[], Value, Refused, PER_REQUEST),
    row("post_request", &[], Value, Refused, PER_REQUEST),
    row("ssl_context", &[], Value, Refused, NO_TLS),
    row("protocol", &["protocol"], Value, Refused, NO_UWSGI),
    row("uwsgi_allow_ips", &["uwsgi-allow-from"], Value, Refused, NO_UWSGI),
    row("keyfile", &["keyfile"], Value, Refused, NO_TLS),
    row("certfile", &["certfile"], Value, Refused, NO_TLS),
    row(
        "ssl_version",
        &["ssl-version"],
        Value,
        Ignored,
        "gunicorn does not use it either since 21.0",
    ),
    row("cert_reqs", &["cert-reqs"], Value, Refused, NO_TLS),
    row("ca_certs", &["ca-certs"], Value, Refused, NO_TLS),
    row(
        "suppress_ragged_eofs",
        &["suppress-ragged-eofs"],
        Nothing,
        Ignored,
        "it is about Python's ssl module",
    ),
    row(
        "do_handshake_on_connect",
        &["do-handshake-on-connect"],
        Nothing,
        Ignored,
        "it is about Python's ssl module",
    ),
    row("ciphers", &["ciphers"], Value, Refused, NO_TLS),
    row("http_protocols", &["http-protocols"], Value, Refused, NO_HTTP2),
    row("http2_cleartext", &["http2-cleartext"], Value, Refused, NO_HTTP2),
    row(
        "http2_max_concurrent_streams",
        &["http2-max-concurrent-streams"],
        Value,
        Refused,
        NO_HTTP2,
    ),
    row("http2_initial_window_size", &["http2-initial-window-size"], Value, Refused, NO_HTTP2),
    row("http2_max_frame_size", &["http2-max-frame-size"], Value, Refused, NO_HTTP2),
    row("http2_max_header_list_size", &["http2-max-header-list-size"], Value, Refused, NO_HTTP2),
    row("raw_paste_global_conf", &["paste-global"], Value, Refused, NO_PASTE),
    row("permit_obsolete_folding", &["permit-obsolete-folding"], Nothing, Refused, UNSAFE),
    row("strip_header_spaces", &["strip-header-spaces"], Nothing, Refused, UNSAFE),
    row(
        "permit_unconventional_http_version",
        &["permit-unconventional-http-version"],
        Nothing,
        Refused,
        UNSAFE,
    ),
    row(
        "casefold_http_method",
        &["casefold-http-method"],
        Nothing,
        Refused,
        "methods are case-sensitive; see permit_unconventional_http_method",
    ),
    row("asgi_loop", &["asgi-loop"], Value, Refused, NO_ASGI),
    row("asgi_lifespan", &["asgi-lifespan"], Value, Refused, NO_ASGI),
    row("asgi_disconnect_grace_period", &["asgi-disconnect-grace-period"], Value, Refused, NO_ASGI),
    row(
        "websocket_max_message_size",
        &["websocket-max-message-size"],
        Value,
        Refused,
        "there are no WebSockets yet",
    ),
    row("http_parser", &["http-parser"], Value, Ignored, "there is one parser"),
    row("root_path", &["root-path"], Value, Refused, NO_ASGI),
    row("dirty_apps", &["dirty-app"], Value, Refused, NO_DIRTY),
    row("dirty_workers", &["dirty-workers"], Value, Refused, NO_DIRTY),
    row("dirty_timeout", &["dirty-timeout"], Value, Refused, NO_DIRTY),
    row("dirty_threads", &["dirty-threads"], Value, Refused, NO_DIRTY),
    row("dirty_graceful_timeout", &["dirty-graceful-timeout"], Value, Refused, NO_DIRTY),
    row("on_dirty_starting", &[], Value, Refused, NO_DIRTY),
    row("dirty_post_fork", &[], Value, Refused, NO_DIRTY),
    row("dirty_worker_init", &[], Value, Refused, NO_DIRTY),
    row("dirty_worker_exit", &[], Value, Refused, NO_DIRTY),
];

#[cfg(test)]
mod tests {
    use super::super::SETTINGS;
    use super::*;

    #[test]
    fn values_that_ask_for_what_there_is_are_no_mistake() {
        for (name, harmless, refused) in [
            ("protocol", "http", "uwsgi"),
            ("http_protocols", "h1", "h2,h1"),
            ("http2_cleartext", "off", "upgrade"),
            ("cert_reqs", "0", "2"),
        ] {
            let retired = Retired::find(name).unwrap();
            assert_eq!(retired.with(harmless), None, "{name} {harmless}");
            assert_eq!(retired.with(refused).unwrap().fate, Refused, "{name} {refused}");
        }
    }

    #[test]
    fn a_worker_class_is_judged_by_its_name() {
        let class = Retired::find("worker_class").unwrap();
        for name in
            ["sync", "gthread", "gevent", "eventlet", "gunicorn.workers.ggevent.GeventWorker"]
        {
            assert_eq!(class.with(name), Some(*class), "{name}");
        }
        for name in ["uvicorn.workers.UvicornWorker", "asgi", "gunicorn.workers.gasgi.ASGIWorker"] {
            let judged = class.with(name).unwrap();
            assert_eq!((judged.fate, judged.why), (Refused, NO_ASGI), "{name}");
        }
        for name in ["gtread", "meinheld.gmeinheld.MeinheldWorker", ""] {
            let judged = class.with(name).unwrap();
            assert_eq!(judged.fate, Refused, "{name}");
            assert!(judged.sentence().contains("no worker class of that name"), "{name}");
        }
    }

    #[test]
    fn no_name_or_flag_is_offered_and_retired_at_once() {
        let offered: Vec<String> = SETTINGS
            .iter()
            .flat_map(|setting| {
                setting
                    .long_flag()
                    .into_iter()
                    .chain(setting.aliases.iter().map(|&alias| alias.to_owned()))
                    .chain(setting.short.map(String::from))
            })
            .collect();
        for (index, retired) in RETIRED.iter().enumerate() {
            assert!(
                SETTINGS.iter().all(|setting| setting.name != retired.name),
                "{}",
                retired.name
            );
            assert!(!retired.why.ends_with('.') && !retired.why.is_empty(), "{}", retired.name);
            for flag in retired.flags {
                assert!(!offered.iter().any(|known| known == flag), "--{flag}");
                assert!(RETIRED[..index].iter().all(|r| !r.flags.contains(flag)), "--{flag} twice");
            }
        }
    }
}
