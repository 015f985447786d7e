"""Draw the figure of the README from what the demo measured.

offloop demo --json | python -m benchmarks.plot_demo docs/images/loop-delay.svg

Each row is one round: from the median loop delay over the 99th percentile to the longest.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.svg import document

TITLES = {
    "idle": "no logging",
    "standard": "handlers on the logger",
    "queue": "standard queue pair",
    "offloop": "offloop",
}
HEIGHT = 272
LEFT, RIGHT, TOP, ROW = 176, 676, 76, 34
SHORTEST, LONGEST = 0.1, 1000.0  # ms

STYLE = """
  .range { stroke: #57606a; stroke-width: 2 }
  .p50 { fill: #ffffff; stroke: #57606a; stroke-width: 2 }
  .p99 { fill: #b35900 }
  .ours .range, .ours .p50 { stroke: #0a7d4f }
  .ours .p99 { fill: #0a7d4f }
  .ours text { font-weight: 600 }
"""
DARK = """
    .range { stroke: #9da7b1 }
    .p50 { fill: #161b22; stroke: #9da7b1 }
    .p99 { fill: #f0a35e }
    .ours .range, .ours .p50 { stroke: #4ac38b }
    .ours .p99 { fill: #4ac38b }
"""


def x(milliseconds: float) -> float:
    """Where a delay stands: the axis is logarithmic, and what is off it stands at its end."""
    part = math.log(max(milliseconds, SHORTEST) / SHORTEST) / math.log(LONGEST / SHORTEST)
    return LEFT + (RIGHT - LEFT) * min(part, 1.0)


def told(milliseconds: float) -> str:
    """With its unit."""
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def axis() -> Iterator[str]:
    """The powers of ten."""
    bottom = TOP + ROW * len(TITLES)
    for power in range(-1, 4):
        at = x(10.0**power)
        yield f'<line class="grid" x1="{at:.1f}" y1="{TOP - 12}" x2="{at:.1f}" y2="{bottom - 8}"/>'
        yield f'<text class="small" x="{at:.1f}" y="{bottom + 10}" text-anchor="middle">{10.0**power:g} ms</text>'


def row(number: int, kind: str, delay: dict[str, float]) -> Iterator[str]:
    """One round."""
    y = TOP + ROW * number + 8
    p50, p99, longest = (x(delay[part]) for part in ("p50", "p99", "max"))
    yield f'<g class="{"ours" if kind == "offloop" else kind}">'
    yield f'<text x="16" y="{y + 4}">{TITLES[kind]}</text>'
    yield f'<line class="range" x1="{p50:.1f}" y1="{y}" x2="{longest:.1f}" y2="{y}"/>'
    yield f'<line class="range" x1="{longest:.1f}" y1="{y - 6}" x2="{longest:.1f}" y2="{y + 6}"/>'
    yield f'<circle class="p50" cx="{p50:.1f}" cy="{y}" r="4"/>'
    yield f'<circle class="p99" cx="{p99:.1f}" cy="{y}" r="5"/>'
    yield f'<text x="{p99:.1f}" y="{y - 9}" text-anchor="middle">{told(delay["p99"])}</text>'
    yield "</g>"


def figure(measured: dict[str, Any]) -> Iterator[str]:
    """All lines of the file."""
    settings = measured["settings"]
    delays = {kind: measured["rounds"][kind]["loop_delay_ms"] for kind in TITLES}
    alt = "; ".join(f"{TITLES[kind]} {told(delay['p99'])}" for kind, delay in delays.items())
    yield from document(
        HEIGHT,
        f"99th percentile of loop delay: {alt}",
        "How late the event loop is",
        f"{settings['rate']:g} records/s to a collector, errors also to a mail server that takes "
        f"{1e3 * settings['mail_delay']:g} ms a mail",
        STYLE,
        DARK,
    )
    yield from axis()
    for number, (kind, delay) in enumerate(delays.items()):
        yield from row(number, kind, delay)
    yield (
        f'<text class="small" x="16" y="{HEIGHT - 16}">ring: median, dot: 99th percentile, bar: longest; scale '
        f"logarithmic; offloop demo, Python {measured['python']}, one run</text>"
    )
    yield "</svg>"


def main() -> None:
    """From stdin to the file that is named."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    Path(sys.argv[1]).write_text("\n".join(figure(json.load(sys.stdin))) + "\n", "utf-8")


if __name__ == "__main__":
    main()
