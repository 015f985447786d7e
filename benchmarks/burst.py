"""A million records in one burst: memory, and what a heartbeat and a request feel while they are delivered.

On a quiet machine: `python benchmarks/burst.py [--records N] [--queue N]`. The collector is a process of its own,
and the same heartbeat and requests are measured on the idle loop first. The burst itself holds the loop: it is the
application that logs without a pause. What does not fit into the queue is dropped, and counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable

from offloop import Buffer, Pipeline, TCPSink

COLLECTOR = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
peer, _ = server.accept()
lines = 0
while data := peer.recv(1 << 20):
    lines += data.count(b"\\n")
print(lines, flush=True)
"""


async def heartbeat(delays: list[float], done: asyncio.Event) -> None:
    """How late a call is that is due every 5 ms, from the time it was due."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not done.is_set():
        due += 0.005
        await asyncio.sleep(max(0.0, due - loop.time()))
        delays.append(loop.time() - due)
        due = max(due, loop.time() - 0.005)


async def requests(times: list[float], done: asyncio.Event) -> None:
    """How long fifty awaits take that each let the loop turn once."""
    while not done.is_set():
        began = time.perf_counter()
        for _ in range(50):
            await asyncio.sleep(0)
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.003)


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return 1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def felt(name: str, work: Awaitable[object]) -> None:
    """Print what heartbeat and requests feel while the work is done."""
    delays: list[float] = []
    times: list[float] = []
    done = asyncio.Event()
    watchers = [asyncio.create_task(heartbeat(delays, done)), asyncio.create_task(requests(times, done))]
    began = time.perf_counter()
    await work
    seconds = time.perf_counter() - began
    done.set()
    await asyncio.gather(*watchers)
    print(f"{name:>6} {seconds:6.2f} s | heartbeat {spread(delays)} | request {spread(times)}")


def spread(values: list[float]) -> str:
    """Median, 99th percentile and maximum."""
    p50, p99, most = (percentile(values, share) for share in (0.5, 0.99, 1))
    return f"p50 {p50:5.2f} p99 {p99:5.2f} max {most:6.2f} ms"


def memory() -> float:
    """MiB, the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(port: int, records: int, queue: int) -> None:
    """One burst."""
    sink = TCPSink("127.0.0.1", port, buffer=Buffer(max_records=queue, max_bytes=queue * 2_000))
    logger = logging.getLogger("burst")
    logger.propagate = False
    pipeline = Pipeline(sink, logger=logger, level="INFO", queue_size=queue, shutdown_timeout=120)
    async with pipeline:
        logger.info("connect")
        await pipeline.flush(5)
        await felt("idle", asyncio.sleep(3))
        before = memory()
        gc.collect()
        began = time.perf_counter()
        for number in range(records):
            logger.info("hello %d of %s", number, "burst")
        seconds = time.perf_counter() - began
        print(f"burst of {records:,}: {seconds:.2f} s, {memory() - before:.0f} MiB more than before")
        await felt("drain", pipeline.flush(120))
    stats = pipeline.stats()
    lost = stats.intake.lost + stats.sinks["TCPSink"].lost
    print(f"delivered {stats.sinks['TCPSink'].delivered:,}, dropped {lost:,}, balanced: {stats.balanced}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--queue", type=int, default=10_000)
    arguments = parser.parse_args()
    with subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True) as collector:
        assert collector.stdout is not None
        asyncio.run(main(int(collector.stdout.readline()), arguments.records, arguments.queue))
        print(f"the collector got {int(collector.stdout.readline()):,}")
