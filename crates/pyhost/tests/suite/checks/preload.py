"""`--preload`: one import for all workers, shared memory, and all that holds of workers without it."""

import os
import signal
import threading
import time

from checks.loading import project
from checks.process import LIVING, Calls, living, path, pids
from harness.registry import GOAL, check, equal, rows, true
from harness.server import is_alive, until
from harness.wire import WireError, request

# A module-level object of this size, in bytes, that each request looks at all of.
BALLAST = 50 * 1024 * 1024
HEAVY = """
import gc, os
from harness.app import Applications, plain

BALLAST = bytes(os.urandom(1 << 20) * 50)
THINGS = [[str(number)] for number in range(200_000)]
application = Applications()

@application.page
def ready(environ, start_response):
    return plain(start_response, "ready")

@application.page
def pid(environ, start_response):
    return plain(start_response, str(os.getpid()))

@application.page
def weight(environ, start_response):
    gc.collect()
    touched = sum(BALLAST[::4096]) + len(THINGS)
    with open("/proc/self/smaps_rollup") as rollup:
        private = sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Dirty", "Private_Clean")))
    return plain(start_response, f"{private} {touched}")
"""
FORKING = LIVING + """
import threading
SEEN = []
os.register_at_fork(before=lambda: SEEN.append("before"), after_in_child=lambda: SEEN.append("child"))
threading.Thread(target=time.sleep, args=(3600,), daemon=True, name="left-behind").start()

@application.page
def forked(environ, start_response):
    import threading
    is_main = threading.current_thread() is threading.main_thread()
    return plain(start_response, f"{','.join(SEEN[-2:])} {is_main} {threading.active_count()}")
"""
PRELOAD = ["--preload"]


def preloaders(server):
    """Process ids of the server's preloaders, by the titles that `ps` shows."""
    found = []
    for pid in server.descendants():
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as cmdline:
                if cmdline.read().startswith("monoceros: preloader"):
                    found.append(pid)
        except OSError:
            pass
    return found


def parent(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def write(folder, text):
    with open(os.path.join(folder, "living_project.py"), "w", encoding="utf-8") as file:
        file.write(text)


class Load:
    """Requests on new connections, one after the other in each of some threads; what failed is kept."""

    def __init__(self, at, threads=3):
        self.at, self.failures, self.bodies, self.is_over = at, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.is_over.is_set():
            try:
                with self.at.connect(wait=5) as connection:
                    connection.send(request("GET", "/version", [("Connection", "close")]))
                    self.bodies.append(connection.reply().body)
            except (OSError, WireError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            time.sleep(0.002)  # A steady load, not all that this machine can do.

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join(6)
        equal(self.failures[:3], [], f"failures among {len(self.bodies)} requests ({len(self.failures)} in all)")
        return self.bodies


@check(GOAL)
def workers_share_what_was_imported(client):
    with project(heavy_project=HEAVY) as folder:
        with client.start("heavy_project", directory=folder, env=path(), workers=3, options=PRELOAD) as server:
            at, private = client.at(server), []
            workers = pids(at, 3)
            equal(len(workers), 3, "workers that answer")
            for _ in range(12):
                private.append(int(at.get("/weight").body.split()[0]) * 1024)
            true(max(private) < BALLAST // 2, f"{max(private)} bytes are a worker's own, of an object of {BALLAST}")


@check(GOAL)
def workers_are_children_of_the_master(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=PRELOAD) as server:
        workers = pids(client.at(server), 2)
        equal({parent(pid) for pid in workers}, {server.pid}, "parents of the workers")
        equal(len(preloaders(server)), 1, "number of preloaders")
        true(not workers & set(preloaders(server)), "the preloader serves")


@check(GOAL)
def fork_is_one_as_the_application_sees_it(client):
    with project(living_project=FORKING) as folder, living(client, folder, options=PRELOAD) as server:
        equal(client.at(server).get("/forked").body, b"before,child True 1", "hooks called, main thread, threads")
        true(server.log_has("names=left-behind"), f"the log does not name the thread:\n{server.log_tail()}")


@check(GOAL)
def copies_make_different_request_ids(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=[*PRELOAD, "--request-id"]) as server:
        replies = [client.at(server).get("/pid") for _ in range(40)]
        true(len({reply.body for reply in replies}) == 2, "one worker alone has answered")
        ids = [reply.all("X-Request-ID")[0] for reply in replies]
        equal(len(set(ids)), len(ids), "different request ids")


@check(GOAL, seconds=40)
def stuck_worker_shows_where_it_stands(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=[*PRELOAD, "--timeout", "2"]) as server:
        at, token = client.at(server), client.token()
        Calls(at, f"/stand_still?token={token}")
        stuck = int(at.notes(token, 1)[0])
        true(until(lambda: not is_alive(stuck), 10), "the stuck worker still lives after 10 s, with a timeout of 2 s")
        true(server.log_has("living_project.py"), f"the log does not name the file:\n{server.log_tail()}")
        true("Worker aborted with a request in hand" in server.log(), f"no report of the request:\n{server.log_tail()}")
        true(until(lambda: len(pids(at, 2, 1)) == 2, 8), "no second worker afterwards")


@check(GOAL, seconds=60)
def hangup_under_load_brings_new_code(client):
    """Twice; gunicorn keeps the old code with --preload."""
    with project(living_project=LIVING + "\ntime.sleep(0.5)\n") as folder, living(client, folder, options=PRELOAD) as server:
        at = client.at(server)
        load = Load(at)
        for number, word in enumerate(("second", "third"), 1):
            write(folder, LIVING.replace('"first"', f'"{word}"'))
            server.send_signal(signal.SIGHUP)
            true(server.log_has(f"Reloaded generation={number}", 15), f"no reload:\n{server.log_tail()}")
        true(until(lambda: at.get("/version").body == b"third", 5), "the new code does not answer")
        true(until(lambda: len(preloaders(server)) == 1, 5), f"{len(preloaders(server))} preloaders after the reload")
        bodies = load.end()
        true({b"first", b"third"} <= set(bodies), f"answers: {set(bodies)}")
        equal(server.stop(), 0, "exit code")
        true("Traceback" not in server.log(), f"a traceback in the log:\n{server.log_tail()}")


@rows(
    GOAL,
    [
        ("recycled", ["--max-requests", "20"], None),
        ("worker_killed", [], "worker"),
        ("added_and_removed", [], "number"),
    ],
    seconds=40,
)
def nothing_is_lost_when_a_worker_is(client, options, what):
    with project(living_project=LIVING) as folder, living(client, folder, options=[*PRELOAD, *options]) as server:
        at = client.at(server)
        load = Load(at, threads=2) if what != "worker" else None
        before = pids(at, 2)
        if what == "worker":
            for victim in before:
                os.kill(victim, signal.SIGKILL)
            true(until(lambda: len(pids(at, 2, 1) - before) == 2, 10), "no replacements within 10 s")
        elif what == "number":
            server.send_signal(signal.SIGTTIN)
            true(until(lambda: len(pids(at, 3, 1)) == 3, 10), "no third worker")
            server.send_signal(signal.SIGTTOU)
            true(server.log_has("wanted=2", 5), "TTOU was not taken")
        else:
            true(until(lambda: not (pids(at, 2, 1) & before), 20), "workers are not recycled")
        if load:
            load.end()
        equal(server.stop(), 0, "exit code")


@check(GOAL)
def stop_under_load_answers_what_was_accepted(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=PRELOAD) as server:
        at = client.at(server)
        load = Load(at)
        at.get("/version")
        equal(server.stop(), 0, "exit code")
        load.is_over.set()
        for thread in load.threads:
            thread.join(6)
        lost = [failure for failure in load.failures if "ConnectionRefused" not in failure]
        equal(lost[:3], [], f"failures among {len(load.bodies)} requests ({len(lost)} in all)")


@check(GOAL)
def killed_preloader_is_replaced_when_it_is_needed(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=PRELOAD) as server:
        at = client.at(server)
        before, (preloader,) = pids(at, 2), preloaders(server)
        os.kill(preloader, signal.SIGKILL)
        true(until(lambda: not is_alive(preloader), 5), "the preloader lives")
        true(server.log_has("Preloader (pid:"), f"the log does not say so:\n{server.log_tail()}")
        equal([at.get("/version").body for _ in range(10)], [b"first"] * 10, "answers without a preloader")
        equal(pids(at, 2), before, "workers")
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        true(until(lambda: len(pids(at, 3, 1) - {victim}) == 2, 10), f"no replacement within 10 s:\n{server.log_tail()}")
        equal(len(preloaders(server)), 1, "number of preloaders")
        equal(server.stop(), 0, "exit code")


@rows(
    GOAL,
    [
        ("import_error", "import absent_dependency\n", 3, "absent_dependency"),
        ("no_application", "application = 7\n", 4, "callable"),
        ("died", "import os\nos.kill(os.getpid(), 9)\n", 3, "SIGKILL"),
        ("hung", "import time\ndef hanging():\n    time.sleep(60)\nhanging()\n", 3, "in hanging"),
    ],
)
def broken_application_ends_the_start(client, text, code, word):
    with project(broken_project=text) as folder:
        options = [*PRELOAD, "--boot-timeout", "2"]
        with client.start("broken_project", directory=folder, options=options, waits=False) as server:
            equal(server.wait(10), code, f"exit code, with this log:\n{server.log_tail()}\n   ")
            true(word in server.log(), f"{word} is not in the log:\n{server.log_tail()}")
            if word == "absent_dependency":
                equal(server.log().count("Traceback"), 1, "tracebacks in the log")


@check(GOAL)
def broken_application_at_a_reload_changes_nothing(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=PRELOAD) as server:
        at = client.at(server)
        before = pids(at, 2)
        write(folder, "import absent_dependency\n")
        server.send_signal(signal.SIGHUP)
        true(server.log_has("Reload failed, still serving", 10), f"the reload did not fail:\n{server.log_tail()}")
        equal(server.log().count("Traceback"), 1, "tracebacks in the log")
        equal(pids(at, 2), before, "workers")
        equal(len(preloaders(server)), 1, "number of preloaders")
        write(folder, LIVING.replace('"first"', '"mended"'))
        server.send_signal(signal.SIGHUP)
        true(until(lambda: at.get("/version").body == b"mended", 10), "the mended code does not answer")
        equal(server.stop(), 0, "exit code")


@check(GOAL, seconds=40)
def import_that_hangs_is_ended(client):
    with project(living_project=LIVING) as folder:
        with living(client, folder, options=[*PRELOAD, "--boot-timeout", "2"]) as server:
            at = client.at(server)
            before = pids(at, 2)
            write(folder, "import time\ndef hanging():\n    time.sleep(60)\nhanging()\n")
            server.send_signal(signal.SIGHUP)
            true(server.log_has("Reload failed, still serving", 15), f"the reload did not fail:\n{server.log_tail()}")
            true(server.log_has("in hanging"), f"the log does not show where it hung:\n{server.log_tail()}")
            equal(pids(at, 2), before, "workers")
            equal(server.stop(), 0, "exit code")


@check(GOAL)
def stop_while_the_application_is_imported(client):
    with project(slow_project="import time\ntime.sleep(60)\n") as folder:
        with client.start("slow_project", directory=folder, options=PRELOAD, waits=False) as server:
            true(server.log_has("Booting preloader"), f"no preloader:\n{server.log_tail()}")
            began = time.monotonic()
            equal(server.stop(), 0, "exit code")
            true(time.monotonic() - began < 4, f"the stop took {time.monotonic() - began:.1f} s")


@check(GOAL)
def nobody_outlives_a_killed_master(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=PRELOAD) as server:
        everybody = server.descendants()
        equal(len(everybody), 3, "preloader and workers")
        server.send_signal(signal.SIGKILL)
        server.wait()
        true(until(lambda: not any(map(is_alive, everybody)), 8), "somebody outlives the master")
