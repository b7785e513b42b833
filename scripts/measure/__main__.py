"""What one request costs: ours, a floor's, and other servers', in the same interleaved rounds.

Every round runs every test against every server, one after the other, so that what else the machine does hits all
alike; only ratios within one run count. `scripts/bench --help` lists the flags.
"""

import argparse
import json
import os
import sys
import time

from . import beside, check, cpu, load, modes, names, peers, plot, postgres, table

TESTS = {
    # name: (path, requests per write)
    "json": ("/json", 1),
    "plaintext": ("/plaintext", 16),
    "db": ("/db", 1),
    "queries": ("/queries?queries=20", 1),
    "fortunes": ("/fortunes", 1),
    "updates": ("/updates?queries=20", 1),
}

# Backends finish what was in flight when the load client left.
BACKENDS_S = 0.1


def main():
    flags = arguments()
    tests = names.chosen(flags.tests, TESTS)
    servers = names.chosen(flags.peers, peers.ALL, peers.GROUPS)
    names.chosen(flags.base, peers.ALL)
    out = flags.out
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
            keeping = [peer.name for peer in running if flags.close and not peer.closes("/plaintext")]
            if not all(map(peers.is_rival, keeping)):
                sys.exit(f"bench: the connection is kept, although the client asks for its end: {', '.join(keeping)}")
            runs = rounds(flags, tests, [peer for peer in running if peer.name not in keeping], database)
            # Several of ours share one program's pages, which would make each look small.
            ours = [peer.name for peer in running if peer.name in peers.OURS]
            memory = {peer.name: cpu.pss_bytes(peer.pids()) for peer in running if len(ours) < 2 or peer.name not in ours}
            dead = [peer.name for peer in running if not peer.lives()]
        finally:
            for peer in running:
                peer.stop()
    if dead:
        sys.exit(f"bench: died under load: {', '.join(dead)}; see {out}/*.log")
    result = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": os.cpu_count(),
        "flags": names.told(flags),
        "versions": {name: peers.OTHERS[name][2] for name in servers if name in peers.OTHERS},
        "checks": facts,
        "keeping": keeping,
        "memory": {"memory (PSS)": memory},
        "runs": runs,
    }
    file = out / time.strftime("%Y%m%d-%H%M%S.json")
    file.write_text(json.dumps(result, indent=1))
    file.with_suffix(".svg").write_text(plot.render(result))
    table.report(result, file)


def special(flags, servers, out):
    """Measures what is no steady load."""
    wanted = names.chosen(flags.modes, modes.MODES)
    with postgres.Cluster(flags.transport) as database:
        database.quiet()
        found = modes.run(wanted, servers, database, flags, out)
    file = out / time.strftime("%Y%m%d-%H%M%S-modes.json")
    file.write_text(json.dumps({"flags": names.told(flags), "modes": found}, indent=1))
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
                    figures = measured(peer, path, depth, connections, database, flags)
                    figures.update(peer=peer.name, test=test, connections=connections, round=round_number)
                    records.append(figures)
                    print(
                        f"  {round_number + 1}/{flags.rounds} {test:10} {connections:4} {peer.name:18} "
                        f"{figures['server_us']:8.2f} µs ({figures['postgres_us']:.1f}) {figures['rps']:10.0f}/s "
                        f"failed={figures['failed']} spread={figures['spread']}",
                        file=sys.stderr,
                    )
    return records


def measured(peer, path, depth, connections, database, flags):
    """One measurement: what wrk says, the CPU per request, and what is known beside it."""
    peer.logged()
    writers = database.writers()
    before = cpu.seconds(database.pids())
    with beside.scraping(peer), beside.spread(peer, flags.seconds / 2) as spread:
        figures = load.measured(peer, path, connections, flags.seconds, depth, flags.close, settle_s=BACKENDS_S)
    after = cpu.seconds(database.pids())
    for name, pids in (("postgres_us", None), ("writers_us", writers)):
        figures[name] = cpu.spent(before, after, pids) * 1e6 / max(figures["requests"], 1)
    figures["logged"] = peer.logged()
    # With a connection per request there is nothing to be spread.
    figures["spread"] = None if flags.close else spread
    return figures


def able(running, test):
    return [peer for peer in running if peer.serves(test)]


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tests", default=",".join(TESTS), help="which, separated by commas (default: all)")
    parser.add_argument("--peers", default=",".join(peers.DEFAULT), help=f"which of {', '.join(peers.ALL)}; all: whatever is built; ours: ours in each form (default: %(default)s)")
    parser.add_argument("--base", default="monoceros", help="whose ratios to the others are shown, and to whom those of its variants (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of each server (default: one per core)")
    parser.add_argument("--connections", type=lambda text: [int(n) for n in text.split(",")], default=[64], help="levels, e.g. 16,64,512 (default: 64)")
    names.common(parser, seconds=4)
    parser.add_argument("--transport", choices=["tcp", "unix"], default="tcp", help="to PostgreSQL (default: tcp, as TechEmpower)")
    parser.add_argument("--close", action="store_true", help="one connection per request")
    parser.add_argument("--modes", default="", help=f"instead of the tests, which of {', '.join(modes.MODES)}")
    parser.add_argument("--master", default="target/release/master", help="our program (default: %(default)s)")
    parser.add_argument("--floor", default="target/release/floor", help=argparse.SUPPRESS)
    parser.add_argument("--options", default="", help="further options of master, e.g. '--access-logfile /tmp/log'")
    return parser.parse_args()


main()
