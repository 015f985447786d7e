"""Slices and rests."""

from __future__ import annotations

import asyncio
import time

from offloop.pacer import Pacer


async def take(pacer: Pacer, log: list[str], name: str, seconds: float) -> None:
    """One turn, used up to the second."""
    turn = pacer.turn()
    if turn is not None:
        await turn
    begun = time.perf_counter()
    pacer.begin()
    while time.perf_counter() < begun + seconds:
        pass
    log.append(name)
    pacer.done()


async def test_turns_are_given_in_the_order_they_were_asked_for() -> None:
    """No lane starves another."""
    pacer, log = Pacer(), list[str]()

    async def worker(name: str) -> None:
        for _ in range(3):
            await take(pacer, log, name, 0.001)

    await asyncio.gather(*(worker(name) for name in "abc"))
    # The first asked twice before the others asked at all.
    assert log == list("aabcabcbc")


async def test_rest_is_at_least_as_long_as_the_work() -> None:
    """While offloop rests the application has the loop to itself."""
    pacer, log = Pacer(), list[str]()
    began = time.perf_counter()
    await take(pacer, log, "a", 0.02)
    await take(pacer, log, "b", 0.0)
    assert time.perf_counter() - began >= 0.04


async def test_short_turns_share_a_slice() -> None:
    """A turn that used little of the slice leaves the rest to the next."""
    pacer = Pacer(slice_seconds=3600)
    for _ in range(3):
        assert pacer.turn() is None
        assert pacer.begin() > time.perf_counter() + 3000
        pacer.done()


async def test_turn_given_up_goes_to_the_next() -> None:
    """A task that was cancelled while it waited keeps nobody waiting."""
    pacer = Pacer(slice_seconds=3600)
    assert pacer.turn() is None
    pacer.begin()
    second, third = pacer.turn(), pacer.turn()
    assert second is not None
    assert third is not None
    second.cancel()
    pacer.done()
    assert third.done()
