"""One pipeline, unchanged, as the lifespan of each host."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient as AiohttpClient
from aiohttp.test_utils import TestServer as AiohttpServer
from fastapi import APIRouter, FastAPI, Request
from litestar import Litestar
from litestar import get as litestar_get
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient as StarletteClient

from offloop import Pipeline, QueueHandler
from offloop.testing import MemorySink

Client = StarletteClient | LitestarClient[Litestar]
Host = Callable[[Any, logging.Logger], Client]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def pipeline(sink: MemorySink, log: logging.Logger) -> Pipeline:
    return Pipeline(sink, logger=log)


def fastapi(lifespan: Any, log: logging.Logger) -> Client:
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def index(request: Request) -> dict[str, Any]:
        log.info("request")
        return request.state._state

    return StarletteClient(app)


def api_router(lifespan: Any, log: logging.Logger) -> Client:
    router = APIRouter(lifespan=lifespan)

    @router.get("/")
    async def index(request: Request) -> dict[str, Any]:
        log.info("request")
        return request.state._state

    app = FastAPI()
    app.include_router(router)
    return StarletteClient(app)


def starlette(lifespan: Any, log: logging.Logger) -> Client:
    async def index(request: StarletteRequest) -> Response:
        log.info("request")
        return JSONResponse(request.state._state)

    return StarletteClient(Starlette(routes=[Route("/", index)], lifespan=lifespan))


def litestar(lifespan: Any, log: logging.Logger) -> Client:
    @litestar_get("/", sync_to_thread=False)
    def index() -> dict[str, Any]:
        log.info("request")
        return {}

    return LitestarClient(Litestar([index], lifespan=[lifespan], logging_config=None))


HOSTS = [fastapi, api_router, starlette, litestar]


@pytest.mark.parametrize("host", HOSTS)
def test_pipeline_is_a_lifespan(host: Host, pipeline: Pipeline, sink: MemorySink, log: logging.Logger) -> None:
    """It is entered before the first request, gives the application no state, and is left with everything delivered."""
    with host(pipeline, log) as client:
        assert [type(handler) for handler in log.handlers] == [QueueHandler]
        answer = client.get("/")
    assert (answer.status_code, answer.json()) == (200, {})
    assert sink.messages == ["request"]
    assert log.handlers == []
    assert not pipeline.listener.running


@pytest.mark.parametrize("host", HOSTS)
def test_application_starts_again(host: Host, pipeline: Pipeline, sink: MemorySink, log: logging.Logger) -> None:
    """The same application, started twice, each time in an event loop of its own, enters the same pipeline."""
    client = host(pipeline, log)
    for _ in range(2):
        with client:
            assert client.get("/").status_code == 200
    assert sink.messages == ["request", "request"]
    assert sink.closes == 2


@pytest.mark.parametrize("host", HOSTS)
def test_pipeline_within_the_applications_own_lifespan(
    host: Host, pipeline: Pipeline, sink: MemorySink, log: logging.Logger
) -> None:
    """Composed with `async with`, what the application logs when it starts and ends is delivered too."""

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        async with pipeline:
            log.info("opening the database")
            yield
            log.info("closing the database")

    with host(lifespan, log) as client:
        assert client.get("/").status_code == 200
    assert sink.messages == ["opening the database", "request", "closing the database"]


@pytest.mark.parametrize("host", [fastapi, api_router, starlette])
def test_state_of_the_applications_own_lifespan_is_kept(host: Host, pipeline: Pipeline, log: logging.Logger) -> None:
    """What a lifespan yields reaches the requests, with a pipeline in it."""

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[dict[str, str]]:
        async with pipeline:
            yield {"database": "open"}

    with host(lifespan, log) as client:
        assert client.get("/").json() == {"database": "open"}


def test_application_and_router_may_share_a_pipeline(pipeline: Pipeline, sink: MemorySink, log: logging.Logger) -> None:
    """FastAPI enters the router's lifespan within the application's: the second entry is counted, not made."""
    router = APIRouter(lifespan=pipeline)

    @router.get("/")
    async def index() -> None:
        log.info("request")

    app = FastAPI(lifespan=pipeline)
    app.include_router(router)
    with StarletteClient(app) as client:
        assert client.get("/").status_code == 200
        assert client.app_state == {}
    assert sink.messages == ["request"]
    assert (sink.closes, log.handlers) == (1, [])


def aiohttp_app(log: logging.Logger) -> web.Application:
    async def index(_request: web.Request) -> web.Response:
        log.info("request")
        return web.Response()

    app = web.Application()
    app.router.add_get("/", index)
    return app


async def test_pipeline_is_a_cleanup_context_of_aiohttp(
    pipeline: Pipeline, sink: MemorySink, log: logging.Logger
) -> None:
    """Appended to `cleanup_ctx` of one application after another, it is entered and left with each."""
    for _ in range(2):
        app = aiohttp_app(log)
        app.cleanup_ctx.append(pipeline)
        async with AiohttpClient(AiohttpServer(app)) as client:
            assert [type(handler) for handler in log.handlers] == [QueueHandler]
            assert (await client.get("/")).status == 200
        assert log.handlers == []
    assert sink.messages == ["request", "request"]
    assert sink.closes == 2


async def test_pipeline_within_a_cleanup_context_of_aiohttp(
    pipeline: Pipeline, sink: MemorySink, log: logging.Logger
) -> None:
    """Composed with `async with` it goes with an application's own context, and with one more of its own."""

    async def database(_app: web.Application) -> AsyncIterator[None]:
        async with pipeline:
            log.info("opening the database")
            yield
            log.info("closing the database")

    app = aiohttp_app(log)
    app.cleanup_ctx.extend([database, pipeline])
    async with AiohttpClient(AiohttpServer(app)) as client:
        assert (await client.get("/")).status == 200
    assert sink.messages == ["opening the database", "request", "closing the database"]


async def test_start_of_the_application_that_fails_leaves_the_pipeline(
    pipeline: Pipeline, sink: MemorySink, log: logging.Logger
) -> None:
    """What was logged before another part of the application refused to start is delivered."""

    async def database(_app: web.Application) -> AsyncIterator[None]:
        log.error("no database")
        raise OSError("refused")
        yield

    app = aiohttp_app(log)
    app.cleanup_ctx.extend([pipeline, database])
    runner = web.AppRunner(app)
    with pytest.raises(OSError, match="refused"):
        await runner.setup()
    await runner.cleanup()
    assert sink.messages == ["no database"]
    assert log.handlers == []
