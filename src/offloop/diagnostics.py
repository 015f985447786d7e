"""offloop's own troubles: rate-limited to stderr, never through a queue of its own.

`report` waits for nobody: a daemon thread does the writing, since stderr may be a full pipe. At exit what is left is
written for at most a tenth of a second.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from queue import SimpleQueue

__all__ = ["flush", "report"]

_EVERY = 10.0  # seconds between two lines of one kind
_MAX_LINES = 1_000
_MAX_KINDS = 1_000
_AT_EXIT = 0.1  # seconds


class Diagnostics:
    """Lines for stderr, at most one of a kind in ten seconds; what was held back is counted in the next one."""

    def __init__(self, every: float = _EVERY) -> None:
        """Start with nothing to say.

        Args:
            every: Seconds between two lines of one kind.
        """
        self._every = every
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._kinds: dict[str, tuple[float, int]] = {}
        self._writing = threading.Lock()
        self._work: SimpleQueue[None] = SimpleQueue()
        self._pid = 0

    def report(self, kind: str, message: str) -> None:
        """Say something; never raises, never waits.

        Args:
            kind: What it is about: lines of one kind share one rate limit.
            message: One line, without secrets. Control characters are escaped.
        """
        now = time.monotonic()
        last, held = self._kinds.get(kind, (None, 0))
        if last is not None and now - last < self._every:
            self._kinds[kind] = (last, held + 1)
            return
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        more = f" ({held} more like this in the last {now - (last or now):.0f} s)" if held else ""
        self._lines.append(f"offloop: {_printable(message)}{more}\n")
        self._wake()

    def flush(self, timeout: float = _AT_EXIT) -> None:
        """Write what is left, for at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (self._lines or self._writing.locked()) and time.monotonic() < deadline:
            self._wake()
            time.sleep(0.001)

    def _wake(self) -> None:
        if self._pid != os.getpid():
            self._start()
        # Re-entrant: an Event has a lock, which what a signal handler interrupted may hold for ever.
        if self._work.empty():
            self._work.put(None)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._work = SimpleQueue()
        try:
            threading.Thread(target=self._run, name="offloop-diagnostics", daemon=True).start()
        except RuntimeError:  # the interpreter is ending: no new threads
            self._drain()

    def _run(self) -> None:
        while True:
            self._work.get()
            self._drain()

    def _drain(self) -> None:
        with self._writing:
            while self._lines:
                stream = sys.stderr
                line = self._lines.popleft()
                if stream is not None:
                    try:
                        stream.write(line)
                        stream.flush()
                    except Exception:  # noqa: BLE001, S110 - closed, or not a file: there is nobody left to tell
                        # Whatever an application put in its place, this thread goes on: it may be exchanged again.
                        pass


def _printable(message: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


_shared = Diagnostics()
report = _shared.report
flush = _shared.flush
atexit.register(flush)
