"""Runs scripts/verify-techempower on servers that scripts/bench-peers has built: python3 -m measure.verify_peers [NAME…]"""

import pathlib
import subprocess
import sys
import tempfile
import types

from . import others, peers, postgres


def main():
    built = others.found()
    names = sys.argv[1:] or list(built)
    failed = [name for name in names if name not in built]
    for name in failed:
        print(f"FAIL  {name} is not built")
    flags = types.SimpleNamespace(workers=2)
    with tempfile.TemporaryDirectory() as folder:
        for transport in ("tcp", "unix"):
            with postgres.Cluster(transport) as database:
                for name in names:
                    if name in built and not verify(name, built[name][0], database, flags, pathlib.Path(folder)):
                        failed.append(f"{name} ({transport})")
    print(f"broken: {', '.join(failed)}" if failed else f"all well: {', '.join(names)}")
    sys.exit(1 if failed else 0)


def verify(name, tests, database, flags, folder):
    """Both forms of the paths, on a server of its own."""
    peer = peers.start(name, database, flags, folder)
    try:
        well = True
        for form in ("query", "path"):
            print(f"== {name}, {form} form, PostgreSQL over {database.transport}", flush=True)
            command = ["scripts/verify-techempower", peer.url(""), "--tests", ",".join(tests), "--form", form]
            well &= subprocess.run([*command, "--database", database.url()], timeout=300).returncode == 0
        return well and peer.lives()
    finally:
        peer.stop()


main()
