"""gunicorn's server hooks: the objects that they are called with, and those that a worker calls itself.

The objects have what hooks use, under gunicorn's names; what is not here raises AttributeError.
"""

import faulthandler
import inspect
import logging
import os
import signal

from monoceros import _config

WARNING = logging.WARNING
level_name = logging.getLevelName


def log(write):
    """A logger whose lines go to `write(level, text)`."""

    class Handler(logging.Handler):
        def emit(self, record):
            try:
                write(record.levelno, self.format(record))
            except Exception:
                self.handleError(record)

    # One of its own: what the application makes of the logging module changes nothing here.
    logger = logging.Logger("gunicorn.error", logging.DEBUG)
    logger.addHandler(Handler())
    return logger


class Cfg:
    """The settings, by name; what is none may be another variable of the configuration file."""

    def __init__(self, settings, names):
        self.settings = {name: _value(value) for name, value in settings.items()}
        self._names = names

    def __getattr__(self, name):
        for source in (self.settings, self._names):
            if name in source and not name.startswith("_"):
                return source[name]
        raise AttributeError(f"there is no setting {name!r}")

    @property
    def env(self):
        return dict(entry.split("=", 1) for entry in self.settings.get("raw_env", ()))

    @property
    def address(self):
        return [_address(text) for text in self.settings.get("bind", ())]


def _value(value):
    """A time is written with its nanoseconds apart."""
    if isinstance(value, dict) and value.keys() == {"secs", "nanos"}:
        return value["secs"] + value["nanos"] / 1e9 if value["nanos"] else value["secs"]
    return value


def _address(text):
    host, _, port = text.rpartition(":")
    if text.startswith("unix:"):
        return text[len("unix:"):]
    return (host.strip("[]"), int(port)) if port.isdigit() else (text, 8000)


class Server:
    """The master."""

    def __init__(self, pid, log, cfg):
        self.pid, self.log, self.cfg = pid, log, cfg
        self.address = cfg.address
        self.num_workers = cfg.settings.get("workers", 1)
        self.timeout = cfg.settings.get("timeout")
        self.proc_name = cfg.settings.get("proc_name")


class Worker:
    """A worker. `age` is the number of its slot from 1 on: workers of all times share few of them."""

    def __init__(self, pid, ppid, slot, generation, log, cfg):
        self.pid = pid if pid is not None else "[booting]"
        self.ppid, self.age, self.slot, self.generation, self.log, self.cfg = ppid, slot + 1, slot, generation, log, cfg
        self.nr, self.alive, self.booted, self.aborted = 0, True, False, False
        self.timeout = cfg.settings.get("timeout")

    def __str__(self):
        return f"<Worker {self.pid}>"


class Request:
    """A request, for `pre_request` and `post_request`."""

    def __init__(self, environ):
        self.environ = environ
        self.method = environ["REQUEST_METHOD"]
        self.uri = environ["RAW_URI"]
        self.path = self.uri.partition("?")[0]
        self.query = environ["QUERY_STRING"]
        self.version = (1, 0) if environ["SERVER_PROTOCOL"] == "HTTP/1.0" else (1, 1)
        self.scheme = environ["wsgi.url_scheme"]

    @property
    def headers(self):
        """Pairs of a name in capitals and its value, as gunicorn has them."""
        names = {"CONTENT_TYPE": "CONTENT-TYPE", "CONTENT_LENGTH": "CONTENT-LENGTH"}
        return [
            (names.get(key) or key[len("HTTP_"):].replace("_", "-"), value)
            for key, value in self.environ.items()
            if key.startswith("HTTP_") or key in names
        ]

    @property
    def remote_addr(self):
        host = self.environ.get("REMOTE_ADDR", "")
        port = self.environ.get("REMOTE_PORT")
        return (host, int(port)) if port else host


class Response:
    """What the application answered; nothing of it is there if it began no response."""

    def __init__(self, status, headers, sent):
        self.status, self.headers, self.sent = status, headers, sent
        self.status_code = int(status.split(" ", 1)[0]) if status else None


class WorkerHooks:
    """The hooks of a worker, from the configuration file that `form` names."""

    def __init__(self, form):
        self.form = form
        self.hooks, self.has_begun = {}, False

    def begin(self, settings, slot, generation, write, trace):
        """Executes the file and calls `post_fork`, the first hook. `trace` is where tracebacks of an abort go."""
        names = _config.execute(self.form)
        self.hooks = _config.hooks_of(names)
        logger, cfg = log(write), Cfg(settings, names)
        self.log, ppid = logger, os.getppid()
        self.server = Server(ppid, logger, cfg)
        self.worker = Worker(os.getpid(), ppid, slot, generation, logger, cfg)
        self.before_request, self.after_request = self.hooks.get("pre_request"), self.hooks.get("post_request")
        self.after_count = _arguments_of(self.after_request)
        if "worker_abort" in self.hooks:
            # The tracebacks come first: they need nothing of the interpreter, which may be stuck.
            faulthandler.disable()
            signal.signal(signal.SIGABRT, self.aborted)
            if trace is not None:
                faulthandler.enable(trace, all_threads=True)
        self.has_begun = True
        if "post_fork" in self.hooks:
            self.hooks["post_fork"](self.server, self.worker)

    def loaded(self):
        """The application is loaded: the worker is about to serve."""
        self.worker.booted = True
        if "post_worker_init" in self.hooks:
            self.hooks["post_worker_init"](self.worker)

    def is_per_request(self):
        return bool(self.before_request or self.after_request)

    def before(self, environ):
        """A request is about to be handed to the application. Returns what `after` is called with."""
        request = Request(environ)
        if self.before_request:
            self.call("pre_request", self.worker, request)
        self.worker.nr += 1
        return request

    def after(self, request, status, headers, sent):
        """A response is over."""
        if self.after_request:
            response = Response(status, headers, sent)
            arguments = (self.worker, request, request.environ, response)
            self.call("post_request", *arguments[: self.after_count])

    def interrupted(self):
        """INT or QUIT: a quick stop."""
        self.worker.alive = False
        self.call("worker_int", self.worker)

    def aborted(self, number, _frame):
        """ABRT: this worker was silent for too long. It ends as it would have without the hook."""
        if os.getpid() == self.worker.pid:
            self.worker.aborted, self.worker.alive = True, False
            self.call("worker_abort", self.worker)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def end(self):
        """The last of all."""
        if self.has_begun:
            self.worker.alive = False
            self.call("worker_exit", self.server, self.worker)

    def call(self, name, *arguments):
        """Calls a hook, if there is one; that it fails is in the log and harms nothing else."""
        try:
            if name in self.hooks:
                self.hooks[name](*arguments)
        except Exception:
            self.log.exception("Exception in %s hook", name)


def _arguments_of(hook):
    """How many of its four arguments `post_request` takes: gunicorn has had two, three and four."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        return 4
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 4
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return min(len(places), 4)
