"""`DATABASE_URL`: the application's own affair, whatever kind of database it names."""

from checks.loading import HELLO, project
from harness.registry import GOAL, GUNICORN, check, equal, rows, true

SAYS_IT = HELLO + '\nurl = page(os.environ.get("DATABASE_URL", "unset"))\n'


@rows(GUNICORN, [
    ("sqlite", "sqlite:///site.sqlite3"),
    ("mysql", "mysql://user:word@localhost/site"),
    ("with_its_driver", "postgresql+psycopg2://user:word@localhost/site"),
    # Nobody listens on the discard port: a worker that connected would wait, and say so.
    ("postgres_that_is_away", "postgres://user:word@127.0.0.1:9/site"),
])
def variable_is_the_applications_own(client, url):
    with project(hello_project=SAYS_IT) as folder:
        with client.start("hello_project:url", directory=folder, env={"DATABASE_URL": url}) as server:
            equal(client.at(server).get("/").body, url.encode(), "DATABASE_URL in the application")
            true("atabase" not in server.log(), f"the server speaks of a database:\n{server.log_tail()}")


@check(GOAL)
def option_sets_the_variable_and_nothing_else(client):
    url = "postgresql://user:word@127.0.0.1:9/site"
    with project(hello_project=SAYS_IT) as folder:
        with client.start("hello_project:url", directory=folder, options=["--database", url]) as server:
            equal(client.at(server).get("/").body, url.encode(), "DATABASE_URL in the application")
            true("Cannot connect" not in server.log(), f"a worker connects to it:\n{server.log_tail()}")
