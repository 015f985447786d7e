"""Who is compared: each attaches to a logger of its own and delivers JSON over TCP, or keeps what is logged waiting.

All write the same fields. Each has room for all records of a run, so that nobody loses any for want of it, but where
`Setup.room` is 0: there everybody has what he has unless told otherwise.
"""

from __future__ import annotations

import inspect
import json
import logging
import logging.handlers
import os
import queue
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.collector import HOST
from offloop import Buffer, Pipeline, QueueHandler, TCPSink
from offloop.sinks import Destination
from offloop.testing import MemorySink

MESSAGE = "order %d placed by %s"
Call = Callable[[], object]
Log = Callable[[int], object]


@dataclass(frozen=True)
class Setup:
    """What a contender is to do.

    Attributes:
        port: Of the collector; 0: nothing is delivered, and nobody takes what waits until `settle`.
        room: Records that may wait; 0: as many as by default.
        sinks: How many destinations each record goes to.
        handlers: Over how many loggers with a handler of their own the records are spread.
    """

    port: int = 0
    room: int = 0
    sinks: int = 1
    handlers: int = 1


@dataclass
class Attached:
    """A contender that is ready.

    Attributes:
        log: Logs one ordinary record with this number.
        calls: Log calls by case.
        set_level: Changes the logger's level.
        awaited: What a call gives is to be awaited.
        settle: Waits until nothing waits, or clears it away.
        factory: What makes standard records while this one is measured.
    """

    log: Log
    calls: Mapping[str, Call] = field(default_factory=dict[str, Call])
    set_level: Callable[[int], object] = lambda _level: None
    awaited: bool = False
    settle: Callable[[], Any] = lambda: None
    factory: Callable[..., logging.LogRecord] = logging.LogRecord


Attach = Callable[[Setup], AbstractAsyncContextManager[Attached]]


@dataclass(frozen=True)
class Contender:
    """A row.

    Attributes:
        name: In the results.
        title: On the page.
        attach: Makes it ready.
        package: The distribution it needs, if it is not the standard library.
    """

    name: str
    title: str
    attach: Attach
    package: str = ""

    @property
    def missing(self) -> str:
        """Why it can't be measured here, empty if it can."""
        if self.name == "fast" and "fast_records" not in inspect.signature(Pipeline).parameters:
            return "this offloop has no fast_records"
        if self.package:
            try:
                version(self.package)
            except PackageNotFoundError:
                return f"{self.package} is not installed, or has no build for this interpreter"
        return ""


def as_json(record: Any) -> bytes:
    """A line with the fields that offloop's `JSONFormatter` writes, by the standard library."""
    fields = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        "file": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
        "process": record.process,
        "thread": record.threadName,
    }
    if record.exc_text:
        fields["exception"] = record.exc_text
    return json.dumps(fields).encode() + b"\n"


class JSONSocketHandler(logging.handlers.SocketHandler):
    """The standard handler for TCP, with JSON where it has a pickle."""

    def makePickle(self, record: logging.LogRecord) -> bytes:  # noqa: N802 - the standard library's name
        """What goes over the wire."""
        return as_json(record)


def logger_of(name: str, *handlers: logging.Handler) -> logging.Logger:
    """A logger that tells these handlers alone."""
    logger = logging.getLogger(f"bench.{name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers = list(handlers)
    return logger


def calls_of(logger: Any) -> dict[str, Call]:
    """The cases, for everything that has the standard API."""

    def failing() -> object:
        try:
            return int("x")
        except ValueError:
            return logger.exception("failed")

    info = logger.info
    return {
        "below": lambda: logger.debug("order placed"),
        "plain": lambda: info("order placed"),
        "arguments": lambda: info(MESSAGE, 4711, "Ann"),
        "list": lambda: info("order of %s placed", ["tea", "cups"]),
        "extra": lambda: info("order placed", extra={"order": 4711, "customer": "Ann"}),
        "exception": failing,
    }


def standard_api(*loggers: logging.Logger, settle: Callable[[], Any] = lambda: None) -> Attached:
    """What has handlers on standard loggers; with several of these, one after the other gets a record."""
    logger = loggers[0]

    def spread(number: int) -> None:
        loggers[number % len(loggers)].info(MESSAGE, number, "Ann")

    def log(number: int) -> None:
        logger.info(MESSAGE, number, "Ann")

    return Attached(spread if len(loggers) > 1 else log, calls_of(logger), logger.setLevel, settle=settle)


@asynccontextmanager
async def noop(setup: Setup) -> AsyncIterator[Attached]:
    """What the standard library's call costs by itself."""
    yield standard_api(*(logger_of(f"noop{n}", logging.NullHandler()) for n in range(setup.handlers)))


@asynccontextmanager
async def handler(setup: Setup) -> AsyncIterator[Attached]:
    """The standard handler on the logger: each call waits for the socket."""
    yield standard_api(logger_of("handler", *_sockets(setup)))


@asynccontextmanager
async def pair(setup: Setup) -> AsyncIterator[Attached]:
    """The standard queue pair, without a bound, as its documentation shows it."""
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loggers = [logger_of(f"pair{n}", logging.handlers.QueueHandler(records)) for n in range(setup.handlers)]
    if setup.port:
        logging.handlers.QueueListener(records, *_sockets(setup)).start()
    yield standard_api(*loggers, settle=lambda: emptied(records))


@asynccontextmanager
async def offloop(setup: Setup, **options: Any) -> AsyncIterator[Attached]:
    """One pipeline."""
    room: dict[str, Any] = {"queue_size": setup.room} if setup.room else {}
    logger = logger_of("offloop")
    async with Pipeline(*_sinks(setup), logger=logger, shutdown_timeout=30.0, **room, **options) as pipeline:
        loggers = [logger, *_further(pipeline, setup.handlers - 1)]
        yield standard_api(*loggers, settle=pipeline.flush)


@asynccontextmanager
async def fast(setup: Setup) -> AsyncIterator[Attached]:
    """The same with its own `LogRecord`."""
    async with offloop(setup, fast_records=True) as attached:
        yield attached


def emptied(records: queue.SimpleQueue[Any]) -> None:
    """Nobody listens to this queue: take all away."""
    while not records.empty():
        records.get()


def _sockets(setup: Setup) -> list[JSONSocketHandler]:
    return [JSONSocketHandler(HOST, setup.port) for _ in range(setup.sinks)]


def _sinks(setup: Setup) -> list[Destination]:
    given: dict[str, Any] = {"level": "INFO"}
    if setup.room:
        given["buffer"] = Buffer(max_records=setup.room, max_bytes=4_000 * setup.room)
    if not setup.port:
        return [_Nowhere(**given)]
    return [TCPSink(HOST, setup.port, name=f"tcp{n}", **given) for n in range(setup.sinks)]


class _Nowhere(MemorySink):
    """Keeps nothing."""

    async def send(self, batch: Any) -> None:
        """Forget it."""


def _further(pipeline: Pipeline, count: int) -> list[logging.Logger]:
    """Loggers with handlers of their own, on the same queue."""
    shared = pipeline.handler.queue
    return [logger_of(f"offloop{n}", QueueHandler(shared)) for n in range(count)]


OWN = (Contender("offloop", "offloop", offloop), Contender("fast", "offloop, `fast_records`", fast))
NOOP = Contender("noop", "no-op handler", noop)
STANDARD = (Contender("handler", "standard handler", handler), Contender("pair", "standard queue pair", pair))


def contenders() -> dict[str, Contender]:
    """All, by name, the base first."""
    from benchmarks.peers import PEERS

    return {each.name: each for each in (NOOP, *OWN, *STANDARD, *PEERS)}


def present(names: list[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Who can be measured here, and why the others can't.

    Args:
        names: Out of these; None: of all. Where the tests set OFFLOOP_BENCH_ALONE it is offloop, and what it is
            compared with by definition.
    """
    everyone = contenders()
    if os.environ.get("OFFLOOP_BENCH_ALONE"):
        names = [name for name in names or everyone if name in ("idle", "noop", "offloop")]
    wanted = names or list(everyone)
    missing = {name: everyone[name].missing for name in wanted if name in everyone and everyone[name].missing}
    return [name for name in wanted if name not in missing], missing
