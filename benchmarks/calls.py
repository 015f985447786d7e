"""What a call adds, for who logs: in microseconds over the same call into a `logging.NullHandler`.

In each round everybody is timed once, in turn. What waits is delivered or cleared away between, so that nobody's
listener runs while a call is timed, but for those that have threads of their own.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from benchmarks import child
from benchmarks.contenders import Attached, Call, Setup, contenders, present
from benchmarks.measuring import Data, spread

CASES = {
    "disabled": "level disabled",
    "below": "level below every sink",
    "plain": "no arguments",
    "arguments": "two arguments",
    "list": "a list as argument",
    "extra": "`extra`",
    "exception": "an exception",
}
PLACES = {"loop": "on the loop's thread", "thread": "from another thread"}
_ROUNDS = {"full": 41, "quick": 9, "smoke": 2}
_CALLS = {"full": 200, "quick": 200, "smoke": 20}
_LEFT_OUT = ("handler",)  # it writes to a socket in the call: what that costs is the delivery's to show

Elapsed = dict[tuple[str, str, str], list[float]]


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    names, missing = present([name for name in contenders() if name not in _LEFT_OUT])
    rounds, calls = _ROUNDS[scale], _CALLS[scale]
    tell(f"{rounds} rounds of {len(names)} contenders")
    found = child.run("calls.timed", names=names, rounds=rounds, calls=calls)
    return {"rounds": rounds, "calls": calls, "cells": found["cells"], "missing": missing | found["missing"]}


def timed(names: list[str], rounds: int, calls: int) -> None:
    """Time these in this process, the first as the base."""
    asyncio.run(_timed(names, rounds, calls))


async def _timed(names: list[str], rounds: int, calls: int) -> NoReturn:
    everyone: dict[str, Attached] = {}
    missing: dict[str, str] = {}
    entered: list[Any] = []  # held: a generator that is collected is closed
    for name in names:
        entered.append(contenders()[name].attach(Setup(room=20 * calls)))
        try:
            everyone[name] = await entered[-1].__aenter__()
        except Exception as error:  # noqa: BLE001 - of others; the page says so
            missing[name] = f"{type(error).__name__}: {error}"
        else:
            # What it installs is for the whole process, and is not to make the others' records.
            everyone[name].factory = logging.getLogRecordFactory()
        logging.setLogRecordFactory(logging.LogRecord)
    elapsed: Elapsed = {}
    await _round(everyone, calls, {})  # warms up
    for _ in range(rounds):
        await _round(everyone, calls, elapsed)
    # Nobody is asked to stop: the process ends.
    child.end({"cells": _added(elapsed, names[0]), "missing": missing})


async def _round(everyone: dict[str, Attached], calls: int, elapsed: Elapsed) -> None:
    gc.collect()
    for case in CASES:
        for name, attached in random.sample(list(everyone.items()), len(everyone)):
            for place, value in (await _both(attached, case, calls)).items():
                elapsed.setdefault((name, case, place), []).append(value)


def _added(elapsed: Elapsed, base: str) -> Data:
    """What each adds to the base in the same round; of the base itself, what it takes."""
    cells: Data = {}
    for (name, case, place), values in elapsed.items():
        floors = elapsed[base, case, place] if name != base else [0.0] * len(values)
        cells[f"{name}/{case}/{place}"] = spread(value - floor for value, floor in zip(values, floors, strict=True))
    return cells


async def _both(attached: Attached, case: str, calls: int) -> dict[str, float]:
    call = attached.calls["below" if case == "disabled" else case]
    logging.setLogRecordFactory(attached.factory)
    if case == "below":
        attached.set_level(logging.DEBUG)
    if attached.awaited:
        found = {"loop": await _time_awaited(call, calls)}
    else:
        found = {"loop": _time(call, calls)}
        await _settle(attached)
        found["thread"] = _time_in_thread(call, calls)
    attached.set_level(logging.INFO)
    await _settle(attached)
    logging.setLogRecordFactory(logging.LogRecord)
    return found


async def _settle(attached: Attached) -> None:
    result: Any = attached.settle()
    if inspect.isawaitable(result):
        await result


def _time(call: Call, calls: int) -> float:
    call()  # the logger's cache of levels
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return 1e6 * (time.perf_counter() - started) / calls


async def _time_awaited(call: Any, calls: int) -> float:
    await call()
    started = time.perf_counter()
    for _ in range(calls):
        await call()
    return 1e6 * (time.perf_counter() - started) / calls


def _time_in_thread(call: Call, calls: int) -> float:
    """The loop waits meanwhile: the thread has the interpreter to itself."""
    result: list[float] = []
    thread = threading.Thread(target=lambda: result.append(_time(call, calls)))
    thread.start()
    thread.join()
    return result[0]
