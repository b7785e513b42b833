"""CPU per request of WSGI servers: ours beside gunicorn, Granian, uWSGI, bjoern and waitress, in interleaved rounds.

Each server gets two workers (waitress: one process) and 32 connections on loopback. Pages: `hello`, 13 bytes of a bare
application; `flask` and `django`, a page as short through each framework, Django with startproject's middleware. The
others come from the package registry, into target/wsgi-peers; one that cannot be installed is left out, and said so.
`scripts/bench wsgi --help` lists the flags.
"""

import argparse
import contextlib
import glob
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from . import cpu, load, names, peers, table

CONNECTIONS = 32
UWSGI = "uwsgi --master --processes 2 --disable-logging --die-on-term --module {app}"
COMMANDS = {
    "monoceros": "master --workers 2 --bind {bind} --log-level error {app}",
    "gunicorn sync": "gunicorn --workers 2 --bind {bind} --log-level error {app}",
    "gunicorn gthread": "gunicorn --workers 2 -k gthread --threads 4 --keep-alive 15 --bind {bind} --log-level error {app}",
    "granian": "granian --interface wsgi --workers 2 --blocking-threads 1 --port {port} --no-access-log --log-level error {app}",
    # It keeps each connection or none, whatever the client says.
    "uwsgi kept": f"{UWSGI} --http11-socket {{bind}} --add-header Connection:Keep-Alive",
    "uwsgi closed": f"{UWSGI} --http-socket {{bind}} --add-header Connection:close",
    "bjoern": "python bjoern_server.py {port} {app}",
    "waitress": "waitress-serve --listen {bind} --threads 2 {app}",
}
# What each server comes from; ours comes from the wheel.
PACKAGES = {
    "gunicorn sync": "gunicorn", "gunicorn gthread": "gunicorn", "granian": "granian", "uwsgi kept": "uwsgi",
    "uwsgi closed": "uwsgi", "bjoern": "bjoern", "waitress": "waitress",
}
FRAMEWORKS = ("flask", "django<6")
# {name: whether each request has a connection of its own}
WAYS = {"keep-alive": False, "close": True}
PAGES = {"hello": "hello:application", "flask": "flask_page:application", "django": "django_page:application"}
PROGRAMS = {
    "hello.py": """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, World!"]
""",
    "flask_page.py": """
import flask

application = flask.Flask(__name__)

@application.route("/")
def page():
    return "Hello, World!"
""",
    "django_page.py": """
import django.conf
import django.core.wsgi
import django.http
import django.urls

django.conf.settings.configure(
    SECRET_KEY="for a benchmark", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django.contrib.messages"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)

def page(request):
    return django.http.HttpResponse("Hello, World!", content_type="text/plain")

urlpatterns = [django.urls.path("", page)]
application = django.core.wsgi.get_wsgi_application()
""",
    "bjoern_server.py": """
import importlib, os, sys
import bjoern

module, name = sys.argv[2].split(":")
bjoern.listen(getattr(importlib.import_module(module), name), "127.0.0.1", int(sys.argv[1]))
os.fork()
bjoern.run()
""",
}


class Server(peers.Peer):
    """One of the servers with one of the pages; begun when it is made, if it is installed."""

    def __init__(self, name, page, folder, environment):
        super().__init__(name, folder)
        words = COMMANDS[name].format(bind=self.address(), port=self.port, app=PAGES[page]).split()
        words[0] = str(environment / "bin" / words[0])
        # VIRTUAL_ENV: ours is a program of its own, and finds the interpreter by it.
        variables = {**os.environ, "VIRTUAL_ENV": str(environment), "PYTHONPATH": str(folder)}
        self.launch(words, cwd=folder, env=variables)

    def stop(self):
        # Every process: bjoern's second one has nobody to tell it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        super().stop()


def install(environment, wheels, servers):
    """Installs what `servers` need and the pages' frameworks; returns those of `servers` that could be."""
    pip = environment / "bin" / "pip"
    if not pip.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    missing = set()
    for package in dict.fromkeys([*FRAMEWORKS, *(PACKAGES[name] for name in servers if name in PACKAGES)]):
        done = subprocess.run([pip, "--quiet", "install", package], capture_output=True, text=True)
        if done.returncode:
            missing.add(package)
            print(f"skip  {package} cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
    if missing.intersection(FRAMEWORKS):
        sys.exit("bench: the pages need them")
    found = glob.glob(str(wheels / "monoceros-*.whl"))
    if not found:
        sys.exit(f"bench: no wheel in {wheels}: build it with scripts/wheel")
    subprocess.run([pip, "--quiet", "install", "--force-reinstall", "--no-deps", found[0]], check=True)
    return [name for name in servers if PACKAGES.get(name) not in missing]


def measure(flags, servers, environment, folder):
    """One record per server, page, way and round, in the form of scripts/bench's: a page is a test, a way a level."""
    records, memory = [], {}
    for number in range(flags.rounds):
        for page in flags.pages:
            # Another order in each round, as for all measurements.
            shift = number % len(servers)
            for name in servers[shift:] + servers[:shift]:
                server = Server(name, page, folder, environment)
                try:
                    if not server.answers("/"):
                        sys.exit(f"bench: {name} does not answer; see {server.log()}")
                    cpu.settle(server.process.pid)
                    load.run(server.url("/"), CONNECTIONS, seconds=1)
                    for way, close in WAYS.items():
                        if close and not server.closes("/"):
                            continue
                        figures = load.measured(server, "/", CONNECTIONS, flags.seconds, close=close)
                        figures.update(peer=name, test=page, connections=way, round=number)
                        records.append(figures)
                        print(f"  {number + 1}/{flags.rounds} {page:7} {way:10} {name:16} {figures['server_us']:8.1f} µs "
                              f"{figures['rps']:8.0f}/s failed={figures['failed']}", file=sys.stderr)
                    memory.setdefault(f"{page}, memory (PSS)", {})[name] = cpu.pss_bytes(server.pids())
                finally:
                    server.stop()
    return records, memory


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench wsgi", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--servers", default=",".join(COMMANDS), help=f"which of {', '.join(COMMANDS)} (default: all)")
    parser.add_argument("--pages", default=",".join(PAGES), help=f"which of {', '.join(PAGES)} (default: all)")
    names.common(parser, seconds=3)
    parser.add_argument("--target", type=pathlib.Path, default="target", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.servers, flags.pages = names.chosen(flags.servers, COMMANDS), names.chosen(flags.pages, PAGES)
    environment = (flags.target / "wsgi-peers").resolve()
    servers = install(environment, flags.target / "wheels", flags.servers)
    folder = environment / "applications"
    folder.mkdir(exist_ok=True)
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    runs, memory = measure(flags, servers, environment, folder)
    versions = subprocess.run([environment / "bin" / "pip", "freeze"], capture_output=True, text=True).stdout.split()
    result = {
        "flags": {**names.told(flags), "base": "monoceros"},
        "versions": versions,
        "checks": {name: {} for name in servers},
        "memory": memory,
        "runs": runs,
    }
    flags.out.mkdir(parents=True, exist_ok=True)
    file = flags.out / time.strftime("%Y%m%d-%H%M%S-wsgi.json")
    file.write_text(json.dumps(result, indent=1))
    table.report(result, file)


if __name__ == "__main__":
    main()
