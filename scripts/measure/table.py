"""The table: medians over the rounds, and ratios to the floor and to the best of the others."""

import statistics

FIGURES = ("server_us", "postgres_us", "rps", "p50_ms", "p99_ms")


def render(result):
    names = list(result["checks"])
    lines = ["CPU µs per request (PostgreSQL's) · requests/s · p99; medians over the rounds.", ""]
    lines += ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for (test, connections), by_peer in medians(result["runs"]).items():
        cells = [cell(by_peer[name], test) if name in by_peer else "–" for name in names]
        lines.append(f"| {test}, {connections} | " + " | ".join(cells) + " |")
    memory = [f"{result['pss_bytes'][name] / 1e6:.1f} MB" for name in names]
    lines.append("| memory (PSS) | " + " | ".join(memory) + " |")
    if "monoceros" in names and len(names) > 1:
        lines += ["", *ratios(result, [name for name in names if name != "monoceros"])]
    failed = sum(run["failed"] for run in result["runs"])
    lines += ["", f"Failed requests: {failed}"]
    return "\n".join(lines)


def cell(figures, test):
    decimals = 2 if figures["server_us"] < 10 else 1
    database = "" if test in ("json", "plaintext") else f" ({figures['postgres_us']:.0f})"
    return f"{figures['server_us']:.{decimals}f}{database} · {rate(figures['rps'])} · {figures['p99_ms']:.1f} ms"


def rate(number):
    return f"{number / 1e3:.0f}k" if number >= 1e4 else f"{number / 1e3:.2f}k"


def ratios(result, others):
    """Ours to each of the others within each round, then the median: the machine's mood falls out."""
    lines = ["Ours / theirs: server CPU · server and PostgreSQL's CPU · requests/s", ""]
    lines += ["| | " + " | ".join(others) + " |", "| --- |" + " --- |" * len(others)]
    rounds = {}
    for run in result["runs"]:
        rounds.setdefault((run["test"], run["connections"]), {}).setdefault(run["round"], {})[run["peer"]] = run
    for (test, connections), by_round in rounds.items():
        cells = []
        for other in others:
            pairs = [(by_peer["monoceros"], by_peer[other]) for by_peer in by_round.values() if other in by_peer]
            if not pairs:
                cells.append("–")
                continue
            cpu = statistics.median(ours["server_us"] / theirs["server_us"] for ours, theirs in pairs)
            both = statistics.median(
                (ours["server_us"] + ours["postgres_us"]) / (theirs["server_us"] + theirs["postgres_us"])
                for ours, theirs in pairs
            )
            rps = statistics.median(ours["rps"] / theirs["rps"] for ours, theirs in pairs)
            cells.append(f"{cpu:.2f} · {both:.2f} · {rps:.2f}")
        lines.append(f"| {test}, {connections} | " + " | ".join(cells) + " |")
    return lines


def medians(runs):
    """{(test, connections): {peer: {figure: median}}}, in the order of the runs."""
    found = {}
    for run in runs:
        found.setdefault((run["test"], run["connections"]), {}).setdefault(run["peer"], []).append(run)
    return {
        key: {
            peer: {figure: statistics.median(run[figure] for run in its) for figure in FIGURES}
            for peer, its in by_peer.items()
        }
        for key, by_peer in found.items()
    }
