"""What it costs to deliver a record as JSON over TCP to another process: CPU time of the whole process, and throughput.

The program logs as fast as it can, so many records each time the loop turns, until all were sent; the clocks stop when
the last one arrived. Each measurement is a process of its own, and everybody takes a turn in each round.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from benchmarks import child
from benchmarks.collector import Collector, collecting
from benchmarks.contenders import Attached, Setup, contenders, present
from benchmarks.measuring import Data, spread

TURNS = (1, 10, 100)
_ROUNDS = {"full": 5, "quick": 2, "smoke": 1}
_RECORDS = {"full": 20_000, "quick": 4_000, "smoke": 300}
_FEWER = {"logstash": 5}  # it sends a thousand a second: a part of the records is enough
_WARM_UP = 200
_PATIENCE = 2.0  # seconds without a record, after which what did not come is lost
_LOOK = 0.002


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    names, missing = present()
    return compared(
        "delivery.one", names, missing, _ROUNDS[scale], {"count": _RECORDS[scale], "turns": list(TURNS)}, tell
    )


def one(name: str, count: int, turns: list[int], **setup: int) -> None:
    """One contender, in this process: what each number of records a turn gave."""
    asyncio.run(_one(name, count, turns, setup))


async def _one(name: str, count: int, turns: list[int], setup: dict[str, int]) -> NoReturn:
    threads = setup.pop("threads", 0)
    with collecting() as collector:
        given = Setup(port=collector.port, room=2 * count + 1_000, **setup)
        expected = 0 if name == "noop" else given.sinks
        context = contenders()[name].attach(given)
        attached = await context.__aenter__()
        await _produced(attached, _WARM_UP, 10, 0)
        await _arrived(collector, _WARM_UP * expected)
        found: Data = {}
        for per_turn in random.sample(turns, len(turns)):
            gc.collect()
            found[str(per_turn)] = await _delivered(attached, collector, count, expected, per_turn, threads)
        # Nobody is asked to stop: the process ends here, with what it has.
        child.end({"cells": found})


async def _delivered(
    attached: Attached, collector: Collector, count: int, expected: int, per_turn: int, threads: int
) -> Data:
    before = collector.lines
    cpu, began = time.process_time(), time.perf_counter()
    await _produced(attached, count, per_turn, threads)
    last_cpu, last = await _arrived(collector, before + count * expected)
    came = collector.lines - before
    delivered = came / expected if expected else count
    return {
        "cpu_us": 1e6 * (last_cpu - cpu) / max(1.0, delivered),
        "rate": delivered / (last - began),
        "offered": count * max(1, expected),
        "arrived": came if expected else count,
    }


async def _produced(attached: Attached, count: int, per_turn: int, threads: int) -> None:
    if threads:
        await _threaded(attached, count, threads)
        return
    log: Any = attached.log
    for first in range(0, count, per_turn):
        for number in range(first, min(count, first + per_turn)):
            if attached.awaited:
                await log(number)
            else:
                log(number)
        await asyncio.sleep(0)


async def _threaded(attached: Attached, count: int, threads: int) -> None:
    def work() -> None:
        for number in range(count // threads):
            attached.log(number)
            if number % 100 == 0:
                time.sleep(0)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    while any(thread.is_alive() for thread in running):  # noqa: ASYNC110 - threads signal nothing
        await asyncio.sleep(_LOOK)


async def _arrived(collector: Collector, wanted: int) -> tuple[float, float]:
    """Wait for so many lines, or until no more come; the clocks when the last one was seen."""
    seen, clocks = collector.lines, (time.process_time(), time.perf_counter())
    while seen < wanted:
        await asyncio.sleep(_LOOK)
        if collector.lines != seen:
            seen, clocks = collector.lines, (time.process_time(), time.perf_counter())
        elif time.perf_counter() - clocks[1] > _PATIENCE:
            break
    return clocks


# -- the rounds ------------------------------------------------------------------------------------------------------


def compared(
    function: str,
    names: list[str],
    missing: dict[str, str],
    rounds: int,
    arguments: Data,
    tell: Callable[[str], None] = lambda _what: None,
) -> Data:
    """Everybody in turn, several rounds, and what that gives: per cell CPU, throughput, and the ratio to the no-op."""
    raw: dict[str, dict[str, list[Data]]] = {}
    failed: dict[str, str] = {}
    for turn, name in _turns(names, rounds):
        if name in failed:
            continue
        tell(f"round {turn + 1} of {rounds}: {name}")
        try:
            cells = child.run(function, name=name, **_fewer(name, arguments))["cells"]
        except child.Failed as error:
            failed[name] = str(error)
            continue
        for cell, found in cells.items():
            raw.setdefault(cell, {}).setdefault(name, []).append(found)
    cells = {f"{name}/{cell}": _cell(found, rows["noop"]) for cell, rows in raw.items() for name, found in rows.items()}
    return {"rounds": rounds, **arguments, "cells": cells, "missing": missing | failed}


def _fewer(name: str, arguments: Data) -> Data:
    return arguments | {"count": arguments["count"] // _FEWER.get(name, 1)}


def _turns(names: list[str], rounds: int) -> Iterator[tuple[int, str]]:
    for turn in range(rounds):
        for name in random.sample(names, len(names)):
            yield turn, name


def _cell(found: list[Data], base: list[Data]) -> Data:
    pairs = zip(found, base, strict=False)
    return {
        "cpu_us": spread(each["cpu_us"] for each in found),
        "rate": spread(each["rate"] for each in found),
        "times_noop": spread(each["cpu_us"] / floor["cpu_us"] for each, floor in pairs),
        "offered": sum(each["offered"] for each in found),
        "arrived": sum(each["arrived"] for each in found),
    }
