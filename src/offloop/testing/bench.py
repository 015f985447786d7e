"""The bench that the contract's cases work on: what an author tells it about a sink, and how outcomes are judged.

Nothing here knows pytest: a failure is an `AssertionError`, a case that can't be had is a `unittest.SkipTest`, which
pytest and unittest understand alike.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from typing import Any, Final
from unittest import SkipTest

from offloop.capture import text_of
from offloop.errors import PartialFailure, SinkFailure, TemporaryFailure
from offloop.policies import Retry
from offloop.sink import Sink
from offloop.testing.probes import Leftovers
from offloop.testing.records import make_batch

__all__ = ["ContractBroken", "SinkBench"]

_NAP = 0.002
_SOON: Final = Retry(initial=0.001, maximum=0.02)
_PLAIN: Final = logging.Formatter("%(message)s")
_RETRYABLE = (TemporaryFailure, SinkFailure, OSError, EOFError)


class ContractBroken(AssertionError):
    """A sink does not keep the contract; the message says what it did and what is wanted of it."""

    def __init__(self, sink: Sink | None, did: str, wanted: str) -> None:
        super().__init__(f"{'The sink' if sink is None else type(sink).__name__} {did}. The contract: {wanted}.")


class SinkBench:
    """What an author says of a sink. `make_sink` and `received` are needed, the others open up further cases.

    Attributes:
        formats: Whether the sink has a formatter, which `make_sink` is then given.
        secrets: Texts that the sink knows and must not show: passwords, tokens, also in the forms in which they go over
            the wire.
        patience: Seconds to wait for anything before it counts as never.
        hang_timeout: Seconds after which an attempt that hangs is cancelled, or given up by a listener.
    """

    formats: bool = True
    secrets: Sequence[str] = ()
    patience: float = 5.0
    hang_timeout: float = 0.2

    def make_sink(self, **options: Any) -> Sink:
        """A sink for the destination, not opened.

        Args:
            options: To be passed on to the sink: some of `formatter` (if the class `formats`), `retry`, `send_timeout`.
        """
        raise NotImplementedError

    def received(self) -> Iterable[str] | Awaitable[Iterable[str]]:
        """What the destination has by now, oldest first: each record's text as the formatter made it. May be async.

        Asked again and again until it is what it should be. What others sent may be in it.
        """
        raise NotImplementedError

    def disconnect(self) -> object:
        """Close all connections from the destination's side, and take new ones. Ends when they are closed.

        May be async, as may the next three.
        """
        raise SkipTest("the bench has no disconnect(): nothing is known of a peer that closes the connection")

    def break_down(self) -> object:
        """Close all connections and refuse new ones, or fail in the destination's own way, until `heal`.

        Ends when they are closed.
        """
        raise SkipTest("the bench has no break_down(): nothing is known of a destination that is away")

    def hang(self) -> object:
        """Answer nothing and take no more than buffers hold, without closing anything, until `heal`.

        100 records of 4 kB must be too much for the buffers.
        """
        raise SkipTest("the bench has no hang(): nothing is known of a destination that hangs")

    def heal(self) -> object:
        """Work again, as if nothing had been."""
        raise NotImplementedError

    # -- for the cases -----------------------------------------------------------------------------------------------

    @cached_property
    def _token(self) -> str:
        return uuid.uuid4().hex[:8]

    @cached_property
    def _texts(self) -> list[str]:
        return []

    def _messages(self, count: int, text: str = "") -> list[str]:
        """So many messages that were never sent before: a number, this text, and the number again."""
        first = len(self._texts)
        names = [f"{self._token}.{number}" for number in range(first, first + count)]
        # Both ends can be told: of a message that arrives in two pieces each is counted.
        self._texts.extend(f"{name} {text} {name}" if text else name for name in names)
        return self._texts[first:]

    @asynccontextmanager
    async def _sink(self, **options: Any) -> AsyncIterator[Sink]:
        """A sink that is closed at the end, and has left nothing behind then."""
        await self._warm_up()
        before = Leftovers()
        sink = self._make(**options)
        try:
            yield sink
        except BaseException:
            # What came of closing it as well would hide what is to be told.
            await self._result_of(sink, "aclose", sink.aclose())
            raise
        await self._succeeds(sink, "aclose", sink.aclose())
        await self._until(
            lambda: not before.told(), lambda: ContractBroken(sink, f"left {before.told()} behind", _NOTHING_LEFT)
        )

    def _make(self, **options: Any) -> Sink:
        if self.formats:
            options.setdefault("formatter", _PLAIN)
        return self.make_sink(**{"retry": _SOON} | options)

    async def _warm_up(self) -> None:
        """Have everything made that is made once (name resolver, the destination's own client), then let it settle."""
        before = Leftovers()
        sink = self._make()
        await self._ready(sink)
        await self._sends(sink, self._messages(1))
        await self._succeeds(sink, "aclose", sink.aclose())
        await self._arrive(sink, self._texts[-1:])
        with suppress(TimeoutError):  # the destination keeps something of its own
            async with asyncio.timeout(self.hang_timeout):
                while before.told():  # noqa: ASYNC110 - nothing tells when a socket is closed
                    await asyncio.sleep(_NAP)

    async def _ready(self, sink: Sink) -> None:
        """Open it."""
        await self._succeeds(sink, "open", sink.open())

    async def _once(self, sink: Sink, *messages: str) -> None:
        """Open, and send one batch."""
        await self._ready(sink)
        await self._sends(sink, messages)

    async def _sends(self, sink: Sink, messages: Sequence[str]) -> None:
        """Send them as one batch."""
        await self._succeeds(sink, "send", sink.send(make_batch(sink, *messages)))

    async def _succeeds(self, sink: Sink, what: str, call: Coroutine[Any, Any, None]) -> None:
        """Await a call that has no reason to fail."""
        error = await self._result_of(sink, what, call)
        if error is not None:
            raise ContractBroken(
                sink, f"raised {_shown(error)} in {what}", "it succeeds while the destination is well"
            ) from error

    async def _result_of(self, sink: Sink, what: str, call: Coroutine[Any, Any, None]) -> BaseException | None:
        """What a call raised, in a task of its own as in a listener."""
        task = asyncio.get_running_loop().create_task(call)
        await self._ends(sink, what, task)
        if task.cancelled():
            return asyncio.CancelledError()
        return task.exception()

    async def _ends(self, sink: Sink, what: str, task: asyncio.Task[None]) -> None:
        """Wait for a task that has no reason to take long."""
        await asyncio.wait({task}, timeout=self.patience)
        if not task.done():
            task.cancel()
            raise ContractBroken(
                sink, f"was not through with {what} after {self.patience:g} s", f"{what} comes to an end"
            )

    def _retryable(self, sink: Sink, what: str, error: BaseException | None) -> None:
        """Judge what a destination in trouble led to."""
        partial = isinstance(error, PartialFailure) and not error.rejected
        if error is not None and not partial and not isinstance(error, _RETRYABLE):
            raise ContractBroken(
                sink, f"raised {_shown(error)} in {what} for a fault of the connection", _RETRY
            ) from error

    async def _inflict(self, fault: Callable[[], object]) -> None:
        """Call one of the hooks."""
        await _awaited(fault())

    async def _arrive(self, sink: Sink, messages: Sequence[str], *, once: bool = False) -> dict[str, str]:
        """Wait until all have come, in this order; repetitions don't count unless `once`.

        Returns:
            What came in the place of each.
        """
        got: list[tuple[str, str]] = []

        async def complete() -> bool:
            got[:] = [pair for pair in await self._numbered() if pair[0] in wanted]
            return {message for message, _ in got} == wanted

        wanted = set(messages)
        await self._until(complete, lambda: ContractBroken(sink, _missing(messages, got), _TAKEN))
        came = [message for message, _ in got] if once else list(dict(got))
        if came != list(messages):
            raise ContractBroken(sink, f"delivered {_short(came)} for {_short(messages)}", _ORDER)
        return dict(got)

    async def _numbered(self) -> list[tuple[str, str]]:
        """What came, each with the message it was."""
        texts = await _awaited(self.received())
        found = ((re.search(rf"{self._token}\.(\d+)", text), text) for text in texts)
        return [(self._texts[int(match[1])], text) for match, text in found if match is not None]

    async def _until(self, condition: Callable[[], Any], failure: Callable[[], Exception]) -> None:
        """Wait for a condition; after `patience`, raise the failure."""
        deadline = asyncio.get_running_loop().time() + self.patience
        while not await _awaited(condition()):
            if asyncio.get_running_loop().time() > deadline:
                raise failure()
            await asyncio.sleep(_NAP)


_TAKEN = "send returns when the destination has taken the whole batch, so all of it must be there"
_ORDER = "records arrive in the order of the batch, and once where nothing fails"
_RETRY = (
    "TemporaryFailure, OSError, TimeoutError, EOFError, SinkFailure, or PartialFailure with what to retry; anything "
    "else loses records, or has them suspected"
)
_NOTHING_LEFT = "after aclose no task, thread or socket of the sink is left, whatever became of its attempts"


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}({text_of(error)})"


def _short(messages: Sequence[str]) -> str:
    shown = ", ".join(repr(message[:20]) for message in messages[:10])
    return f"[{shown}{', ...' if len(messages) > 10 else ''}]"  # noqa: PLR2004 - as above


def _missing(messages: Sequence[str], got: Sequence[tuple[str, str]]) -> str:
    came = {message for message, _ in got}
    missing = [message for message in messages if message not in came]
    return f"sent {len(messages)} record(s) and {len(missing)} did not arrive: {_short(missing)}"
