"""The examples that run and end: `context_manager.py`, `queue_pair.py`, `own_sink.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from programs import EXAMPLES, python

if TYPE_CHECKING:
    from .conftest import Destinations


async def test_context_manager_delivers_before_it_ends(destinations: Destinations) -> None:
    """Ten lines at the collector, both failures in the mailbox, and an account that says so."""
    async with python(EXAMPLES / "context_manager.py", **destinations.environment) as program:
        assert await program.end() == 0, program.trouble
        await destinations.collector.wait_for(lambda: len(destinations.lines) == 10)
    assert sorted(destinations.lines) == sorted(
        f"job {number} {'failed' if number in (3, 7) else 'is done'}" for number in range(10)
    )
    # Each in the summary, and where it is told of.
    assert set(destinations.mailed(r"job \d failed")) == {"job 3 failed", "job 7 failed"}
    assert "mail: 2 delivered, 0 lost\ncollector: 10 delivered, 0 lost\n" in program.text


async def test_queue_pair_relays_by_level(destinations: Destinations) -> None:
    """The collector has everything in order, the terminal what is WARNING or worse."""
    async with python(EXAMPLES / "queue_pair.py", **destinations.environment) as program:
        assert await program.end() == 0, program.trouble
        await destinations.collector.wait_for(lambda: len(destinations.lines) == 100)
    assert destinations.lines == [f"sensor {number % 7} reads {20 + number / 4:.1f} degrees" for number in range(100)]
    shown = [f"WARNING {line}" for line in destinations.lines[9::10]]
    assert program.text.splitlines() == [
        *shown,
        "collector: 100 delivered, 0 filtered, 0 lost",
        "StreamHandler: 10 delivered, 90 filtered, 0 lost",
    ]


async def test_own_sink_shows_itself_without_a_server() -> None:
    """It is run by people who have none: told "later", it sends again; told "never", it goes on."""
    async with python(EXAMPLES / "own_sink.py") as program:
        assert await program.end() == 0, program.trouble
    lines = program.text.splitlines()
    assert lines.pop(3).startswith("receiver: 200 to '1 record was lost at ")
    assert lines == [
        "receiver: 503 to 'the disk is almost full'",
        "receiver: 200 to 'the disk is almost full'",
        "receiver: 400 to 'the poison is out'",
        "receiver: 200 to 'the disk is full'",
        "3 delivered, 1 refused, 0 waiting",
    ]


async def test_own_sink_posts_to_a_webhook() -> None:
    """An attempt that broke off is made again, with the same key."""
    posts: list[tuple[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        (record,) = await request.json()
        posts.append((record["message"], request.headers["Idempotency-Key"]))
        if len(posts) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=200)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with python(
            EXAMPLES / "own_sink.py", WEBHOOK_URL=f"http://127.0.0.1:{runner.addresses[0][1]}/"
        ) as program:
            assert await program.end() == 0, program.trouble
    finally:
        await runner.cleanup()
    assert [message for message, _ in posts[1:]] == ["the disk is almost full", "the poison is out", "the disk is full"]
    assert posts[0] == posts[1]
    assert "3 delivered, 0 refused, 0 waiting" in program.text
