"""Where threads wait for room in a queue. The event loop lets them through and never waits for them.

Only a thread that asks to be held up comes here, and only one that runs no event loop. There is no lock that the loop
could find taken: each thread waits on a gate of its own, and what the loop does is to release gates.
"""

from __future__ import annotations

import threading
import time
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Turnstile"]


class _Local(threading.local):
    waits = False


_local = _Local()


class Turnstile:
    """Lets waiting threads through as room appears, in the order they came; closed while nobody makes any."""

    def __init__(self) -> None:
        """Begin closed."""
        self._gates: deque[threading.Lock] = deque()
        self._open = False

    # -- on the loop's thread ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """From now on threads may wait."""
        self._open = True

    def close(self) -> None:
        """Let all threads go, and have nobody wait."""
        self._open = False
        self.admit(len(self._gates))

    def admit(self, count: int) -> None:
        """Have so many threads look whether there is room; call it when some was made."""
        if self._gates:
            with suppress(IndexError):  # no more of them: nobody else waits
                for _ in range(count):
                    self._gates.popleft().release()

    # -- on other threads --------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether the calling thread may wait.

        It may not where it runs an event loop, or where a signal handler or a destructor has interrupted a wait.
        """
        return self._open and not _local.waits and events._get_running_loop() is None  # noqa: SLF001 - for frameworks

    def wait(self, has_room: Callable[[], bool], seconds: float) -> bool:
        """Wait for room, for at most so many seconds; tells whether there is some."""
        until = time.monotonic() + seconds
        _local.waits = True
        try:
            while self._open and (left := until - time.monotonic()) > 0:
                if has_room() or self._passed(has_room, left):
                    return True
            return has_room()
        finally:
            _local.waits = False

    def _passed(self, has_room: Callable[[], bool], seconds: float) -> bool:
        gate = threading.Lock()
        gate.acquire()
        self._gates.append(gate)
        try:
            # Looked at after queueing up: who makes room, or closes, from here on finds the gate.
            if self._open and not has_room():
                gate.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        finally:
            with suppress(ValueError):  # it was released: whoever did that took it out
                self._gates.remove(gate)
        return has_room()
