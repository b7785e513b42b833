"""`--reload`: what counts as a change, and what comes of a broken one."""

import os
import time

from checks.loading import project
from checks.preload import write
from checks.process import LIVING, living, pids
from harness.registry import GOAL, check, equal, rows, true
from harness.server import until
from harness.wire import WireError

# Longest time from a change to its effect, in seconds: a look each second, and the boot of the workers.
WITHIN = 15
RELOAD = ["--reload"]


def answers(at, word):
    def does():
        try:
            return [at.get("/version").body for _ in range(4)] == [word] * 4
        except (OSError, WireError):
            return False

    return until(does, WITHIN)


@rows(GOAL, [("alone", []), ("preloaded", ["--preload"])], seconds=60)
def broken_code_leaves_the_old_serving_until_it_is_mended(client, options):
    with project(living_project=LIVING) as folder, living(client, folder, options=[*RELOAD, *options]) as server:
        at = client.at(server)
        true("Reloader is on. Use in development only!" in server.log(), f"no warning:\n{server.log_tail()}")
        before = pids(at, 2)
        write(folder, "def broken(:\n")
        true(server.log_has("living_project.py modified", WITHIN), f"the change was not seen:\n{server.log_tail()}")
        true(server.log_has("Reload failed, still serving", WITHIN), f"the reload did not fail:\n{server.log_tail()}")
        true("SyntaxError" in server.log(), f"the log does not say why:\n{server.log_tail()}")
        equal(pids(at, 2), before, "workers")
        write(folder, LIVING.replace('"first"', '"mended"'))
        true(answers(at, b"mended"), f"the mended code does not answer:\n{server.log_tail()}")
        equal(server.stop(), 0, "exit code")


@check(GOAL, seconds=60)
def file_that_only_the_new_code_needs_is_watched(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=RELOAD) as server:
        at = client.at(server)
        write(folder, LIVING.replace('VERSION = "first"', "from helper_of_living import VERSION"))
        true(server.log_has("Reload failed, still serving", WITHIN), f"the reload did not fail:\n{server.log_tail()}")
        with open(os.path.join(folder, "helper_of_living.py"), "w", encoding="utf-8") as file:
            file.write('VERSION = "helped"\n')
        true(answers(at, b"helped"), f"the code that is complete now does not answer:\n{server.log_tail()}")


@rows(GOAL, [("named", "page.html"), ("pattern", "**/*.html")], seconds=60)
def extra_files_are_watched(client, pattern):
    with project(living_project=LIVING) as folder:
        page = os.path.join(folder, "page.html")
        with open(page, "w", encoding="utf-8") as file:
            file.write("1")
        with living(client, folder, options=[*RELOAD, "--reload-extra-file", pattern]) as server:
            with open(page, "w", encoding="utf-8") as file:
                file.write("12")
            os.utime(page, (2_000_000_000, 2_000_000_000))
            true(server.log_has("page.html modified", WITHIN), f"the change was not seen:\n{server.log_tail()}")
            true(server.log_has("Reloaded generation=1", WITHIN), f"no reload:\n{server.log_tail()}")


@check(GOAL, seconds=40)
def one_change_is_one_reload(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=RELOAD) as server:
        write(folder, LIVING.replace('"first"', '"second"'))
        true(answers(client.at(server), b"second"), f"the new code does not answer:\n{server.log_tail()}")
        time.sleep(2.5)  # Two more looks: nothing has changed.
        equal(server.log().count("Worker reloading: "), 1, "reloads")
