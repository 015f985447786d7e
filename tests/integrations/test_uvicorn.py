"""uvicorn's ways with logging: it configures it when the application's pipeline exists already."""

from __future__ import annotations

import asyncio
import logging
import logging.config
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest
import uvicorn
from aiohttp import ClientSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.config import LOGGING_CONFIG
from uvicorn.logging import AccessFormatter

from helpers import until
from offloop import Pipeline
from offloop.testing import MemorySink

NAMES = ("uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi")


@pytest.fixture(autouse=True)
def loggers_as_found() -> Iterator[None]:
    """Leaves uvicorn's loggers as they were."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@asynccontextmanager
async def serving(lifespan: Any, log: logging.Logger) -> AsyncIterator[str]:
    """Serve an application that logs, in this loop, with uvicorn's own logging configuration."""

    async def index(_request: Request) -> Response:
        log.info("request")
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", index)], lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(app, port=0))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        await task


async def get(url: str) -> int:
    async with ClientSession() as session, session.get(url) as response:
        return response.status


async def test_lifespan_under_uvicorn(log: logging.Logger) -> None:
    """uvicorn applies its configuration between the making of a pipeline and its entry, and nothing is amiss."""
    sink = MemorySink()
    pipeline = Pipeline(sink, logger=log)
    async with serving(pipeline, log) as url:
        assert await get(url) == 200
        await sink.wait_for(1)
    assert sink.messages == ["request"]
    assert log.handlers == []


@pytest.mark.parametrize("name", [None, "test.shop"])
async def test_configuration_applied_to_a_running_pipeline(name: str | None) -> None:
    """It closes every handler there is: the one of a logger it does not name goes on, and loses nothing that waited."""
    sink = MemorySink()
    async with Pipeline(sink, logger=name) as pipeline:
        logger = logging.getLogger(name)
        logger.error("before")
        logging.config.dictConfig(deepcopy(LOGGING_CONFIG))
        assert pipeline.handler in logger.handlers
        logger.error("after")
    assert [message for message in sink.messages if message in {"before", "after"}] == ["before", "after"]
    assert pipeline.handler not in logger.handlers


async def test_access_log_is_delivered_with_its_arguments(log: logging.Logger) -> None:
    """uvicorn's formatter, which reads a record's five arguments, works in a sink."""
    sink = MemorySink(formatter=AccessFormatter("%(client_addr)s %(request_line)s %(status_code)s", use_colors=False))
    async with serving(Pipeline(sink, logger="uvicorn.access"), log) as url:
        assert await get(url + "?q=1") == 200
        await sink.wait_for(1)
    (line,) = sink.encoded
    assert line.startswith(b"127.0.0.1:")
    assert line.endswith(b" GET /?q=1 HTTP/1.1 200 OK")
    assert sink.records[0].args[1:] == ("GET", "/?q=1", "1.1", 200)  # type: ignore[index]
