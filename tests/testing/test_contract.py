"""The contract suite: a sink that keeps the contract passes, and each way to break it is told."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import threading
import unittest
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from offloop.errors import PermanentFailure
from offloop.sink import Batch, Sink
from offloop.testing import ContractBroken, SinkContract

SECRET = "hunter2"


class Shelf:
    """A destination in memory that can be away or hang."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.away = False
        self.connections: list[object] = []
        self.closed: list[object] = []
        self.well = asyncio.Event()
        self.well.set()
        self.leaks: list[Callable[[], object]] = []


class GoodSink(Sink):
    """Keeps the contract; the others break it, each in one way."""

    def __init__(self, shelf: Shelf, **options: Any) -> None:
        super().__init__(**options)
        self.shelf = shelf
        self.connection: object = None

    async def open(self) -> None:
        self.connection = None
        await asyncio.sleep(0)
        if self.shelf.away:
            raise ConnectionError("away")
        self.connection = object()
        self.shelf.connections.append(self.connection)

    async def send(self, batch: Batch) -> None:
        await asyncio.sleep(0)
        if self.shelf.away or self.connection in self.shelf.closed:
            raise ConnectionError("away")
        if not self.shelf.well.is_set():
            await self.shelf.well.wait()
        self.take([data.decode() for data in batch.encoded])

    async def aclose(self) -> None:
        self.connection = None

    def take(self, texts: list[str]) -> None:
        self.shelf.texts += texts


class GoodBench(SinkContract):
    """How `GoodSink` and its relatives are reached."""

    sink_class: type[GoodSink] = GoodSink
    secrets = (SECRET,)
    hang_timeout = 0.05

    def make_sink(self, **options: Any) -> Sink:
        return self.sink_class(self.shelf, **options)

    @property
    def shelf(self) -> Shelf:
        if "_shelf" not in self.__dict__:
            self._shelf = Shelf()
        return self._shelf

    async def received(self) -> list[str]:
        return ["somebody else's", *self.shelf.texts]

    def disconnect(self) -> None:
        self.shelf.closed += self.shelf.connections

    def break_down(self) -> None:
        self.shelf.away = True

    async def hang(self) -> None:
        self.shelf.well.clear()

    def heal(self) -> None:
        self.shelf.away = False
        self.shelf.well.set()


class TestGoodSink(GoodBench):
    """A sink that keeps the contract passes every case."""


class Reverses(GoodSink):
    def take(self, texts: list[str]) -> None:
        self.shelf.texts += texts[::-1]


class Repeats(GoodSink):
    def take(self, texts: list[str]) -> None:
        self.shelf.texts += texts * 2


class Loses(GoodSink):
    def take(self, texts: list[str]) -> None:
        self.shelf.texts += texts[:5]


class Mangles(GoodSink):
    def take(self, texts: list[str]) -> None:
        self.shelf.texts += [text.encode("ascii", "replace").decode() for text in texts]


class Splits(GoodSink):
    def take(self, texts: list[str]) -> None:
        self.shelf.texts += [line for text in texts for line in text.splitlines()]


class Chokes(GoodSink):
    def encode(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode()


class HasItsOwnFormat(GoodSink):
    def encode(self, record: logging.LogRecord) -> bytes:
        return record.getMessage().encode("utf-8", "replace")


class HearsNoLevel(GoodSink):
    def setLevel(self, level: int | str) -> None:  # noqa: N802
        pass


class ClosesOnce(GoodSink):
    async def aclose(self) -> None:
        if self.connection is None:
            raise RuntimeError("not open")
        self.connection = None


class ClosesWithLogging(GoodSink):
    def close(self) -> None:
        self.connection = None

    async def send(self, batch: Batch) -> None:
        if self.connection is None:
            raise RuntimeError("not open")
        await super().send(batch)


class BelongsToOneLoop(GoodSink):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.loop = asyncio.get_running_loop()

    async def open(self) -> None:
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("another loop")


class BlamesRecords(GoodSink):
    async def open(self) -> None:
        pass

    async def send(self, batch: Batch) -> None:
        if self.shelf.away:
            raise ValueError("bad batch")
        await super().send(batch)


class GivesUp(GoodSink):
    async def send(self, batch: Batch) -> None:
        if self.shelf.away:
            raise PermanentFailure("away")
        await super().send(batch)


class CancelsItself(GoodSink):
    async def open(self) -> None:
        raise asyncio.CancelledError


class SeesNoOutage(GoodSink):
    async def open(self) -> None:
        pass

    async def send(self, batch: Batch) -> None:
        if not self.shelf.away:
            await super().send(batch)


class WaitsForNobody(GoodSink):
    async def send(self, batch: Batch) -> None:
        self.take([data.decode() for data in batch.encoded])


class IgnoresCancellation(GoodSink):
    async def send(self, batch: Batch) -> None:
        try:
            await super().send(batch)
        except asyncio.CancelledError:
            await asyncio.sleep(60)


class RenamesCancellation(GoodSink):
    async def send(self, batch: Batch) -> None:
        try:
            await super().send(batch)
        except asyncio.CancelledError:
            raise ValueError("stopped") from None


class KeepsItsLock(GoodSink):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sending = asyncio.Lock()

    async def send(self, batch: Batch) -> None:
        await self.sending.acquire()
        await super().send(batch)
        self.sending.release()


class MeddlesWithTheNext(GoodSink):
    async def send(self, batch: Batch) -> None:
        mine = self.connection
        await super().send(batch)
        if mine is not self.connection:
            self.connection = None
            raise ConnectionError("not connected")


class LeavesTask(GoodSink):
    async def open(self) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        self.shelf.leaks.append(task.cancel)
        await super().open()


class LeavesThread(GoodSink):
    async def open(self) -> None:
        event = threading.Event()
        self.shelf.leaks.append(event.set)
        threading.Thread(target=event.wait, name="forgotten").start()
        await super().open()


class LeavesSocket(GoodSink):
    async def open(self) -> None:
        self.shelf.leaks.append(socket.socket().close)
        await super().open()


class TellsItsSecret(GoodSink):
    async def open(self) -> None:
        try:
            await super().open()
        except ConnectionError as error:
            raise ConnectionError(f"away, with {SECRET}") from error


class ShowsItsSecret(GoodSink):
    def __repr__(self) -> str:
        return f"<{SECRET}>"


@pytest.fixture
async def bench() -> AsyncIterator[GoodBench]:
    bench = GoodBench()
    bench.patience = 0.25
    yield bench
    for release in bench.shelf.leaks:
        release()


@pytest.mark.parametrize(
    ("broken", "case", "told"),
    [
        (Reverses, "delivers_in_order", "arrive in the order"),
        (Repeats, "delivers_in_order", "once where nothing fails"),
        (Loses, "large_batch_arrives_whole", r"sent 200 record\(s\) and 195 did not arrive"),
        (Mangles, "delivers_in_order", "a text arrives as it was"),
        (Splits, "any_text_is_one_record", "once where nothing fails"),
        (Chokes, "any_text_is_one_record", r"raised UnicodeEncodeError\(.*\) in send"),
        (HasItsOwnFormat, "formatter_decides_the_text", "formatter makes each record's text"),
        (HearsNoLevel, "level_and_filters_count", "level and filters of a sink are honoured"),
        (ClosesOnce, "may_be_closed_at_any_time", "in aclose before open"),
        (ClosesWithLogging, "standard_flush_and_close_change_nothing", "not open"),
        (BelongsToOneLoop, "serves_one_loop_after_another", "another loop"),
        (BlamesRecords, "destination_that_is_away_is_retryable", r"raised ValueError\(bad batch\)"),
        (GivesUp, "pipeline_survives_an_outage", "none is lost"),
        (CancelsItself, "delivers_in_order", r"raised CancelledError\(\) in open"),
        (SeesNoOutage, "destination_that_is_away_is_retryable", "took a batch in attempt 1 while nobody"),
        (SeesNoOutage, "pipeline_survives_an_outage", "failed in no attempt"),
        (WaitsForNobody, "hung_destination_can_be_given_up", "returned from send while the destination took nothing"),
        (IgnoresCancellation, "cancelled_at_any_await", "await number 2 after 0.25 s"),
        (IgnoresCancellation, "hung_destination_can_be_given_up", "a send that was cancelled"),
        (RenamesCancellation, "cancelled_at_any_answer", "cancellation is passed on"),
        (KeepsItsLock, "cancelled_at_any_await", "not through with send"),
        (MeddlesWithTheNext, "stale_attempt_leaves_the_next_one_alone", "while an older attempt"),
        (LeavesTask, "opening_again_takes_the_place", r"left \d+ task\(s\) \(sleep"),
        (LeavesThread, "delivers_in_order", r"left 1 thread\(s\) \(forgotten\)"),
        (LeavesSocket, "delivers_in_order", r"left 1 open socket\(s\)"),
        (TellsItsSecret, "secrets_stay_secret", r"shows secrets\[0\]"),
        (ShowsItsSecret, "secrets_stay_secret", r"shows secrets\[0\]"),
    ],
)
async def test_each_way_to_break_it_is_told(bench: GoodBench, broken: type[GoodSink], case: str, told: str) -> None:
    """A sink that breaks the contract fails the case, which says what the sink did and what is wanted."""
    bench.sink_class = broken
    with pytest.raises(ContractBroken, match=f"(?s)^{broken.__name__} .*{told}"):
        await getattr(bench, f"test_{case}")()


def results_of(case: type[unittest.TestCase]) -> unittest.TestResult:
    return unittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(case))


def test_unittest_runs_it() -> None:
    """A class that is a TestCase as well needs no pytest."""

    class Case(GoodBench, unittest.IsolatedAsyncioTestCase):
        pass

    results = results_of(Case)
    assert results.testsRun > 20
    assert results.wasSuccessful(), results.failures + results.errors


def test_case_without_its_hook_is_skipped() -> None:
    """What can't be had is skipped, with the name of the hook; what needs none is run, secrets among it."""

    class Bare(SinkContract, unittest.IsolatedAsyncioTestCase):
        make_sink = GoodBench.make_sink
        received = GoodBench.received
        shelf = GoodBench.shelf
        sink_class = GoodSink
        secrets = (SECRET,)

    results = results_of(Bare)
    assert results.wasSuccessful(), results.failures + results.errors
    reasons = " ".join(reason for _, reason in results.skipped)
    assert all(word in reasons for word in ("disconnect()", "break_down()", "hang()"))


def test_sink_without_formatter_is_given_none() -> None:
    """`formats = False` is for sinks whose destination gets the record itself."""

    class Raw(GoodBench, unittest.IsolatedAsyncioTestCase):
        formats = False

        def make_sink(self, **options: Any) -> Sink:
            assert "formatter" not in options
            return GoodSink(self.shelf, **options)

        async def received(self) -> list[str]:
            return [json.loads(text)["message"] for text in self.shelf.texts]

    results = results_of(Raw)
    assert results.wasSuccessful(), results.failures + results.errors
    assert [reason for _, reason in results.skipped] == ["formats is False: the sink has no formatter"]
