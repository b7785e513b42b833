"""Serves app.py with gunicorn; takes the command line of all peers: --bind ADDRESS:PORT --workers N --database URL."""

import argparse
import os
import pathlib
import sys

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bind", required=True)
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--database", required=True)
flags = parser.parse_args()

here = pathlib.Path(__file__).parent
os.environ["DATABASE_URL"] = flags.database
# -O: without assertions, as one would deploy it.
command = [sys.executable, "-O", "-m", "gunicorn", "app:application", "--config", str(here / "gunicorn.conf.py")]
os.execv(sys.executable, [*command, "--chdir", str(here), "--bind", flags.bind, "--workers", str(flags.workers)])
