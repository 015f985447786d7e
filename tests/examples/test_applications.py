"""The examples that serve: `fastapi_app.py` under uvicorn, and `aiohttp_app.py`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector

from helpers import until
from mailservers import free_port
from programs import EXAMPLES, Program, python

if TYPE_CHECKING:
    from .conftest import Destinations


@asynccontextmanager
async def client(base: str) -> AsyncIterator[ClientSession]:
    """Make a client that opens a connection for each request, so that any worker may get it."""
    async with ClientSession(base, connector=TCPConnector(force_close=True)) as session:
        yield session


async def answer(session: ClientSession, method: str, path: str, program: Program) -> tuple[int, Any]:
    """Status and body; where nobody listens yet, ask again."""
    while True:
        try:
            async with session.request(method, path) as response:
                return response.status, await response.json()
        except ClientConnectionError:
            assert program.process.returncode is None, program.trouble
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(destinations: Destinations, workers: int) -> AsyncIterator[tuple[ClientSession, Program]]:
    """Run the FastAPI example as its docstring says."""
    port = free_port()
    options = ["--app-dir", str(EXAMPLES), "--port", str(port), "--workers", str(workers), "fastapi_app:app"]
    async with (
        python("-m", "uvicorn", *options, **destinations.environment) as program,
        client(f"http://127.0.0.1:{port}") as session,
    ):
        assert (await answer(session, "GET", "/orders/0", program))[0] == 200
        yield session, program


async def pay_at_both(session: ClientSession, numbers: itertools.count[int], program: Program) -> set[int]:
    """Pay for orders until two workers have answered; gives the orders."""
    workers: set[int] = set()
    paid: set[int] = set()
    while len(workers) < 2:
        orders = [next(numbers) for _ in range(10)]
        answers = await asyncio.gather(
            *(answer(session, "POST", f"/orders/{order}/payment", program) for order in orders)
        )
        assert [(status, body["detail"]["order"]) for status, body in answers] == [(502, order) for order in orders]
        workers |= {body["detail"]["worker"] for _, body in answers}
        paid.update(orders)
    return paid


async def test_two_workers_answer_while_mail_hangs_and_deliver_when_it_recovers(destinations: Destinations) -> None:
    """No request waits for a mail server that accepts and says nothing, and neither does the collector."""
    destinations.proxy.black_hole()
    numbers = itertools.count(1)
    async with serving(destinations, workers=2) as (session, program):
        paid = await pay_at_both(session, numbers, program)
        await until(lambda: destinations.proxy.connections >= 2)  # now the mail of both hangs
        paid |= await pay_at_both(session, numbers, program)
        expected = sorted(f"order {order} could not be paid" for order in paid)

        await destinations.collector.wait_for(lambda: len(destinations.lines) > len(paid))
        assert sorted(line for line in destinations.lines if "paid" in line) == expected
        assert len(destinations.processes) == 2
        assert destinations.desk.connections == 0

        destinations.proxy.forward()
        await until(lambda: len(destinations.desk.mails) >= 2)  # and more of it when they end
        assert await program.stop() == 0, program.trouble
    # Of one kind a mail shows the first ones, and tells how many there were.
    counts = destinations.mailed(r"(?m)^ERROR, (once|[0-9,]+ times)")
    assert sum(1 if told == "once" else int(told.removesuffix(" times")) for told in counts) == len(paid)
    assert set(destinations.mailed(r"order \d+ could not be paid")) <= set(expected)


@pytest.mark.parametrize("workers", [1, 2])
async def test_uvicorn_ends_when_what_was_logged_is_delivered(destinations: Destinations, workers: int) -> None:
    """SIGTERM right after a request: its line and its mail are there when the last process is gone."""
    async with serving(destinations, workers) as (session, program):
        status, _ = await answer(session, "POST", "/orders/1/payment", program)
        await program.stop()
    assert status == 502
    await destinations.collector.wait_for(lambda: "order 1 could not be paid" in destinations.lines)
    assert destinations.mailed(r"order \d could not be paid")


async def test_aiohttp_answers_while_mail_hangs_and_delivers_before_it_ends(destinations: Destinations) -> None:
    """Divisions fail, mails wait, the answers don't; SIGTERM after the recovery loses nothing."""
    destinations.proxy.black_hole()
    port = free_port()
    async with python(EXAMPLES / "aiohttp_app.py", PORT=port, **destinations.environment) as program:
        async with client(f"http://127.0.0.1:{port}") as session:
            assert await answer(session, "GET", "/divide/6/3", program) == (200, {"result": 2.0})
            async with session.get("/divide/6/0") as response:
                assert response.status == 400
            await until(lambda: destinations.proxy.connections)
            async with session.get("/divide/7/0") as response:
                assert response.status == 400
        assert destinations.desk.connections == 0
        destinations.proxy.forward()
        assert await program.stop() == 0, program.trouble
    await destinations.collector.wait_for(lambda: "7 can't be divided by 0" in destinations.lines)
    assert set(destinations.mailed(r"\d can't be divided by 0")) == {
        "6 can't be divided by 0",
        "7 can't be divided by 0",
    }
    assert any('"GET /divide/6/3 HTTP/1.1" 200' in line for line in destinations.lines)
