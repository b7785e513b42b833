"""Runs scripts/verify-techempower on servers that scripts/bench-peers has built, or on ours.

    python3 -m measure.verify_peers [--master PROGRAM] [NAME…]
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from . import peers, postgres


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", default=list(peers.OTHERS), help="monoceros is ours; default: all of others")
    parser.add_argument("--master", default="target/release/master", help="our program (default: %(default)s)")
    flags = parser.parse_args()
    flags.workers, flags.options = 2, ""
    known, names = [*peers.OURS, *peers.OTHERS], flags.names
    failed = [name for name in names if name not in known]
    for name in failed:
        print(f"FAIL  {name} is not built")
    with tempfile.TemporaryDirectory() as folder:
        for transport in ("tcp", "unix"):
            with postgres.Cluster(transport) as database:
                for name in names:
                    if name in known and not verify(name, database, flags, pathlib.Path(folder)):
                        failed.append(f"{name} ({transport})")
    print(f"broken: {', '.join(failed)}" if failed else f"all well: {', '.join(names)}")
    sys.exit(1 if failed else 0)


def verify(name, database, flags, folder):
    """Both forms of the paths, on a server of its own."""
    peer = peers.start(name, database, flags, folder)
    try:
        well = True
        tests = ["--tests", ",".join(peer.tests)] if peer.tests else []
        for form in ("query", "path"):
            print(f"== {name}, {form} form, PostgreSQL over {database.transport}", flush=True)
            command = ["scripts/verify-techempower", peer.url(""), *tests, "--form", form]
            well &= subprocess.run([*command, "--database", database.url()], timeout=300).returncode == 0
        return well and peer.lives()
    finally:
        peer.stop()


main()
