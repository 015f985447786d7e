"""A plain `logging.Handler` as a sink, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Event, Lock
from typing import Any, cast

from offloop import fork
from offloop.capture import Record
from offloop.errors import PartialFailure, TemporaryFailure
from offloop.losses import LOSS_LOGGER
from offloop.policies import Retry
from offloop.sink import Batch, Sink
from offloop.worker import Breather, Worker, overdue

__all__ = ["HandlerSink"]

_ALONE = "_offloop_alone"  # the attribute of a handler that holds the lock of its jobs
_RETRY = Retry(give_up_after=300.0)


class HandlerSink(Sink):
    """Calls a handler's filters and `emit` in a daemon thread of its own, a batch per hop, without the handler's lock.

    Level and filters are the handler's, as they are at the time; only notices of what was lost (`offloop.loss`) pass
    them all. A record whose `emit` ends in `handleError` is sent again if the cause was an `OSError` (a full disk, a
    broken connection), for up to five minutes; otherwise it is rejected, and a `handleError` of the handler's own class
    is called too. `send_timeout` is how long one record may take: a handler that is stuck in one is waited for, not
    called again.
    """

    encodes = False

    def __init__(
        self, handler: logging.Handler, *, retry: Retry = _RETRY, send_timeout: float = 10.0, **options: Any
    ) -> None:
        """Wrap the handler, which is not closed by this sink.

        Args:
            handler: Any handler that would do on a logger.
            retry: When a failed record is sent again.
            send_timeout: Seconds one record may take.
            options: What every sink takes, except level and formatter: those are the handler's.
        """
        self.handler = handler
        self._worker = Worker(f"offloop-{self.default_name()}")
        self._job: _Job | None = None
        self._running: asyncio.Task[None] | None = None
        super().__init__(
            level=handler.level,
            formatter=handler.formatter,
            name=handler.name,
            retry=retry,
            send_timeout=math.inf,
            **options,
        )
        self._patience = send_timeout
        fork.inherits(self)

    def after_fork(self) -> None:
        """In a child: what the parent's thread was doing with the handler, it does there."""
        if self._job is not None:
            self._job.disown()
        self._job = self._running = None

    @property
    def level(self) -> int:
        """The handler's level."""
        return self.handler.level

    @level.setter
    def level(self, value: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.handler.level = value

    def default_name(self) -> str:
        """The handler's class."""
        return type(self.handler).__name__

    def set_name(self, name: str | None) -> None:
        """Take the name without registering it: in `logging`'s table it is the handler's."""
        self._name = name

    name = property(logging.Handler.get_name, set_name)

    async def send(self, batch: Batch) -> None:
        """Have the handler emit each record of the batch.

        Raises:
            TemporaryFailure: It is still stuck in a record.
            PartialFailure: It failed, or got stuck, in a record.
        """
        last = await self._settle_last()
        dealt = {id(record) for record in last.records[: last.done]} if last is not None else set[int]()
        job = _Job(self.handler, [record for record in batch if id(record) not in dealt])
        if last is not None and last.error is not None:
            # What it failed in after it was given up as stuck is known only now.
            late = {id(record) for record in last.rejected}
            job.rejected += [record for record in batch if id(record) in late]
            job.error = last.error
        if last is not None:
            job.filtered += [record for record in batch if any(record is other for other in last.filtered)]
        self._job = job
        self._running = asyncio.get_running_loop().create_task(self._worker.run(job))
        try:
            stuck = not await self._finished(job, self._running)
        except asyncio.CancelledError:
            job.stop = True
            _leave_shutdown(self.handler)
            raise
        batch.filtered.extend(job.filtered)
        if stuck:
            job.stop = True
            _leave_shutdown(self.handler)
            msg = f"{self.default_name()} is stuck in a record for {self._patience:g} s"
            raise PartialFailure(msg, retry=job.records[job.done :], rejected=job.rejected)
        if job.done < len(job.records) or job.rejected:
            msg = f"{self.default_name()} failed: {job.error!r}"
            raise PartialFailure(msg, retry=job.records[job.done :], rejected=job.rejected) from job.error

    async def aclose(self) -> None:
        """Flush the handler and let the thread end."""
        try:
            if self._running is None or self._running.done():
                await self._worker.run(self.handler.flush)
            else:
                _leave_shutdown(self.handler)
        except asyncio.CancelledError:
            _leave_shutdown(self.handler)  # it hangs in `flush`, perhaps with its lock held
            raise
        finally:
            self._worker.close()

    async def _settle_last(self) -> _Job | None:
        """Wait for what an earlier attempt left running; its job, of which some may have been done after all."""
        job, running = self._job, self._running
        if job is None or running is None:
            return None
        if not job.ended.is_set() and running.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((running,), timeout=self._patience)
        if not job.ended.is_set():
            msg = f"{self.default_name()} is still stuck in a record"
            raise TemporaryFailure(msg)
        return job

    async def _finished(self, job: _Job, running: asyncio.Task[None]) -> bool:
        """Wait as long as there is progress."""
        while True:
            before = job.done
            await asyncio.wait((running,), timeout=self._patience)
            if running.done():
                running.result()
                return True
            if job.done == before:
                return False


class _Job:
    """A batch in the handler's thread. `done` counts the records that are dealt with, from the first on."""

    def __init__(self, handler: logging.Handler, records: Sequence[Record]) -> None:
        self.records = records
        self.done = 0
        self.stop = False
        self.ended = Event()
        self.filtered: list[Record] = []
        self.rejected: list[Record] = []
        self.error: BaseException | None = None
        self._handler = handler
        self._failure: BaseException | None = None
        self._own: Callable[[Record], object] | None = None

    def __call__(self) -> None:
        attributes = self._handler.__dict__
        try:
            # One handler may be the sink of several listeners: `emit` expects to be alone, and so does what follows.
            with attributes.setdefault(_ALONE, Lock()):
                self._own = attributes.get("handleError")
                attributes["handleError"] = self._failed
                try:
                    self._emit_all()
                finally:
                    del attributes["handleError"]
                    if self._own is not None:
                        attributes["handleError"] = self._own
        finally:
            self.ended.set()

    def disown(self) -> None:
        """Leave the handler as it was found."""
        attributes = self._handler.__dict__
        attributes.pop(_ALONE, None)
        if attributes.get("handleError") == self._failed:
            del attributes["handleError"]
            if self._own is not None:
                attributes["handleError"] = self._own

    def _emit_all(self) -> None:
        breather = Breather()
        for record in self.records:
            if self.stop or overdue() or not self._emit(record):
                return
            self.done += 1
            breather()

    def _emit(self, record: Record) -> bool:
        """One record; False if it is to be sent again."""
        handler, self._failure = self._handler, None
        try:
            # Filters and formatters change what they are given, and other lanes share the record.
            own = record.twin()
            passed: object = own.name == LOSS_LOGGER or handler.filter(own)
            if not passed:
                self.filtered.append(record)
                return True
            handler.emit(passed if isinstance(passed, logging.LogRecord) else own)
        except Exception as error:  # noqa: BLE001 - a handler that reports nothing itself
            self._failure = error
        if self._failure is None:
            return True
        self.error = self._failure
        if isinstance(self._failure, (OSError, EOFError)):
            return False
        self.rejected.append(record)
        self._tell(record)
        return True

    def _failed(self, record: logging.LogRecord) -> None:
        """Stand in for `handleError`: what `emit` swallowed."""
        self._failure = sys.exc_info()[1] or RuntimeError("handleError was called without an exception")

    def _tell(self, record: Record) -> None:
        """Call the handler's own `handleError`, which finds the cause in `sys.exc_info`, as within `emit`."""
        tell = self._own
        if tell is None:
            if type(self._handler).handleError is logging.Handler.handleError:
                return
            tell = partial(type(self._handler).handleError, self._handler)
        with suppress(Exception):  # the record is counted as rejected, and reported by the lane
            try:
                self._raise()
            except Exception:  # noqa: BLE001 - the handler deals with it
                tell(record)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


def _leave_shutdown(handler: logging.Handler) -> None:
    """Have `logging.shutdown` skip a handler that is stuck: it would wait for it at exit."""
    # There is no public way out of it.
    handlers = cast("list[Callable[[], object]]", logging._handlerList)  # type: ignore[attr-defined]  # noqa: SLF001
    handlers[:] = [reference for reference in handlers if reference() is not handler]
