"""A lane's line to the thread that keeps its records on disk: asks, and waits within the deadline."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, current_thread
from typing import Any, TypeVar

from offloop.shutdown import Shutdown
from offloop.worker import Worker

__all__ = ["Claim", "Disk"]

_T = TypeVar("_T")

_SLOW = 5.0  # seconds after which a disk counts as stuck
_BEYOND = 0.065  # seconds past a deadline that the disk gets; the listener waits a little longer


class Disk:
    """One thread, one question at a time.

    Attributes:
        stuck: It has not answered for some seconds.
    """

    beyond = _BEYOND

    def __init__(self, name: str, stuck: Callable[[], None]) -> None:
        """Start no thread yet.

        Args:
            name: The lane's.
            stuck: Called when it turns out to be stuck.
        """
        self.stuck = False
        self._tell = stuck
        self._asked = False
        self._worker = Worker(f"offloop-spool-{name}")

    async def ask(self, shutdown: Shutdown, function: Callable[..., _T], *arguments: Any) -> _T | None:
        """What the function gives in the thread; None if the deadline passes before it is done.

        Raises:
            Exception: What the function raised.
        """
        try:
            future = self._worker.begin(function, *arguments)
        except RuntimeError:  # the interpreter is ending and starts no threads: nobody else is held up any more
            return function(*arguments)
        self._asked = True
        while not await shutdown.hold(future, _SLOW, beyond=_BEYOND):
            if shutdown.over:
                return None
            self.hurry()
        self._asked = self.stuck = False
        return future.result()

    def hurry(self) -> None:
        """If it has been asked something, wait no longer: it counts as stuck until it answers."""
        if self._asked:
            self.stuck = True
            self._tell()

    def close(self) -> None:
        """Let the thread end after the questions it has."""
        self._worker.close()


class Claim:
    """Whether rows are stored, decided once: by the thread before it commits, or by a lane that waits no longer."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._holder: object = None

    def take(self) -> bool:
        """Whether the caller's thread decides."""
        me = current_thread()
        if self._lock.acquire(blocking=False):
            self._holder = me
        return self._holder is me
