"""structlog through the standard logging, its `ProcessorFormatter` in a sink."""

from __future__ import annotations

import json
import logging
from typing import Any

import structlog
from structlog.stdlib import ProcessorFormatter

from offloop import Pipeline
from offloop.testing import MemorySink

SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso"),
]


def wrapped(log: logging.Logger) -> Any:
    """Wrap a standard logger as structlog's documentation says, without a configuration for all."""
    return structlog.wrap_logger(
        log,
        processors=[*SHARED, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def rendering(renderer: Any) -> ProcessorFormatter:
    """Make a formatter for structlog's events and for those of others."""
    return ProcessorFormatter(
        foreign_pre_chain=SHARED, processors=[ProcessorFormatter.remove_processors_meta, renderer]
    )


async def test_events_are_rendered_in_the_sink(log: logging.Logger) -> None:
    """The event dictionary reaches the formatter as a dictionary, as it was when it was logged."""
    sink = MemorySink(formatter=rendering(structlog.processors.JSONRenderer(sort_keys=True)))
    basket = ["apple"]
    async with Pipeline(sink, logger=log):
        wrapped(log).bind(user=7).warning("checked out", basket=basket, total=1.5)
        basket.append("pear")
    (event,) = map(json.loads, sink.encoded)
    assert event.pop("timestamp")
    assert event == {
        "basket": ["apple"],
        "event": "checked out",
        "level": "warning",
        "logger": log.name,
        "total": 1.5,
        "user": 7,
    }


async def test_others_records_are_rendered_too(log: logging.Logger) -> None:
    """A record of the standard logging goes through the foreign chain."""
    sink = MemorySink(formatter=rendering(structlog.dev.ConsoleRenderer(colors=False)))
    async with Pipeline(sink, logger=log):
        log.info("plain %s", "record")
    (line,) = sink.encoded
    assert b"[info     ] plain record" in line
    assert log.name.encode() in line


async def test_exceptions_arrive_with_their_traceback(log: logging.Logger) -> None:
    """`exception` renders in the caller with `format_exc_info` among the processors."""
    sink = MemorySink(formatter=rendering(structlog.processors.JSONRenderer()))
    logger = structlog.wrap_logger(
        log,
        processors=[*SHARED, structlog.processors.format_exc_info, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    async with Pipeline(sink, logger=log):
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logger.exception("failed")
    (event,) = map(json.loads, sink.encoded)
    assert event["event"] == "failed"
    assert event["exception"].endswith("ZeroDivisionError: division by zero")
