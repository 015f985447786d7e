"""What a spool costs: rows a second on this disk, and what a heartbeat feels while a hung sink's records go there.

On a quiet machine: `python benchmarks/spool.py [--rate N] [--seconds S] [--directory D]`. Each way is measured in turn,
several rounds, in one run: no spool, an outage's, one that always stores, and that with `durable`. The load is 10,000
records/s unless told otherwise, the sink hangs for ever; the heartbeat is open-loop, from the time each was due.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import tempfile
import time
from pathlib import Path

from offloop import Buffer, Pipeline, Spool
from offloop.capture import Record, capture, restore
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn
from offloop.testing import HANG, FaultySink

WAYS = {
    "no spool": None,
    'when="outage"': {"when": "outage"},
    'when="always"': {"when": "always"},
    "always, durable": {"when": "always", "durable": True},
}
GROUPS = (1, 10, 100, 500)
_BEAT = 0.005  # seconds
_TICK = 0.01


def record(number: int) -> Record:
    """An ordinary one."""
    given = {"name": "shop.orders", "msg": "order %d placed by %s", "args": (number, "Ann B."), "levelno": 20}
    return restore(capture(logging.makeLogRecord(given)))


def rows_a_second(directory: Path, group: int, *, durable: bool, seconds: float) -> float:
    """How many rows the disk's thread stores in commits of this many."""
    store = SpoolStore(Spool(directory, durable=durable), "rows")
    store.open(0)
    stored, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        rows = [(number, record(number)) for number in range(stored, stored + group)]
        out = store.exchange(Turn(rows=rows, handed=rows[-1][0], settled=range(stored - group, stored)[: stored or 0]))
        if not out.stored:
            raise SystemExit(out.error)
        stored += group
    store.exchange(Turn(settled=range(stored - group, stored)))
    store.close()
    return stored / elapsed


async def delays(spool: Spool | None, rate: int, seconds: float, logger: logging.Logger) -> tuple[list[float], str]:
    """How late heartbeats were, in milliseconds, and what became of the records."""
    late: list[float] = []
    sink = FaultySink(always=HANG, name="hung", buffer=Buffer(max_records=1_000))
    loop = asyncio.get_running_loop()
    pipeline = Pipeline(sink, logger=logger, level="INFO", spool=spool, shutdown_timeout=0.5, queue_size=100_000)
    async with pipeline:
        await asyncio.sleep(0.1)
        load = asyncio.create_task(log_on(logger, rate, seconds))
        due = loop.time()
        while not load.done():
            due += _BEAT
            await asyncio.sleep(max(0.0, due - loop.time()))
            late.append(1e3 * (loop.time() - due))
        counts = pipeline.stats().sinks["hung"]
        what = f"{counts.offered:,} offered, {counts.spooled:,} on disk, {counts.lost:,} dropped"
    return late, what


async def log_on(logger: logging.Logger, rate: int, seconds: float) -> None:
    """Log at the rate, a hundredth of a second's worth at a time."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for turn in range(int(seconds / _TICK)):
        for number in range(int(rate * _TICK)):
            logger.info("order %d placed by %s", turn * 1_000 + number, "Ann B.")
        due += _TICK
        await asyncio.sleep(max(0.0, due - loop.time()))


def percentile(values: list[float], share: float) -> float:
    """Of all values, that below which this share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="where the spools are made; a temporary one if not given")
    options = parser.parse_args()
    logger = logging.getLogger("shop")
    logger.propagate = False
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    became: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as base:
        print(f"rows/s in commits of   {'  '.join(f'{group:>7}' for group in GROUPS)}")
        for durable in (False, True):
            rates = [
                rows_a_second(Path(base) / f"rows{group}{durable}", group, durable=durable, seconds=1.0)
                for group in GROUPS
            ]
            print(f"  durable={durable!s:<12} {'  '.join(f'{rate:>7,.0f}' for rate in rates)}")
        for turn in range(options.rounds):
            for index, (name, given) in enumerate(WAYS.items()):
                spool = None if given is None else Spool(Path(base) / f"{turn}-{index}", **given)  # type: ignore[arg-type]
                gc.collect()
                late, became[name] = asyncio.run(delays(spool, options.rate, options.seconds, logger))
                found[name] += late
    print(f"\nloop delay, {options.rate:,} records/s, the sink hung: p50, p99, max in ms")
    for name, late in found.items():
        shares = "  ".join(f"{percentile(late, share):6.2f}" for share in (0.5, 0.99, 1))
        print(f"  {name:<16} {shares}   {became[name]}")


if __name__ == "__main__":
    main()
