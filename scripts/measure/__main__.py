"""What one request costs: ours, a floor's, and other servers', in the same interleaved rounds.

Every round runs every test against every server, one after the other, so that what else the machine does hits all
alike; only ratios within one run count. `scripts/bench --help` lists the flags.
"""

import argparse
import json
import os
import pathlib
import sys
import time

from . import check, cpu, load, modes, peers, plot, postgres, table

TESTS = {
    # name: (path, requests per write)
    "json": ("/json", 1),
    "plaintext": ("/plaintext", 16),
    "db": ("/db", 1),
    "queries": ("/queries?queries=20", 1),
    "fortunes": ("/fortunes", 1),
    "updates": ("/updates?queries=20", 1),
}


def main():
    flags = arguments()
    tests = chosen(flags.tests, TESTS)
    servers = chosen(flags.peers, peers.ALL)
    out = pathlib.Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    if flags.modes:
        return special(flags, servers, out)
    runs = []
    with postgres.Cluster(flags.transport) as database:
        running = []
        try:
            for name in servers:
                running.append(peers.start(name, database, flags, out))
            facts = {peer.name: check.check(peer, filter(peer.serves, tests), TESTS, database) for peer in running}
            database.quiet()
            runs = rounds(flags, tests, running, database)
            memory = {peer.name: cpu.pss_bytes(peer.pids()) for peer in running}
            dead = [peer.name for peer in running if not peer.lives()]
        finally:
            for peer in running:
                peer.stop()
    if dead:
        sys.exit(f"bench: died under load: {', '.join(dead)}; see {out}/*.log")
    result = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": os.cpu_count(),
        "flags": vars(flags),
        "versions": {name: peers.OTHERS[name][2] for name in servers if name in peers.OTHERS},
        "checks": facts,
        "pss_bytes": memory,
        "runs": runs,
    }
    file = out / time.strftime("%Y%m%d-%H%M%S.json")
    file.write_text(json.dumps(result, indent=1))
    file.with_suffix(".svg").write_text(plot.render(result))
    print(table.render(result))
    print(f"\nAll figures: {file}")


def special(flags, servers, out):
    """Measures what is no steady load."""
    names = chosen(flags.modes, modes.MODES)
    with postgres.Cluster(flags.transport) as database:
        found = modes.run(names, servers, database, flags, out)
    file = out / time.strftime("%Y%m%d-%H%M%S-modes.json")
    file.write_text(json.dumps({"flags": vars(flags), "modes": found}, indent=1))
    print(modes.render(found))
    print(f"All figures: {file}")


def rounds(flags, tests, running, database):
    """Runs everything, interleaved; returns one record per measurement."""
    records = []
    total = flags.rounds * len(tests) * len(running) * len(flags.connections)
    print(f"{total} measurements of {flags.seconds} s, at most {total * (flags.seconds + 1) // 60 + 1} min", file=sys.stderr)
    for test in tests:
        path, depth = TESTS[test]
        for peer in able(running, test):
            load.run(peer.url(path), connections=64, seconds=1, depth=depth, close=flags.close)
    for round_number in range(flags.rounds):
        for test in tests:
            path, depth = TESTS[test]
            for connections in flags.connections:
                # Another order in each round: nobody always comes first after a checkpoint.
                shift = round_number % len(running)
                for peer in able(running[shift:] + running[:shift], test):
                    before = cpu.seconds(peer.pids()), cpu.seconds(database.pids())
                    figures = load.run(peer.url(path), connections, flags.seconds, depth, flags.close)
                    # Backends finish what was in flight when the load client left.
                    time.sleep(0.1)
                    after = cpu.seconds(peer.pids()), cpu.seconds(database.pids())
                    done = max(figures["requests"], 1)
                    figures["server_us"] = cpu.spent(before[0], after[0]) * 1e6 / done
                    figures["postgres_us"] = cpu.spent(before[1], after[1]) * 1e6 / done
                    figures.update(peer=peer.name, test=test, connections=connections, round=round_number)
                    records.append(figures)
                    print(
                        f"  {round_number + 1}/{flags.rounds} {test:10} {connections:4} {peer.name:10} "
                        f"{figures['server_us']:8.2f} µs ({figures['postgres_us']:.1f}) {figures['rps']:10.0f}/s "
                        f"failed={figures['failed']}",
                        file=sys.stderr,
                    )
    return records


def able(running, test):
    return [peer for peer in running if peer.serves(test)]


def chosen(text, known):
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"bench: unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
    return names


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tests", default=",".join(TESTS), help="which, separated by commas (default: all)")
    parser.add_argument("--peers", default=",".join(peers.DEFAULT), help=f"which of {', '.join(peers.ALL)} (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of each server (default: one per core)")
    parser.add_argument("--connections", type=lambda text: [int(n) for n in text.split(",")], default=[64], help="levels, e.g. 16,64,512 (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement (default: %(default)s)")
    parser.add_argument("--transport", choices=["tcp", "unix"], default="tcp", help="to PostgreSQL (default: tcp, as TechEmpower)")
    parser.add_argument("--close", action="store_true", help="one connection per request")
    parser.add_argument("--modes", default="", help=f"instead of the tests, which of {', '.join(modes.MODES)}")
    parser.add_argument("--master", default="target/release/master", help="our program (default: %(default)s)")
    parser.add_argument("--floor", default="target/release/floor", help=argparse.SUPPRESS)
    parser.add_argument("--options", default="", help="further options of master, e.g. '--access-logfile /tmp/log'")
    parser.add_argument("--out", default="target/bench", help="folder of results and logs (default: %(default)s)")
    return parser.parse_args()


main()
