"""`offloop spool replay`: the records of a file to a destination, under the lock that adoption takes.

A record is removed when the destination has taken it; what is refused or not taken in time stays where it is.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from offloop.capture import Held, Record, text_of
from offloop.delivery import Delivery
from offloop.shutdown import Shutdown
from offloop.sink import Batch, Sink
from offloop.spool import Spool
from offloop.spooling.look import SpoolError, in_use
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Outcome, Turn
from offloop.worker import Worker

__all__ = ["Progress", "Replayed", "StdoutSink", "replay"]

_HEARTBEAT = 0.2  # seconds between two looks whether there is still patience
_NO_BOUND = sys.maxsize


class Progress(Protocol):
    """Is told how far a replay has come."""

    def __call__(self, done: int, total: int) -> None:
        """So many of so many records are settled."""
        ...


@dataclass(slots=True)
class Replayed:
    """What came of it.

    Attributes:
        delivered: Records that the destination took.
        refused: Records that it never will take; they stay in the file.
        damaged: Records that could not be read.
        left: Records that stay in the file, those that were refused among them.
        error: Why it ended before all were tried; None: it did not.
        interrupted: That was Ctrl-C.
    """

    delivered: int = 0
    refused: int = 0
    damaged: int = 0
    left: int = 0
    error: str | None = None
    interrupted: bool = False


class StdoutSink(Sink):
    """One line of JSON a record on stdout."""

    async def send(self, batch: Batch) -> None:
        """Write the batch, and wait as long as whoever reads it makes us."""
        try:
            sys.stdout.buffer.write(b"".join(line + b"\n" for line in batch.encoded))
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # What is still in Python's buffer would be a complaint of the interpreter's at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


async def replay(path: Path, sink: Sink, patience: float, progress: Progress) -> Replayed:
    """Deliver what a file has, oldest first.

    Args:
        path: The file.
        sink: Where to; it is closed in the end.
        patience: Seconds without any progress after which it gives up.
        progress: Told after each batch.

    Raises:
        SpoolError: The file is in use, or can't be opened.
    """
    store = SpoolStore(Spool(path.parent, max_bytes=_NO_BOUND), path.name, only=path.name.removesuffix(".spool"))
    worker = Worker("offloop-replay")
    with _closing(store):
        opening = await worker.run(store.open, 0)
        if opening.busy:
            raise SpoolError(in_use(path))
        if opening.error is not None:
            raise SpoolError(f"{path} can't be opened: {opening.error}")
        run = _Replay(store, worker, sink, patience, progress)
        run.count(opening)
        await run.deliver()
    worker.close()
    return run.result


@contextmanager
def _closing(store: SpoolStore) -> Iterator[None]:
    try:
        yield
    finally:
        store.close()


class _Replay:
    """One file on its way; is told by the delivery what becomes of each record."""

    def __init__(self, store: SpoolStore, worker: Worker, sink: Sink, patience: float, progress: Progress) -> None:
        self.result = Replayed()
        self._store, self._worker, self._sink = store, worker, sink
        self._patience, self._progress = patience, progress
        self._total = 0
        self._numbers: dict[int, int] = {}
        """Of the records in hand, by identity."""
        self._settled: list[int] = []
        self._last = time.monotonic()
        self._why = "the destination takes nothing"
        self._shutdown = Shutdown(0.0)  # Ctrl-C ends it at once

    def count(self, outcome: Outcome) -> None:
        """Count what was found and lost."""
        self._total += outcome.found
        self.result.damaged += len(outcome.lost)

    async def deliver(self) -> None:
        """Deliver until nothing is left, the patience is at its end, or Ctrl-C."""
        delivery = Delivery(self._sink, self, self._shutdown.hold)
        batching = self._sink.batching
        while not self._shutdown.over:
            turn = Turn(settled=self._taken(), want=batching.max_records, want_bytes=batching.max_bytes)
            records = [record for _, record in await self._exchange(turn)]
            if not records:
                break
            while records and not self._shutdown.over:
                await delivery.deliver(Batch(records, self._sink))
                records = [record for record in records if id(record) in self._numbers]
            self._progress(self.result.delivered + self.result.refused + self.result.damaged, self._total)
        await self._exchange(Turn(settled=self._taken()))
        await delivery.close(1.0)
        self.result.left = self._total - self.result.delivered - self.result.damaged
        task = asyncio.current_task()
        self.result.interrupted = task is not None and task.cancelling() > 0
        if self._shutdown.over:
            self.result.error = self.result.error or ("interrupted" if self.result.interrupted else self._why)

    def _taken(self) -> list[int]:
        settled, self._settled = sorted(self._settled), []
        return settled

    async def _exchange(self, turn: Turn) -> Sequence[tuple[int, Record]]:
        outcome = await self._worker.run(self._store.exchange, turn)
        self.count(outcome)
        if outcome.error is not None:
            self.result.error = f"the file can't be read or written any more: {outcome.error}"
            self._shutdown.begin(0.0)
        self._numbers.update((id(record), number) for number, record in outcome.read)
        return outcome.read

    # -- the settlement of a delivery --------------------------------------------------------------------------------

    def delivered(self, held: Sequence[Held], filtered: Sequence[Held]) -> None:
        """Have them removed."""
        self._settled += [self._numbers.pop(id(record)) for record in held]
        self.result.delivered += len(held)
        self._last = time.monotonic()

    def rejected(self, held: Sequence[Held], why: str) -> None:
        """Keep them."""
        self.dropped(held, why)

    def dropped(self, held: Sequence[Held], reason: str) -> None:
        """Keep them."""
        for record in held:
            del self._numbers[id(record)]
        self.result.refused += len(held)
        self._last = time.monotonic()

    def failing(self, state: str, error: BaseException) -> None:
        """Remember why."""
        self._why = text_of(error) or type(error).__name__

    def probing(self) -> None:
        """Nothing is shown of it."""

    async def back_off(self, seconds: float, asked: float) -> bool:
        """Wait, as long as there is patience."""
        until = min(time.monotonic() + max(seconds, asked), self._last + self._patience)
        while not self._shutdown.over and (left := until - time.monotonic()) > 0:
            await self._shutdown.nap(asyncio.get_running_loop().create_future(), min(left, _HEARTBEAT))
        if time.monotonic() >= self._last + self._patience:
            self._shutdown.begin(0.0)
        return not self._shutdown.over
