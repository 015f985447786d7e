"""A lock for moments in which others may be in the way, and going without is always possible.

A thread that runs an event loop never waits for it, nor does one that holds it already: a signal handler or a `__del__`
may log amid anything.
"""

from __future__ import annotations

from asyncio import events
from threading import Lock, get_ident

__all__ = ["Exclusive"]

_PATIENCE = 0.01  # seconds


class Exclusive:
    """`if exclusive.enter(): try: ... finally: exclusive.leave()`; where it is not to be had, do without."""

    __slots__ = ("_holder", "lock")

    def __init__(self) -> None:
        """Held by nobody."""
        self.lock = Lock()
        self._holder = 0

    def enter(self, patience: float = _PATIENCE) -> bool:
        """Whether the caller is alone from now on, until it leaves.

        Args:
            patience: Seconds that a thread without a loop waits at most.
        """
        if self._holder == get_ident():
            return False
        if events._get_running_loop() is None:  # noqa: SLF001 - documented as "for framework developers"
            entered = self.lock.acquire(timeout=patience)
        else:
            entered = self.lock.acquire(blocking=False)
        if entered:
            self._holder = get_ident()
        return entered

    def leave(self) -> None:
        """Let others in."""
        self._holder = 0
        self.lock.release()
