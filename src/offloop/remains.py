"""What nobody can deliver any more: the last resort is stderr, one line a record, bounded, and without waiting.

Nothing here counts: whoever holds the records asks how many were printed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

from offloop.capture import Held, Record, made
from offloop.formatters.text import TextFormatter
from offloop.stderr import Budget, Stderr
from offloop.worker import Breather, Worker

__all__ = ["Printing"]

_WORK = 0.001  # seconds between two rests

_format = TextFormatter().format


class Printing:
    """Records on their way to stderr, oldest first."""

    def __init__(self, owner: str, records: Sequence[Held], budget: Budget) -> None:
        """Print nothing yet.

        Args:
            owner: Who could not deliver them: stands at the begin of each line.
            records: What to print.
            budget: Shared with others.
        """
        self._owner = owner
        self._records = records
        self._budget = budget
        self._lock = Lock()
        self._stopped = False
        self._printed = 0

    def __len__(self) -> int:
        return len(self._records)

    def run(self) -> None:
        """Print until all is printed, the budget is spent, or `stop` was called; from any thread, once."""
        budget, began = self._budget, time.monotonic()
        # Seldom: on a busy machine each rest may cost milliseconds of what little time there is.
        breathe = Breather(work=_WORK)
        # An error means that nobody reads stderr: what did not go out is known by the number that did.
        with suppress(OSError), Stderr(budget.seconds) as stderr:
            for record in self._records:
                line = f"offloop: {self._owner}: {_line(made(record))}\n".encode("utf-8", "backslashreplace")
                if len(line) > budget.left_bytes or not self._print(stderr, line, began + budget.seconds):
                    break
                budget.left_bytes -= len(line)
                breathe()
        budget.seconds = max(0.0, budget.seconds - (time.monotonic() - began))

    def begin(self, printer: Worker) -> asyncio.Future[None] | None:
        """Run in a thread from now on; None if there is nothing to print, or no thread starts any more."""
        with suppress(RuntimeError):
            return printer.begin(self.run) if self._records else None
        return None

    def stop(self) -> Sequence[Held]:
        """From now on nothing more is printed; gives the records that were. Once."""
        with self._lock:
            self._stopped = True
        self._budget.asked += len(self._records)
        self._budget.printed += self._printed
        return self._records[: self._printed]

    def __str__(self) -> str:
        count = len(self._records)
        return f"{count} record(s) for {self._owner} were not delivered, of which {self._printed} are printed here,"

    def _print(self, stderr: Stderr, line: bytes, until: float) -> bool:
        """Print one line; False if it did not go out as a whole."""
        data = memoryview(line)
        while time.monotonic() < until:
            # Under the lock, which is held for no longer than a write that does not wait: so the number is exact.
            with self._lock:
                if self._stopped:
                    return False
                data = data[stderr.put(data) :]
                if not data:
                    self._printed += 1
                    return True
            stderr.wait(until - time.monotonic())
        return False


def _line(record: Record) -> str:
    return _format(record).replace("\n", "\\n")
