"""How an application is named, and what happens if it cannot be had."""

import contextlib
import os
import shutil
import tempfile

from harness.registry import GUNICORN, check, equal, one_of, rows, true
from harness.server import is_alive, until

HELLO = """
import os

def page(text):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text.encode()]
    return application

class Callable:
    def __call__(self, environ, start_response):
        return page("instance")(environ, start_response)

application = page("default")
other = page("other")
instance = Callable()
number = 7
nothing = None

def factory(*args, **words):
    return page(f"factory {args} {sorted(words.items())}")

def broken_factory():
    raise ValueError("factory failed")

def no_factory():
    return 7

named = page(os.environ.get("SUITE_SAYS", "unset"))
folder = page(os.getcwd())
"""


@contextlib.contextmanager
def project(**files):
    """A folder with these Python files."""
    folder = tempfile.mkdtemp(prefix="suite-project-")
    try:
        for name, text in files.items():
            with open(os.path.join(folder, f"{name}.py"), "w", encoding="utf-8") as file:
                file.write(text)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@rows(GUNICORN, [
    ("module", "hello_project", b"default"),
    ("attribute", "hello_project:other", b"other"),
    ("instance", "hello_project:instance", b"instance"),
    ("factory", "hello_project:factory()", b"factory () []"),
    ("factory_with_arguments", "hello_project:factory('a', 2, key=[1, None])", b"factory ('a', 2) [('key', [1, None])]"),
])
def application_is_named_by(client, app, want):
    with project(hello_project=HELLO) as folder, client.start(app, directory=folder) as server:
        equal(client.at(server).get("/").body, want, "body")


@check(GUNICORN)
def application_may_lie_in_a_package(client):
    with project() as folder:
        os.makedirs(os.path.join(folder, "outer", "inner"))
        for name in ("outer/__init__.py", "outer/inner/__init__.py"):
            open(os.path.join(folder, name), "w", encoding="utf-8").close()
        with open(os.path.join(folder, "outer/inner/site.py"), "w", encoding="utf-8") as file:
            file.write(HELLO)
        with client.start("outer.inner.site:other", directory=folder) as server:
            equal(client.at(server).get("/").body, b"other", "body")


def ends(client, app, code, words, **files):
    """The server gives up: its exit code, and what the log must say, once."""
    with project(hello_project=HELLO, **files) as folder:
        with client.start(app, directory=folder, workers=1, waits=False) as server:
            equal(server.wait(15), code, f"exit code, with this log:\n{server.log_tail()}\n   ")
            for word in words:
                true(word in server.log(), f"{word!r} is not in the log:\n{server.log_tail()}")


@rows(GUNICORN, [
    ("missing_attribute", "hello_project:absent", ["absent"]),
    ("number", "hello_project:number", ["callable"]),
    ("none", "hello_project:nothing", ["nothing"]),
    ("factory_that_gives_a_number", "hello_project:no_factory()", ["callable"]),
    ("factory_with_wrong_arguments", "hello_project:no_factory(1, 2)", ["no_factory"]),
    ("no_expression", "hello_project:a b", ["a b"]),
    ("code", "hello_project:factory(len([]))", ["factory"]),
])
def application_that_is_none_ends_with_4(client, app, words):
    ends(client, app, 4, words)


@rows(GUNICORN, [
    ("missing_module", "absent_project:application", ["absent_project"], {}),
    ("missing_import", "broken_project", ["absent_dependency", "Traceback"], {"broken_project": "import absent_dependency\n"}),
    ("syntax_error", "broken_project", ["SyntaxError"], {"broken_project": "def application(:\n"}),
    ("error_at_import", "broken_project", ["ZeroDivisionError", "broken_project.py"], {"broken_project": "1 / 0\n"}),
    ("broken_factory", "hello_project:broken_factory()", ["factory failed"], {}),
])
def module_that_fails_ends_with_3(client, app, words, files):
    ends(client, app, 3, words, **files)


@check(GUNICORN)
def nothing_is_left_of_a_server_that_could_not_load(client):
    with project(slow_project="import time\ntime.sleep(0.3)\nimport absent_dependency\n") as folder:
        with client.start("slow_project", directory=folder, waits=False) as server:
            until(lambda: len(server.descendants()) > 0, 5)
            workers = server.descendants()
            one_of(server.wait(20), {1, 3}, "exit code")
            true(until(lambda: not any(map(is_alive, workers)), 5), "a worker outlives its master")


@check(GUNICORN)
def environment_is_passed_on(client):
    with project(hello_project=HELLO) as folder:
        with client.start("hello_project:named", directory=folder, env={"SUITE_SAYS": "by the environment"}) as server:
            equal(client.at(server).get("/").body, b"by the environment", "body")


@check(GUNICORN)
def env_option_sets_a_variable(client):
    with project(hello_project=HELLO) as folder:
        with client.start("hello_project:named", directory=folder, options=["--env", "SUITE_SAYS=by the option"]) as server:
            equal(client.at(server).get("/").body, b"by the option", "body")


@check(GUNICORN)
def chdir_option_changes_the_folder(client):
    with project(hello_project=HELLO) as folder:
        with client.start("hello_project:folder", options=["--chdir", folder]) as server:
            equal(client.at(server).get("/").body, os.path.realpath(folder).encode(), "body")


@check(GUNICORN)
def pythonpath_option_finds_modules(client):
    with project(hello_project="from beside import application\n") as folder, project(beside=HELLO) as other:
        with client.start("hello_project", directory=folder, options=["--pythonpath", other]) as server:
            equal(client.at(server).get("/").body, b"default", "body")
