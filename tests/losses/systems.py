"""The ways to log that are compared, each set up as its own documentation says.

Imported by the programs under test. A system is `set_up` once in each process that does not inherit it, before any loop
runs; it is begun in the loop; it is ended where a program has a place for that.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import json
import logging
import logging.handlers
import multiprocessing
import os
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
LOGGER = "app"
SHUTDOWN_TIMEOUT = 2.0


class System:
    """How a program logs, and what its end does for logging."""

    def __init__(self, port: int, folder: Path, capacity: int) -> None:
        """Take nothing yet.

        Args:
            port: Of the collector, on loopback.
            folder: Where what is to outlive the process may be kept.
            capacity: Of the queue, where it has one.
        """
        self.port = port
        self.folder = folder
        self.capacity = capacity

    def set_up(self) -> None:
        """Configure, at import."""

    def begin(self) -> None:
        """Start what is to run beside the application's code."""

    async def end(self) -> None:
        """What the documentation says is to be done before the end."""

    def end_child(self) -> None:
        """The same, in a child of `multiprocessing`."""

    def log(self, level: int, identity: str) -> None:
        """Log a record."""
        logging.getLogger(LOGGER).log(level, "record %s", identity)

    def tell(self) -> None:
        """Write down what the system itself says of its records."""


class Offloop(System):
    """A `QueueHandler` and a `QueueListener`, or in a web application a `Pipeline`."""

    when = ""

    def set_up(self) -> None:
        # Registered before the package is imported: it runs after the exit hook.
        atexit.register(self.tell)
        from offloop import Pipeline, Spool, TCPSink

        spool: Any = Spool(self.folder / "spool", when=self.when) if self.when else None  # type: ignore[arg-type]
        sink = TCPSink(HOST, self.port, name="collector", spool=spool)
        self.pipeline = Pipeline(
            sink, logger=LOGGER, level="INFO", queue_size=self.capacity, shutdown_timeout=SHUTDOWN_TIMEOUT
        )
        logger = logging.getLogger(LOGGER)
        logger.setLevel("INFO")
        logger.addHandler(self.pipeline.handler)

    def begin(self) -> None:
        self.pipeline.listener.start()

    async def end(self) -> None:
        await self.pipeline.listener.stop()

    def tell(self) -> None:
        stats = self.pipeline.stats()
        counts = {name: dataclasses.asdict(one) for name, one in [("intake", stats.intake), *stats.sinks.items()]}
        line = json.dumps({"pid": os.getpid(), "balanced": stats.balanced, "counts": counts})
        append(self.folder / "told", f"{line}\n".encode())


class Outage(Offloop):
    """With what does not fit, or could not be sent, on disk."""

    when = "outage"


class Always(Offloop):
    """With every record on disk first."""

    when = "always"


class JSONSocketHandler(logging.handlers.SocketHandler):
    """The standard handler, with JSON lines in the place of pickles."""

    def makePickle(self, record: logging.LogRecord) -> bytes:  # noqa: N802 - the standard library's name
        return json.dumps({"level": record.levelname, "message": record.getMessage()}).encode() + b"\n"


class Standard(System):
    """`logging.handlers.QueueHandler` and `QueueListener`, stopped at exit."""

    # What the standard library's cookbook uses between processes.
    across = False

    def set_up(self) -> None:
        self.queue: Any = multiprocessing.Queue(-1) if self.across else queue.Queue(-1)
        self.listener = logging.handlers.QueueListener(self.queue, JSONSocketHandler(HOST, self.port))
        self.attach(self.queue)
        self.running = False

    @staticmethod
    def attach(waiting: Any) -> None:
        """Put the handler on the logger, in a child too."""
        logger = logging.getLogger(LOGGER)
        logger.setLevel("INFO")
        logger.addHandler(logging.handlers.QueueHandler(waiting))

    def begin(self) -> None:
        if not self.running:
            self.running = True
            self.listener.start()
            atexit.register(self._stop)

    async def end(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.running:
            self.running = False
            self.listener.stop()


class Loguru(System):
    """A standard handler as a sink of loguru's, with `enqueue=True`."""

    def set_up(self) -> None:
        from loguru import logger

        logger.remove()
        logger.add(JSONSocketHandler(HOST, self.port), format="{message}", enqueue=True)
        self.logger = logger

    async def end(self) -> None:
        await self.logger.complete()

    def end_child(self) -> None:
        self.logger.complete()

    def log(self, level: int, identity: str) -> None:
        self.logger.log(logging.getLevelName(level), "record {}", identity)


class Logstash(System):
    """python-logstash-async, with its database."""

    def set_up(self) -> None:
        from logstash_async.constants import constants
        from logstash_async.handler import AsynchronousLogstashHandler

        # As long as the others get to end; it would take half a minute.
        constants.SOCKET_CLOSE_WAIT_TIMEOUT = SHUTDOWN_TIMEOUT
        self.handler = AsynchronousLogstashHandler(HOST, self.port, str(self.folder / "logstash.db"))
        logger = logging.getLogger(LOGGER)
        logger.setLevel("INFO")
        logger.addHandler(self.handler)

    async def end(self) -> None:
        self.handler.close()

    def end_child(self) -> None:
        self.handler.close()


SYSTEMS: dict[str, Callable[[int, Path, int], System]] = {
    "offloop": Offloop,
    "outage": Outage,
    "always": Always,
    "standard": Standard,
    "loguru": Loguru,
    "logstash": Logstash,
}


def append(path: Path, data: bytes) -> None:
    """Write at the end of a file, whoever else does; what was written stays when this process is killed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


class Source:
    """Logs records that no other process logs, and writes down how many."""

    def __init__(self, system: System, folder: Path) -> None:
        """Log nothing yet."""
        self.system = system
        self._path = folder / "offered"
        self._number = 0

    def log(self, count: int = 1) -> None:
        """Log so many records at once, each tenth an error."""
        for _ in range(count):
            self._number += 1
            level = logging.INFO if self._number % 10 else logging.ERROR
            self.system.log(level, f"{os.getpid()}.{self._number}")
        append(self._path, b"." * count)

    async def stream(self, count: int, pause: float = 0.002) -> None:
        """Log so many, a handful at a time."""
        for _ in range(count // 5):
            self.log(5)
            await asyncio.sleep(pause)


def from_environment() -> tuple[System, Source]:
    """The system and the source that the harness asks a program for."""
    folder = Path(os.environ["LOSS_FOLDER"])
    make = SYSTEMS[os.environ["LOSS_SYSTEM"]]
    system = make(int(os.environ["LOSS_PORT"]), folder, int(os.environ.get("LOSS_CAPACITY", "10000")))
    return system, Source(system, folder)
