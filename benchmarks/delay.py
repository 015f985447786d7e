"""How late the event loop is while records are logged: at 1,000 and 10,000 a second and as many as it takes.

The collector is healthy, slow (it reads 400 kB/s), hung (it accepts and reads nothing), or away every other 0.2 s. All
have the queues they have by default; what did not fit is told.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

from benchmarks import child
from benchmarks.beats import beating
from benchmarks.collector import STATES, collecting
from benchmarks.contenders import Attached, Setup, contenders, present
from benchmarks.measuring import Data, delays

NAMES = ("idle", "noop", "offloop", "pair", "handler")
MOST = 0
"""As a rate: as many as it takes."""

RATES = (1_000, 10_000, MOST)
_ROUNDS = {"full": 3, "quick": 1, "smoke": 1}
_SECONDS = {"full": 1.5, "quick": 0.8, "smoke": 0.1}
_TICK = 0.001
_AT_ONCE = 100  # records a turn of the loop at most: a program that has to catch up does so in steps


def plan(scale: str) -> list[tuple[str, int, str]]:
    """The situations: loop, rate, state of the collector."""
    if scale == "smoke":
        return [("asyncio", 1_000, "hung")]
    if scale == "quick":
        found = [("asyncio", 10_000, "hung"), ("asyncio", 10_000, "reconnecting"), ("asyncio", MOST, "healthy")]
    else:
        found = [("asyncio", 10_000, state) for state in STATES]
        found += [("asyncio", rate, state) for rate in (1_000, MOST) for state in ("healthy", "hung")]
        found += [("uvloop", 10_000, "healthy")]
    found += [("uvloop", 10_000, "hung")]
    return [each for each in found if find_spec(each[0])]


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    names, missing = present(list(NAMES))
    if not find_spec("uvloop"):
        missing["uvloop"] = "uvloop is not installed, or has no build for this interpreter"
    situations = plan(scale)
    found: dict[str, list[Data]] = {}
    for turn in range(_ROUNDS[scale]):
        for loop, rate, state in situations:
            tell(f"round {turn + 1} of {_ROUNDS[scale]}: {loop}, {rate or 'as many as it takes'}, {state}")
            # What the load itself does shows at the highest rate alone.
            here = [name for name in names if name != "noop" or rate == MOST]
            for name in random.sample(here, len(here)):
                try:
                    one = child.run("delay.one", name=name, loop=loop, rate=rate, state=state, seconds=_SECONDS[scale])
                except child.Failed as error:
                    missing[f"{name}, {loop}, {rate}, {state}"] = str(error)
                else:
                    found.setdefault(f"{name}/{loop}/{rate}/{state}", []).append(one)
    cells = {cell: _cell(rounds) for cell, rounds in found.items()}
    return {"rounds": _ROUNDS[scale], "seconds": _SECONDS[scale], "cells": cells, "missing": missing}


def _cell(rounds: list[Data]) -> Data:
    return {
        **delays([one["late_us"] for one in rounds]),
        "offered": sum(one["offered"] for one in rounds),
        "arrived": sum(one["arrived"] for one in rounds),
    }


def one(name: str, loop: str, rate: int, state: str, seconds: float) -> None:
    """One contender in one situation, in this process."""
    if loop == "uvloop":
        import_module("uvloop").run(_one(name, rate, state, seconds))
    else:
        asyncio.run(_one(name, rate, state, seconds))


async def _one(name: str, rate: int, state: str, seconds: float) -> NoReturn:
    with collecting(state) as collector:
        context = contenders()["noop" if name == "idle" else name].attach(Setup(port=collector.port))
        attached = await context.__aenter__()
        if name != "idle":
            # Connected, and what a kernel takes for a collector that is slow or hung is taken.
            await _load(attached, 1_000, 0.5 if state in ("slow", "hung") else 0.1)
            await asyncio.sleep(0.2)  # what was logged for that has arrived where it can
        before = collector.lines
        gc.collect()
        with beating() as beats:
            await beats.begin()
            offered = await _load(attached if name != "idle" else None, rate, seconds)
            await beats.next()
        late = [round(delay, 1) for delay in beats.late_us]
        await asyncio.sleep(0.3 if state == "healthy" else 0.0)
        arrived = collector.lines - before
        child.end({"late_us": late, "offered": offered, "arrived": arrived})


async def _load(attached: Attached | None, rate: int, seconds: float) -> int:
    """Log at this rate; how many it were. Open-loop: what a held loop kept it from is made up for."""
    done, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        due = min(_AT_ONCE, int(passed * rate) - done) if rate else _AT_ONCE
        if attached is not None:
            for number in range(done, done + due):
                attached.log(number)
        done += due
        await asyncio.sleep(0 if due == _AT_ONCE else _TICK)
    return done
