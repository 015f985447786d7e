"""The figures of the page."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contenders import contenders
from benchmarks.measuring import Data
from benchmarks.svg import Bar, Line, bars, curves
from benchmarks.tables import title

OURS = frozenset({"offloop", "fast"})


def plain(name: str) -> str:
    """A title without marks."""
    return title(name).replace("`", "")


def cost_of_a_call(part: Data) -> str:
    """What a call with two arguments adds."""
    rows: list[Bar] = []
    for name in contenders():
        cell = part["cells"].get(f"{name}/arguments/loop")
        if cell is not None and name != "noop":
            rows.append(Bar(plain(name), cell["median"], cell["low"], cell["high"], name in OURS))
    rows.sort(key=lambda row: row.value)
    return bars(
        "What a log call adds",
        "two arguments, on the loop's thread, µs over a handler that does nothing",
        "µs",
        rows,
        f"median and quartiles of {part['rounds']} rounds; {part['machine']['python']}",
    )


def cost_of_delivery(part: Data) -> str:
    """CPU a record at 100 a turn."""
    rows: list[Bar] = []
    for name in contenders():
        cell = part["cells"].get(f"{name}/100")
        if cell is not None:
            cpu = cell["cpu_us"]
            rows.append(Bar(plain(name), cpu["median"], cpu["low"], cpu["high"], name in OURS))
    rows.sort(key=lambda row: row.value)
    return bars(
        "What it costs to deliver a record",
        "CPU time of the whole process, µs a record: JSON over TCP, 100 records a turn of the loop",
        "µs",
        rows,
        f"median and quartiles of {part['rounds']} rounds; {part['machine']['python']}",
    )


def delay_of(state: str, said: str) -> Callable[[Data], str]:
    """Percentiles of delay in one state of the collector."""

    def figure(part: Data) -> str:
        lines = [
            Line(plain(name).partition(":")[0], cell["curve"], name in OURS)
            for name in ("idle", *contenders())
            if (cell := part["cells"].get(f"{name}/asyncio/10000/{state}")) is not None
        ]
        return curves(
            f"How late the event loop is, {said}",
            "10,000 records/s; delay from when a beat was due, over its percentile",
            lines,
            f"asyncio, {part['machine']['python']}, {part['rounds']} rounds of {part['seconds']:g} s",
        )

    return figure


FIGURES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "cost-of-a-call.svg": ("calls", cost_of_a_call),
    "cost-of-delivery.svg": ("delivery", cost_of_delivery),
    "delay-healthy.svg": ("delay", delay_of("healthy", "the collector healthy")),
    "delay-hung.svg": ("delay", delay_of("hung", "the collector hung")),
}
"""By file name: the part they are of, and how they are made."""
