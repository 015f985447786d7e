"""Bytes to stderr without waiting for whoever reads it: a pipe that nobody empties must not hold up the end.

The descriptor is made non-blocking for the time of a write and then set back; it may be shared with other processes.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from threading import Lock
from typing import Self

from offloop import fork

__all__ = ["Budget", "Stderr", "say"]

_MAX_BYTES = 1024 * 1024
_MAX_SECONDS = 0.1
_NAP = 0.001  # seconds


class Budget:
    """What may still be printed at one end: 1 MiB, and a tenth of a second of writing, for all sinks together."""

    def __init__(self, max_bytes: int = _MAX_BYTES, seconds: float = _MAX_SECONDS) -> None:
        """Nothing is spent."""
        self.left_bytes = max_bytes
        self.seconds = seconds
        self.asked = 0
        """Records that were to be printed."""
        self.printed = 0
        """Those that were."""


class Stderr:
    """The way to stderr, as a context; one at a time, since two would set the descriptor back while the other writes.

    Entering and writing raise `OSError` where there is no stderr, or nobody reads it any more.
    """

    def __init__(self, patience: float) -> None:
        """Take nothing yet.

        Args:
            patience: Seconds that entering may wait for another.
        """
        self._patience = patience
        self._descriptor: int | None = None
        self._blocking = True

    def __enter__(self) -> Self:
        if not _gate.lock.acquire(timeout=max(0.0, self._patience)):
            raise TimeoutError("stderr is in use")
        try:
            self._descriptor = _descriptor()
            if self._descriptor is not None:
                self._blocking = os.get_blocking(self._descriptor)
                os.set_blocking(self._descriptor, False)
        except BaseException:
            _gate.lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._descriptor is not None:
                os.set_blocking(self._descriptor, self._blocking)
        finally:
            _gate.lock.release()

    def put(self, data: memoryview) -> int:
        """Write what there is room for; gives how many bytes went out, perhaps none."""
        if self._descriptor is None:
            _stand_in(str(data, "utf-8"))
            return len(data)
        with suppress(BlockingIOError):
            return os.write(self._descriptor, data)
        return 0

    def wait(self, seconds: float) -> None:
        """Wait a moment for room, at most so many seconds."""
        if self._descriptor is not None:
            time.sleep(max(0.0, min(seconds, _NAP)))


def say(line: str, patience: float) -> None:
    """Write a line, in at most so many seconds; what did not go out by then does not."""
    until = time.monotonic() + patience
    data = memoryview(line.encode("utf-8", "backslashreplace"))
    with suppress(OSError), Stderr(patience) as stderr:
        while (data := data[stderr.put(data) :]) and time.monotonic() < until:
            stderr.wait(until - time.monotonic())


class _Gate:
    """The lock of all of them."""

    def __init__(self) -> None:
        self.lock = Lock()
        fork.inherits(self)

    def after_fork(self) -> None:
        self.lock = Lock()


_gate = _Gate()


def _descriptor() -> int | None:
    """The descriptor below `sys.stderr`; None where the application put something else in its place."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _stand_in(text: str) -> None:
    if sys.stderr is None:
        raise OSError("there is no stderr")
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception as error:
        raise OSError(str(error)) from error
