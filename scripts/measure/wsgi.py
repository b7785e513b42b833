"""CPU per request of WSGI servers: ours beside gunicorn, Granian, uWSGI, bjoern and waitress, in interleaved rounds.

Each server gets two workers (waitress: one process) and 32 connections on loopback. Pages: `hello`, 13 bytes of a bare
application; `flask` and `django`, a page as short through each framework, Django with startproject's middleware. The
others come from the package registry, into target/wsgi-peers; one that cannot be installed is left out, and said so.
`scripts/bench wsgi --help` lists the flags.
"""

import argparse
import glob
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

from . import cpu, load
from .postgres import free_port

CONNECTIONS = 32
# Longest wait for a server's first answer, in seconds.
BOOT_MAX_S = 20
COMMANDS = {
    "monoceros": "master --workers 2 --bind {bind} --log-level error {app}",
    "gunicorn sync": "gunicorn --workers 2 --bind {bind} --log-level error {app}",
    "gunicorn gthread": "gunicorn --workers 2 -k gthread --threads 4 --keep-alive 15 --bind {bind} --log-level error {app}",
    "granian": "granian --interface wsgi --workers 2 --blocking-threads 1 --port {port} --no-access-log --log-level error {app}",
    "uwsgi": "uwsgi --master --processes 2 --http11-socket {bind} --add-header Connection:Keep-Alive --disable-logging --module {app}",
    "bjoern": "python bjoern_server.py {port} {app}",
    "waitress": "waitress-serve --listen {bind} --threads 2 {app}",
}
PACKAGES = ("flask", "django<6", "gunicorn", "granian", "waitress", "uwsgi", "bjoern")
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


class Server:
    def __init__(self, name, page, folder, environment):
        self.port = free_port()
        self.process = None
        app = PAGES[page]
        words = COMMANDS[name].format(bind=f"127.0.0.1:{self.port}", port=self.port, app=app).split()
        words[0] = str(environment / "bin" / words[0])
        if not os.path.exists(words[0]):
            return
        with open(folder / "server.log", "wb") as log:
            self.process = subprocess.Popen(
                words, cwd=folder, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "VIRTUAL_ENV": str(environment), "PYTHONPATH": str(folder)},
            )

    def answers(self):
        """Waits for the first answer; whether there was one."""
        end = time.monotonic() + BOOT_MAX_S
        while time.monotonic() < end and self.process and self.process.poll() is None:
            done = subprocess.run(["curl", "-fsS", "-m", "5", "-o", os.devnull, self.url()], capture_output=True)
            if done.returncode == 0:
                # The other worker may still be on its way.
                time.sleep(1)
                return True
            time.sleep(0.1)
        return False

    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def load(self, seconds, close):
        """Figures of a load, its CPU in microseconds per request among them."""
        pids = cpu.tree(self.process.pid)
        before = cpu.seconds(pids)
        figures = load.run(self.url(), CONNECTIONS, seconds, close=close)
        spent = cpu.spent(before, cpu.seconds(cpu.tree(self.process.pid)))
        return {**figures, "server_us": spent * 1e6 / max(figures["requests"], 1)}

    def stop(self):
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            # Its own session: nothing else is in that process group.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def install(environment, wheels):
    pip = environment / "bin" / "pip"
    if not pip.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        for package in PACKAGES:
            done = subprocess.run([pip, "--quiet", "install", package], capture_output=True, text=True)
            if done.returncode:
                print(f"not installed: {package}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
    found = glob.glob(str(wheels / "monoceros-*.whl"))
    if not found:
        sys.exit(f"bench: no wheel in {wheels}: build it with scripts/wheel")
    subprocess.run([pip, "--quiet", "install", "--force-reinstall", "--no-deps", found[0]], check=True)


def measure(flags, environment, folder):
    """One record per server, page, way and round."""
    records = []
    for number in range(flags.rounds):
        for page in flags.pages:
            # Another order in each round, as for all measurements.
            shift = number % len(flags.servers)
            for name in flags.servers[shift:] + flags.servers[:shift]:
                server = Server(name, page, folder, environment)
                try:
                    if not server.answers():
                        print(f"  {name}: not installed, or does not answer", file=sys.stderr)
                        continue
                    for way, close in (("keep-alive", False), ("close", True)):
                        figures = server.load(flags.seconds, close)
                        figures.update(server=name, page=page, way=way, round=number)
                        figures["pss_bytes"] = cpu.pss_bytes(cpu.tree(server.process.pid))
                        records.append(figures)
                        print(f"  {number + 1}/{flags.rounds} {page:7} {way:10} {name:16} {figures['server_us']:8.1f} µs "
                              f"{figures['rps']:8.0f}/s failed={figures['failed']}", file=sys.stderr)
                finally:
                    server.stop()
    return records


def median(records, figure, **keys):
    values = [record[figure] for record in records if all(record[key] == value for key, value in keys.items())]
    return statistics.median(values) if values else None


def ratio(records, figure, name, page, way):
    """Ours to theirs within each round, then the median."""
    by_round = {}
    for record in records:
        if record["page"] == page and record["way"] == way:
            by_round.setdefault(record["round"], {})[record["server"]] = record[figure]
    pairs = [(found["monoceros"], found[name]) for found in by_round.values() if "monoceros" in found and name in found]
    return statistics.median(ours / theirs for ours, theirs in pairs if theirs) if pairs else None


def render(records, flags):
    lines = []
    for page in flags.pages:
        lines += [f"**{page}**: CPU µs per request · requests/s (ours / theirs: CPU · requests/s)", "",
                  "| | keep-alive | connection per request | PSS MB |", "| --- | --- | --- | --- |"]
        for name in flags.servers:
            cells = []
            for way in ("keep-alive", "close"):
                cost = median(records, "server_us", server=name, page=page, way=way)
                rps = median(records, "rps", server=name, page=page, way=way)
                if cost is None:
                    cells.append("–")
                    continue
                cell = f"{cost:.1f} · {rps:.0f}"
                against = [ratio(records, figure, name, page, way) for figure in ("server_us", "rps")]
                if name != "monoceros" and None not in against:
                    cell += f" ({against[0]:.2f} · {against[1]:.2f})"
                cells.append(cell)
            memory = median(records, "pss_bytes", server=name, page=page)
            cells.append("–" if memory is None else f"{memory / 1e6:.0f}")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    lines.append(f"Failed requests: {sum(record['failed'] for record in records)}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench wsgi", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = lambda known: lambda text: [name.strip() for name in text.split(",") if name.strip() in known]
    parser.add_argument("--servers", type=names(COMMANDS), default=list(COMMANDS), help=f"which of {', '.join(COMMANDS)} (default: all)")
    parser.add_argument("--pages", type=names(PAGES), default=list(PAGES), help=f"which of {', '.join(PAGES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default="target/bench", help="folder of results (default: %(default)s)")
    parser.add_argument("--target", type=pathlib.Path, default="target", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    environment = (flags.target / "wsgi-peers").resolve()
    install(environment, flags.target / "wheels")
    folder = environment / "applications"
    folder.mkdir(exist_ok=True)
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    records = measure(flags, environment, folder)
    flags.out.mkdir(parents=True, exist_ok=True)
    file = flags.out / time.strftime("%Y%m%d-%H%M%S-wsgi.json")
    file.write_text(json.dumps({"flags": {key: str(value) for key, value in vars(flags).items()}, "runs": records}, indent=1))
    print(render(records, flags))
    print(f"\nAll figures: {file}")


if __name__ == "__main__":
    main()
