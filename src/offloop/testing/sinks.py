"""Sinks for tests: one that keeps what it gets, one that fails as told."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from logging import LogRecord
from typing import Any, cast

from offloop.capture import Record, message_of
from offloop.errors import PartialFailure
from offloop.sink import Batch, Sink

__all__ = ["HANG", "FaultySink", "MemorySink", "Step"]

_MAX_SHOWN = 20


class MemorySink(Sink):
    """Keeps every record it is sent, and answers what was logged.

    ```python
    sink = MemorySink()
    async with Pipeline(sink, logger="app"):
        await handle(request)
    record = sink.assert_logged("timed out", level="WARNING", request_id="r1")
    sink.assert_not_logged(level="ERROR")
    ```

    What is lost on the way, by a full buffer or queue say, is told by further records, of the logger `offloop.loss`.

    Records arrive a moment after they were logged: leave the pipeline, `await pipeline.flush()`, or wait for them.

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
                    await self._more()
        except TimeoutError:
            msg = f"{len(self.records)} of {count} records after {timeout:g} s"
            raise TimeoutError(msg) from None
        return self.records

    async def wait_for_message(self, text: str | re.Pattern[str], timeout: float = 5.0, **wanted: Any) -> Record:
        """The first record with this message, once there is one.

        Args:
            text: As for `find`, and so is `wanted`.
            timeout: Seconds.
            wanted: What else is asked of it.

        Raises:
            TimeoutError: There was none after so many seconds; says what there was.
        """
        try:
            async with asyncio.timeout(timeout):
                while not (found := self.find(text, **wanted)):
                    await self._more()
        except TimeoutError:
            msg = f"no record with {_described(text, wanted)} after {timeout:g} s; {self._listed()}"
            raise TimeoutError(msg) from None
        return found[0]

    def find(
        self,
        text: str | re.Pattern[str] = "",
        *,
        level: int | str | None = None,
        logger: str | None = None,
        **extra: Any,
    ) -> list[Record]:
        """The records of which all of this is true, oldest first.

        Args:
            text: The message contains it; or the pattern is found in the message.
            level: Its level, by number or name. None: any.
            logger: It came from the logger of this name or from one below it. None: any.
            extra: Attributes that it has, with these values.
        """
        levelno = logging.getLevelNamesMapping()[level] if isinstance(level, str) else level
        return [
            record
            for record in self.records
            if (levelno is None or record.levelno == levelno)
            and (logger is None or f"{record.name}.".startswith(f"{logger}."))
            and re.search(re.escape(text) if isinstance(text, str) else text, message_of(record))
            and all(name in record.__dict__ and record.__dict__[name] == value for name, value in extra.items())
        ]

    def assert_logged(self, text: str | re.Pattern[str] = "", **wanted: Any) -> Record:
        """The first record that `find` finds.

        Raises:
            AssertionError: There is none; says what there is.
        """
        found = self.find(text, **wanted)
        if not found:
            msg = f"no record with {_described(text, wanted)}; {self._listed()}"
            raise AssertionError(msg)
        return found[0]

    def assert_not_logged(self, text: str | re.Pattern[str] = "", **wanted: Any) -> None:
        """Nothing, if `find` finds nothing.

        Raises:
            AssertionError: It finds something; says what.
        """
        found = self.find(text, **wanted)
        if found:
            msg = f"{len(found)} record(s) with {_described(text, wanted)}: {_lines(found)}"
            raise AssertionError(msg)

    def clear(self) -> None:
        """Forget the records, their bytes and batches; the counts of `open` and `aclose` stay."""
        self.records.clear()
        self.encoded.clear()
        self.batches.clear()

    async def _more(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _listed(self) -> str:
        return f"there are {len(self.records)}: {_lines(self.records)}" if self.records else "there are none at all"

    def _keep(self, batch: Batch, indices: Iterable[int]) -> None:
        kept = batch.pick(list(indices))
        self.records.extend(kept.records)
        self.encoded.extend(kept.encoded)
        self.batches.append(len(kept))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _described(text: str | re.Pattern[str], wanted: Mapping[str, Any]) -> str:
    told = [f"{name}={value!r}" for name, value in wanted.items()]
    return ", ".join([repr(text if isinstance(text, str) else text.pattern), *told])


def _lines(records: Sequence[Record]) -> str:
    shown = [f"\n  {record.levelname} {record.name}: {message_of(record)}" for record in records[:_MAX_SHOWN]]
    return "".join(shown) + ("\n  ..." if len(records) > _MAX_SHOWN else "")


class _Hang:
    def __repr__(self) -> str:
        return "HANG"


HANG = _Hang()
"""A step that never ends until it is cancelled."""

Step = BaseException | type[BaseException] | float | _Hang | Callable[[Batch], object]


class FaultySink(MemorySink):
    """Fails as told, attempt by attempt, and takes the batch where nothing is told.

    A step is an exception (raised), a number (seconds to wait before the batch is taken), `HANG`, or a function of the
    batch (awaited if it is async; what it raises is raised). Of a batch for which `PartialFailure` is raised, the
    records that it does not name are kept.

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
        self.attempts = 0
        self.fail(*steps, always=always, poison=poison)

    def fail(
        self, *steps: Step | None, always: Step | None = None, poison: Callable[[LogRecord], bool] | None = None
    ) -> None:
        """Set a new script, as at construction; an attempt that is under way goes on by the old one."""
        self._steps = list(steps)
        self._always = always
        self._poison = poison

    def heal(self) -> None:
        """From now on, take every batch; a batch that hangs still does until its attempt is given up."""
        self.fail()

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
