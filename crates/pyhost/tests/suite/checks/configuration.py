"""gunicorn's configuration file: its forms and values, and the hooks with what they are told."""

import os
import signal

from checks.loading import HELLO, project
from checks.process import LIVING, living, path
from harness.registry import GOAL, GUNICORN, check, equal, rows, true
from harness.server import until
from harness.wire import WireError

# Leaves a note for each hook that a check asks of it.
NOTING = """
import os

def note(text):
    with open(os.path.join(os.environ["SUITE_NOTES"], "hooks"), "a") as notes:
        notes.write(str(text) + "\\n")
"""
OBJECTS = NOTING + """
raw_env = ["SUITE_SAYS=it"]

def post_fork(server, worker):
    note(f"post_fork {server.pid == worker.ppid == os.getppid()} {worker.pid == os.getpid()} {worker.age} {worker.cfg.timeout}")
    server.log.warning("warned by %s", "post_fork")

def post_worker_init(worker):
    note(f"post_worker_init {worker.alive} {worker.cfg.raw_env}")

def pre_request(worker, req):
    header = dict(req.headers).get("X-SUITE")
    note(f"pre_request {req.method} {req.path} {req.query} {req.uri} {req.version} {req.remote_addr[0]} {header} {worker.nr}")

def post_request(worker, req, environ, resp):
    note(f"post_request {environ['PATH_INFO']} {resp.status} {resp.status_code} {resp.sent} {len(resp.headers)}")

def worker_exit(server, worker):
    note(f"worker_exit {worker.alive}")
    worker.log.error("the last word")
"""
MASTERS = NOTING + """
def on_starting(server):
    note(f"on_starting {server.pid != os.getpid()} {server.num_workers} {len(server.address)}")

def when_ready(server):
    note("when_ready")
    server.log.warning("warned by when_ready")

def on_reload(server):
    note("on_reload")

def pre_fork(server, worker):
    note(f"pre_fork {worker.age}")

def child_exit(server, worker):
    note(f"child_exit {type(worker.pid).__name__} {worker.age}")

def nworkers_changed(server, new, old):
    note(f"nworkers_changed {new} {old}")

def on_exit(server):
    note("on_exit")
"""


def hooked(client, conf, folder, **how):
    """A server with one worker and this configuration file."""
    with open(os.path.join(folder, "suite_conf.py"), "w", encoding="utf-8") as file:
        file.write(conf)
    how = {"options": ["-c", "suite_conf.py"], "workers": 1, **how}
    return client.start(how.pop("app", "hello_project"), directory=folder, **how)


def noted(at, line, within=8):
    true(until(lambda: line in at.notes("hooks"), within), f"{line!r} is not among {at.notes('hooks')}\n{at.server.log_tail()}")


@check(GUNICORN)
def hooks_of_workers_have_gunicorns_objects(client):
    with project(hello_project=HELLO) as folder, hooked(client, OBJECTS, folder) as server:
        at = client.at(server)
        equal(at.get("/some%20where?a=1", [("X-Suite", "yes")]).body, b"default", "body")
        noted(at, "post_fork True True 1 30")
        noted(at, "post_worker_init True ['SUITE_SAYS=it']")
        # The suite looks whether the server answers before it begins.
        noted(at, "pre_request GET /some%20where a=1 /some%20where?a=1 (1, 1) 127.0.0.1 yes 1")
        noted(at, "post_request /some where 200 OK 200 7 1")
        equal(server.stop(), 0, "exit code")
        noted(at, "worker_exit False")
        true("[WARNING] warned by post_fork" in server.log(), f"no warning of post_fork:\n{server.log_tail()}")
        true("[ERROR] the last word" in server.log(), f"no error of worker_exit:\n{server.log_tail()}")


@rows(GUNICORN, [("two", "worker, req"), ("three", "worker, req, environ"), ("four", "worker, req, environ, resp")])
def post_request_takes_some_arguments(client, parameters):
    conf = NOTING + f"def post_request({parameters}):\n    note('called')\n"
    with project(hello_project=HELLO) as folder, hooked(client, conf, folder) as server:
        at = client.at(server)
        at.get("/")
        noted(at, "called")


@check(GUNICORN)
def post_request_comes_after_streams_and_errors(client):
    text = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/raises":
        raise ValueError("on purpose")
    start_response("202 Fine", [])
    def pieces():
        yield b"one"
        yield b"two"
    return pieces()
"""
    with project(hello_project=text) as folder, hooked(client, OBJECTS, folder) as server:
        at = client.at(server)
        equal(at.get("/stream").body, b"onetwo", "body")
        noted(at, "post_request /stream 202 Fine 202 6 0")
        equal(at.get("/raises").status, 500, "status")
        true(until(lambda: any(n.startswith("pre_request GET /raises") for n in at.notes("hooks")), 5), "pre_request was not called")


@check(GOAL)
def hooks_of_the_master_are_called(client):
    with project(hello_project=HELLO) as folder, hooked(client, MASTERS, folder) as server:
        at = client.at(server)
        for line in ("on_starting True 1 1", "when_ready", "pre_fork 1"):
            noted(at, line)
        true(server.log_has("Hook says hook=when_ready WARNING: warned by when_ready"), f"no warning:\n{server.log_tail()}")
        server.send_signal(signal.SIGTTIN)
        noted(at, "nworkers_changed 2 1")
        noted(at, "pre_fork 2")
        server.send_signal(signal.SIGTTOU)
        noted(at, "nworkers_changed 1 2")
        noted(at, "child_exit int 2")
        server.send_signal(signal.SIGHUP)
        noted(at, "on_reload")
        true(server.log_has("Reloaded generation=1", 10), f"no reload:\n{server.log_tail()}")
        equal(server.stop(), 0, "exit code")
        equal(at.notes("hooks")[-1], "on_exit", "the last hook")


@check(GOAL)
def hook_that_raises_harms_no_request(client):
    conf = "def pre_request(worker, req):\n    1 / 0\ndef post_request(worker, req):\n    [].pop()\n"
    with project(hello_project=HELLO) as folder, hooked(client, conf, folder) as server:
        equal(client.at(server).get("/").body, b"default", "body")
        for word in ("Exception in pre_request hook", "ZeroDivisionError", "Exception in post_request hook", "IndexError"):
            true(server.log_has(word), f"{word!r} is not in the log:\n{server.log_tail()}")


@rows(GUNICORN, [("post_fork", "post_fork(server, worker)"), ("post_worker_init", "post_worker_init(worker)")])
def hook_that_raises_at_the_boot_ends_it(client, function):
    conf = f"def {function}:\n    raise RuntimeError('not today')\n"
    with project(hello_project=HELLO) as folder, hooked(client, conf, folder, waits=False) as server:
        equal(server.wait(15), 3, f"exit code, with this log:\n{server.log_tail()}\n   ")
        true("RuntimeError: not today" in server.log(), f"the error is not in the log:\n{server.log_tail()}")


@check(GUNICORN)
def worker_int_is_called_at_a_quick_stop(client):
    conf = NOTING + "def worker_int(worker):\n    note(f'worker_int {worker.pid == os.getpid()}')\n"
    with project(hello_project=HELLO) as folder, hooked(client, conf, folder) as server:
        equal(server.stop(signal.SIGINT), 0, "exit code")
        noted(client.at(server), "worker_int True")


@check(GOAL, seconds=40)
def worker_abort_is_called_when_a_worker_hangs(client):
    conf = NOTING + "timeout = 2\ndef worker_abort(worker):\n    note(f'worker_abort {worker.pid == os.getpid()}')\n"
    with project(living_project=LIVING, suite_conf=conf) as folder:
        with living(client, folder, options=["-c", "suite_conf.py"]) as server:
            at, token = client.at(server), client.token()
            with at.connect() as connection:
                connection.send(f"GET /stand_still?token={token} HTTP/1.1\r\nHost: suite\r\n\r\n".encode())
                at.notes(token, 1)
                noted(at, "worker_abort True", 15)
                true(server.log_has("stand_still"), f"the hung function is not in the log:\n{server.log_tail()}")
            equal(at.get("/version").body, b"first", "answer of the others")


@check(GUNICORN)
def module_may_hold_the_configuration(client):
    with project(hello_project=HELLO, suite_module="raw_env = ['SUITE_SAYS=by the module']\n") as folder:
        with client.start("hello_project:named", directory=folder, options=["-c", "python:suite_module"]) as server:
            equal(client.at(server).get("/").body, b"by the module", "body")


@check(GUNICORN)
def reload_reads_the_file_anew(client):
    conf = "raw_env = ['SUITE_SAYS=first']\n"
    with project(hello_project=HELLO) as folder, hooked(client, conf, folder, app="hello_project:named") as server:
        at = client.at(server)
        equal(at.get("/").body, b"first", "body")
        for word in (b"other", b"third"):
            with open(os.path.join(folder, "suite_conf.py"), "w", encoding="utf-8") as file:
                file.write(conf.replace("first", word.decode()))
            server.send_signal(signal.SIGHUP)

            def is_new():
                try:
                    return at.get("/").body == word
                except (OSError, WireError):
                    return False  # How a reload looks from outside is another check's matter.

            true(until(is_new, 10), f"the file's new value is not there after HUP:\n{server.log_tail()}")


@check(GOAL)
def reload_with_a_broken_file_changes_nothing(client):
    conf = "raw_env = ['SUITE_SAYS=first']\n"
    with project(hello_project=HELLO) as folder, hooked(client, conf, folder, app="hello_project:named") as server:
        at = client.at(server)
        with open(os.path.join(folder, "suite_conf.py"), "a", encoding="utf-8") as file:
            file.write("\nworkers = undefined_name\n")
        server.send_signal(signal.SIGHUP)
        true(server.log_has("suite_conf.py: line 3: NameError", 10), f"the error is not in the log:\n{server.log_tail()}")
        equal(at.get("/").body, b"first", "body")


@check(GUNICORN)
def file_from_the_field_is_understood(client):
    """What tutorials and gunicorn's own example have in such files."""
    conf = """
import multiprocessing
from pathlib import Path

command = "/usr/bin/gunicorn"
pythonpath = str(Path(__file__).parent / "inner")
backlog = 2048
workers = multiprocessing.cpu_count() * 2 + 1
worker_class = "sync"
worker_connections = 1000
timeout, keepalive = 30, 2
spew = False
daemon = False
pidfile = umask = None
user = group = None
umask = 0
tmp_upload_dir = None
certfile = keyfile = None
errorlog = "-"
loglevel = "info"
accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s tailored'
proc_name = None
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarded_allow_ips = "*"
raw_env = ["SUITE_SAYS=by the field"]
print("what it prints is no setting")

def pre_fork(server, worker):
    pass

def ssl_context(conf, default_ssl_context_factory):
    return default_ssl_context_factory()
"""
    with project() as folder:
        os.mkdir(os.path.join(folder, "inner"))
        with open(os.path.join(folder, "inner", "field_project.py"), "w", encoding="utf-8") as file:
            file.write(HELLO)
        with hooked(client, conf, folder, app="field_project:named") as server:
            equal(client.at(server).get("/").body, b"by the field", "body")
            true(server.log_has('200 tailored'), f"the access log is another:\n{server.log_tail()}")


@rows(GOAL, [
    ("wrong_type", "x = 1\nworkers = ['a']\n", "suite_conf.py:2:11: workers is a list, expected a whole number"),
    ("wrong_value", "timeout = 'long'\n", "suite_conf.py:1:11: timeout is \"long\", expected seconds"),
    ("not_offered", "if True:\n    certfile = 'a.pem'\n", "suite_conf.py:2:16: certfile is not offered"),
    ("arguments_of_a_hook", "def on_exit(one, two):\n    pass\n", "suite_conf.py:1:1: on_exit does not take 1 argument"),
    ("syntax", "workers = (\n", "SyntaxError"),
    ("exit", "import sys\nsys.exit(0)\n", "suite_conf.py: line 2: SystemExit"),
    ("absent", None, "suite_conf.py"),
])
def mistake_in_the_file_is_shown(client, text, words):
    with project(hello_project=HELLO, **({} if text is None else {"suite_conf": text})) as folder:
        with client.start("hello_project", directory=folder, options=["-c", "suite_conf.py"], waits=False) as server:
            true(server.wait(10) != 0, "the exit code is 0")
            true(words in server.log(), f"{words!r} is not in the log:\n{server.log_tail()}")


@check(GOAL)
def name_that_is_nearly_a_setting_is_warned_about(client):
    with project(hello_project=HELLO) as folder, hooked(client, "\ntimout = 5\nown_variable = 7\n", folder) as server:
        true('suite_conf.py:2:10: unknown name "timout", ignored; did you mean "timeout"?' in server.log(), server.log_tail())
        true("own_variable" not in server.log(), "a variable of the file's own is mentioned")


@rows(GOAL, [
    ("variables", "hello_project:named", ["--env", "SUITE_SAYS=it"], 0, ""),
    ("raises", "broken_project", [], 3, "ZeroDivisionError"),
    ("exits", "exiting_project", [], 3, "SystemExit"),
    ("no_application", "hello_project:absent", [], 4, "absent"),
    ("threads", "threading_project", [], 0, ""),
])
def check_config_says_what_a_start_would(client, app, options, code, words):
    endless = "import threading\nthreading.Thread(target=threading.Event().wait).start()\ndef application(*_):\n    pass\n"
    projects = {"hello_project": HELLO, "broken_project": "1 / 0\n", "exiting_project": "exit(0)\n", "threading_project": endless}
    with project(**projects) as folder:
        with client.start(app, directory=folder, options=["--check-config", *options], waits=False) as server:
            equal(server.wait(15), code, f"exit code, with this log:\n{server.log_tail()}\n   ")
            true(words in server.log(), f"{words!r} is not in the log:\n{server.log_tail()}")
            true(bool(words) or not server.log(), f"a good check says something:\n{server.log_tail()}")
