"""Sinks for tests, and what tests ask them."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from helpers import logged, told
from offloop import Breaker, PartialFailure, Pipeline, Retry, TemporaryFailure
from offloop.sink import Batch
from offloop.testing import HANG, FaultySink, MemorySink, make_batch, make_record

SOON = Retry(initial=0.001, maximum=0.01)


@pytest.fixture
async def sink() -> MemorySink:
    """A sink with three records."""
    sink = MemorySink()
    records = [
        make_record("listening on %d", 80, name="app.http"),
        make_record("timed out", level=logging.WARNING, name="app.db", request="r1"),
        make_record("timed out [again]", level=logging.ERROR, name="apple", request="r2"),
    ]
    await sink.send(make_batch(sink, *records))
    return sink


@pytest.mark.parametrize(
    ("question", "messages"),
    [
        ({}, ["listening on 80", "timed out", "timed out [again]"]),
        ({"text": "out"}, ["timed out", "timed out [again]"]),
        ({"text": "[again]"}, ["timed out [again]"]),
        ({"text": re.compile(r"on \d+$")}, ["listening on 80"]),
        ({"level": "WARNING"}, ["timed out"]),
        ({"level": logging.ERROR}, ["timed out [again]"]),
        ({"logger": "app"}, ["listening on 80", "timed out"]),
        ({"request": "r1"}, ["timed out"]),
        ({"request": None}, []),
        ({"text": "timed", "level": "WARNING", "logger": "app.db", "request": "r2"}, []),
    ],
)
async def test_finds_records(sink: MemorySink, question: Any, messages: list[str]) -> None:
    """By message, pattern, level, logger and extra, all of which must be true."""
    assert [record.getMessage() for record in sink.find(**question)] == messages


async def test_asserts_what_was_logged(sink: MemorySink) -> None:
    """The record is given back for a closer look; a failure lists what there is."""
    assert sink.assert_logged("timed out", level="WARNING").__dict__["request"] == "r1"
    with pytest.raises(
        AssertionError, match=r"no record with 'lost', level='ERROR'; there are 3: \n  INFO app.http: lis"
    ):
        sink.assert_logged("lost", level="ERROR")


async def test_asserts_what_was_not_logged(sink: MemorySink) -> None:
    """A failure shows the records in question, and not all of very many."""
    sink.assert_not_logged("lost")
    with pytest.raises(AssertionError, match=r"1 record\(s\) with '', level='ERROR': \n  ERROR apple: timed out"):
        sink.assert_not_logged(level="ERROR")
    await sink.send(make_batch(sink, *map(str, range(30))))
    with pytest.raises(AssertionError, match=r"(?s)33 record.*\n  \.\.\.$"):
        sink.assert_not_logged(re.compile(""))


async def test_forgets(sink: MemorySink) -> None:
    """Between two parts of a test."""
    sink.clear()
    assert (sink.records, sink.encoded, sink.batches, sink.messages) == ([], [], [], [])
    with pytest.raises(AssertionError, match="there are none at all"):
        sink.assert_logged()


async def test_waits_for_records(log: logging.Logger) -> None:
    """Until there are so many, or one with that message."""
    sink = MemorySink()
    async with Pipeline(sink, logger=log):
        asyncio.get_running_loop().call_soon(log.info, "one")
        asyncio.get_running_loop().call_later(0.01, log.warning, "two")
        assert (await sink.wait_for_message("two", level="WARNING")).getMessage() == "two"
        assert [record.getMessage() for record in await sink.wait_for(2)] == ["one", "two"]


async def test_waits_for_a_limited_time(sink: MemorySink) -> None:
    """And says what there was instead."""
    with pytest.raises(TimeoutError, match=r"^3 of 4 records after 0.01 s$"):
        await sink.wait_for(4, timeout=0.01)
    with pytest.raises(TimeoutError, match=r"no record with 'x', request='r1' after 0.01 s; there are 3: "):
        await sink.wait_for_message("x", timeout=0.01, request="r1")


async def test_fails_as_told_and_then_takes(log: logging.Logger) -> None:
    """Steps are for one attempt each: an exception, its class, a wait, a function of the batch, async or not."""
    sizes: list[int] = []

    async def look(batch: Batch) -> None:
        sizes.append(len(batch))
        raise TemporaryFailure

    steps = (TemporaryFailure("busy"), ConnectionResetError, look, lambda batch: sizes.append(-len(batch)))
    sink = FaultySink(*steps, retry=SOON)
    async with Pipeline(sink, logger=log) as pipeline:
        log.info("x")
    assert (sink.attempts, sink.messages, sizes) == (4, ["x"], [1, -1])
    assert pipeline.stats().balanced


async def test_fails_until_healed(log: logging.Logger) -> None:
    """For ever means until told otherwise, and a script may be set in the midst of it."""
    sink = FaultySink(always=TemporaryFailure("away"), retry=SOON, breaker=Breaker(probe=0.01))
    async with Pipeline(sink, logger=log) as pipeline:
        log.info("x")
        assert not (await pipeline.flush(0.05)).complete
        sink.fail(HANG)
        sink.send_timeout = 0.01
        assert (await pipeline.flush()).complete
        sink.fail(always=TemporaryFailure("away"))
        log.info("y")
        sink.heal()
    assert sink.messages == ["x", "y"]


async def test_takes_slowly() -> None:
    """A number is how long it takes."""
    sink = FaultySink(0.01)
    begin = asyncio.get_running_loop().time()
    await sink.send(make_batch(sink, "x"))
    assert asyncio.get_running_loop().time() - begin >= 0.009
    assert sink.messages == ["x"]


async def test_takes_a_part(log: logging.Logger) -> None:
    """What a `PartialFailure` does not name is kept."""

    def first_only(batch: Batch) -> None:
        raise PartialFailure("full", retry=batch.records[1:2], rejected=batch.records[2:])

    sink = FaultySink(first_only, retry=SOON)
    async with Pipeline(sink, logger=log) as pipeline:
        for message in "abc":
            log.info(message)
    assert logged(sink.records) == ["a", "b"]
    assert pipeline.stats().sinks["FaultySink"].dropped == {"rejected": {"INFO": 1}}


async def test_chokes_on_poison(log: logging.Logger) -> None:
    """A batch with such a record fails as a whole, and the lane finds it."""
    sink = FaultySink(poison=lambda record: record.getMessage() == "bad", retry=SOON)
    async with Pipeline(sink, logger=log):
        for message in ("a", "bad", "c"):
            log.info(message)
    assert logged(sink.records) == ["a", "c"]
    assert told(sink.records) == {"rejected": {"INFO": 1}}


def test_hang_is_shown_by_name() -> None:
    """As it is written in a script."""
    assert repr(HANG) == "HANG"


def test_made_record_is_as_a_sink_gets_it() -> None:
    """Captured, with extra, and with its traceback as text."""
    try:
        raise KeyError("k")
    except KeyError as error:
        record = make_record("failed for %s", "x", level=logging.ERROR, exc_info=error, request="r1")
    assert (record.getMessage(), record.__dict__["request"], record.exc_info) == ("failed for x", "r1", None)
    assert record.exc_text is not None
    assert record.exc_text.endswith("KeyError: 'k'")
