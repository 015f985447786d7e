"""The one deadline."""

from __future__ import annotations

import asyncio

from offloop.shutdown import BEYOND, Shutdown


async def test_hold_waits_for_the_future() -> None:
    """Done before the time is up; not done after it."""
    shutdown = Shutdown(1)
    future = asyncio.get_running_loop().create_future()
    assert not await shutdown.hold(future, 0.001)
    asyncio.get_running_loop().call_soon(future.set_result, None)
    assert await shutdown.hold(future, 60)
    assert shutdown.remaining == float("inf")


async def test_deadline_set_while_waiting_counts() -> None:
    """A hold without a limit ends with the shutdown."""
    shutdown = Shutdown(1)
    waiting = asyncio.create_task(shutdown.hold(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    shutdown.begin(0.01)
    assert not await waiting
    assert shutdown.over


async def test_cancellation_begins_the_shutdown_and_ends_nothing() -> None:
    """However often it comes."""
    shutdown = Shutdown(60)
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(shutdown.hold(future))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert shutdown.begun
    assert 0 < shutdown.remaining <= 60
    future.set_result(None)
    assert await waiting


async def test_earliest_deadline_wins() -> None:
    """And those who asked are told of each change."""
    shutdown, told = Shutdown(1), list[str]()
    shutdown.tell(lambda: told.append("told"))
    shutdown.begin(60)
    shutdown.begin(120)
    assert shutdown.remaining <= 60
    shutdown.begin(0)
    assert shutdown.over
    assert told == ["told", "told"]
    assert shutdown.started.done()


async def test_moments_past_the_deadline_do_not_add_up() -> None:
    """However many waits follow one another, they end together; one that is told so lasts longer."""
    shutdown, loop = Shutdown(1), asyncio.get_running_loop()
    shutdown.begin(0)
    begin = loop.time()
    while loop.time() < begin + BEYOND:
        await shutdown.hold(loop.create_future())
    future = loop.create_future()
    assert not await shutdown.hold(future, 60)
    loop.call_soon(future.set_result, None)
    assert await shutdown.hold(future, beyond=60)


async def test_short_wait_is_allowed_past_the_deadline() -> None:
    """So that what was cancelled can let go of its connection."""
    shutdown = Shutdown(1)
    shutdown.begin(0)
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    assert await shutdown.hold(future, 60)
