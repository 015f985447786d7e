"""offloop's own troubles: rate-limited to stderr, never through a queue of its own.

`report` waits for nobody: a daemon thread does the writing, since stderr may be a full pipe. At exit what is left is
written for at most a tenth of a second. A forked child does not repeat what its parent had to say. Whatever is held
back is counted, and the count is told: with the next line of its kind, or else some seconds later, or at exit.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue

from offloop import fork, stderr

__all__ = ["conclude", "flush", "report"]

_EVERY = 10.0  # seconds between two lines of one kind
_MAX_LINES = 1_000
_MAX_KINDS = 1_000
_AT_EXIT = 0.1  # seconds


class _Kind:
    """Reports of one kind: when one was last said, and what was held back since.

    Attributes:
        last: When the last line was said; None: never.
        told: Up to which number reports are said or counted in a line.
        message: The last one that was held back.
    """

    __slots__ = ("_numbers", "last", "message", "told")

    def __init__(self) -> None:
        self._numbers = count(1)
        self.last: float | None = None
        self.told = 0
        self.message = ""

    def number(self) -> int:
        """The next number: no two reports have the same, whichever threads they come from."""
        return next(self._numbers)

    def catch_up(self, number: int, now: float) -> tuple[int, float]:
        """How many before this number were held back, and for how many seconds; from now on they are told."""
        held, seconds = number - 1 - self.told, now - (now if self.last is None else self.last)
        self.told, self.last = number, now
        return held, seconds


class Diagnostics:
    """Lines for stderr, at most one of a kind in ten seconds; how many were held back is told later."""

    def __init__(self, every: float = _EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing to say.

        Args:
            every: Seconds between two lines of one kind.
            clock: Gives the time in seconds.
        """
        self._every = every
        self._clock = clock
        self._lines: deque[str] = deque()
        self._kinds: dict[str, _Kind] = {}
        self._holding = False
        self._unwritten = _Kind()  # lines for which there was no room
        self._writing = threading.Lock()
        self._work: SimpleQueue[None] = SimpleQueue()
        self._pid = 0
        fork.inherits(self)

    def after_fork(self) -> None:
        """Begin anew in a child: with the next line, with a thread of its own."""
        self._lines.clear()
        self._kinds.clear()
        self._holding = False
        self._unwritten = _Kind()
        self._writing = threading.Lock()
        self._pid = 0

    def report(self, kind: str, message: str) -> None:
        """Say something; never raises, never waits.

        Args:
            kind: What it is about: lines of one kind share one rate limit.
            message: One line, without secrets. Control characters are escaped.
        """
        now = self._clock()
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= _MAX_KINDS:
                self._say_held(0.0)
                self._kinds.clear()
            known = self._kinds.setdefault(kind, _Kind())
        number = known.number()
        if known.last is not None and now - known.last < self._every:
            known.message = message
            if not self._holding:
                self._holding = True
                self._wake()  # the thread is to look again when the time is over
            return
        held, seconds = known.catch_up(number, now)
        self._say(message, held, seconds)

    def conclude(self) -> None:
        """Say what is held back, and write what is left."""
        self._say_held(0.0)
        self.flush()

    def flush(self, timeout: float = _AT_EXIT) -> None:
        """Write what is left, for at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (self._lines or self._writing.locked()) and time.monotonic() < deadline:
            self._wake()
            time.sleep(0.001)

    def _say_held(self, every: float) -> None:
        """Say how many of each kind were held back, where the last line is so many seconds old."""
        now = self._clock()
        self._holding = False
        for kind in list(self._kinds.values()):
            if not kind.message:
                continue
            if now - (kind.last or now) < every:
                self._holding = True
                continue
            message, kind.message = kind.message, ""
            held, seconds = kind.catch_up(kind.number(), now)
            if held > 0:
                self._say(message, held - 1, seconds)

    def _say(self, message: str, held: int, seconds: float) -> None:
        more = f" ({held} more like this in the last {seconds:.0f} s)" if held > 0 else ""
        self._lines.append(f"offloop: {_printable(message)}{more}\n")
        if len(self._lines) > _MAX_LINES:
            with suppress(IndexError):  # the thread has just written them all
                self._lines.popleft()
                self._unwritten.number()
                self._unwritten.message = "lost"
        self._wake()

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
            self._pid = 0
            self._drain(_say)

    def _run(self) -> None:
        while True:
            try:
                self._work.get(timeout=self._every if self._holding else None)
            except Empty:
                self._say_held(self._every)
            self._drain(_write)

    def _drain(self, write: Callable[[str], None]) -> None:
        with self._writing:
            while self._lines:
                write(self._lines.popleft())
            if self._unwritten.message:
                self._unwritten.message = ""
                lost, _ = self._unwritten.catch_up(self._unwritten.number(), 0.0)
                write(f"offloop: {lost} line(s) like these were lost: nobody read them in time\n")


def _write(line: str) -> None:
    stream = sys.stderr
    if stream is not None:
        try:
            stream.write(line)
            stream.flush()
        except Exception:  # noqa: BLE001, S110 - closed, or not a file: there is nobody left to tell
            # Whatever an application put in its place, this thread goes on: it may be exchanged again.
            pass


def _say(line: str) -> None:
    """At exit, on the caller's thread: it must not wait for a reader."""
    stderr.say(line, _AT_EXIT)


def _printable(message: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


_shared = Diagnostics()
report = _shared.report
flush = _shared.flush
conclude = _shared.conclude
atexit.register(conclude)
