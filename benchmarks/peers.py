"""The packages of others, each set up as its documentation says, with an output that writes the same JSON over TCP.

They are imported where they are attached: not all of them install everywhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import queue
import socket
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from benchmarks.collector import HOST
from benchmarks.contenders import (
    MESSAGE,
    Attached,
    Contender,
    JSONSocketHandler,
    Setup,
    as_json,
    calls_of,
    emptied,
    logger_of,
    standard_api,
)


class Wire:
    """A connection that is made when it is needed; without a port it forgets what it is given."""

    def __init__(self, port: int) -> None:
        """Connect to nothing yet."""
        self._port = port
        self._socket: socket.socket | None = None

    def send(self, data: bytes) -> None:
        """All of it."""
        if not self._port:
            return
        if self._socket is None:
            self._socket = socket.create_connection((HOST, self._port))
        self._socket.sendall(data)


@asynccontextmanager
async def structlog(setup: Setup) -> AsyncIterator[Attached]:
    """structlog with its JSON renderer, in front of the standard queue pair."""
    package: Any = import_module("structlog")
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger = logger_of("structlog", logging.handlers.QueueHandler(records))
    if setup.port:
        logging.handlers.QueueListener(records, _Lines(HOST, setup.port)).start()
    places = package.processors.CallsiteParameter
    place = [places.PATHNAME, places.LINENO, places.FUNC_NAME, places.PROCESS, places.THREAD_NAME]
    bound = package.wrap_logger(
        logger,
        wrapper_class=package.stdlib.BoundLogger,
        processors=[
            package.stdlib.filter_by_level,
            package.stdlib.add_logger_name,
            package.stdlib.add_log_level,
            package.stdlib.PositionalArgumentsFormatter(),
            package.processors.TimeStamper(fmt="iso"),
            package.processors.CallsiteParameterAdder(place),
            package.processors.format_exc_info,
            package.processors.JSONRenderer(),
        ],
        cache_logger_on_first_use=True,
    ).bind()
    calls = calls_of(bound) | {"extra": lambda: bound.info("order placed", order=4711, customer="Ann")}
    yield Attached(
        lambda number: bound.info(MESSAGE, number, "Ann"), calls, logger.setLevel, settle=lambda: emptied(records)
    )


class _Lines(JSONSocketHandler):
    def makePickle(self, record: logging.LogRecord) -> bytes:  # noqa: N802 - the standard library's name
        """The record's message is the line."""
        return record.getMessage().encode() + b"\n"


@asynccontextmanager
async def loguru(setup: Setup) -> AsyncIterator[Attached]:
    """Loguru with `enqueue=True`."""
    logger: Any = import_module("loguru").logger
    wire = Wire(setup.port)

    def sink(message: Any) -> None:
        record = message.record
        fields = {
            "time": record["time"].isoformat(),
            "level": record["level"].name,
            "logger": record["name"],
            "message": record["message"],
            "file": record["file"].path,
            "line": record["line"],
            "function": record["function"],
            "process": record["process"].id,
            "thread": record["thread"].name,
        }
        wire.send(json.dumps(fields).encode() + b"\n")

    info = logger.info
    logger.remove()
    logger.add(sink, level="INFO", format="{message}", enqueue=True)
    calls = calls_of(logger) | {
        "arguments": lambda: info("order {} placed by {}", 4711, "Ann"),
        "list": lambda: info("order of {} placed", ["tea", "cups"]),
        "extra": lambda: info("order placed", order=4711, customer="Ann"),
    }
    yield Attached(lambda number: info("order {} placed by {}", number, "Ann"), calls, settle=logger.complete)


@asynccontextmanager
async def logstash(setup: Setup) -> AsyncIterator[Attached]:
    """python-logstash-async with its cache in memory, which it looks at ten times a second."""
    constants: Any = import_module("logstash_async.constants").constants
    constants.QUEUE_CHECK_INTERVAL = constants.QUEUED_EVENTS_FLUSH_INTERVAL = 0.1 if setup.port else 0.01
    make: Any = import_module("logstash_async.handler").AsynchronousLogstashHandler
    formatter, forgetful = _AsText(), _Forgetful()
    handler = make(HOST, setup.port, None, **({} if setup.port else {"transport": forgetful}))
    handler.setFormatter(formatter)

    async def settle() -> None:
        while forgetful.events < formatter.records:  # noqa: ASYNC110 - its thread tells nobody
            await asyncio.sleep(0.001)

    yield standard_api(logger_of("logstash", handler), settle=settle)


class _AsText(logging.Formatter):
    """Counts, too."""

    records = 0

    def format(self, record: logging.LogRecord) -> str:
        self.records += 1
        return as_json(record)[:-1].decode()


class _Forgetful:
    """Where events go that nobody wants."""

    events = 0

    def send(self, events: Sequence[Any], **_options: Any) -> None:
        self.events += len(events)

    def close(self) -> None: ...


@asynccontextmanager
async def opentelemetry(setup: Setup) -> AsyncIterator[Attached]:
    """OpenTelemetry's handler and batch processor, with an exporter that writes JSON."""
    logs: Any = import_module("opentelemetry.sdk._logs")
    export: Any = import_module("opentelemetry.sdk._logs.export")
    wire = Wire(setup.port)

    class Exporter(export.LogRecordExporter):  # type: ignore[misc]
        def export(self, batch: Sequence[Any]) -> Any:
            wire.send(b"".join(map(_otel_line, batch)))
            return export.LogRecordExportResult.SUCCESS

        def shutdown(self) -> None: ...

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

    provider = logs.LoggerProvider()
    room = {"max_queue_size": max(2_048, setup.room)} if setup.room else {}
    provider.add_log_record_processor(export.BatchLogRecordProcessor(Exporter(), schedule_delay_millis=100, **room))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has moved to a package of its own
        handler = logs.LoggingHandler(logger_provider=provider)
    yield standard_api(logger_of("opentelemetry", handler), settle=provider.force_flush)


def _otel_line(read: Any) -> bytes:
    record = read.log_record
    fields = {"time": record.timestamp, "level": record.severity_text, "message": record.body, **record.attributes}
    return json.dumps(fields).encode() + b"\n"


@asynccontextmanager
async def aiologging(setup: Setup) -> AsyncIterator[Attached]:
    """Calls of aiologging are coroutines; its handler writes to an asyncio stream."""
    package: Any = import_module("aiologging")
    stream = (await asyncio.open_connection(HOST, setup.port))[1] if setup.port else None

    class Handler(package.AsyncHandler):  # type: ignore[misc]
        async def _emit(self, record: logging.LogRecord, formatted_message: str) -> None:
            if stream is not None:
                stream.write(formatted_message.encode() + b"\n")
                await stream.drain()

    handler = Handler(level=logging.INFO)
    handler.setFormatter(_AsText())
    package.basicConfig(level=logging.INFO, handlers=[handler], force=True, queue_size=setup.room or None)
    logger = package.getLogger("bench.aiologging")
    logger.setLevel(logging.INFO)
    yield Attached(
        lambda number: logger.info(MESSAGE, number, "Ann"),
        calls_of(logger),
        logger.setLevel,
        awaited=True,
        settle=package.flush,
    )


@asynccontextmanager
async def picologging(setup: Setup) -> AsyncIterator[Attached]:
    """The queue pair of picologging, whose records are made in C."""
    package: Any = import_module("picologging")
    handlers: Any = import_module("picologging.handlers")
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wire = Wire(setup.port)

    class Handler(package.Handler):  # type: ignore[misc]
        def emit(self, record: Any) -> None:
            wire.send(as_json(record))

    logger = package.getLogger("bench.picologging")
    logger.setLevel(logging.INFO)
    logger.addHandler(handlers.QueueHandler(records))
    if setup.port:
        handlers.QueueListener(records, Handler()).start()
    yield Attached(
        lambda number: logger.info(MESSAGE, number, "Ann"),
        calls_of(logger),
        logger.setLevel,
        settle=lambda: emptied(records),
    )


PEERS = (
    Contender("structlog", "structlog, standard pair", structlog, "structlog"),
    Contender("loguru", "loguru, `enqueue=True`", loguru, "loguru"),
    Contender("logstash", "python-logstash-async", logstash, "python-logstash-async"),
    Contender("opentelemetry", "OpenTelemetry, batch processor", opentelemetry, "opentelemetry-sdk"),
    Contender("aiologging", "aiologging", aiologging, "aiologging"),
    Contender("picologging", "picologging, queue pair", picologging, "picologging"),
)
