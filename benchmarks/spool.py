"""What a spool costs: rows a second on this disk, and how late the loop is while a hung sink's records go there."""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import child
from benchmarks.beats import beating
from benchmarks.contenders import MESSAGE, logger_of
from benchmarks.measuring import Data, delays, spread
from offloop import Buffer, Pipeline, Spool
from offloop.capture import Record, capture, restore
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn
from offloop.testing import HANG, FaultySink

WAYS: dict[str, dict[str, Any] | None] = {
    "no spool": None,
    '`when="outage"`': {"when": "outage"},
    '`when="always"`': {"when": "always"},
    "always, `durable`": {"when": "always", "durable": True},
}
_GROUPS = (1, 10, 100, 500)
_ROUNDS = {"full": 3, "quick": 1, "smoke": 1}
_SECONDS = {"full": 1.5, "quick": 0.5, "smoke": 0.1}
_ROW_SECONDS = {"full": 0.4, "quick": 0.1, "smoke": 0.02}
_RATE = 10_000
_TICK = 0.01


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    late: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    became: dict[str, str] = {}
    rows: dict[str, dict[str, list[float]]] = {}
    for turn in range(_ROUNDS[scale]):
        for durable in (False, True):
            tell(f"round {turn + 1} of {_ROUNDS[scale]}: rows")
            for group, rate in child.run("spool.rows", durable=durable, seconds=_ROW_SECONDS[scale]).items():
                rows.setdefault(f"`durable={durable}`", {}).setdefault(group, []).append(rate)
        for way in WAYS:
            tell(f"round {turn + 1} of {_ROUNDS[scale]}: {way}")
            found = child.run("spool.one", way=way, seconds=_SECONDS[scale])
            late[way].append(found["late_us"])
            became[way] = found["became"]
    cells = {way: {**delays(late[way]), "became": became[way]} for way in WAYS}
    stored = {name: {group: spread(rates) for group, rates in cells.items()} for name, cells in rows.items()}
    return {"rounds": _ROUNDS[scale], "rows": stored, "cells": cells, "missing": {}}


def rows(durable: bool, seconds: float) -> Data:  # noqa: FBT001 - by name, from JSON
    """How many rows a second the disk's thread stores, by the size of a commit."""
    with tempfile.TemporaryDirectory() as base:
        return {
            str(group): _rows_a_second(Path(base) / str(group), group, durable=durable, seconds=seconds)
            for group in _GROUPS
        }


def _rows_a_second(directory: Path, group: int, *, durable: bool, seconds: float) -> float:
    store = SpoolStore(Spool(directory, durable=durable), "rows")
    store.open(0)
    stored, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        batch = [(number, _record(number)) for number in range(stored, stored + group)]
        out = store.exchange(
            Turn(rows=batch, handed=batch[-1][0], settled=range(stored - group, stored)[: stored or 0])
        )
        if not out.stored:
            raise child.Failed(str(out.error))
        stored += group
    store.exchange(Turn(settled=range(stored - group, stored)))
    store.close()
    return stored / elapsed


def _record(number: int) -> Record:
    given = {"name": "bench", "msg": MESSAGE, "args": (number, "Ann"), "levelno": logging.INFO}
    return restore(capture(logging.makeLogRecord(given)))


def one(way: str, seconds: float) -> Data:
    """How late the loop is with one kind of spool, and what became of the records."""
    with tempfile.TemporaryDirectory() as base:
        given = WAYS[way]
        return asyncio.run(_delays(None if given is None else Spool(base, **given), seconds))


async def _delays(spool: Spool | None, seconds: float) -> Data:
    sink = FaultySink(always=HANG, name="hung", buffer=Buffer(max_records=1_000))
    logger = logger_of("spool")
    async with Pipeline(sink, logger=logger, spool=spool, shutdown_timeout=0.2, queue_size=100_000) as pipeline:
        gc.collect()
        with beating() as beats:
            await beats.begin()
            await _log_on(logger, seconds)
            await beats.next()
        counts = pipeline.stats().sinks["hung"]
    became = f"{counts.offered:,} offered, {counts.spooled:,} on disk, {counts.lost:,} dropped"
    return {"late_us": [round(late, 1) for late in beats.late_us], "became": became}


async def _log_on(logger: logging.Logger, seconds: float) -> None:
    """Log at the rate, a hundredth of a second's worth at a time."""
    due = time.monotonic()
    for _ in range(int(seconds / _TICK)):
        for number in range(int(_RATE * _TICK)):
            logger.info(MESSAGE, number, "Ann")
        due += _TICK
        await asyncio.sleep(max(0.0, due - time.monotonic()))
