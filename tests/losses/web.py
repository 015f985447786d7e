"""A web application under test: it logs while it is loaded, as it starts, and for each request."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

warnings.simplefilter("ignore")

from fastapi import FastAPI  # noqa: E402 - a peer's deprecations are not what is tested

from losses.systems import Offloop, from_environment  # noqa: E402

system, source = from_environment()
system.set_up()
source.log(20)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What `FastAPI(lifespan=pipeline)` does, and a word at the end; for others the nearest there is."""
    if isinstance(system, Offloop):
        async with system.pipeline(app):
            source.log(20)
            yield
    else:
        system.begin()
        source.log(20)
        yield
        await system.end()
    system.tell()


app = FastAPI(lifespan=lifespan)


@app.get("/{count}")
async def log(count: int) -> None:
    """Log so many records."""
    await source.stream(count)
