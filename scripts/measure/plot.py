"""The figures as a picture: one panel per test, one bar per server, CPU of the server and, lighter, of PostgreSQL."""

from xml.sax.saxutils import escape

from . import peers, table

PANEL_WIDTH, BAR_HEIGHT, GAP, LABEL_WIDTH, VALUE_WIDTH, HEADER = 500, 16, 5, 130, 150, 34
COLUMNS = 2
OURS, OTHERS, DATABASE = "#b3452c", "#5b7083", "0.45"


def render(result):
    """SVG of all tests and levels in a result of `scripts/bench`."""
    names = list(result["checks"])
    panels = list(table.medians(result["runs"]).items())
    panel_height = HEADER + len(names) * (BAR_HEIGHT + GAP) + GAP
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH, rows * panel_height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for place, ((test, connections), by_peer) in enumerate(panels):
        x, y = place % COLUMNS * PANEL_WIDTH, place // COLUMNS * panel_height
        parts.append(f'<g transform="translate({x},{y})">')
        parts.append(f'<text x="8" y="20" font-weight="bold">{escape(test)}, {connections} connections: CPU µs per request</text>')
        parts += bars([name for name in names if name in by_peer], by_peer)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def bars(names, by_peer):
    total = {name: by_peer[name]["server_us"] + by_peer[name]["postgres_us"] for name in names}
    scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) / max(total.values())
    for place, name in enumerate(sorted(names, key=total.get)):
        figures, y = by_peer[name], HEADER + place * (BAR_HEIGHT + GAP)
        own, database = figures["server_us"] * scale, figures["postgres_us"] * scale
        colour = OURS if name in peers.OURS else OTHERS
        text = y + BAR_HEIGHT - 4
        yield f'<text x="{LABEL_WIDTH - 6}" y="{text}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{LABEL_WIDTH}" y="{y}" width="{own:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>'
        yield f'<rect x="{LABEL_WIDTH + own:.1f}" y="{y}" width="{database:.1f}" height="{BAR_HEIGHT}" fill="{colour}" opacity="{DATABASE}"/>'
        label = f"{figures['server_us']:.2f}" + (f" + {figures['postgres_us']:.0f}" if figures["postgres_us"] >= 0.5 else "")
        yield f'<text x="{LABEL_WIDTH + own + database + 6:.1f}" y="{text}">{label} · {table.rate(figures["rps"])}/s</text>'
