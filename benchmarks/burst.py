"""A million records in one burst: memory, how long they take to be delivered, and what is felt meanwhile.

The burst itself holds the loop: it is the application that logs without a pause. What counts is after it: beats from
outside, and requests that let the loop turn fifty times, next to the same on the idle loop of the same process.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

from benchmarks import child
from benchmarks.beats import beating
from benchmarks.collector import Collector, collecting
from benchmarks.contenders import Attached, Setup, contenders
from benchmarks.measuring import Data, percentiles, spread

_RECORDS = {"full": 1_000_000, "quick": 100_000, "smoke": 2_000}
_ROUNDS = {"full": 2, "quick": 1, "smoke": 1}
_IDLE = {"full": 2.0, "quick": 0.5, "smoke": 0.1}
_AWAITS = 50
_PAUSE = 0.003

WAYS = {
    "offloop": ("offloop, room for all", "offloop", True),
    "fast": ("offloop, `fast_records`, room for all", "fast", True),
    "default": ("offloop, as by default", "offloop", False),
    "pair": ("standard queue pair", "pair", True),
}


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    found: dict[str, list[Data]] = {}
    missing: dict[str, str] = {}
    ways = {way: WAYS[way] for way in WAYS if scale != "smoke" or way == "offloop"}
    for turn in range(_ROUNDS[scale]):
        for way, (title, name, roomy) in ways.items():
            tell(f"round {turn + 1} of {_ROUNDS[scale]}: {title}")
            given = {"records": _RECORDS[scale], "roomy": roomy, "idle": _IDLE[scale]}
            try:
                found.setdefault(way, []).append(child.run("burst.one", name=name, **given))
            except child.Failed as error:
                missing[way] = str(error)
    idle = [one["idle"] for rounds in found.values() for one in rounds]
    cells = {"idle": _cell("idle: the loop before the burst", idle)} if idle else {}
    cells |= {way: _cell(ways[way][0], rounds) for way, rounds in found.items()}
    return {"rounds": _ROUNDS[scale], "records": _RECORDS[scale], "cells": cells, "missing": missing}


def _cell(title: str, rounds: list[Data]) -> Data:
    figures = ("burst_s", "memory_mib", "drain_s", "beat_p99_ms", "beat_max_ms", "request_p99_ms", "request_max_ms")
    return {
        "title": title,
        "logged": sum(one["logged"] for one in rounds),
        "arrived": sum(one["arrived"] for one in rounds),
        **{each: spread(one[each] for one in rounds) for each in figures},
    }


def one(name: str, records: int, roomy: bool, idle: float) -> None:  # noqa: FBT001 - by name, from JSON
    """One burst, in this process."""
    asyncio.run(_one(name, records, 2 * records if roomy else 0, idle))


async def _one(name: str, records: int, room: int, idle: float) -> NoReturn:
    with collecting() as collector:
        context = contenders()[name].attach(Setup(port=collector.port, room=room))
        attached = await context.__aenter__()
        attached.log(0)  # connects
        await asyncio.sleep(0.1)
        nothing: Data = {"logged": 0, "arrived": 0, "burst_s": 0.0, "memory_mib": 0.0, "drain_s": 0.0}
        before = nothing | await _felt(asyncio.sleep(idle))
        burst = await _burst(attached, collector, records)
        child.end(burst | {"idle": before})


async def _burst(attached: Attached, collector: Collector, records: int) -> Data:
    gc.collect()
    memory, lines, began = _memory(), collector.lines, time.perf_counter()
    for number in range(records):
        attached.log(number)
    logged = time.perf_counter()
    felt = await _felt(_drained(collector, lines + records))
    return felt | {
        "logged": records,
        "arrived": collector.lines - lines,
        "burst_s": logged - began,
        # The most so far: what a lane held on the way is in it.
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - memory,
        "drain_s": felt["seconds"],
    }


async def _drained(collector: Collector, wanted: int) -> float:
    """Until all came, or nothing more did for a second; when the last one was seen."""
    seen, when = collector.lines, time.perf_counter()
    while seen < wanted and time.perf_counter() - when < 1.0:
        await asyncio.sleep(0.01)
        if collector.lines != seen:
            seen, when = collector.lines, time.perf_counter()
    return when


async def _felt(work: Awaitable[float | None]) -> Data:
    """What beats and requests feel while the work is done."""
    began = time.perf_counter()
    done = asyncio.Event()
    with beating() as beats:
        requests = asyncio.create_task(_requests(done))
        last = await work
        await beats.next()
        done.set()
        times = await requests
    late, felt = percentiles(beats.late_us), percentiles(times or [0.0])
    return {
        "seconds": (last or time.perf_counter()) - began,
        "beat_p99_ms": late["p99"] / 1000,
        "beat_max_ms": late["max"] / 1000,
        "request_p99_ms": felt["p99"] / 1000,
        "request_max_ms": felt["max"] / 1000,
    }


async def _requests(done: asyncio.Event) -> list[float]:
    """Microseconds of each."""
    times: list[float] = []
    while not done.is_set():
        began = time.perf_counter()
        for _ in range(_AWAITS):
            await asyncio.sleep(0)
        times.append(1e6 * (time.perf_counter() - began))
        await asyncio.sleep(_PAUSE)
    return times


def _memory() -> float:
    """MiB that are resident now."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(statm.read_text("ascii").split()[1]) * resource.getpagesize() / 2**20
