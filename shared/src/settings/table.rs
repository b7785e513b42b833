//! The table. A further setting is one row: field of [`Settings`], flag, file key, variable, help and manual at once.
//!
//! A row is: description, name and type, default as one would write it, the parser, then what differs from
//! a plain setting. The description becomes the field's doc comment, `--help` and the reference page.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::edge::{self, HeaderMap, ProxyProtocol, RealIp};
use super::{Kind, OnReload, Section, Setting, Variable, parse};

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:literal, $parse:expr, { $($key:ident: $value:expr),* $(,)? }
    )*) => {
        /// What the settings say, resolved. The master sends it to each worker as JSON.
        ///
        /// Unknown keys are ignored and missing ones take their default, so master and worker need not be of one build.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Settings {
            $( $(#[doc = $doc])+ pub $name: $type, )*
        }

        impl Settings {
            /// Nothing set, not even the defaults: lists are empty, so that values can be added to them.
            pub(super) fn blank() -> Settings {
                Settings { $( $name: Default::default(), )* }
            }
        }

        /// All settings, in reading order.
        pub static SETTINGS: &[Setting] = &[ $( Setting {
            name: stringify!($name),
            default: $default,
            doc: &[$($doc),+],
            set: |settings, text| $parse(&mut settings.$name, text),
            $( $key: $value, )*
            ..Setting::PLAIN
        }, )* ];
    };
}

settings! {
    // ---- Application and configuration ------------------------------------------------------------------------------

    /// Settings file: in TOML, its keys being the names on this page, or gunicorn's in Python (`NAME.py`, `python:MODULE`).
    ///
    /// Without it `./monoceros.toml` is read if it exists; else, for a Python application, `./gunicorn.conf.py`. Read
    /// again at each reload. docs/python.md says what of a Python file is understood.
    config: Option<String> = "", settings_file, {
        meta: "FILE", short: Some('c'), on_reload: OnReload::Restart,
    }

    /// What runs in a worker: nothing for the bundled application, or a path to a program built on the worker library.
    ///
    /// On the command line it stands by itself, after the options, as gunicorn's application does. `module:callable`
    /// names a Python application. Any other program: see `command`.
    app: Option<String> = "", parse::text, {
        meta: "APP", flag: "-",
    }

    /// gunicorn's name for a Python application in a settings file; `app`, and so the command line, goes before it.
    ///
    wsgi_app: Option<String> = "", parse::text, {
        meta: "APP", flag: "-",
    }

    /// A program and its arguments to run in each worker: anything that accepts a listener on descriptor 3.
    ///
    /// On the command line it stands after `--`.
    command: Vec<String> = "", parse::entry, {
        kind: Kind::List, meta: "COMMAND", flag: "-",
    }

    /// The Python interpreter for `module:callable`: a path, or a name on `PATH`.
    ///
    /// Unset, it is the one of `$VIRTUAL_ENV`, else the one beside this program in a virtual environment, else `python3`.
    python: Option<String> = "", parse::text, {
        meta: "PROGRAM",
    }

    /// Folders, separated by commas, that Python looks for modules in before all others.
    ///
    pythonpath: Option<String> = "", parse::text, {
        meta: "PATHS",
    }

    /// Imports a Python application once for all workers, which are forked from the process that did: they share its memory.
    ///
    /// That process is the preloader. A reload makes a new one, so it brings new code and loses no request. A thread that
    /// the application starts while it is imported does not run in the workers. For programs it has no effect.
    preload_app: bool = "false", parse::switch, {
        kind: Kind::Switch, flag: "preload",
    }

    /// Replaces the workers when the application's code changes, for development.
    ///
    /// A worker looks once a second at the files of its Python modules, and at those beside them that belong to the
    /// application; of a program, the master looks at the program's file. What cannot boot leaves the old code serving.
    reload: bool = "false", parse::switch, {
        kind: Kind::Switch,
    }

    /// How changes are found: `auto`, `poll` or `inotify`. All three look at the files once a second.
    ///
    reload_engine: String = "auto", reload_engine, {
        meta: "NAME",
    }

    /// A further file whose change `reload` acts on; may be given several times.
    ///
    /// Of a Python application it may be a pattern, such as `templates/**/*.html`. Relative paths start at the working directory.
    reload_extra_files: Vec<String> = "", parse::entry, {
        kind: Kind::List, meta: "FILE", flag: "reload-extra-file",
    }

    /// Reads and checks everything, prints nothing when it is right, and exits with 0 or 78.
    ///
    /// A Python application is loaded, too, with `boot_timeout` for it; one that cannot be ends with its traceback and
    /// with 3 or 4, as a start would.
    check_config: bool = "false", parse::switch, {
        kind: Kind::Switch, on_reload: OnReload::Restart,
    }

    /// Prints every setting with its source, as a settings file, and exits.
    ///
    print_config: bool = "false", parse::switch, {
        kind: Kind::Switch, on_reload: OnReload::Restart,
    }

    // ---- Sockets ----------------------------------------------------------------------------------------------------

    /// Address to listen on; may be given several times.
    ///
    /// `HOST:PORT`, `[V6]:PORT`, `:PORT`, `HOST` (port 8000), `unix:PATH`, `unix:@NAME` (abstract) or `fd://N`.
    /// `$PORT` alone means `0.0.0.0:$PORT`.
    bind: Vec<String> = "127.0.0.1:8000", parse::addresses, {
        kind: Kind::List, section: Section::Sockets, meta: "ADDRESS", short: Some('b'),
        env: &[Variable { name: "PORT", prefix: "0.0.0.0:" }], on_reload: OnReload::AtOnce,
    }

    /// Connections that may wait to be accepted, per listener.
    ///
    /// The kernel caps it at `net.core.somaxconn`; a warning says so.
    backlog: usize = "2048", parse::positive, {
        kind: Kind::Number, section: Section::Sockets, meta: "NUMBER", on_reload: OnReload::Restart,
    }

    /// One listener per worker on each TCP address (SO_REUSEPORT), shared out by the kernel.
    ///
    /// The master owns them all, and every worker takes from every one, so none is lost with a worker.
    /// `--no-reuse-port` makes it one listener for all.
    reuse_port: bool = "true", parse::switch, {
        kind: Kind::Switch, section: Section::Sockets, on_reload: OnReload::Restart,
    }

    /// File mode creation mask for unix sockets that are made; 0 lets everybody connect.
    ///
    /// Octal (`0022`, `0o22`), hexadecimal (`0x12`) or decimal (`18`).
    umask: u32 = "0", umask, {
        kind: Kind::Mode, section: Section::Sockets, meta: "MASK", short: Some('m'), on_reload: OnReload::Restart,
    }

    // ---- Workers ----------------------------------------------------------------------------------------------------

    /// Number of worker processes.
    ///
    /// Each runs one event loop on one thread: start with one or two per CPU core.
    workers: usize = "1", workers, {
        kind: Kind::Number, section: Section::Workers, meta: "NUMBER", short: Some('w'),
        env: &[Variable { name: "WEB_CONCURRENCY", prefix: "" }], on_reload: OnReload::AtOnce,
    }

    /// Threads of a Python worker that answer requests at once, from 1 to 1024; other programs have no use for it.
    ///
    /// With 1 the application is called on the worker's own loop, which is quicker unless it waits for others.
    threads: usize = "1", threads, {
        kind: Kind::Number, section: Section::Workers, meta: "NUMBER",
    }

    /// Connections a worker holds at once; with more, they wait in the backlog or go to another worker.
    ///
    /// For those that find no worker with room, connections that have asked for nothing for a second are closed, the ones
    /// that were kept alive longest first; then those that have sent a body or taken a response too slowly
    /// (`body_rate_min`, `write_rate_min`) for three seconds.
    worker_connections: usize = "1000", parse::positive, {
        kind: Kind::Number, section: Section::Workers, meta: "NUMBER",
    }

    /// A worker that has answered this many requests is replaced; 0 never is.
    ///
    /// Its successor is ready before it stops accepting, and only one worker is replaced at a time. The master counts once
    /// a second, so a fast worker answers some more.
    max_requests: usize = "0", parse::count, {
        kind: Kind::Number, section: Section::Workers, meta: "NUMBER",
    }

    /// Up to this many, chosen at random for each worker, are added to `max_requests`.
    ///
    max_requests_jitter: usize = "0", parse::count, {
        kind: Kind::Number, section: Section::Workers, meta: "NUMBER",
    }

    /// A worker of this age is replaced, as by `max_requests`; 0 never is.
    ///
    /// Up to a tenth, chosen at random for each worker, is added.
    max_worker_lifetime: Duration = "0", parse::seconds, {
        kind: Kind::Seconds, section: Section::Workers, meta: "SECONDS",
    }

    /// A worker whose resident memory grew beyond this is replaced, as by `max_requests`; 0 never is.
    ///
    max_worker_rss: u64 = "0", parse::bytes, {
        kind: Kind::Bytes, section: Section::Workers, meta: "BYTES",
    }

    /// A worker without a sign of life for this long is killed and replaced; 0 never does.
    ///
    /// The log names the request it had in hand. Workers give signs of life from their event loop, by shared memory; with
    /// `threads`, not while a request stands still on one of them for longer than this.
    timeout: Duration = "30", parse::seconds, {
        kind: Kind::Seconds, section: Section::Workers, meta: "SECONDS", short: Some('t'), on_reload: OnReload::AtOnce,
    }

    /// Time a worker has from its start until it is ready to serve; 0 is without limit.
    ///
    boot_timeout: Duration = "60", parse::seconds, {
        kind: Kind::Seconds, section: Section::Workers, meta: "SECONDS", on_reload: OnReload::AtOnce,
    }

    /// Time a draining worker has to finish its requests.
    ///
    /// Counted from the moment the drain is asked for; then it is killed, at a reload as at a stop.
    graceful_timeout: Duration = "30", parse::seconds, {
        kind: Kind::Seconds, section: Section::Workers, meta: "SECONDS", on_reload: OnReload::AtOnce,
    }

    /// Time between a TERM and the stop, in which every response says `Connection: close` and all goes on.
    ///
    /// For load balancers that take a while to notice.
    shutdown_delay: Duration = "0", parse::seconds, {
        kind: Kind::Seconds, section: Section::Workers, meta: "SECONDS", on_reload: OnReload::AtOnce,
    }

    /// Time at the very last stop in which new connections are turned away while begun ones still arrive; 0 is off.
    ///
    settle_time: Duration = "0.15", parse::seconds, {
        kind: Kind::Seconds, section: Section::Workers, meta: "SECONDS", on_reload: OnReload::AtOnce,
    }

    // ---- HTTP -------------------------------------------------------------------------------------------------------

    /// Time an idle connection is kept for another request, once the client has its last answer; 0 keeps none.
    ///
    /// Behind a proxy that keeps connections, it must be longer than the proxy's own: 75 beside Nginx's 60.
    keepalive: Duration = "2", parse::seconds, {
        kind: Kind::Seconds, section: Section::Http, meta: "SECONDS", flag: "keep-alive", aliases: &["keepalive"],
    }

    /// Time a request may take from its head to the end of its answer's head; 0 is without limit.
    ///
    /// Unset, it is the same as `timeout`, which is what users of gunicorn's sync workers mean by that. It is answered with 504;
    /// a response that comes in pieces may last longer, but no piece of it. While the request's body is awaited it does not run. On `threads`, an exception is raised as well.
    /// What has the worker's loop, or a thread, for two seconds more ends with its worker, if this is set; the log names it.
    request_timeout: Option<Duration> = "", parse::maybe_seconds, {
        kind: Kind::Seconds, section: Section::Http, meta: "SECONDS",
    }

    /// Time a client has to send a whole request head, from its first byte (or from connecting); 0 is without limit.
    ///
    header_timeout: Duration = "10", parse::seconds, {
        kind: Kind::Seconds, section: Section::Http, meta: "SECONDS",
    }

    /// Time that may pass between two pieces of a request body; 0 is without limit.
    ///
    body_timeout: Duration = "15", parse::seconds, {
        kind: Kind::Seconds, section: Section::Http, meta: "SECONDS",
    }

    /// Time that may pass while a client takes nothing of its response, or too little by `write_rate_min`; 0 is without limit.
    ///
    /// What a client takes is known by what its kernel makes room for. That comes in lumps: of 64 KiB or more on the loopback
    /// interface, of a sixteenth of the client's buffer and more elsewhere. A client that needs longer than this for one is cut.
    write_timeout: Duration = "15", parse::seconds, {
        kind: Kind::Seconds, section: Section::Http, meta: "SECONDS",
    }

    /// Time a client may be silent after the last response before its connection is closed for good; 0 closes at once.
    ///
    /// What it still sends, such as the rest of an upload that was refused, is read and dropped for up to 30 seconds, so that
    /// the answer reaches it. While a worker drains it is one second at most.
    linger_timeout: Duration = "5", parse::seconds, {
        kind: Kind::Seconds, section: Section::Http, meta: "SECONDS",
    }

    /// Largest request line in bytes, from 0 to 8190; 0 is without limit of its own: the memory for it ends at 1 MiB.
    ///
    limit_request_line: usize = "4094", request_line, {
        kind: Kind::Number, section: Section::Http, meta: "BYTES",
    }

    /// Most header fields of a request, from 0 to 32768; 0 means 32768.
    ///
    limit_request_fields: usize = "100", request_fields, {
        kind: Kind::Number, section: Section::Http, meta: "NUMBER",
    }

    /// Largest header field in bytes, name and line end included; 0 means 8190.
    ///
    limit_request_field_size: usize = "8190", request_field_size, {
        kind: Kind::Number, section: Section::Http, meta: "BYTES",
        flag: "limit-request-field_size", aliases: &["limit-request-field-size"],
    }

    /// Largest request body in bytes, answered with 413 beyond; 0 is without limit.
    ///
    /// It holds for every body, gathered or taken piece by piece.
    limit_request_body: u64 = "1m", parse::bytes, {
        kind: Kind::Bytes, section: Section::Http, meta: "BYTES",
    }

    /// Slowest a request body may come, in bytes per second, once `body_timeout` has passed; 0 is without limit.
    ///
    /// A client that stays below it for as long as `body_timeout` is answered with 408.
    body_rate_min: u64 = "500", parse::bytes, {
        kind: Kind::Bytes, section: Section::Http, meta: "BYTES",
    }

    /// Slowest a client may take its response, in bytes per second, once `write_timeout` has passed; 0 is without limit.
    ///
    /// A client that stays below it for as long as `write_timeout` is cut. It holds while more is there than the kernel keeps
    /// for a client: the end of a response, and short ones, are not waited for.
    write_rate_min: u64 = "500", parse::bytes, {
        kind: Kind::Bytes, section: Section::Http, meta: "BYTES",
    }

    /// Bytes of a gathered request body that are kept in memory; what is longer waits in a file.
    ///
    /// The file has no name and is gone when the request is. When it cannot be written the request is refused with 507.
    body_memory_max: u64 = "256k", parse::bytes, {
        kind: Kind::Bytes, section: Section::Http, meta: "BYTES",
    }

    /// Folder for request bodies that are too long for memory; unset, `$TMPDIR` or `/tmp`.
    ///
    tmp_upload_dir: Option<PathBuf> = "", parse::path, {
        section: Section::Http, meta: "DIRECTORY",
    }

    /// Sends files by `sendfile(2)`, without a copy in the worker; off for file systems that do it badly.
    ///
    sendfile: bool = "true", parse::switch, {
        kind: Kind::Switch, section: Section::Http,
    }

    /// What becomes of a header field whose name holds an underscore: `drop`, `refuse` (400) or `dangerous` (kept).
    ///
    /// Whoever maps names to variables, as CGI and WSGI do, cannot tell `X_A` from `X-A`.
    header_map: HeaderMap = "drop", edge::header_map, {
        section: Section::Http, meta: "POLICY",
    }

    /// Names with an underscore that trusted peers (`forwarded_allow_ips`) may send whatever `header_map` says; `*` is all.
    ///
    forwarder_headers: Vec<String> = "SCRIPT_NAME,PATH_INFO", edge::names, {
        kind: Kind::List, section: Section::Http, meta: "NAME",
    }

    /// Allows methods in lower case, with `#` in them, or shorter than 3 or longer than 20 letters.
    ///
    permit_unconventional_http_method: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Http,
    }

    // ---- Proxies ----------------------------------------------------------------------------------------------------

    /// Peers whose word on scheme and client is taken: addresses, networks, or `*`; an empty text is nobody.
    ///
    /// It is the peer of the connection that counts, never what a PROXY header says. Peers on a unix socket are trusted.
    forwarded_allow_ips: Vec<String> = "127.0.0.1,::1", edge::peers, {
        kind: Kind::List, section: Section::Proxies, meta: "ADDRESS",
        env: &[Variable { name: "FORWARDED_ALLOW_IPS", prefix: "" }],
    }

    /// Header fields by which a trusted peer says that its client came by https, each `NAME=VALUE`.
    ///
    /// Any other value means http. Fields that contradict each other are refused with 400.
    secure_scheme_headers: Vec<String> = "X-FORWARDED-PROTOCOL=ssl,X-FORWARDED-PROTO=https,X-FORWARDED-SSL=on", edge::scheme_headers, {
        kind: Kind::List, section: Section::Proxies, meta: "NAME=VALUE", flag: "-",
    }

    /// Field in which a trusted peer names its client: `off`, `x-forwarded-for` or `forwarded` (RFC 7239).
    ///
    /// The client is the rightmost address that is not itself trusted. Handlers see it, and the access log's
    /// `%({client}x)s`; `%(h)s` never changes.
    real_ip: RealIp = "off", edge::real_ip, {
        section: Section::Proxies, meta: "FIELD",
    }

    /// Connections begin with a PROXY header: `off`, `v1`, `v2` or `auto` (either).
    ///
    /// Without the header a connection is refused (400), other than under gunicorn, which would serve it.
    proxy_protocol: ProxyProtocol = "off", edge::proxy_protocol, {
        section: Section::Proxies, meta: "VERSION",
    }

    /// Peers that may send a PROXY header; others are refused with 403. Peers on a unix socket may.
    ///
    proxy_allow_ips: Vec<String> = "127.0.0.1,::1", edge::peers, {
        kind: Kind::List, section: Section::Proxies, meta: "ADDRESS", flag: "proxy-allow-from",
    }

    /// Gives every request an id: the client's X-Request-ID if it is a plain one, else one made here; the answer repeats it.
    ///
    /// A plain one has at most 128 letters, digits, dots, underscores and hyphens.
    request_id: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Proxies,
    }

    // ---- Database ---------------------------------------------------------------------------------------------------

    /// PostgreSQL for the application: a URL, or `embedded` for a private one made and run by the master.
    ///
    /// Unset, database routes answer 503. For Python and other foreign programs it sets `DATABASE_URL`; what that variable
    /// says by itself is theirs alone, and may be any kind of database.
    ///
    /// TLS is used where the URL asks for it, in libpq's words: `sslmode=verify-full` checks the server's certificate and
    /// its name, against what the system trusts or `sslrootcert=FILE`. No `sslmode` is no TLS. All of it is in
    /// docs/database.md.
    database: Option<String> = "", parse::text, {
        section: Section::Database, meta: "URL", secret: true, env: &[Variable { name: "DATABASE_URL", prefix: "" }],
    }

    /// Connections each worker holds; requests share them, pipelined.
    ///
    database_connections: usize = "1", connections, {
        kind: Kind::Number, section: Section::Database, meta: "NUMBER",
    }

    /// Time to reach and enter a database host.
    ///
    database_connect_timeout: Duration = "5", parse::seconds, {
        kind: Kind::Seconds, section: Section::Database, meta: "SECONDS",
    }

    /// Time a query may take; 0 is without limit.
    ///
    /// A request whose query takes longer is answered with 504, unless the application says otherwise. If the server is
    /// stuck, it is asked to cancel what it does, and the connection is made anew.
    database_query_timeout: Duration = "10", parse::seconds, {
        kind: Kind::Seconds, section: Section::Database, meta: "SECONDS",
    }

    /// How statements are prepared: `named`, once per connection, or `unnamed`, with every query.
    ///
    /// `unnamed` is for a connection pooler that gives each transaction another connection and does not follow prepared
    /// statements: PgBouncer before 1.21, or with `max_prepared_statements = 0`. It costs PostgreSQL the parsing of every
    /// query.
    database_prepare: PrepareManner = "named", prepare_manner, {
        section: Section::Database, meta: "MANNER",
    }

    /// Folder of the embedded database's files; unset, one in the user's state directory.
    ///
    database_directory: Option<PathBuf> = "", parse::path, {
        section: Section::Database, meta: "DIR", on_reload: OnReload::Restart,
    }

    // ---- Logging ----------------------------------------------------------------------------------------------------

    /// Access log: a file, or `-` for standard output; unset, there is none.
    ///
    /// USR1 opens it again, for log rotation. The format is described in docs/logging.md.
    accesslog: Option<String> = "", parse::text, {
        section: Section::Logging, meta: "FILE", flag: "access-logfile",
    }

    /// What a line of the access log says: gunicorn's atoms, or `json` or `ecs`.
    ///
    /// docs/logging.md lists the atoms.
    access_log_format: String = "%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s \"%(f)s\" \"%(a)s\"", edge::access_format, {
        section: Section::Logging, meta: "FORMAT", flag: "access-logformat", aliases: &["access-log-format"],
    }

    /// Sends the error log to syslog, and the access log too unless `disable_redirect_access_to_syslog`.
    ///
    syslog: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Logging, flag: "log-syslog",
    }

    /// Where syslog listens: `udp://HOST:PORT`, `tcp://HOST:PORT`, `unix:///PATH#dgram` or `unix:///PATH#stream`.
    ///
    syslog_addr: String = "udp://localhost:514", edge::syslog_addr, {
        section: Section::Logging, meta: "ADDRESS", flag: "log-syslog-to",
    }

    /// Makes the program's name in syslog `monoceros.PREFIX.error` and `monoceros.PREFIX.access`; unset, PREFIX is `proc_name`.
    ///
    syslog_prefix: Option<String> = "", parse::text, {
        section: Section::Logging, meta: "PREFIX", flag: "log-syslog-prefix",
    }

    /// Facility of syslog, such as `user`, `daemon` or `local0`.
    ///
    syslog_facility: String = "user", edge::syslog_facility, {
        section: Section::Logging, meta: "FACILITY", flag: "log-syslog-facility",
    }

    /// Keeps the access log out of syslog.
    ///
    disable_redirect_access_to_syslog: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Logging,
    }

    /// Error log: a file, or `-` for standard error.
    ///
    /// USR1 opens it again, for log rotation.
    errorlog: Option<String> = "-", parse::text, {
        section: Section::Logging, meta: "FILE", flag: "error-logfile", aliases: &["log-file"],
        on_reload: OnReload::AtOnce,
    }

    /// Least severity that is logged: `debug`, `info`, `warning`, `error` or `critical`.
    ///
    loglevel: LogLevel = "info", log_level, {
        section: Section::Logging, meta: "LEVEL", flag: "log-level", on_reload: OnReload::AtOnce,
    }

    /// What a line of the error log looks like: `text` in gunicorn's frame, or `json`, an object with its severity.
    ///
    log_format: LogFormat = "text", log_format, {
        section: Section::Logging, meta: "FORMAT", on_reload: OnReload::AtOnce,
    }

    /// Writes lines below `warning` to standard output when the error log is standard error.
    ///
    /// Log viewers of hosting services take whatever comes on standard error for an error.
    log_split: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Logging, on_reload: OnReload::AtOnce,
    }

    /// Appends what the application prints, on standard output and error, to the error log's file.
    ///
    /// The master's own streams lead there too. A worker that is no program of the worker library goes on in the old
    /// file after a rotation.
    capture_output: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Logging, on_reload: OnReload::Restart,
    }

    // ---- Metrics ----------------------------------------------------------------------------------------------------

    /// Address for metrics, health checks and the status page; may be given several times.
    ///
    /// Forms as for `bind`; a unix socket is open to its owner only. Unset, there is none. Served by a process of its
    /// own, so that it answers when workers hang: `/metrics`, `/livez`, `/readyz`, `/status`, `/status.json`.
    admin_bind: Vec<String> = "", parse::addresses, {
        kind: Kind::List, section: Section::Metrics, meta: "ADDRESS", on_reload: OnReload::AtOnce,
    }

    /// StatsD server that gets the counters once a second: `HOST:PORT` (UDP) or `unix://PATH` (datagrams).
    ///
    statsd_host: Option<String> = "", statsd_host, {
        section: Section::Metrics, meta: "ADDRESS", on_reload: OnReload::AtOnce,
    }

    /// Put in front of every StatsD name, with a dot after it.
    ///
    statsd_prefix: Option<String> = "", statsd_text, {
        section: Section::Metrics, meta: "PREFIX", on_reload: OnReload::AtOnce,
    }

    /// Tags added to every StatsD value, in DogStatsD's form: `env:production,team:web`.
    ///
    dogstatsd_tags: Option<String> = "", statsd_text, {
        section: Section::Metrics, meta: "TAGS", on_reload: OnReload::AtOnce,
    }

    /// Sends the number of connections that wait to be accepted to StatsD, too.
    ///
    enable_backlog_metric: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Metrics, on_reload: OnReload::AtOnce,
    }

    // ---- Process ----------------------------------------------------------------------------------------------------

    /// File that holds the master's process id while it runs; a lock on it keeps a second master out.
    ///
    pidfile: Option<PathBuf> = "", parse::path, {
        section: Section::Process, meta: "FILE", flag: "pid", short: Some('p'), on_reload: OnReload::Restart,
    }

    /// Directory to change to before anything else is done.
    ///
    chdir: Option<PathBuf> = "", parse::path, {
        section: Section::Process, meta: "DIR", on_reload: OnReload::Restart,
    }

    /// User that workers run as, by name or number; the master stays who it is.
    ///
    /// Needs a master that is root. Unix sockets and log files are given to that user. Looked up at the start, and by a
    /// reload that changes it.
    user: Option<String> = "", parse::text, {
        section: Section::Process, meta: "USER", short: Some('u'),
    }

    /// Group that workers run as, by name or number; unset, the user's own.
    ///
    /// Whenever user or group change, supplementary groups are dropped: see `initgroups`.
    group: Option<String> = "", parse::text, {
        section: Section::Process, meta: "GROUP", short: Some('g'),
    }

    /// Gives workers all groups that their user is in, instead of none.
    ///
    initgroups: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Process,
    }

    /// A variable for the workers' environment; may be given several times.
    ///
    raw_env: Vec<String> = "", environment, {
        kind: Kind::List, section: Section::Process, meta: "NAME=VALUE", flag: "env", short: Some('e'),
    }

    /// Runs in the background: the command returns when the addresses are bound, or fails as it would otherwise.
    ///
    /// Standard streams then lead nowhere, so name an `errorlog` file.
    daemon: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Process, short: Some('D'), on_reload: OnReload::Restart,
    }

    /// How USR2 and `master ctl upgrade` replace the running master: `auto` or `manual`.
    ///
    /// `auto`: once the new master serves, the old one hands everything over and leaves by itself; if the new one cannot
    /// serve, nothing changes. `manual`: gunicorn's ritual. Both serve until one of them is told to go: WINCH and TERM to the
    /// old one, or TERM to the new one and HUP to the old one.
    upgrade: UpgradeManner = "auto", upgrade_manner, {
        section: Section::Process, meta: "MANNER", on_reload: OnReload::AtOnce,
    }

    /// Time a new master has until all its workers are ready; then it is given up and the old one goes on.
    ///
    upgrade_timeout: Duration = "120", parse::seconds, {
        kind: Kind::Seconds, section: Section::Process, meta: "SECONDS", on_reload: OnReload::AtOnce,
    }

    /// Unix socket on which the master answers `master ctl`; unset, `$RUNTIME_DIRECTORY/control.sock` if systemd names one.
    ///
    /// Only root and the master's own user are answered. That it cannot be made is said in the log and does no other harm.
    control_socket: Option<PathBuf> = "", parse::path, {
        section: Section::Process, meta: "PATH", on_reload: OnReload::Restart,
    }

    /// Permissions of the control socket's file.
    ///
    control_socket_mode: u32 = "0600", file_mode, {
        kind: Kind::Mode, section: Section::Process, meta: "MODE", on_reload: OnReload::Restart,
    }

    /// Makes no control socket, whatever else is said.
    ///
    no_control_socket: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Process, on_reload: OnReload::Restart,
    }

    /// Leaves a daemon its standard output and error, unless they are a terminal.
    ///
    enable_stdio_inheritance: bool = "false", parse::switch, {
        kind: Kind::Switch, section: Section::Process, short: Some('R'), on_reload: OnReload::Restart,
    }

    /// Name in the process titles: `monoceros: master [NAME]`.
    ///
    proc_name: Option<String> = "", parse::text, {
        section: Section::Process, meta: "NAME", flag: "name", short: Some('n'), on_reload: OnReload::AtOnce,
    }

    // ---- Hooks ------------------------------------------------------------------------------------------------------

    /// Command run when the master starts, before it opens its addresses; waited for.
    ///
    on_starting: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when the addresses are open, beside the boot of the first workers.
    ///
    when_ready: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when the first boot is over and the server is ready.
    ///
    on_all_ready: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when a reload has read its settings, beside the boot of the new workers.
    ///
    on_reload: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when a worker is about to be started, beside its start.
    ///
    pre_fork: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when a worker was started.
    ///
    post_fork: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when a worker is ready to serve.
    ///
    post_worker_init: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when a worker is ended because it was silent or did not boot in time.
    ///
    worker_abort: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when a worker has ended.
    ///
    child_exit: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when a worker has ended, by gunicorn's other name for it.
    ///
    worker_exit: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when the number of wanted workers has changed.
    ///
    nworkers_changed: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when an upgrade begins, beside the start of the new master.
    ///
    pre_exec: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Command run when everything has ended and the master is about to; waited for.
    ///
    on_exit: Option<String> = "", hook, {
        section: Section::Hooks, meta: "COMMAND", flag: "-", on_reload: OnReload::AtOnce,
    }

    /// Time a hook's command may take; then it is killed.
    ///
    hook_timeout: Duration = "10", positive_seconds, {
        kind: Kind::Seconds, section: Section::Hooks, meta: "SECONDS", on_reload: OnReload::AtOnce,
    }
}

/// Severity of an error log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The rest.
    Debug,
    /// Life cycle.
    #[default]
    Info,
    /// The program acted by itself.
    Warning,
    /// Someone must act.
    Error,
    /// A worker was lost, or the server is.
    Critical,
}

/// What a line of the error log looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// gunicorn's frame.
    #[default]
    Text,
    /// An object of JSON.
    Json,
}

impl Settings {
    /// The limit that `duration` stands for: 0 means none.
    #[must_use]
    pub fn limit(duration: Duration) -> Option<Duration> {
        (!duration.is_zero()).then_some(duration)
    }

    /// Time a worker may be silent: `timeout`.
    #[must_use]
    pub fn silence_limit(&self) -> Option<Duration> {
        Settings::limit(self.timeout)
    }

    /// Time a request may take: `request_timeout`, or else `timeout`.
    #[must_use]
    pub fn request_limit(&self) -> Option<Duration> {
        Settings::limit(self.request_timeout.unwrap_or(self.timeout))
    }
}

/// A name or number and a port, or a socket in the file system. Looked up later, by the sender.
fn statsd_host(slot: &mut Option<String>, text: &str) -> Result<(), String> {
    let is_path = text.strip_prefix("unix:").is_some_and(|path| !path.trim_matches('/').is_empty());
    let is_host = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0));
    if text.contains('\0') || !(is_path || is_host) {
        return Err("HOST:PORT or unix://PATH".into());
    }
    *slot = Some(text.to_owned());
    Ok(())
}

/// Part of a StatsD line: what ends a line or a value would forge another one.
fn statsd_text(slot: &mut Option<String>, text: &str) -> Result<(), String> {
    if text.contains(|c: char| c.is_control() || c == '|') {
        return Err("text without | and line ends".into());
    }
    *slot = (!text.is_empty()).then(|| text.to_owned());
    Ok(())
}

fn log_format(slot: &mut LogFormat, text: &str) -> Result<(), String> {
    *slot = match text {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        _ => return Err("text or json".into()),
    };
    Ok(())
}

fn log_level(slot: &mut LogLevel, text: &str) -> Result<(), String> {
    *slot = match text.to_ascii_lowercase().as_str() {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warning" | "warn" => LogLevel::Warning,
        "error" => LogLevel::Error,
        "critical" => LogLevel::Critical,
        _ => return Err("debug, info, warning, error or critical".into()),
    };
    Ok(())
}

/// gunicorn: negative or above 8190 is 8190. Unlimited lines are not offered.
fn request_line(slot: &mut usize, text: &str) -> Result<(), String> {
    let value = parse::number(text, 0, REQUEST_LINE_BYTES_MAX)?;
    // The parser knows what 0 means.
    *slot = usize::try_from(value).unwrap_or_default();
    Ok(())
}

/// Largest request line that can be named, as gunicorn has it.
const REQUEST_LINE_BYTES_MAX: u64 = 8190;

fn request_fields(slot: &mut usize, text: &str) -> Result<(), String> {
    bounded(slot, text, 32_768)
}

fn request_field_size(slot: &mut usize, text: &str) -> Result<(), String> {
    let mut value = 0;
    parse::count(&mut value, text)?;
    if FIELD_BYTES_MAX < value {
        return Err(format!("a whole number from 0 to {FIELD_BYTES_MAX}"));
    }
    *slot = if value == 0 { 8190 } else { value };
    Ok(())
}

/// Largest header field that can be allowed: a head is held in memory as a whole.
const FIELD_BYTES_MAX: usize = 1 << 20;

/// A number up to `most`, for which 0 stands too.
fn bounded(slot: &mut usize, text: &str, most: usize) -> Result<(), String> {
    let value = parse::number(text, 0, most as u64)?;
    *slot = usize::try_from(value).ok().filter(|&value| value != 0).unwrap_or(most);
    Ok(())
}

/// gunicorn's forms: `file:PATH` is a path, and `python:MODULE` stays what it is.
fn settings_file(slot: &mut Option<String>, text: &str) -> Result<(), String> {
    let name = text.strip_prefix("file:").unwrap_or(text);
    if matches!(name, "" | "python:") {
        return Err("a path, or python:MODULE".into());
    }
    parse::text(slot, name)
}

/// A program and its arguments, in a shell's notation. Whether there is such a program is seen when it is run.
fn hook(slot: &mut Option<String>, text: &str) -> Result<(), String> {
    match super::split(text) {
        Ok(words) if !words.is_empty() && !text.contains('\0') => parse::text(slot, text),
        _ => Err("a program and its arguments".into()),
    }
}

/// A hook without a bound could keep the master from its work for ever.
fn positive_seconds(slot: &mut Duration, text: &str) -> Result<(), String> {
    match parse::seconds(slot, text) {
        Ok(()) if !slot.is_zero() => Ok(()),
        _ => Err("seconds above 0, such as 10 or 0.5".into()),
    }
}

/// Most workers: more is a slip of the keyboard, and what the master keeps for each has to have room.
pub const WORKERS_MAX: usize = 512;

/// Most threads of a worker.
const THREADS_MAX: usize = 1024;

/// How an upgrade goes on once the new master serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpgradeManner {
    /// The old one hands over and leaves.
    #[default]
    Auto,
    /// Both serve until one is told to go.
    Manual,
}

fn upgrade_manner(slot: &mut UpgradeManner, text: &str) -> Result<(), String> {
    *slot = match text {
        "auto" => UpgradeManner::Auto,
        "manual" => UpgradeManner::Manual,
        _ => return Err("`auto` or `manual`".into()),
    };
    Ok(())
}

fn reload_engine(slot: &mut String, text: &str) -> Result<(), String> {
    if !["auto", "poll", "inotify"].contains(&text) {
        return Err("`auto`, `poll` or `inotify`".into());
    }
    text.clone_into(slot);
    Ok(())
}

/// How statements are prepared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrepareManner {
    /// Once per connection, under a name.
    #[default]
    Named,
    /// With every query.
    Unnamed,
}

fn prepare_manner(slot: &mut PrepareManner, text: &str) -> Result<(), String> {
    *slot = match text {
        "named" => PrepareManner::Named,
        "unnamed" => PrepareManner::Unnamed,
        _ => return Err("`named` or `unnamed`".into()),
    };
    Ok(())
}

fn workers(slot: &mut usize, text: &str) -> Result<(), String> {
    parse::number(text, 1, WORKERS_MAX as u64)
        .map(|value| *slot = usize::try_from(value).unwrap_or(WORKERS_MAX))
}

fn threads(slot: &mut usize, text: &str) -> Result<(), String> {
    parse::number(text, 1, THREADS_MAX as u64)
        .map(|value| *slot = usize::try_from(value).unwrap_or(THREADS_MAX))
}

fn environment(slot: &mut Vec<String>, text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => parse::entry(slot, text),
        _ => Err("NAME=VALUE".into()),
    }
}

/// gunicorn's `auto_int`: a leading zero means octal.
fn umask(slot: &mut u32, text: &str) -> Result<(), String> {
    permissions(slot, text).map_err(|()| "a mask from 0 to 0777".into())
}

fn file_mode(slot: &mut u32, text: &str) -> Result<(), String> {
    permissions(slot, text).map_err(|()| "permissions from 0 to 0777".into())
}

fn permissions(slot: &mut u32, text: &str) -> Result<(), ()> {
    let octal =
        text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if octal {
        parse::number(&format!("0o{text}"), 0, 0o777)
    } else {
        parse::number(text, 0, 0o777)
    };
    *slot = u32::try_from(value.map_err(|_| ())?).map_err(|_| ())?;
    Ok(())
}

fn connections(slot: &mut usize, text: &str) -> Result<(), String> {
    parse::number(text, 1, 64).map(|value| *slot = usize::try_from(value).unwrap_or(1))
}
