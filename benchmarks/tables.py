"""The tables of the page, each made of one part's results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks import calls, delivery
from benchmarks.contenders import contenders
from benchmarks.delay import MOST
from benchmarks.measuring import PERCENTILES, Data

Table = Callable[[Data], str]


def title(name: str) -> str:
    """What the page calls somebody."""
    everyone = contenders()
    return everyone[name].title if name in everyone else {"idle": "idle: nothing is logged"}.get(name, name)


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table; from the column `words` on are figures."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(' --- ' if n < words else ' ---: ' for n in range(len(head)))}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(cell: Data | None, digits: Callable[[float], str] = number) -> str:
    """The median and the quartiles around it."""
    if cell is None:
        return "-"
    if cell["rounds"] == 1:
        return digits(cell["median"])
    return f"{digits(cell['median'])} ({digits(cell['low'])} to {digits(cell['high'])})"


def absent(part: Data) -> str:
    """Who is not in the tables, and why."""
    return "".join(f"\n\nNot measured: {title(name)}: {reason}." for name, reason in part["missing"].items())


def _names(part: Data) -> list[str]:
    """Who is in the cells, in the order of the page."""
    found = {cell.partition("/")[0] for cell in part["cells"]}
    return [name for name in ("idle", *contenders()) if name in found]


def call_table(place: str) -> Table:
    """What a call adds on this kind of thread."""

    def table(part: Data) -> str:
        cells = part["cells"]
        rows = [
            [title(name) + (" (all of it)" if name == "noop" else "")]
            + [spread(cells.get(f"{name}/{case}/{place}"), lambda value: f"{value:.2f}") for case in calls.CASES]
            for name in _names(part)
            if f"{name}/plain/{place}" in cells
        ]
        return grid(["µs a call", *calls.CASES.values()], rows) + absent(part)

    return table


def arrived(cell: Data) -> str:
    """Whether all came."""
    return "all" if cell["arrived"] >= cell["offered"] else f"{cell['arrived']:,} of {cell['offered']:,}"


def delivery_table(per_turn: int) -> Table:
    """CPU and throughput at so many records a turn."""

    def table(part: Data) -> str:
        rows: list[list[str]] = []
        for name in _names(part):
            cell = part["cells"].get(f"{name}/{per_turn}")
            if cell is not None:
                figures = [spread(cell["cpu_us"]), spread(cell["times_noop"]), spread(cell["rate"]), arrived(cell)]
                rows.append([title(name), *figures])
        head = [f"{per_turn} a turn", "CPU, µs a record", "times the no-op", "records/s", "arrived"]
        return grid(head, rows) + (absent(part) if per_turn == delivery.TURNS[-1] else "")

    return table


def delay_table(loop: str) -> Table:
    """How late this loop was."""

    def table(part: Data) -> str:
        rows: list[tuple[tuple[int, str, int], list[str]]] = []
        for key, cell in part["cells"].items():
            name, on, rate, state = key.split("/")
            if on != loop:
                continue
            late = _late(cell)
            came = "-" if name in ("idle", "noop") else f"{cell['arrived']:,}"
            offered = "-" if name == "idle" else f"{cell['offered']:,}"
            rows.append((_order(rate, state, name), [_rate(rate), state, title(name), *late, offered, came]))
        head = ["records/s", "collector", "", *(f"{each}, ms" for each in PERCENTILES), "logged", "arrived meanwhile"]
        body = [row for _, row in sorted(rows)]
        return grid(head, body, 3) + (absent(part) if loop == "asyncio" else "") if body else absent(part).strip()

    return table


def _late(cell: Data) -> list[str]:
    """Milliseconds at each percentile: the median of the rounds, of the p99 its spread too, and the longest of all."""
    late = cell["late_us"]

    def ms(value: float) -> str:
        return f"{value / 1000:,.2f}"

    plain = {name: ms(late[name]["median"]) for name in PERCENTILES}
    return list((plain | {"p99": spread(late["p99"], ms), "max": ms(late["max"]["most"])}).values())


def _order(rate: str, state: str, name: str) -> tuple[int, str, int]:
    return int(rate) or 10**9, state, ["idle", *contenders()].index(name)


def _rate(rate: str) -> str:
    return f"{int(rate):,}" if int(rate) != MOST else "as many as it takes"


def burst_table(part: Data) -> str:
    """What a burst costs, and what is felt while it is delivered."""
    rows = [
        [
            cell["title"],
            *((f"{cell['logged']:,}", f"{cell['arrived']:,}") if cell["logged"] else "--"),
            *(spread(cell[each]) if cell["logged"] else "-" for each in ("burst_s", "memory_mib", "drain_s")),
            *(spread(cell[each]) for each in ("beat_p99_ms", "beat_max_ms", "request_p99_ms", "request_max_ms")),
        ]
        for cell in part["cells"].values()
    ]
    head = ["", "logged", "arrived", "burst, s", "MiB more", "drain, s"]
    return grid([*head, "beat, p99 ms", "max ms", "50 awaits, p99 ms", "max ms"], rows) + absent(part)


def scaling_table(kind: str) -> Table:
    """CPU per record as there are more of something."""

    def table(part: Data) -> str:
        cells = {key: cell for key, cell in part["cells"].items() if f"/{kind}/" in key}
        steps = sorted({int(key.rpartition("/")[2]) for key in cells})
        rows = [
            [title(name)] + [_scaled(cells.get(f"{name}/{kind}/{step}")) for step in steps]
            for name in contenders()
            if any(key.startswith(f"{name}/") for key in cells)
        ]
        return grid(["CPU, µs a record", *(f"{step} {kind}" for step in steps)], rows)

    return table


def _scaled(cell: Data | None) -> str:
    if cell is None:
        return "-"
    lost = "" if cell["arrived"] >= cell["offered"] else f", {arrived(cell)}"
    return spread(cell["cpu_us"]) + lost


def import_table(part: Data) -> str:
    """What an import takes."""
    rows = [[f"`{name}`", spread(cell["cpu_ms"]), spread(cell["wall_ms"])] for name, cell in part["cells"].items()]
    return grid(["", "CPU, ms", "wall, ms"], rows) + absent(part)


def import_profile(part: Data) -> str:
    """Where it goes."""
    return grid(["module", "own ms"], [[f"`{name}`", f"{own:.2f}"] for name, own in part["profile"]])


def room_table(part: Data) -> str:
    """What each step takes."""
    return grid(["µs a record", ""], [[name, spread(cell)] for name, cell in part["cells"].items()])


def weight_table(part: Data) -> str:
    """What a record weighs."""
    return grid(["bytes a record", ""], [[name, f"{value:,.0f}"] for name, value in part["weights"].items()])


def rows_table(part: Data) -> str:
    """What a disk takes."""
    groups = list(next(iter(part["rows"].values())))
    rows = [[name, *(spread(cells[group]) for group in groups)] for name, cells in part["rows"].items()]
    return grid(["rows/s in commits of", *groups], rows)


def spool_table(part: Data) -> str:
    """How late the loop is with a spool."""
    rows = [[name, *_late(cell), cell["became"]] for name, cell in part["cells"].items()]
    return grid(["", *(f"{each}, ms" for each in PERCENTILES), "records of the last round"], rows)


def machine_table(results: Data) -> str:
    """When, where and with what each part was measured."""
    rows: list[list[str]] = []
    for name, part in results.items():
        at = part["machine"]
        load = ", ".join(str(each) for each in at["load"])
        rows.append([name, at["date"], at["scale"], at["python"], f"{at['cpu']}, {at['cores']} cores", load])
    versions: Data = next(reversed(results.values()))["machine"]["versions"] if results else {}
    said = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return grid(["part", "date", "scale", "Python", "machine", "load before"], rows, 6) + f"\n\nVersions: {said}."


TABLES: dict[str, tuple[str, Table]] = {
    "calls-loop": ("calls", call_table("loop")),
    "calls-thread": ("calls", call_table("thread")),
    **{f"delivery-{each}": ("delivery", delivery_table(each)) for each in delivery.TURNS},
    "delay-asyncio": ("delay", delay_table("asyncio")),
    "delay-uvloop": ("delay", delay_table("uvloop")),
    "burst": ("burst", burst_table),
    **{f"scaling-{each}": ("scaling", scaling_table(each)) for each in ("sinks", "threads", "handlers")},
    "imports": ("imports", import_table),
    "imports-profile": ("imports", import_profile),
    "rooms": ("rooms", room_table),
    "weights": ("rooms", weight_table),
    "spool-rows": ("spool", rows_table),
    "spool-delay": ("spool", spool_table),
}
"""By the name of their place on the page: the part they are of, and how they are made."""
