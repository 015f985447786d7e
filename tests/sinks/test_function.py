"""Callables as sinks."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from typing import Any

import pytest

from offloop import Pipeline, Retry, TemporaryFailure
from offloop.sinks import FunctionSink


async def logged(log: logging.Logger, sink: Any) -> Pipeline:
    """Two records through a pipeline to the sink."""
    pipeline = Pipeline(sink, logger=log)
    async with pipeline:
        log.info("one")
        log.info("two")
    return pipeline


async def test_async_function_is_awaited_on_the_loop(log: logging.Logger) -> None:
    """It gets a list of records, oldest first."""
    seen: list[str] = []

    async def sink(records: list[logging.LogRecord]) -> None:
        assert asyncio.get_running_loop()
        seen.extend(record.getMessage() for record in records)

    pipeline = await logged(log, sink)
    assert seen == ["one", "two"]
    assert pipeline.stats().sinks["sink"].delivered == 2


async def test_sync_function_runs_in_a_thread_of_its_own(log: logging.Logger) -> None:
    """It may block; the loop does not."""
    threads: list[str] = []
    await logged(log, lambda records: threads.extend([threading.current_thread().name] * len(records)))
    assert threads == ["offloop-<lambda>"] * 2


class AsyncCallable:
    """An object with an async `__call__`."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, records: list[logging.LogRecord]) -> None:
        self.seen += [record.getMessage() for record in records]


@pytest.mark.parametrize("wrap", [lambda sink: sink, partial, lambda sink: lambda records: sink(records)])
async def test_whatever_is_awaitable_is_awaited(log: logging.Logger, wrap: Any) -> None:
    """Objects, partials, and functions that give a coroutine."""
    sink = AsyncCallable()
    await logged(log, wrap(sink))
    assert sink.seen == ["one", "two"]


async def test_failure_means_what_it_means_for_a_sink(log: logging.Logger) -> None:
    """A temporary one is tried again."""
    attempts: list[int] = []

    def sink(records: list[logging.LogRecord]) -> None:
        attempts.append(len(records))
        if len(attempts) == 1:
            raise TemporaryFailure("not yet")

    pipeline = await logged(log, FunctionSink(sink, retry=Retry(initial=0.001)))
    assert attempts == [2, 2]
    assert pipeline.stats().sinks["sink"].delivered == 2
