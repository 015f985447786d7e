"""What a log call adds for the caller, what a record weighs, and what each room costs the loop.

python benchmarks/journey.py

Each figure is the lowest of many interleaved rounds, since what else the machine does can only add to it. "Added" is
above the same call into a `logging.NullHandler`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.handlers
import platform
import queue
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

from offloop import Buffer, JSONFormatter, Pipeline, QueueHandler, TextFormatter
from offloop.capture import Record, capture, restore
from offloop.testing import HANG, FaultySink, MemorySink

CALLS = 500
ROUNDS = 60
log = logging.getLogger("journey")
log.propagate = False
log.setLevel(logging.INFO)


def failing() -> None:
    try:
        int("x")
    except ValueError:
        log.exception("failed")


CASES: dict[str, Callable[[], None]] = {
    "no arguments": lambda: log.info("order placed"),
    "two arguments": lambda: log.info("order %d placed by %s", 4711, "Ann"),
    "a list as argument": lambda: log.info("order of %s placed", ["tea", "cups"]),
    "extra": lambda: log.info("order placed", extra={"order": 4711, "customer": "Ann"}),
    "an exception": failing,
}


def timed(call: Callable[[], None]) -> float:
    """Microseconds a call takes."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return 1e6 * (time.perf_counter() - started) / CALLS


async def calls() -> None:
    null = logging.NullHandler()
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    standard = logging.handlers.QueueHandler(records)
    pipeline = Pipeline(MemorySink(), logger="elsewhere", queue_size=2 * CALLS)
    elapsed: dict[tuple[str, str], list[float]] = {}
    async with pipeline:
        for _ in range(ROUNDS):
            for case, call in CASES.items():
                for name, handler in (("null", null), ("standard", standard), ("offloop", pipeline.handler)):
                    log.handlers = [handler]
                    elapsed.setdefault((case, name), []).append(timed(call))
                    log.handlers = [null]
                    await pipeline.flush()
                    while not records.empty():
                        records.get()
                elapsed.setdefault((case, "thread"), []).append(await from_thread(pipeline.handler, call))
                log.handlers = [null]
                await pipeline.flush()
    print(f"{'added to a call, us':24}{'offloop':>10}{'from a thread':>16}{'standard QueueHandler':>24}")
    for case in CASES:
        base = min(elapsed[case, "null"])
        ours, thread, theirs = (min(elapsed[case, name]) - base for name in ("offloop", "thread", "standard"))
        print(f"{case:24}{ours:10.2f}{thread:16.2f}{theirs:24.2f}")


async def from_thread(handler: logging.Handler, call: Callable[[], None]) -> float:
    """The same from another thread; the loop's own thread is idle."""
    log.handlers = [handler]
    result: list[float] = []
    thread = threading.Thread(target=lambda: result.append(timed(call)))
    thread.start()
    thread.join()  # the loop waits: the thread has the interpreter to itself
    return result[0]


def rooms() -> None:
    """What the loop spends on a record between the queue and `send`."""
    made = logging.LogRecord("journey", logging.INFO, __file__, 1, "order %d placed by %s", (4711, "Ann"), None)
    kept: list[Record] = []
    restored = min(_each(restore, [capture(made) for _ in range(CALLS)], kept) for _ in range(ROUNDS))
    print(f"\n{'on the loop, us a record':24}\n{'back to a record':24}{restored:10.2f}")
    for formatter in (JSONFormatter(), TextFormatter(), logging.Formatter("%(asctime)s %(levelname)s %(message)s")):
        name = type(formatter).__name__
        encode = getattr(formatter, "encode", lambda record, f=formatter: f.format(record).encode())
        lowest = min(_each(encode, kept) for _ in range(ROUNDS))
        print(f"{name:24}{lowest:10.2f}")


def _each(step: Callable[[Any], Any], items: Sequence[Any], results: list[Any] | None = None) -> float:
    """Microseconds a step takes with one of the items."""
    started = time.perf_counter()
    done = [step(item) for item in items]
    elapsed = time.perf_counter() - started
    if results is not None:
        results[:] = done
    return 1e6 * elapsed / len(items)


async def weights() -> None:
    """Bytes a record of two arguments takes, waiting for the listener and waiting for a sink that hangs."""
    count = 20_000
    log.handlers = [QueueHandler(asyncio.Queue())]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(count):
        log.info("order %d placed by %s", 1_000_000 + number, "Ann")
    queued = tracemalloc.get_traced_memory()[0] - before
    log.handlers = [logging.NullHandler()]
    sink = FaultySink(always=HANG, buffer=Buffer(max_records=2 * count))
    pipeline = Pipeline(sink, logger="journey", queue_size=2 * count, shutdown_timeout=0.0)
    gc.collect()  # the queue above
    before, _ = tracemalloc.get_traced_memory()
    async with pipeline:
        for number in range(count):
            log.info("order %d placed by %s", 1_000_000 + number, "Ann")
        while pipeline.stats().intake.pending:  # noqa: ASYNC110 - nothing tells when a lane has them all
            await asyncio.sleep(0.01)
        held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"\n{'bytes a record':24}\n{'in the queue':24}{queued / count:10.0f}\n{'in a lane':24}{held / count:10.0f}")


if __name__ == "__main__":
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    asyncio.run(calls())
    rooms()
    asyncio.run(weights())
