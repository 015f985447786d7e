"""Programs that end or fork in all ways, in processes of their own, and tell what became of their records."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

from programs import Program, python

# The counts are told by a function that is registered before offloop is imported, and so runs after its hook.
_BEGIN = """
import asyncio, atexit, dataclasses, json, logging, logging.config, os, signal, sys, threading, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is what is tested


def tell():
    if "LATE" in os.environ:
        log.info("late")
    stats = listener.stats()
    told = {name: dataclasses.asdict(counts) for name, counts in [("intake", stats.intake), *stats.sinks.items()]}
    print(json.dumps({"pid": os.getpid(), "balanced": stats.balanced, **told}) + "\\n", end="", flush=True)


atexit.register(tell)

from offloop import Batching, Pipeline, QueueHandler, QueueListener, Retry, Sink, TCPSink

log = logging.getLogger("app")
log.setLevel("INFO")
queue = asyncio.Queue(100_000)
log.addHandler(QueueHandler(queue))
port = int(os.environ.get("COLLECTOR", "9"))


class Hung(Sink):
    async def send(self, batch):
        print("sending\\n", end="", flush=True)  # in one write: it may be interrupted
        await asyncio.Event().wait()

"""


def written(folder: Path, source: str) -> Path:
    """The program in a file: before it come imports, a logger `log` with a handler on `queue`, and `tell`."""
    path = folder / "program.py"
    path.write_text(_BEGIN + dedent(source).lstrip())
    return path


@asynccontextmanager
async def program(folder: Path, source: str, **environment: object) -> AsyncIterator[Program]:
    """Run a program that begins as said above."""
    async with python(written(folder, source), **environment) as running:
        yield running


async def ended(folder: Path, source: str, **environment: object) -> Program:
    """The same, when it has ended."""
    async with program(folder, source, **environment) as running:
        await running.end()
    return running


def told(output: str) -> list[dict[str, Any]]:
    """The counts that each process of a program told at its end; all balance, and nothing is left."""
    stats = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert all(one["balanced"] for one in stats)
    assert all(counts["pending"] == 0 for one in stats for counts in one.values() if isinstance(counts, dict))
    return stats


def printed(errors: str, owner: str) -> list[str]:
    """The messages that were printed for a sink, or for the queue."""
    begin = f"offloop: {owner}: 2"
    return [line.partition("app: ")[2] for line in errors.splitlines() if line.startswith(begin)]
