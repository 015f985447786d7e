"""Loops that are closed without a stop, and a deadline that moves after a lane has ended."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import until
from offloop import Batching, Buffer, Counts, Pipeline, Retry, Spool, TemporaryFailure
from offloop.testing import FaultySink, MemorySink


def said(start: int, stop: int) -> list[str]:
    return [f"n {number}" for number in range(start, stop)]


def say(log: logging.Logger, start: int, stop: int) -> None:
    for number in range(start, stop):
        log.info("n %d", number)


@pytest.fixture
def forgotten() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is closed while its tasks wait."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # tasks are collected that never ended
    yield loop
    loop.close()


def sink_of(pipeline: Pipeline) -> Counts:
    return pipeline.stats().sinks["sink"]


@pytest.mark.parametrize("when", ["outage", "always"])
def test_what_an_abandoned_loop_left_is_delivered_once(
    log: logging.Logger, tmp_path: Path, forgotten: asyncio.AbstractEventLoop, when: str
) -> None:
    """Rows that were in memory too when a loop was closed without a stop are read again, and none counts as corrupt."""
    options = {"retry": Retry(0.001, 0.01), "buffer": Buffer(10), "batching": Batching(5), "name": "sink"}
    sink = FaultySink(always=TemporaryFailure("away"), spool=Spool(tmp_path, when=when), **options)  # type: ignore[arg-type]
    pipeline = Pipeline(sink, logger=log)

    async def begin() -> None:
        pipeline.start()
        say(log, 0, 50)
        await until(lambda: sink_of(pipeline).spooled + sink_of(pipeline).pending == 50 and sink.attempts)
        await until(lambda: when == "outage" or not sink_of(pipeline).pending)

    async def go_on() -> None:
        async with pipeline:
            say(log, 50, 60)
            await sink.wait_for(60)
            await until(lambda: not sink_of(pipeline).spooled)

    forgotten.run_until_complete(begin())
    forgotten.close()
    sink.heal()
    asyncio.run(go_on())
    counts = sink_of(pipeline)
    assert sink.messages == said(0, 60)
    assert (counts.offered, counts.delivered, counts.lost, counts.spooled, counts.pending) == (60, 60, 0, 0, 0)


class Stopping(MemorySink):
    """Stops the loop just before its first attempt."""

    def encode(self, record: logging.LogRecord) -> bytes:
        asyncio.get_running_loop().stop()
        return super().encode(record)


def test_attempt_that_never_began_is_no_forgotten_await(
    log: logging.Logger, forgotten: asyncio.AbstractEventLoop
) -> None:
    """A loop that is closed between an attempt and its first step leaves nothing that Python warns of."""
    pipeline = Pipeline(Stopping(), logger=log)

    async def begin() -> None:
        pipeline.start()
        log.info("x")
        await asyncio.sleep(3600)

    with pytest.raises(RuntimeError, match="stopped before"):
        forgotten.run_until_complete(begin())
    forgotten.close()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        pipeline.listener.give_up()
        gc.collect()
    assert not [warning for warning in warned if "_called" in str(warning.message)]


def test_flush_right_after_the_next_start(log: logging.Logger, forgotten: asyncio.AbstractEventLoop) -> None:
    """Where a loop was closed while a lane slept, a flush in the next loop comes before the lane's first step there."""
    sink = MemorySink(name="sink")
    pipeline = Pipeline(sink, logger=log)

    async def begin() -> None:
        pipeline.start()
        say(log, 0, 1)
        await sink.wait_for(1)
        await pipeline.flush(5)

    async def go_on() -> bool:
        pipeline.listener.start()
        report = await pipeline.flush(5)
        await pipeline.listener.stop()
        return report.complete

    forgotten.run_until_complete(begin())
    forgotten.close()
    assert asyncio.run(go_on())


async def test_what_lies_there_is_read_although_more_is_stored_before(log: logging.Logger, tmp_path: Path) -> None:
    """Rows of an earlier run are not skipped when new records are stored before they are read."""
    first = FaultySink(always=TemporaryFailure("away"), name="sink", spool=Spool(tmp_path, when="always"))
    async with Pipeline(first, logger=log, shutdown_timeout=1.0):
        say(log, 0, 14)
    sink = MemorySink(name="sink", spool=Spool(tmp_path, when="always"))
    pipeline = Pipeline(sink, logger=log)
    log.handlers = [pipeline.handler]
    say(log, 14, 24)
    async with pipeline:
        await sink.wait_for(24)
    assert sink.messages == said(0, 24)
    assert sink_of(pipeline).lost == 0


class HangsAtTheEnd(MemorySink):
    """Never closes."""

    async def aclose(self) -> None:
        await super().aclose()
        await asyncio.Event().wait()


async def test_a_deadline_that_moves_is_no_matter_for_a_lane_that_has_ended(
    log: logging.Logger, tmp_path: Path
) -> None:
    """While another sink closes, a second stop with less time ends the first, and raises nothing."""
    hung = HangsAtTheEnd(name="hung")
    pipeline = Pipeline(MemorySink(name="sink", spool=Spool(tmp_path)), hung, logger=log)
    pipeline.start()
    say(log, 0, 1)
    stopping = asyncio.ensure_future(pipeline.listener.stop(5.0))
    await until(lambda: hung.closes and sink_of(pipeline).state == "stopped")
    report = await pipeline.listener.stop(0.0)
    assert (await stopping).balanced
    assert report.sinks["sink"].delivered == 1
