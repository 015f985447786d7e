"""The two halves on their own: a library that has only a queue handler, and an application that says where records go.

The library's critical code logs through a `QueueHandler` and so never waits, whatever the application does with the
records. The application gives the same queue to a `QueueListener` with the destinations it wants: here a collector
that takes everything, and the terminal, by a handler of the standard library, for what is WARNING or worse. Run each of
these in a terminal of its own:

    ncat -lk 9020                    # a collector that prints what it gets
    python examples/queue_pair.py

One sees 100 lines at the collector, 10 of them again in the second terminal, and there the listener's account.

LOG_HOST and LOG_PORT name another collector.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from offloop import QueueHandler, QueueListener, TCPSink

# -- the library -------------------------------------------------------------------------------------------------------

log_queue: asyncio.Queue[object] = asyncio.Queue(10_000)

logger = logging.getLogger("sensors")
logger.setLevel(logging.DEBUG)
logger.propagate = False  # no handler of the root logger may hold up the measuring
logger.addHandler(QueueHandler(log_queue))


async def measure(count: int) -> None:
    for number in range(count):
        level = logging.WARNING if number % 10 == 9 else logging.DEBUG
        logger.log(level, "sensor %d reads %.1f degrees", number % 7, 20 + number / 4)
        await asyncio.sleep(0)


# -- the application ---------------------------------------------------------------------------------------------------


async def main() -> None:
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    collector = TCPSink(
        os.environ.get("LOG_HOST", "localhost"), int(os.environ.get("LOG_PORT", "9020")), name="collector"
    )
    listener = QueueListener(log_queue, collector, terminal)
    listener.start()
    try:
        await measure(100)
    finally:
        report = await listener.stop(timeout=5.0)

    for name, counts in report.sinks.items():
        print(f"{name}: {counts.delivered} delivered, {counts.filtered} filtered, {counts.lost} lost")


if __name__ == "__main__":
    asyncio.run(main())
