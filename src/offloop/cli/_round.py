"""One round of the demo, in a process of its own.

A fresh process for each: CPU time is then the round's alone, and no thread, connection or garbage of one round is there
in the next. Run as `python -m offloop.cli._round PLAN`, the plan in JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from offloop.cli._plan import Plan
from offloop.cli._servers import answer_lines, say
from offloop.cli._setups import SETUPS
from offloop.cli._workload import Measured, percentile, run

__all__ = ["play", "summary"]


async def play(plan: Plan) -> dict[str, Any]:
    """Run the workload under the plan's way of logging, and deliver what waits at its end.

    Returns:
        What was measured, ready for JSON: the loop's delay while the workload ran, everything else until the last
        record was handed over.
    """
    logger = logging.getLogger("demo")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    gc.collect()
    loop = asyncio.get_running_loop()
    async with SETUPS[plan.kind](logger, plan) as said:
        say({"event": "started"})
        before = time.process_time()
        measured = await run(logger, plan.kind, plan.seconds, plan.rate)
        say({"event": "draining"})
    cpu = time.process_time() - before
    return summary(measured) | {
        "cpu_seconds": cpu,
        "drained_after_seconds": max(0.0, loop.time() - measured.due),
        "said": said,
    }


def summary(measured: Measured) -> dict[str, Any]:
    """The figures of a workload."""
    return {
        "logged": measured.logged,
        "errors": measured.errors,
        "loop_delay_ms": _percentiles(measured.beats),
        "request_ms": _percentiles(measured.requests),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50": 1e3 * percentile(seconds, 0.5),
        "p99": 1e3 * percentile(seconds, 0.99),
        "max": 1e3 * percentile(seconds, 1.0),
        "count": len(seconds),
    }


async def _end_with_parent() -> None:
    """End at once when stdin does: the parent is gone, and nobody reads a result."""
    await answer_lines(dict)
    os._exit(1)


async def _main(plan: Plan) -> None:
    watch = asyncio.create_task(_end_with_parent())
    result = await play(plan)
    watch.cancel()
    say({"event": "done", "result": result})


if __name__ == "__main__":
    asyncio.run(_main(Plan(**json.loads(sys.argv[1]))))
