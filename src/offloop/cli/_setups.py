"""The ways to log that the demo compares: on the logger, the standard queue pair, offloop; and not at all."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import queue
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import fields
from typing import Any

from offloop.cli._plan import Plan
from offloop.cli._servers import HOST
from offloop.ledger import Counts
from offloop.pipeline import Pipeline
from offloop.sinks.smtp import SMTPSink
from offloop.sinks.tcp import TCPSink

__all__ = ["SETUPS", "Setup"]

_SENDER = "demo@example.org"
_TO = "operators@example.org"

Said = dict[str, Any]
Setup = Callable[[logging.Logger, Plan], AbstractAsyncContextManager[Said]]
"""Attaches to the logger; leaving it delivers what waits. Yields a dict that then holds what the library says of it."""


@asynccontextmanager
async def _idle(logger: logging.Logger, _plan: Plan) -> AsyncIterator[Said]:
    """No record is made: what the workload costs by itself."""
    logger.setLevel(logging.CRITICAL + 1)
    yield {}


def _standard_handlers(plan: Plan) -> list[logging.Handler]:
    collector = logging.handlers.SocketHandler(HOST, plan.collector_port)
    mail = logging.handlers.SMTPHandler((HOST, plan.mail_port), _SENDER, [_TO], "An error in the demo")
    mail.setLevel(logging.ERROR)
    return [collector, mail]


@asynccontextmanager
async def _standard(logger: logging.Logger, plan: Plan) -> AsyncIterator[Said]:
    """The standard library's handlers on the logger: each delivers before the logging call returns."""
    handlers = _standard_handlers(plan)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield {}
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


@asynccontextmanager
async def _queue(logger: logging.Logger, plan: Plan) -> AsyncIterator[Said]:
    """The standard library's pair: the same handlers, in the listener's thread."""
    records: queue.Queue[logging.LogRecord] = queue.Queue(-1)
    handlers = _standard_handlers(plan)
    front = logging.handlers.QueueHandler(records)
    listener = logging.handlers.QueueListener(records, *handlers, respect_handler_level=True)
    logger.addHandler(front)
    listener.start()
    said: Said = {}
    try:
        yield said
    finally:
        logger.removeHandler(front)
        # It waits until the thread has emptied the queue, however long that takes.
        await asyncio.to_thread(listener.stop)
        for handler in handlers:
            handler.close()
        said["waiting"] = records.qsize()


@asynccontextmanager
async def _offloop(logger: logging.Logger, plan: Plan) -> AsyncIterator[Said]:
    """offloop: the queue is the loop's own, and the sinks are awaited."""
    pipeline = Pipeline(
        TCPSink(HOST, plan.collector_port, level="DEBUG", name="collector"),
        SMTPSink(HOST, plan.mail_port, sender=_SENDER, to=_TO, tls="off", level="ERROR", name="mail", digest=None),
        logger=logger.name,
        shutdown_timeout=plan.shutdown_timeout,
    )
    said: Said = {}
    async with pipeline:
        yield said
    stats = pipeline.stats()
    said["intake"] = _plain(stats.intake)
    said["sinks"] = {name: _plain(counts) for name, counts in stats.sinks.items()}


def _plain(counts: Counts) -> dict[str, Any]:
    """The counts as JSON takes them."""
    plain = {each.name: getattr(counts, each.name) for each in fields(counts)}
    return plain | {"dropped": {reason: dict(levels) for reason, levels in counts.dropped.items()}}


SETUPS: dict[str, Setup] = {"idle": _idle, "standard": _standard, "queue": _queue, "offloop": _offloop}
