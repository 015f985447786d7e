"""The cases of the contract that concern attempts which are cancelled or given up, at whatever point they are.

A coroutine is run by hand here, await by await: what happens once in a thousand attempts happens in each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from offloop.errors import DeliveryError
from offloop.sink import Sink
from offloop.testing.bench import ContractBroken, SinkBench
from offloop.testing.probes import Interference, Stepped, cancel_as_answered, cancel_now, pause
from offloop.testing.records import make_batch

__all__ = ["AttemptCases"]

_MAX_AWAITS = 60


class AttemptCases(SinkBench):
    """The cases; part of `SinkContract`."""

    async def test_cancelled_at_any_await(self) -> None:
        """Wherever an attempt is cancelled, it ends, and the next one works."""
        await self._interrupted(cancel_now)

    async def test_cancelled_at_any_answer(self) -> None:
        """Cancelled in the very moment in which what it waited for is there, an attempt loses nothing it just got."""
        await self._interrupted(cancel_as_answered)

    async def test_stale_attempt_leaves_the_next_one_alone(self) -> None:
        """An attempt that goes on after it was given up touches nothing that the new `open` made."""
        async with self._sink() as sink:
            await self._held_up(sink, lambda: self._attempt(sink))

    async def test_stale_send_leaves_the_next_one_alone(self) -> None:
        """Nor does a `send` over a connection that was kept, when it finds that one dropped."""

        async def over_a_kept_connection() -> Coroutine[Any, Any, None]:
            await self._once(sink, *self._messages(1))
            return sink.send(make_batch(sink, *self._messages(3)))

        async with self._sink() as sink:
            await self._held_up(sink, over_a_kept_connection)

    async def test_stale_reconnection_leaves_the_next_one_alone(self) -> None:
        """Nor does a `send` that found its connection closed by the peer, whatever it does about that."""

        async def over_a_closed_connection() -> Coroutine[Any, Any, None]:
            await self._once(sink, *self._messages(1))
            await self._inflict(self.disconnect)
            return sink.send(make_batch(sink, *self._messages(3)))

        async with self._sink() as sink:
            await self._held_up(sink, over_a_closed_connection)

    # ----------------------------------------------------------------------------------------------------------------

    async def _attempt(self, sink: Sink) -> Coroutine[Any, Any, None]:
        batch = make_batch(sink, *self._messages(3))

        async def attempt() -> None:
            await sink.open()
            await sink.send(batch)

        return attempt()

    async def _interrupted(self, interfere: Interference) -> None:
        """Cancel an attempt at each of its awaits."""
        async with self._sink() as sink:
            sent: list[str] = []
            for at in range(1, _MAX_AWAITS):
                stepped = Stepped(await self._attempt(sink), at, interfere)
                task = asyncio.ensure_future(stepped.run())
                await self._ends(sink, f"an attempt that was cancelled at its await number {at}", task)
                error = None if task.cancelled() else task.exception()
                if error is not None and not isinstance(error, (DeliveryError, OSError)):
                    raise ContractBroken(
                        sink, f"raised {error!r} when cancelled", "cancellation is passed on"
                    ) from error
                if not stepped.reached:
                    break
                sent += self._messages(1)
                await self._once(sink, sent[-1])
            await self._arrive(sink, sent)

    async def _held_up(self, sink: Sink, make: Callable[[], Awaitable[Coroutine[Any, Any, None]]]) -> None:
        """Hold an attempt up at each of its awaits, and let it go on while a newer one is under way."""
        sent: list[str] = []
        for at in range(1, _MAX_AWAITS):
            stale = _HeldUp(await make(), at)
            if not await stale.held(self.patience):
                await self._ends(sink, "an attempt", stale.task)
                break
            fresh = self._messages(2)
            await self._ready(sink)
            newer = _HeldUp(sink.send(make_batch(sink, fresh[0])), 1)
            await newer.held(self.patience)
            stale.go_on.set()
            await self._ends(sink, "an attempt that was held up", stale.task)
            newer.go_on.set()
            what = f"send, while an older attempt (held up at its await number {at}) went on"
            await self._succeeds(sink, what, newer.result())
            await self._succeeds(sink, f"the next {what}", sink.send(make_batch(sink, fresh[1])))
            sent += fresh
        await self._arrive(sink, sent)


class _HeldUp:
    """A call that is held up at its nth await until it may go on."""

    def __init__(self, call: Coroutine[Any, Any, None], at: int) -> None:
        self.go_on = asyncio.Event()
        self._reached = asyncio.Event()
        self.task = asyncio.ensure_future(Stepped(call, at, pause(self._reached, self.go_on)).run())
        # Whether an old attempt failed is of no interest, to asyncio neither.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def held(self, timeout: float) -> bool:
        """Wait until it is held up, or through without."""
        waiting = asyncio.ensure_future(self._reached.wait())
        await asyncio.wait({self.task, waiting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return self._reached.is_set()

    async def result(self) -> None:
        await self.task
