"""The one deadline that a listener and its lanes share when they stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Awaited", "Ending", "Shutdown"]

_FOREVER = float("inf")
BEYOND = 0.06
"""Seconds past the deadline until which waits may last in all, so that what was cancelled can let go."""

_GRACE = 0.02  # seconds that a wait which begins late may last


class Awaited(Protocol):
    """What `hold` waits for: a future, or less."""

    def done(self) -> bool:
        """Whether it is."""
        ...

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Have it called when this is done."""

    def remove_done_callback(self, callback: Callable[[Any], object], /) -> object:
        """Do not."""


class Ending:
    """A future that has no result and calls back at once, not in a later turn of the loop. For one who waits."""

    __slots__ = ("_callback", "_done")

    def __init__(self) -> None:
        """Not done."""
        self._done = False
        self._callback: Callable[[Any], object] | None = None

    def done(self) -> bool:
        """Whether it is."""
        return self._done

    def end(self) -> None:
        """Be done. Idempotent."""
        callback, self._callback, self._done = self._callback, None, True
        if callback is not None:
            callback(self)

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Have it called by `end`, in place of an earlier one."""
        self._callback = callback

    def remove_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Do not."""
        if self._callback is callback:
            self._callback = None


class Shutdown:
    """Not begun, or begun with a deadline. Tasks wait through `hold`, which no cancellation ends early.

    A lane never judges by how often it was cancelled: the first cancellation from outside (the end of `asyncio.run`, a
    loop's clean-up) begins the shutdown, and from then on the deadline decides.
    """

    def __init__(self, timeout: float) -> None:
        """Not begun.

        Args:
            timeout: Seconds that a shutdown gets which a cancellation begins.
        """
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._gates: list[asyncio.Future[None]] = []
        self._told: list[Callable[[], None]] = []
        self.started: asyncio.Future[None] = self._loop.create_future()
        """Resolved when the shutdown begins."""
        self.deadline: float | None = None

    def tell(self, callback: Callable[[], None]) -> None:
        """Have the callback called when the shutdown begins or its deadline changes."""
        self._told.append(callback)

    @property
    def begun(self) -> bool:
        """Whether there is a deadline."""
        return self.deadline is not None

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and self._loop.time() >= self.deadline

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, at least 0; infinite if there is none."""
        return _FOREVER if self.deadline is None else max(0.0, self.deadline - self._loop.time())

    def begin(self, timeout: float) -> None:
        """Set the deadline so many seconds from now, unless an earlier one is set."""
        deadline = self._loop.time() + timeout
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline
            if not self.started.done():
                self.started.set_result(None)
            for gate in self._gates:
                _resolve(gate)
            for callback in self._told:
                callback()

    def abandon(self) -> None:
        """Be over, without a word to anybody: whatever task of ours still runs in this loop is to end."""
        self.deadline = -_FOREVER

    def interrupt(self) -> None:
        """A task of ours was cancelled from outside: begin, unless that was done."""
        if self.deadline is None:
            self.begin(self._timeout)

    async def hold(self, future: Awaited, timeout: float | None = None, *, beyond: float | None = None) -> bool:
        """Wait for the future, for at most so many seconds and not past the deadline; tells whether it is done.

        The future is not cancelled. A deadline that is set while we wait counts.

        Args:
            future: What to wait for.
            timeout: Seconds; None: until the deadline.
            beyond: Wait so many seconds past the deadline. None: a moment, until `BEYOND` at the latest.
        """
        started = self._loop.time()
        end = _FOREVER if timeout is None else started + timeout
        while not future.done():
            limit = end
            if self.deadline is not None:
                moment = max(self.deadline, min(started + _GRACE, self.deadline + BEYOND))
                limit = min(end, moment if beyond is None else self.deadline + beyond)
            left = limit - self._loop.time()
            if left <= 0:
                return False
            await self._gate(future, left)
        return True

    async def nap(self, future: asyncio.Future[Any], timeout: float | None = None) -> None:
        """Wait for a future of our own; a cancellation ends the wait, and begins the shutdown.

        Cheaper than `hold`, and knows no deadline: whoever naps is told (`tell`) and resolves the future.
        """
        timer = None if timeout is None else self._loop.call_later(timeout, _resolve, future)
        try:
            await future
        except asyncio.CancelledError:
            self.interrupt()
        finally:
            if timer is not None:
                timer.cancel()

    async def _gate(self, future: Awaited, seconds: float) -> None:
        """Wait until the future is done, the time is up, the deadline moved, or a cancellation came."""
        gate = self._loop.create_future()

        def opened(_: object = None) -> None:
            _resolve(gate)

        future.add_done_callback(opened)
        timer = None if seconds == _FOREVER else self._loop.call_later(seconds, opened)
        self._gates.append(gate)
        try:
            await gate
        except asyncio.CancelledError:
            self.interrupt()
        finally:
            future.remove_done_callback(opened)
            self._gates.remove(gate)
            if timer is not None:
                timer.cancel()


def _resolve(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
