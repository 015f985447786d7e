"""How much of the loop offloop takes: slices of half a millisecond, and at least as much rest after each.

Routing and the encoding of all lanes share one pacer. Without the rest a heartbeat still looks fine, but a request of
many awaits pays a slice at each of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

__all__ = ["Pacer"]

_SLICE = 0.0005  # seconds


class Pacer:
    """Hands out turns, first come first served, to the tasks of one loop.

    A turn is asked for with `turn`, taken with `begin`, and given back with `done`; several short turns share a slice.
    What the application does between the asking and the taking is not counted.
    """

    def __init__(self, slice_seconds: float = _SLICE) -> None:
        """Begin rested."""
        self._slice = slice_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._busy = False
        self._began = 0.0
        self._spent = 0.0
        self._ended = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def turn(self) -> asyncio.Future[None] | None:
        """None if the turn is ours at once, else a future that resolves when it is; cancelling it gives the turn up."""
        if not self._busy and not self._waiting and self._timer is None:
            self._busy = True
            return None
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def begin(self) -> float:
        """Take the turn; gives the time, by `time.perf_counter`, until which it may last."""
        self._began = now = time.perf_counter()
        if now - self._ended >= self._spent:
            self._spent = 0.0  # as long a rest as the work was: the slice is whole again
        return now + self._slice - self._spent

    def done(self) -> None:
        """Give the turn back."""
        self._ended = now = time.perf_counter()
        self._spent += now - self._began
        if self._spent >= self._slice:
            rest, self._spent = self._spent, 0.0
            self._timer = self._loop.call_later(rest, self._rested)
            self._busy = False
        else:
            self._next()

    def _rested(self) -> None:
        self._timer = None
        self._next()

    def _next(self) -> None:
        self._busy = False
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # cancelled meanwhile
                self._busy = True
                future.set_result(None)
                return
