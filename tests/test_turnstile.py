"""Where threads wait for room."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from offloop.turnstile import Turnstile


@contextmanager
def waiting(turnstile: Turnstile, has_room: Callable[[], bool], seconds: float = 30) -> Iterator[list[bool]]:
    """A thread that has begun to wait, and what came of it once the block is left."""
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(turnstile.wait(has_room, seconds)))
    thread.start()
    while not turnstile._gates:
        time.sleep(0)
    yield results
    thread.join()


def test_thread_goes_on_when_there_is_room() -> None:
    """Who is admitted looks again, and waits again where others were quicker."""
    turnstile = Turnstile()
    turnstile.open()
    room = False
    looks: list[None] = []

    def look() -> bool:
        looks.append(None)
        return room

    with waiting(turnstile, look) as results:
        before = len(looks)
        turnstile.admit(1)
        while len(looks) < before + 2:
            time.sleep(0)
        room = True
        # The thread may stand between two gates: it looks once more then, and finds the room by itself.
        turnstile.admit(1)
    assert results == [True]
    assert not turnstile._gates


def test_close_lets_everybody_go() -> None:
    """Where nobody makes room any more nobody waits, neither those that do nor those that come."""
    turnstile = Turnstile()
    turnstile.open()
    with waiting(turnstile, lambda: False) as results:
        turnstile.close()
    assert results == [False]
    assert not turnstile.usable
    assert not turnstile.wait(lambda: False, 30)


def test_timeout_ends_the_wait() -> None:
    """A gate that is not released is taken away."""
    turnstile = Turnstile()
    turnstile.open()
    before = time.monotonic()
    assert not turnstile.wait(lambda: False, 0.01)
    assert time.monotonic() - before >= 0.01
    assert not turnstile._gates


def test_no_more_are_admitted_than_there_is_room_for() -> None:
    """The first that came is the first to look again."""
    turnstile = Turnstile()
    turnstile.open()
    rooms = [False, False]
    with waiting(turnstile, lambda: rooms[0]) as first:
        gate = turnstile._gates[0]
        with waiting(turnstile, lambda: rooms[1]) as second:
            while len(turnstile._gates) < 2:
                time.sleep(0)
            rooms[:] = True, True
            turnstile.admit(0)
            turnstile.admit(1)
            assert gate not in turnstile._gates
            turnstile.admit(9)
    assert (first, second) == ([True], [True])


def test_room_that_appears_while_queueing_up_is_seen() -> None:
    """Between the first look and the gate somebody may have made room, and found nobody to admit."""
    turnstile = Turnstile()
    turnstile.open()
    looks = iter([False, True, True])
    assert turnstile.wait(lambda: next(looks), 30)


async def test_thread_with_an_event_loop_may_not_wait() -> None:
    """Whichever loop it is: none is ever held up."""
    turnstile = Turnstile()
    turnstile.open()
    assert not turnstile.usable
    assert await asyncio.to_thread(lambda: turnstile.usable)


def test_signal_handler_within_a_wait_may_not_wait() -> None:
    """It would wait on top of what it interrupted."""
    turnstile = Turnstile()
    turnstile.open()
    seen: list[bool] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: seen.append(turnstile.usable))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert turnstile.wait(lambda: bool(seen), 0.2)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert seen == [False]
    assert turnstile.usable
