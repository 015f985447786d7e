"""Sinks for tests: one that keeps what it gets, one that fails as told."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from logging import LogRecord
from typing import Any, cast

from offloop.capture import Record, message_of
from offloop.errors import PartialFailure
from offloop.sink import Batch, Sink

__all__ = ["HANG", "FaultySink", "MemorySink", "Step"]


class MemorySink(Sink):
    """Keeps every record it is sent.

    Attributes:
        records: All of them, in the order they came.
        encoded: Their bytes.
        batches: How many records each `send` had.
        opens: How often `open` was called.
        closes: How often `aclose` was called.
    """

    def __init__(self, **options: Any) -> None:
        """Keep nothing yet.

        Args:
            options: What every sink takes.
        """
        super().__init__(**options)
        self.records: list[Record] = []
        self.encoded: list[bytes] = []
        self.batches: list[int] = []
        self.opens = 0
        self.closes = 0
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def messages(self) -> list[str]:
        """The message of each record."""
        return [message_of(record) for record in self.records]

    async def open(self) -> None:
        """Count."""
        self.opens += 1

    async def send(self, batch: Batch) -> None:
        """Keep the batch."""
        self._keep(batch, range(len(batch)))

    async def aclose(self) -> None:
        """Count."""
        self.closes += 1

    async def wait_for(self, count: int, timeout: float = 5.0) -> list[Record]:
        """The records, once there are at least `count`.

        Raises:
            TimeoutError: There were not after so many seconds; says how many there were.
        """
        try:
            async with asyncio.timeout(timeout):
                while len(self.records) < count:
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            msg = f"{len(self.records)} of {count} records after {timeout:g} s"
            raise TimeoutError(msg) from None
        return self.records

    def _keep(self, batch: Batch, indices: Iterable[int]) -> None:
        kept = batch.pick(list(indices))
        self.records.extend(kept.records)
        self.encoded.extend(kept.encoded)
        self.batches.append(len(kept))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Hang:
    def __repr__(self) -> str:
        return "HANG"


HANG = _Hang()
"""A step that never ends until it is cancelled."""

Step = BaseException | type[BaseException] | float | _Hang | Callable[[Batch], object]


class FaultySink(MemorySink):
    """Fails as told, attempt by attempt, and takes the batch where nothing is told.

    A step is an exception (raised), a number (seconds to wait before the batch is taken), `HANG`, or a function of the
    batch (awaited if it is async; what it raises is raised, and records it leaves out by raising `PartialFailure` are
    kept as that says).

    Attributes:
        attempts: How often `send` was called.
    """

    def __init__(
        self,
        *steps: Step | None,
        always: Step | None = None,
        poison: Callable[[LogRecord], bool] | None = None,
        **options: Any,
    ) -> None:
        """Set the script.

        Args:
            steps: For the first attempts, one each.
            always: For every attempt after them; None: the batch is taken.
            poison: A batch with a record for which this is true raises `ValueError`, after the steps.
            options: What every sink takes.
        """
        super().__init__(**options)
        self._steps = list(steps)
        self._always = always
        self._poison = poison
        self.attempts = 0

    def heal(self) -> None:
        """From now on, take every batch; a batch that hangs still does until its attempt is given up."""
        self._steps.clear()
        self._always = None
        self._poison = None

    async def send(self, batch: Batch) -> None:
        """Do what the script says."""
        self.attempts += 1
        step = self._steps.pop(0) if self._steps else self._always
        try:
            await self._play(step, batch)
        except PartialFailure as failure:
            left = {id(record) for record in (*failure.retry, *failure.rejected)}
            self._keep(batch, [index for index, record in enumerate(batch) if id(record) not in left])
            raise
        if self._poison is not None and any(map(self._poison, batch)):
            msg = "the batch is poisoned"
            raise ValueError(msg)
        await super().send(batch)

    async def _play(self, step: Step | None, batch: Batch) -> None:
        if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
            raise step
        if isinstance(step, _Hang):
            await asyncio.Event().wait()
        elif isinstance(step, (int, float)):
            await asyncio.sleep(step)
        elif step is not None:
            result = cast("Callable[[Batch], object]", step)(batch)
            if inspect.isawaitable(result):
                await cast("Awaitable[object]", result)
