"""What each step on the loop takes for one record, and what a record weighs: in the queue, and in a lane."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import child
from benchmarks.contenders import MESSAGE, as_json, logger_of
from benchmarks.measuring import Data, spread
from offloop import Buffer, JSONFormatter, Pipeline, QueueHandler, TextFormatter
from offloop.capture import Record, capture, restore
from offloop.sifting import sift
from offloop.testing import HANG, FaultySink

_ROUNDS = {"full": 60, "quick": 10, "smoke": 1}
_RECORDS = 500
_WEIGHED = {"full": 20_000, "quick": 20_000, "smoke": 500}


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    tell("steps and weights")
    return child.run("rooms.found", rounds=_ROUNDS[scale], count=_WEIGHED[scale]) | {"missing": {}}


def found(rounds: int, count: int) -> Data:
    """Both, in this process."""
    return {"rounds": rounds, "cells": _steps(rounds), "weights": asyncio.run(_weights(count))}


def _steps(rounds: int) -> Data:
    made = logging.LogRecord("bench", logging.INFO, __file__, 1, MESSAGE, (4711, "Ann"), None)
    kept: list[Record] = []
    taken: dict[str, list[float]] = {}
    together = JSONFormatter()
    for _ in range(rounds):
        snapshots = [capture(made) for _ in range(_RECORDS)]
        taken.setdefault("routed to a lane", []).append(
            _all(lambda found: sift(found, math.inf, vetted=True, with_levels=False), snapshots)
        )
        taken.setdefault("`JSONFormatter`, many at once", []).append(_all(together.encode_all, snapshots))
        taken.setdefault("capture", []).append(_each(capture, [made] * _RECORDS))
        taken.setdefault("made a record", []).append(_each(restore, [capture(made) for _ in range(_RECORDS)], kept))
        for name, encode in _encoders().items():
            taken.setdefault(name, []).append(_each(encode, kept))
    return {name: spread(values) for name, values in taken.items()}


def _encoders() -> dict[str, Callable[[Any], object]]:
    standard = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    return {
        "`JSONFormatter`": JSONFormatter().encode,
        "`TextFormatter`": TextFormatter().encode,
        "standard `Formatter`": lambda record: standard.format(record).encode(),
        "standard `json.dumps`": as_json,
    }


def _all(step: Callable[[Sequence[Any]], object], items: Sequence[Any]) -> float:
    """Microseconds a step that is given all of the items takes for each."""
    started = time.perf_counter()
    step(items)
    return 1e6 * (time.perf_counter() - started) / len(items)


def _each(step: Callable[[Any], Any], items: Sequence[Any], results: list[Any] | None = None) -> float:
    """Microseconds a step takes with one of the items."""
    started = time.perf_counter()
    done = [step(item) for item in items]
    elapsed = time.perf_counter() - started
    if results is not None:
        results[:] = done
    return 1e6 * elapsed / len(items)


async def _weights(count: int) -> Data:
    """Bytes a record of two arguments takes, waiting for the listener and waiting for a sink that hangs."""
    logger = logger_of("weights", QueueHandler(asyncio.Queue()))
    tracemalloc.start()
    before = _allocated()
    _log(logger, count)
    queued = _allocated() - before
    logger.handlers = []
    sink = FaultySink(always=HANG, buffer=Buffer(max_records=2 * count))
    pipeline = Pipeline(sink, logger=logger, queue_size=2 * count, shutdown_timeout=0.0)
    before = _allocated()
    async with pipeline:
        _log(logger, count)
        while pipeline.stats().intake.pending:  # noqa: ASYNC110 - nothing tells when a lane has them all
            await asyncio.sleep(0.01)
        held = _allocated() - before
    tracemalloc.stop()
    return {"in the queue": queued / count, "in a lane": held / count}


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _log(logger: logging.Logger, count: int) -> None:
    for number in range(count):
        logger.info(MESSAGE, 1_000_000 + number, "Ann")
