"""Figures as SVG, light and dark, with the standard library: bars of a cost, curves of percentiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720

CARD = """
  .card { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .small { font-size: 12px; fill: #57606a }
  .grid { stroke: #d0d7de }
"""
DARK_CARD = """
    .card { fill: #161b22; stroke: #30363d }
    text { fill: #e6edf3 }
    .small { fill: #9da7b1 }
    .grid { stroke: #30363d }
"""
# Of the lines and bars: ours, then the others in order. Told apart by dashes too.
_LIGHT = ("#0a7d4f", "#57606a", "#b35900", "#0969da", "#8250df", "#9a6700")
_DARK = ("#4ac38b", "#9da7b1", "#f0a35e", "#58a6ff", "#bc8cff", "#d4a72c")
_DASHES = ("", "2 3", "7 4", "10 3 2 3", "4 2", "1 2")


@dataclass(frozen=True)
class Bar:
    """A row: a value, and from where to where it was spread."""

    label: str
    value: float
    low: float
    high: float
    ours: bool = False


@dataclass(frozen=True)
class Line:
    """Shares and their percentiles."""

    label: str
    points: Sequence[Sequence[float]]
    ours: bool = False


def document(height: int, alt: str, title: str, subtitle: str, style: str, dark: str) -> Iterator[str]:
    """What every figure begins with; `</svg>` ends it."""
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    yield f' role="img" aria-label="{escape(alt)}">'
    yield f"<style>{CARD}{style}  @media (prefers-color-scheme: dark) {{{DARK_CARD}{dark}  }}\n</style>"
    yield f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>'
    yield f'<text class="title" x="16" y="28">{escape(title)}</text>'
    yield f'<text class="small" x="16" y="48">{escape(subtitle)}</text>'


def bars(title: str, subtitle: str, unit: str, rows: Sequence[Bar], foot: str) -> str:
    """A bar a row, from zero; the thin line is the spread."""
    left, right, top, step = 240, 640, 66, 28
    most = max(max(row.high, row.value) for row in rows) or 1.0
    height = top + step * len(rows) + 34
    style = "  .bar { fill: #b35900 }\n  .ours .bar { fill: #0a7d4f }\n  .ours text { font-weight: 600 }\n"
    style += "  .spread { stroke: #24292f }\n"
    dark = "    .bar { fill: #f0a35e }\n    .ours .bar { fill: #4ac38b }\n    .spread { stroke: #e6edf3 }\n"
    alt = f"{title}: " + "; ".join(f"{row.label} {row.value:.3g} {unit}" for row in rows)

    def x(value: float) -> float:
        return left + (right - left) * max(0.0, value) / most

    lines = list(document(height, alt, title, subtitle, style, dark))
    for number, row in enumerate(rows):
        y = top + step * number
        lines.append(f'<g class="{"ours" if row.ours else "other"}">')
        lines.append(f'<text x="16" y="{y + 13}">{escape(row.label)}</text>')
        lines.append(f'<rect class="bar" x="{left}" y="{y}" width="{max(1, x(row.value) - left):.1f}" height="18"/>')
        lines.append(f'<line class="spread" x1="{x(row.low):.1f}" y1="{y + 9}" x2="{x(row.high):.1f}" y2="{y + 9}"/>')
        lines.append(f'<text x="{max(x(row.value), x(row.high)) + 8:.1f}" y="{y + 13}">{row.value:.3g}</text></g>')
    lines.append(f'<text class="small" x="16" y="{height - 14}">{escape(foot)}</text></svg>')
    return "\n".join(lines) + "\n"


def curves(title: str, subtitle: str, lines: Sequence[Line], foot: str) -> str:
    """Delay over its percentile: to the right are the worst ones, both scales are logarithmic."""
    left, right, top, bottom = 70, 510, 70, 330
    height = 388
    values = [max(1.0, value) for line in lines for _, value in line.points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    nines = max(-math.log10(1 - line.points[-1][0]) if line.points[-1][0] < 1 else 3.0 for line in lines)

    def x(share: float) -> float:
        return left + (right - left) * min(1.0, -math.log10(max(1 - share, 10**-nines)) / nines)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (math.log10(max(1.0, value)) - low) / max(1, high - low)

    style, dark = _line_styles()
    alt = f"{title}: longest " + "; ".join(f"{line.label} {line.points[-1][1] / 1000:.3g} ms" for line in lines)
    out = list(document(height, alt, title, subtitle, style, dark))
    for power in range(low, high + 1):
        at = y(10.0**power)
        out.append(f'<line class="grid" x1="{left}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        out.append(f'<text class="small" x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{_told(10.0**power)}</text>')
    out += [
        f'<text class="small" x="{x(share):.1f}" y="{bottom + 18}" text-anchor="middle">{100 * share:g}%</text>'
        for share in (0.0, 0.9, 0.99, 0.999, 0.9999)
        if -math.log10(max(1 - share, 1e-9)) <= nines
    ]
    for number, line in enumerate(_in_order(lines)):
        points = " ".join(f"{x(share):.1f},{y(value):.1f}" for share, value in line.points)
        out.append(f'<polyline class="line l{number}" points="{points}"/>')
        at = top + 14 + 24 * number
        out.append(f'<line class="line l{number}" x1="{right + 14}" y1="{at}" x2="{right + 44}" y2="{at}"/>')
        out.append(f'<text x="{right + 50}" y="{at + 4}">{escape(line.label)}</text>')
    out.append(f'<text class="small" x="16" y="{height - 12}">{escape(foot)}</text></svg>')
    return "\n".join(out) + "\n"


def _in_order(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: not line.ours)


def _line_styles() -> tuple[str, str]:
    light = ["  .line { fill: none; stroke-width: 2 }"]
    light += [
        f"  .l{number} {{ stroke: {color}; stroke-dasharray: {dash or 'none'} }}"
        for number, (color, dash) in enumerate(zip(_LIGHT, _DASHES, strict=True))
    ]
    dark = [f"    .l{number} {{ stroke: {color} }}" for number, color in enumerate(_DARK)]
    return "\n".join(light) + "\n", "\n".join(dark) + "\n"


def _told(microseconds: float) -> str:
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:g} s"
    return f"{microseconds / 1e3:g} ms" if microseconds >= 1e3 else f"{microseconds:g} µs"
