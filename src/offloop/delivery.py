"""Attempts: one batch to one sink, until the destination has it or it is known that it never will.

Each `open` and `send` runs in a task of its own and is abandoned at its deadline, so that one which hangs or swallows
cancellation costs the deadline and no more. What an attempt raised decides what comes next: a pause, the breaker that
opens, the search for a record that poisons the batch. Nothing here counts records, or knows what else may take them:
the lane does, through `Settlement`.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from offloop import diagnostics, marks
from offloop.breaker import Circuit
from offloop.capture import Held, made, text_of
from offloop.errors import DeliveryError, PartialFailure, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.shutdown import Awaited, Ending
from offloop.sink import Batch, Sink

__all__ = ["Delivery", "Hold", "Settlement", "marked_context"]

_GRACE = 0.02  # seconds a cancelled attempt gets to let go of its connection
_CANARIES = 2
_REFUSED = 2  # records refused in a row before the sink is asked again whether it takes anything
_LONE_ROUNDS = 3
_TEMPORARY = (TemporaryFailure, OSError, TimeoutError, EOFError)

Hold = Callable[[Awaited, float | None], Coroutine[Any, Any, bool]]
"""Waits for a future for at most so many seconds (None: no limit), come what may; tells whether it is done."""


class Settlement(Protocol):
    """Where the fate of each record is counted."""

    def delivered(self, held: Sequence[Held], filtered: Sequence[Held]) -> None:
        """The destination has them; those in `filtered` its own filters turned away."""

    def dropped(self, held: Sequence[Held], reason: str) -> None:
        """They are lost, unless somebody else takes them."""

    def rejected(self, held: Sequence[Held], why: str) -> None:
        """The destination will never take them."""

    def failing(self, state: str, error: BaseException) -> None:
        """An attempt failed; the records are still ours."""

    def probing(self) -> None:
        """The breaker is open, and an attempt begins all the same."""

    async def back_off(self, seconds: float, asked: float) -> bool:
        """Wait before the next attempt, at least as long as was asked; False if there is no time left for one."""
        ...


def marked_context() -> Context:
    """A fresh context in which everything that is logged is offloop's own."""
    context = Context()
    context.run(marks.mark)
    return context


class _Unopened(SinkFailure):
    """`open` raised what it does not declare: it may be a bug, or a network's trouble under another name."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(_words(cause))
        self.cause = cause


class _Journey:
    """How far a batch has come.

    Attributes:
        pieces: What is left to send, the next piece last.
        suspects: Records that failed alone, while it is not known whether the sink takes anything.
        trusted: Whether it took something on this journey.
        refused: How many records were refused since it last took one.
        alone: Whether the batch is a single record.
        canaries: How many records are tried alone before the sink is blamed.
        started: When the first attempt began, by the loop's clock.
    """

    def __init__(self, batch: Batch, started: float) -> None:
        self.pieces = [batch]
        self.suspects: list[Batch] = []
        self.trusted = False
        self.refused = 0
        self.alone = len(batch) == 1
        self.canaries = 1
        self.started = started


class Delivery:
    """The attempts of one sink in one event loop.

    Args:
        sink: Whose `open`, `send` and `aclose` are called, one at a time.
        settlement: Is told what became of each record.
        hold: How to wait.

    Attributes:
        circuit: The breaker.
    """

    def __init__(self, sink: Sink, settlement: Settlement, hold: Hold) -> None:
        self._sink = sink
        self._settlement = settlement
        self._hold = hold
        self._loop = asyncio.get_running_loop()
        self._opened = False
        self.circuit = Circuit(sink.breaker, self._loop.time, sink.retry.maximum)
        self.failures = 0
        self._rounds = 0  # journeys in a row on which the sink choked on all it was given
        self._has_delivered = False  # since a record was last rejected for failing alone
        self._lone_rounds = 0
        self._abandoned: set[asyncio.Task[None]] = set()

    async def deliver(self, batch: Batch) -> bool:
        """Send the batch, in order, again and again where that may help.

        Returns:
            True once every record is settled; False if some are not: the deadline passed, the breaker opened and they
            need not wait, or the sink chokes on everything and the records left are to be tried again in a new batch,
            with others.
        """
        if self.circuit.wait and not await self._settlement.back_off(self.circuit.wait, 0.0):
            return False
        journey = _Journey(batch, self._loop.time())
        try:
            while journey.pieces:
                piece = journey.pieces.pop()
                if not await self._judge(journey, piece, await self._attempt(piece)):
                    return False
        finally:
            self.circuit.answered()  # if nothing was taken, and nothing failed either
        return not journey.suspects

    async def close(self, timeout: float, hold: Hold | None = None) -> None:
        """Close the sink, waiting at most so many seconds, and in another way than for attempts if one is given."""
        self._opened = False
        self._hold = hold or self._hold
        error = await self._bounded(self._sink.aclose, max(timeout, _GRACE), "aclose")
        if error is not None:
            diagnostics.report(f"aclose:{id(self._sink)}", f"{self._sink!r} did not close: {_words(error)}")

    # ----------------------------------------------------------------------------------------------------------------

    async def _judge(self, journey: _Journey, piece: Batch, error: BaseException | None) -> bool:
        """Settle the piece, or see what else to do with it; False if records are left and the journey ends here."""
        if error is None:
            self._took(piece)
            journey.trusted = True
            journey.refused = 0
            # Once more: the sink may have failed for all it was given then, and works by now.
            journey.pieces.extend(reversed(journey.suspects))
            journey.suspects.clear()
            return True
        if isinstance(error, PermanentFailure):
            self._refuse(piece.held, error)
            return True
        if isinstance(error, PartialFailure):
            left = self._took_some(piece, error)
            return left is None or await self._later(journey, left, error)
        if isinstance(error, (*_TEMPORARY, SinkFailure)):
            return await self._later(journey, piece, error)
        return await self._suspect(journey, piece, error)

    async def _later(self, journey: _Journey, piece: Batch, error: BaseException) -> bool:
        """Wait before the next attempt at the piece."""
        journey.pieces.append(piece)
        if journey.suspects:  # they were suspected of what now seems to be a trouble of the connection
            await self._pause(error, "retrying")
            return False
        limit = self._sink.retry.give_up_after
        if limit is not None and self._loop.time() - journey.started >= limit:
            self._failed(error, "retrying")
            for expired in reversed(journey.pieces):
                self._settlement.dropped(expired.held, "expired")
            journey.pieces.clear()
            return True
        return await self._pause(error, "failing" if isinstance(error, SinkFailure) else "retrying")

    async def _suspect(self, journey: _Journey, piece: Batch, error: BaseException) -> bool:
        """Look for the record that the sink chokes on."""
        if len(piece) > 1:
            journey.pieces.extend(self._halves(piece) if journey.trusted else self._canaries(journey, piece))
            return True
        if (journey.trusted and journey.refused < _REFUSED) or self._is_poison_alone(journey):
            journey.refused += 1
            self._refuse(piece.held, error)
            return True
        journey.suspects.append(piece)
        if not journey.trusted and journey.pieces and len(journey.suspects) < journey.canaries:
            return True
        # Whatever it is given, the sink chokes: it is the sink.
        self._rounds += 1
        await self._pause(error, "failing")
        return False

    async def _attempt(self, batch: Batch) -> BaseException | None:
        if self.circuit.attempt():
            self._settlement.probing()
        if not self._opened:
            error = await self._bounded(self._sink.open, self._sink.send_timeout, "open")
            if error is not None:
                # Nothing was sent: whatever `open` raised says nothing of the records.
                return error if isinstance(error, (*_TEMPORARY, SinkFailure)) else _Unopened(error)
            self._opened = True
        batch.filtered.clear()
        error = await self._bounded(partial(self._sink.send, batch), self._sink.send_timeout, "send")
        if error is not None:
            # An answer that concerns the records came over a connection that works.
            self._opened = isinstance(error, (PermanentFailure, PartialFailure))
        return error

    async def _bounded(self, call: Callable[[], Awaitable[None]], timeout: float, what: str) -> BaseException | None:
        ended = Ending()
        began = self._loop.time()
        called = _called(call, ended)
        task = _start(self._loop, called)
        task.add_done_callback(partial(_end, ended))  # a task that is cancelled before it began tells nobody
        try:
            if not await self._hold(ended, timeout):
                took = f"{self._loop.time() - began:.1f} s"
                task.cancel()
                if not await self._hold(ended, _GRACE):
                    self._abandoned.add(task)
                    task.add_done_callback(self._forget)
                    return TemporaryFailure(f"{what} hung for {took} and ignored its cancellation; abandoned")
                if task.cancelled() or task.exception() is not None:
                    return TemporaryFailure(f"{what} was not done after {took}")
        except GeneratorExit:
            # The loop was closed without a stop, perhaps before the first step: nobody forgot to await this.
            if inspect.getcoroutinestate(called) == inspect.CORO_CREATED:
                called.close()
            raise
        if task.cancelled():
            return TemporaryFailure(f"{what} was cancelled")
        return task.exception()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: whatever it was, the batch went another way long ago

    def _took(self, piece: Batch) -> None:
        self._rounds = 0
        self._lone_rounds = 0
        self._works()
        self._settlement.delivered(piece.held, _turned_away(piece.held, piece))

    def _works(self) -> None:
        """The sink has taken something: this alone resets the backoff, and closes the breaker."""
        self.failures = 0
        self._has_delivered = True
        if self.circuit.delivered():
            diagnostics.report(f"closed:{id(self._sink)}", f"{self._sink!r} works again: its breaker is closed")

    def _took_some(self, piece: Batch, error: PartialFailure) -> Batch | None:
        """Settle what was taken or refused; what is to be sent again, if anything."""
        again, refused = ({id(record) for record in records} for records in (error.retry, error.rejected))
        pairs = list(zip(piece.records, piece.held, strict=True))
        taken = [held for record, held in pairs if id(record) not in again and id(record) not in refused]
        if taken:
            self._works()
            self._settlement.delivered(taken, _turned_away(taken, piece))
        rejected = [held for record, held in pairs if id(record) in refused]
        if rejected:
            self._refuse(rejected, error)
        keep = [index for index, r in enumerate(piece) if id(r) in again and id(r) not in refused]
        return piece.pick(keep) if keep else None

    def _refuse(self, refused: Sequence[Held], error: BaseException) -> None:
        first = made(refused[0])
        self._settlement.rejected(refused, _words(error))
        diagnostics.report(
            f"rejected:{id(self._sink)}",
            f"{self._sink!r} rejected {len(refused)} record(s), the first {first.levelname} of {first.name!r}: "
            f"{_words(error)}",
        )

    def _halves(self, piece: Batch) -> list[Batch]:
        middle = len(piece) // 2
        return [piece.part(middle), piece.part(0, middle)]

    def _canaries(self, journey: _Journey, piece: Batch) -> list[Batch]:
        """The first two records one by one, then the rest; after a round in vain, one from anywhere as the third.

        Halving at once would try a sink with a wrong password twice for every record, and lose them all. So it is first
        shown that the sink takes anything, in three or four attempts a round. Those that fail before one is taken are
        tried again after it; the third finds a way past any number of poisonous records in front.
        """
        positions = list(range(min(_CANARIES, len(piece))))
        if self._rounds and len(piece) > _CANARIES:
            positions.append(random.randrange(_CANARIES, len(piece)))  # noqa: S311 - nobody gains by guessing it
        journey.canaries = len(positions)
        rest = [index for index in range(len(piece)) if index not in positions]
        singles = [piece.pick([index]) for index in reversed(positions)]
        return [piece.pick(rest), *singles] if rest else singles

    def _is_poison_alone(self, journey: _Journey) -> bool:
        """Whether a record without company is to blame: the sink worked before, and failed on it several times."""
        if not journey.alone or not self._has_delivered:
            return False
        self._lone_rounds += 1
        if self._lone_rounds < _LONE_ROUNDS:
            return False
        # The next one that fails alone is kept until the sink has taken something again: it may be the sink.
        self._has_delivered, self._lone_rounds = False, 0
        return True

    async def _pause(self, error: BaseException, state: str) -> bool:
        delay, asked = self._failed(error, state)
        if self.circuit.closed:
            diagnostics.report(
                f"{state}:{id(self._sink)}",
                f"{self._sink!r} failed, next attempt in {max(delay, asked):.1f} s: {_words(error)}",
            )
        waited = await self._settlement.back_off(delay, asked)
        if waited:
            self.circuit.hasten()  # a shutdown may have cut the wait short
        return waited

    def _failed(self, error: BaseException, state: str) -> tuple[float, float]:
        """Count a failed attempt; gives the seconds to wait, and those that the destination asked for."""
        self.failures += 1
        delay, asked = self._sink.retry.delay(self.failures), getattr(error, "retry_after", None) or 0.0
        fatal = isinstance(error, SinkFailure) and not isinstance(error, _Unopened)
        if getattr(error, "outage", True):
            opened = self.circuit.failed(max(delay, asked), fatal=fatal)
        else:
            opened = False
            self.circuit.answered()
        if not self.circuit.closed:
            state, delay = "open", self.circuit.wait
        if opened:
            diagnostics.report(
                f"opened:{id(self._sink)}",
                f"{self._sink!r}: the breaker is open after {self.failures} failure(s) in a row, next attempt in "
                f"{delay:.1f} s: {_words(error)}",
            )
        self._settlement.failing(state, error.cause if isinstance(error, _Unopened) else error)
        return delay, asked


def _start(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of its own, with a marked context; from 3.12 on it begins at once, and may end without a turn."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(call, loop=loop, context=marked_context(), eager_start=True)
    return loop.create_task(call, context=marked_context())


async def _called(call: Callable[[], Awaitable[None]], ended: Ending) -> None:
    """Within the task even the call itself: a method that is not async, or fails before it is awaited, fails alike.

    That it has ended is told within its own last step: a done callback would come a turn of the loop later.
    """
    try:
        await call()
    except SystemExit as error:
        # asyncio would have it end the application's loop.
        raise RuntimeError(f"the sink raised {error!r}") from error
    finally:
        _end(ended)


def _end(ended: Ending, _: object = None) -> None:
    with suppress(RuntimeError):  # the loop was closed without a stop, and the task is collected
        ended.end()


def _turned_away(settled: Sequence[Held], piece: Batch) -> Sequence[Held]:
    """Those that the sink turned away; it may have named one twice, or one that is not of the batch."""
    if not piece.filtered:
        return ()
    turned, ours = set(map(id, piece.filtered)), set(map(id, settled))
    pairs = zip(piece.records, piece.held, strict=True)
    return [held for record, held in pairs if id(record) in turned and id(held) in ours]


def _words(error: BaseException) -> str:
    text = text_of(error)
    if isinstance(error, DeliveryError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
