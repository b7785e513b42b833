"""The table: medians over the rounds; the base's ratios to the others and to the best of them; what its variants cost.

A result is {"flags": {"base"}, "checks": {peer: {test: facts}}, "memory": {row: {peer: [bytes of each process]}}, "runs":
[figures with peer, test, connections and round]}. Without a database no run has `postgres_us`.
"""

import statistics
import sys

from . import check, peers

FIGURES = ("server_us", "postgres_us", "writers_us", "rps", "p50_ms", "p99_ms")


def report(result, file):
    """Prints the table; ends the program with 1, and says whose, when requests failed."""
    print(render(result))
    print(f"\nAll figures: {file}")
    if failed := failures(result["runs"]):
        sys.exit(f"bench: failed requests: {', '.join(failed)}")


def render(result):
    names, base = list(result["checks"]), result["flags"]["base"]
    database = " (PostgreSQL's)" if has_database(result) else ""
    lines = [f"CPU µs per request{database} · requests/s · p50/p99; medians over the rounds.", "", *header(names)]
    by_test = medians(result["runs"])
    for (test, connections), by_peer in by_test.items():
        cells = [cell(by_peer[name], test) if name in by_peer else "–" for name in names]
        lines.append(row(f"{test}, {connections}", cells))
        if test == "updates":
            cells = [f"{by_peer[name]['writers_us']:.0f}" if name in by_peer else "–" for name in names]
            lines.append(row(f"{test}, {connections}: PostgreSQL's writers", cells))
    for label, by_peer in result["memory"].items():
        if by_peer:
            lines.append(row(label, [memory(by_peer[name]) if name in by_peer else "–" for name in names]))
    if base in names:
        variants = [name for name in names if name.startswith(f"{base}+")]
        others = [name for name in names if name != base and name not in variants]
        if others:
            lines += ["", *ratios(result, base, others)]
        if variants:
            lines += ["", *variant_ratios(result, base, variants)]
    return "\n".join([*lines, "", *notes(result)])


def header(names):
    return [row("", names), "| --- |" + " --- |" * len(names)]


def row(name, cells):
    return f"| {name} | " + " | ".join(cells) + " |"


def cell(figures, test):
    decimals = 2 if figures["server_us"] < 10 else 1
    database = f" ({figures['postgres_us']:.0f})" if test in check.SELECTS else ""
    latencies = "" if figures["p50_ms"] is None else f" · {figures['p50_ms']:.1f}/{figures['p99_ms']:.1f} ms"
    return f"{figures['server_us']:.{decimals}f}{database} · {rate(figures['rps'])}{latencies}"


def rate(number):
    return f"{number / 1e3:.0f}k" if number >= 1e4 else f"{number / 1e3:.2f}k"


def memory(sizes):
    """The sum and, of several processes, the first's and the mean of the others'."""
    total = f"{sum(sizes) / 1e6:.1f} MB"
    return total if len(sizes) == 1 else f"{total} ({sizes[0] / 1e6:.1f} + {len(sizes) - 1} × {statistics.mean(sizes[1:]) / 1e6:.1f})"


def ratios(result, base, others):
    """The base to each of the others within each round, then the median: the machine's mood falls out. The best is who
    did best in a figure in that round: the floor is none, nor are other forms of ours."""
    took_part = {run["peer"] for run in result["runs"]}
    rivals = [name for name in others if peers.is_rival(name) and name in took_part]
    columns = [*others, *(["the best"] if rivals else [])]
    lines = [f"{base} / theirs: {compared_figures(result)}" + (f". The best of {', '.join(rivals)}, per figure and round" if rivals else ""), ""]
    lines += header(columns)
    for test, by_round in rounds(result["runs"]).items():
        cells = [compared(by_round, base, [other]) for other in others]
        lines.append(row(test, cells + ([compared(by_round, base, rivals)] if rivals else [])))
    return lines


def variant_ratios(result, base, variants):
    """Each variant to the base, in the same way."""
    lines = [f"theirs / {base}: {compared_figures(result)}", "", *header(variants)]
    for test, by_round in rounds(result["runs"]).items():
        lines.append(row(test, [compared(by_round, variant, [base]) for variant in variants]))
    return lines


def compared(by_round, name, others):
    """`name` to the best of `others` in each figure: the median over the rounds that have both."""
    pairs = []
    for by_peer in by_round.values():
        theirs = [by_peer[other] for other in others if other in by_peer]
        if name in by_peer and theirs:
            pairs.append((by_peer[name], theirs))
    if not pairs:
        return "–"
    ratios = [statistics.median(ours["server_us"] / min(it["server_us"] for it in theirs) for ours, theirs in pairs)]
    if "postgres_us" in pairs[0][0]:
        ratios.append(statistics.median(both_us(ours) / min(map(both_us, theirs)) for ours, theirs in pairs))
    ratios.append(statistics.median(ours["rps"] / max(it["rps"] for it in theirs) for ours, theirs in pairs))
    return " · ".join(f"{ratio:.2f}" for ratio in ratios)


def compared_figures(result):
    return "server CPU · server and PostgreSQL's CPU · requests/s" if has_database(result) else "server CPU · requests/s"


def has_database(result):
    return any("postgres_us" in run for run in result["runs"])


def both_us(figures):
    return figures["server_us"] + figures["postgres_us"]


def rounds(runs):
    """{"test, connections": {round: {peer: run}}}, in the order of the runs."""
    found = {}
    for run in runs:
        by_round = found.setdefault(f"{run['test']}, {run['connections']}", {})
        by_round.setdefault(run["round"], {})[run["peer"]] = run
    return found


def notes(result):
    """What the reader must know of these figures."""
    lines = []
    for name, facts in result["checks"].items():
        fewer = [f"{test} {fact['syncs']:.1f} of {check.SELECTS[test]}" for test, fact in facts.items() if shares_syncs(test, fact)]
        if fewer:
            lines.append(f"{name} ends several SELECTs with one Sync ({check.ONE_SYNC_FOR_SEVERAL[name]}), per request: {', '.join(fewer)}")
    if keeping := result.get("keeping"):
        lines.append(f"Left out, since the connection is kept although the client asks for its end: {', '.join(keeping)}")
    unlogged = [f"{run['peer']} {run['test']} {1 - run['logged'] / run['requests']:.1%}" for run in result["runs"] if is_unlogged(run)]
    if unlogged:
        lines.append(f"Requests without a line in the access log: {', '.join(unlogged)}")
    failed = failures(result["runs"])
    return [*lines, f"Failed requests: {', '.join(failed) or 'none'}"]


def shares_syncs(test, fact):
    return fact["syncs"] < check.SELECTS.get(test, 0) * 0.99


def is_unlogged(run):
    return run.get("logged") is not None and run["logged"] < run["requests"]


def failures(runs):
    """`peer test: number` of all that had failed requests."""
    found = {}
    for run in runs:
        if run["failed"]:
            key = f"{run['peer']} {run['test']}"
            found[key] = found.get(key, 0) + run["failed"]
    return [f"{key}: {number}" for key, number in found.items()]


def medians(runs):
    """{(test, connections): {peer: {figure: median}}}, in the order of the runs."""
    found = {}
    for run in runs:
        found.setdefault((run["test"], run["connections"]), {}).setdefault(run["peer"], []).append(run)
    return {
        key: {
            peer: {figure: median([run[figure] for run in its]) for figure in FIGURES if figure in its[0]}
            for peer, its in by_peer.items()
        }
        for key, by_peer in found.items()
    }


def median(values):
    return None if None in values else statistics.median(values)
