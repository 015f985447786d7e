"""The contract of a sink as test cases, for sinks of this project and of others.

```python
class TestChatSink(SinkContract):
    @pytest.fixture(autouse=True)
    async def server(self):
        async with ChatServer() as self.chat:
            yield

    def make_sink(self, **options):
        return ChatSink(self.chat.url, **options)

    def received(self):
        return self.chat.messages
```

Plain asyncio: the methods are run by pytest with pytest-asyncio or anyio's plugin, and by unittest where the class is
also an `IsolatedAsyncioTestCase`. A case wants a destination that is up; what others send there does not disturb it. A
case that needs a hook which is not written is skipped.
"""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from unittest import SkipTest

from offloop import diagnostics
from offloop.ledger import Counts, Stats
from offloop.pipeline import Pipeline
from offloop.sink import Sink
from offloop.testing.attempts import AttemptCases
from offloop.testing.bench import ContractBroken, SinkBench
from offloop.testing.records import make_batch

__all__ = ["ContractBroken", "SinkContract"]

_LARGE = "x" * 5_000
_HEAVY = "x" * 4_000
_WORDS = "Grüße, 世界, 🙂, 'quotes', \"quotes\", <b>, & \\ %s {}"
_ODD_TEXTS = (
    "line one\nline two\r\nline three\rline four",
    "controls \0 \x07 \x1b[31m \x7f \x85 \u2028 \u202e",
    "lone surrogates \ud800 \udfff",
    ".\n.",
    "long " + "y" * 200_000,
)


class SinkContract(AttemptCases):
    """The cases. Subclass it as `Test...`, write `make_sink` and `received`, and what else can be had."""

    # -- records -----------------------------------------------------------------------------------------------------

    async def test_delivers_in_order(self) -> None:
        """Several batches over one opening arrive once, oldest first, with their texts."""
        async with self._sink() as sink:
            await self._ready(sink)
            messages = self._messages(1) + self._messages(7, _WORDS) + self._messages(2)
            for batch in (messages[:1], messages[1:8], messages[8:]):
                await self._sends(sink, batch)
            _check_texts(sink, await self._arrive(sink, messages, once=True))

    async def test_large_batch_arrives_whole(self) -> None:
        """A megabyte is more than one write."""
        async with self._sink() as sink:
            await self._ready(sink)
            messages = self._messages(200, _LARGE)
            await self._sends(sink, messages)
            _check_texts(sink, await self._arrive(sink, messages, once=True))

    async def test_any_text_is_one_record(self) -> None:
        """Line ends, control characters, lone surrogates and great length break no batch, forge no record, end none."""
        async with self._sink() as sink:
            await self._ready(sink)
            messages = [message for text in _ODD_TEXTS for message in self._messages(1, text) + self._messages(1)]
            await self._sends(sink, messages)
            await self._arrive(sink, messages, once=True)

    async def test_formatter_decides_the_text(self) -> None:
        """Any `logging.Formatter` does."""
        if not self.formats:
            raise SkipTest("formats is False: the sink has no formatter")
        async with self._sink(formatter=logging.Formatter("-- %(levelname)s %(message)s --")) as sink:
            await self._ready(sink)
            (message,) = self._messages(1)
            await self._sends(sink, [message])
            text = (await self._arrive(sink, [message]))[message]
            if text != f"-- INFO {message} --":
                raise ContractBroken(sink, f"delivered {text!r}", "the sink's formatter makes each record's text")

    async def test_level_and_filters_count(self) -> None:
        """Behind a listener, only what the sink's level and filters let through is delivered; the rest is counted."""
        async with self._sink() as sink:
            sink.setLevel(logging.WARNING)
            sink.addFilter(lambda record: "unwanted" not in record.getMessage())
            wanted, unwanted, minor = self._messages(1), self._messages(1, "unwanted"), self._messages(1)
            logger = _logger()
            async with Pipeline(sink, logger=logger, shutdown_timeout=self.patience) as pipeline:
                logger.warning("%s", unwanted[0])
                logger.info("%s", minor[0])
                logger.warning("%s", wanted[0])
            await self._arrive(sink, wanted)
            if (came := {message for message, _ in await self._numbered()}) & {*unwanted, *minor}:
                raise ContractBroken(sink, f"was sent {len(came)} records", "level and filters of a sink are honoured")
            _check_ledger(sink, pipeline, delivered=1)

    # -- open and aclose ---------------------------------------------------------------------------------------------

    async def test_may_be_closed_at_any_time(self) -> None:
        """`aclose` is for sinks that were not opened, are open, or are closed; `open` may follow."""
        async with self._sink() as sink:
            await self._succeeds(sink, "aclose before open", sink.aclose())
            for message in self._messages(2):
                await self._ready(sink)
                await self._sends(sink, [message])
                await self._succeeds(sink, "aclose", sink.aclose())
                await self._succeeds(sink, "the second aclose", sink.aclose())
            await self._arrive(sink, self._texts[-2:])

    async def test_opening_again_takes_the_place(self) -> None:
        """A second `open` drops the connection of the first."""
        async with self._sink() as sink:
            for message in self._messages(4):
                await self._ready(sink)
                await self._ready(sink)
                await self._sends(sink, [message])
            await self._arrive(sink, self._texts[-4:])

    async def test_standard_flush_and_close_change_nothing(self) -> None:
        """`dictConfig` calls them, under logging's lock, on sinks that stay in use."""
        async with self._sink() as sink:
            await self._ready(sink)
            messages = self._messages(2)
            await self._sends(sink, messages[:1])
            sink.flush()
            sink.close()
            await self._sends(sink, messages[1:])
            await self._arrive(sink, messages)

    async def test_serves_one_loop_after_another(self) -> None:
        """An application may leave a loop without `aclose` and go on in the next one."""
        async with self._sink() as sink:
            messages = self._messages(3)
            # What asyncio says of transports whose loop was closed over them concerns that loop.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                for message in messages[:2]:
                    await asyncio.to_thread(asyncio.run, self._once(sink, message))
                await self._once(sink, messages[2])
                gc.collect()
            await self._arrive(sink, messages)

    # -- faults ------------------------------------------------------------------------------------------------------

    async def test_peer_closed_in_between(self) -> None:
        """A connection that was closed while nothing was sent costs at most a failure that is retried."""
        async with self._sink() as sink:
            messages = self._messages(2)
            await self._once(sink, messages[0])
            await self._arrive(sink, messages[:1])
            await self._inflict(self.disconnect)
            error = await self._result_of(sink, "send", sink.send(make_batch(sink, messages[1])))
            self._retryable(sink, "send", error)
            if error is not None:
                await self._once(sink, messages[1])
            await self._arrive(sink, messages)

    async def test_destination_that_is_away_is_retryable(self) -> None:
        """Neither `open` nor `send` blames the records, and both work again afterwards."""
        async with self._sink() as sink:
            messages = self._messages(2)
            await self._once(sink, messages[0])
            await self._inflict(self.break_down)
            for attempt in range(2):
                error = await self._result_of(sink, "open", sink.open())
                self._retryable(sink, "open", error)
                error = error or await self._result_of(sink, "send", sink.send(make_batch(sink, messages[1])))
                self._retryable(sink, "send", error)
                if error is None:
                    did = f"took a batch in attempt {attempt + 1} while nobody was there to take it"
                    raise ContractBroken(sink, did, "send returns when the destination has taken the batch")
            await self._inflict(self.heal)
            await self._once(sink, messages[1])
            await self._arrive(sink, messages)

    async def test_hung_destination_can_be_given_up(self) -> None:
        """An attempt that is cancelled at its deadline ends at once, leaves nothing, and the next one works."""
        async with self._sink() as sink:
            await self._ready(sink)
            await self._inflict(self.hang)
            heavy = self._messages(100, _HEAVY)
            task = asyncio.ensure_future(sink.send(make_batch(sink, *heavy)))
            await asyncio.wait({task}, timeout=self.hang_timeout)
            if task.done() and not task.cancelled() and task.exception() is None:
                did = "returned from send while the destination took nothing"
                raise ContractBroken(sink, did, "send returns when the destination has taken the whole batch")
            task.cancel()
            await self._ends(sink, "a send that was cancelled", task)
            await self._inflict(self.heal)
            messages = self._messages(2)
            for message in messages:
                await self._once(sink, message)
            await self._arrive(sink, messages)

    async def test_secrets_stay_secret(self) -> None:
        """No `repr`, error, line of diagnostics or statistic shows one."""
        if not self.secrets:
            raise SkipTest("secrets is empty: the sink knows none")
        told = io.StringIO()
        with redirect_stderr(told):
            async with self._sink() as sink:
                print(repr(sink), sink, file=told)
                await self._once(sink, *self._messages(1))
                print(repr(sink), sink, file=told)
                if type(self).break_down is not SinkBench.break_down:
                    print(*await self._failures(sink), sink, file=told)
                    print(await self._in_an_outage(sink, self.break_down), file=told)
            diagnostics.flush(self.patience)
        for number, secret in enumerate(self.secrets):
            if secret in told.getvalue():
                # The secret itself stays out of the test's log.
                raise ContractBroken(sink, f"shows secrets[{number}]", "secrets are in no repr, error or diagnostics")

    # -- behind a pipeline -------------------------------------------------------------------------------------------

    async def test_pipeline_survives_a_closed_connection(self) -> None:
        """Behind a listener nothing is lost where the peer closed the connection while nothing was sent."""
        async with self._sink() as sink:
            before, after = self._messages(20), self._messages(20)
            logger = _logger()
            async with Pipeline(sink, logger=logger, shutdown_timeout=self.patience) as pipeline:
                _log(logger, before)
                await self._arrive(sink, before)
                await self._inflict(self.disconnect)
                _log(logger, after)
            _check_ledger(sink, pipeline, delivered=40)
            await self._arrive(sink, before + after)

    async def test_pipeline_survives_an_outage(self) -> None:
        """Behind a listener nothing is lost while the destination is away, and the ledger balances."""
        async with self._sink() as sink:
            await self._in_an_outage(sink, self.break_down)

    async def test_pipeline_survives_a_hung_destination(self) -> None:
        """Behind a listener an attempt that hangs is given up and made again, and nothing is lost."""
        async with self._sink(send_timeout=self.hang_timeout) as sink:
            await self._in_an_outage(sink, self.hang, _HEAVY)

    # ----------------------------------------------------------------------------------------------------------------

    async def _failures(self, sink: Sink) -> list[str]:
        """What `open` or `send` raises while the destination is away, in full."""
        await self._inflict(self.break_down)
        error = await self._result_of(sink, "open", sink.open())
        error = error or await self._result_of(sink, "send", sink.send(make_batch(sink, "nobody there")))
        await self._inflict(self.heal)
        await self._ready(sink)
        return [repr(error), *traceback.format_exception(error)]

    async def _in_an_outage(self, sink: Sink, fault: Callable[[], object], text: str = "") -> Stats:
        """Log before, in and after an outage; the counts in the midst of it."""
        before, during, after = self._messages(20), self._messages(100, text), self._messages(20)
        logger = _logger()
        async with Pipeline(sink, logger=logger, shutdown_timeout=self.patience) as pipeline:
            _log(logger, before)
            await self._arrive(sink, before)
            await self._inflict(fault)
            _log(logger, during)
            await self._until(
                lambda: _counts(pipeline).error or _counts(pipeline).lost,
                lambda: ContractBroken(sink, "failed in no attempt during an outage", "an attempt that fails raises"),
            )
            midst = pipeline.stats()
            await self._inflict(self.heal)
            _log(logger, after)
        _check_ledger(sink, pipeline, delivered=140)
        await self._arrive(sink, before + during + after)
        return midst


def _logger() -> logging.Logger:
    """One that no other code knows."""
    # Not in the tree of loggers that an application configures.
    return logging.Logger("contract", logging.DEBUG)  # noqa: LOG001


def _log(logger: logging.Logger, messages: Sequence[str]) -> None:
    for message in messages:
        logger.info("%s", message)


def _counts(pipeline: Pipeline) -> Counts:
    (counts,) = pipeline.stats().sinks.values()
    return counts


def _check_ledger(sink: Sink, pipeline: Pipeline, delivered: int) -> None:
    counts = _counts(pipeline)
    if not pipeline.stats().balanced or counts.delivered != delivered or counts.lost:
        raise ContractBroken(sink, f"ended with {counts}", f"{delivered} records are delivered here, and none is lost")


def _check_texts(sink: Sink, came: Mapping[str, str]) -> None:
    for message, text in came.items():
        if text != message:
            raise ContractBroken(sink, f"delivered {text[:200]!r} for {message[:200]!r}", "a text arrives as it was")
