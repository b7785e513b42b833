"""`python -m monoceros.config FILE`: prints what gunicorn's configuration file defines, for the master, as JSON."""

import json
import os
import sys

from monoceros import _config, _load

USAGE = 2


def main():
    if len(sys.argv) != 2:
        print("usage: python -m monoceros.config FILE|python:MODULE", file=sys.stderr)
        return USAGE
    form = sys.argv[1]
    sys.argv[:] = [form]
    # What the file prints is for people, not a part of the answer.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _load.prepare({})
    answer.write(json.dumps(_config.describe(form)))
    answer.flush()
    _load.leave(0)


if __name__ == "__main__":
    sys.exit(main())
