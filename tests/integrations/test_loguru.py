"""loguru: `logger.add(pipeline.handler)`."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import loguru
import pytest
from loguru import logger

from offloop import Pipeline
from offloop.testing import MemorySink


def only_message(_record: loguru.Record) -> str:
    """Format as loguru is told to leave tracebacks to others."""
    return "{message}"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def pipeline(sink: MemorySink, log: logging.Logger) -> Iterator[Pipeline]:
    """A pipeline whose handler loguru has, and no logger of the standard library needs."""
    pipeline = Pipeline(sink, logger=log)
    number = logger.add(pipeline.handler, format=only_message)
    yield pipeline
    logger.remove(number)


async def test_records_are_delivered(pipeline: Pipeline, sink: MemorySink) -> None:
    """Message, level, place and bound values arrive."""
    async with pipeline:
        logger.bind(user=7).warning("hello {}", "world")
    (record,) = map(json.loads, sink.encoded)
    assert (record["message"], record["level"], record["extra"]) == ("hello world", "WARNING", {"user": 7})
    assert (record["logger"], record["function"]) == (__name__, "test_records_are_delivered")


async def test_levels_of_its_own(pipeline: Pipeline, sink: MemorySink) -> None:
    """SUCCESS and TRACE keep names and numbers, and a sink's level compares with them."""
    sink.setLevel(logging.INFO)
    async with pipeline:
        logger.success("done")
        logger.trace("deep")
    assert [(record.levelname, record.levelno) for record in sink.records] == [("SUCCESS", 25)]


async def test_exceptions_are_frozen(pipeline: Pipeline, sink: MemorySink) -> None:
    """With a format of the message alone the traceback arrives beside it, once."""
    async with pipeline:
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logger.exception("failed")
    (record,) = map(json.loads, sink.encoded)
    assert record["message"] == "failed"
    assert record["exception"]["type"] == "ZeroDivisionError"
    assert record["exception"]["stacktrace"].count("Traceback") == 1


async def test_threads(pipeline: Pipeline, sink: MemorySink) -> None:
    """What other threads log arrives too."""

    def work() -> None:
        for number in range(100):
            logger.info("{}", number)

    async with pipeline:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        await sink.wait_for(400)
    assert sorted(map(int, sink.messages)) == sorted([*range(100)] * 4)


async def test_handler_that_loguru_removed_can_be_added_again(
    pipeline: Pipeline, sink: MemorySink, log: logging.Logger
) -> None:
    """`remove` closes the handler, which is reversible: it goes on for others, and for loguru again."""
    async with pipeline:
        logger.remove(logger.add(pipeline.handler, format=only_message))
        log.info("standard")
        logger.info("loguru")
    assert sink.messages == ["standard", "loguru"]
