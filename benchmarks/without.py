"""Where the CPU time of a delivered record goes: a hundred a turn of the loop, with steps left out, one by one and all.

    python -m benchmarks.without [--rounds 7] [--records 40000]

What a step costs is what the others cost without it: what it does to caches and to the garbage collector is in that,
which a step measured by itself (`nox -s bench -- --only rooms`) does not show.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from benchmarks import child
from benchmarks.collector import collecting
from benchmarks.contenders import Setup, contenders
from benchmarks.measuring import spread
from offloop import JSONFormatter, TCPSink, listener

_PER_TURN = 100
STEPS = ("sending", "JSON", "routing")
ROWS = {
    "everything": (),
    "without sending": ("sending",),
    "without JSON": ("JSON",),
    "without routing": ("routing",),
    "without these three": STEPS,
    "and without the garbage collector": (*STEPS, "collector"),
}
NAMES = {"noop": "no-op handler", "offloop": "offloop", "fast": "offloop, `fast_records`"}


def one(name: str, left_out: Sequence[str], records: int) -> NoReturn:
    """One contender, in this process."""
    asyncio.run(_one(name, left_out, records))
    raise AssertionError("the process has ended")


async def _one(name: str, left_out: Sequence[str], records: int) -> None:
    for step in left_out:
        _LEAVE_OUT[step]()
    with collecting() as collector:
        context = contenders()[name].attach(Setup(port=collector.port, room=2 * records))
        attached = await context.__aenter__()
        log: Any = attached.log

        async def produce(count: int) -> None:
            for first in range(0, count, _PER_TURN):
                for number in range(first, first + _PER_TURN):
                    log(number)
                await asyncio.sleep(0)
            if name != "noop":
                await attached.settle()

        await produce(records // 4)
        gc.collect()
        began = time.process_time()
        await produce(records)
        cpu_us = 1e6 * (time.process_time() - began) / records
        expected = 0 if name == "noop" or "sending" in left_out else records + records // 4
        while collector.lines < expected:  # noqa: ASYNC110 - it has acknowledged them all
            await asyncio.sleep(0.01)
        child.end({"cpu_us": cpu_us})


def _no_sending() -> None:
    async def send(_sink: TCPSink, _batch: object) -> None:
        pass

    TCPSink.send = send  # type: ignore[method-assign,assignment]


def _no_json() -> None:
    JSONFormatter.encode_plain = lambda _formatter, held: [b"x"] * len(held)  # type: ignore[method-assign,assignment]


def _no_routing() -> None:
    # What it takes to have something to send.
    def sift(items: Sequence[Any], _deadline: float, **_how: bool) -> tuple[list[Any], list[int], list[int], int]:
        return list(items), [1_000] * len(items), [], 0

    listener.sift = sift  # type: ignore[attr-defined,assignment]


_LEAVE_OUT: dict[str, Callable[[], object]] = {
    "sending": _no_sending,
    "JSON": _no_json,
    "routing": _no_routing,
    "collector": gc.disable,
}


def main() -> None:
    """Everybody in turn, some rounds, and a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.without", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=40_000)
    given = parser.parse_args()
    cells = [("noop", "everything"), *((name, row) for row in ROWS for name in ("offloop", "fast"))]
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(given.rounds):
        for name, row in random.sample(cells, len(cells)):
            result = child.run("without.one", name=name, left_out=ROWS[row], records=given.records)
            found.setdefault((name, row), []).append(result["cpu_us"])
    print(f"CPU, us a record, median of {given.rounds} (quartiles); Python {sys.version.split()[0]}")
    for cell in cells:
        low, middle, high = (spread(found[cell])[each] for each in ("low", "median", "high"))
        print(f"{NAMES[cell[0]]:24} {cell[1]:36} {middle:6.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
