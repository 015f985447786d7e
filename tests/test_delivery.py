"""What becomes of a batch that fails, seen from outside: records in, fates counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest

from offloop import PartialFailure, PermanentFailure, Retry, SinkFailure, TemporaryFailure, diagnostics
from offloop.capture import Held, capture, made, restore
from offloop.delivery import Delivery
from offloop.shutdown import Awaited
from offloop.sink import Batch
from offloop.testing import HANG, FaultySink

SOON = Retry(initial=0.0, maximum=0.0)


class Fates:
    """A settlement that remembers, and allows so many pauses."""

    def __init__(self, pauses: int = 100) -> None:
        self.delivered_messages: list[str] = []
        self.dropped_messages: dict[str, list[str]] = {}
        self.states: list[str] = []
        self.reasons: list[str] = []
        self.asked: list[float] = []
        self.delays: list[float] = []
        self._pauses = pauses

    def delivered(self, held: Sequence[Held], filtered: Sequence[Held]) -> None:
        self.delivered_messages += [made(one).getMessage() for one in held if one not in filtered]

    def dropped(self, held: Sequence[Held], reason: str) -> None:
        self.dropped_messages.setdefault(reason, []).extend(made(one).getMessage() for one in held)

    def rejected(self, held: Sequence[Held], why: str) -> None:
        self.dropped(held, "rejected")
        self.reasons += [why] * len(held)

    def failing(self, state: str, error: BaseException) -> None:
        self.states.append(state)

    def probing(self) -> None:
        self.states.append("probing")

    async def back_off(self, seconds: float, asked: float) -> bool:
        self.delays.append(seconds)
        self.asked.append(asked)
        self._pauses -= 1
        return self._pauses >= 0


async def hold(future: Awaited, timeout: float | None) -> bool:
    """As a shutdown that never begins."""
    done, _ = await asyncio.wait((cast("asyncio.Future[Any]", future),), timeout=timeout)
    return bool(done)


def batch_of(sink: FaultySink, count: int) -> Batch:
    """Records that say their number."""
    return Batch([restore(capture(logging.makeLogRecord({"msg": str(n), "levelno": 20}))) for n in range(count)], sink)


def is_one_of(*numbers: int) -> Any:
    """Whether a record has one of these numbers."""
    return lambda record: int(record.msg) in numbers


async def deliver(sink: FaultySink, count: int, fates: Fates) -> bool:
    """One batch, to the end."""
    return await Delivery(sink, fates, hold).deliver(batch_of(sink, count))


@pytest.mark.parametrize("poison", [(0,), (250,), (499,), (0, 499), (100, 101), (1, 250, 498)])
async def test_poison_is_found_and_nothing_else_is_lost(poison: tuple[int, ...]) -> None:
    """All other records are delivered, once and in order, in a number of attempts that grows with the logarithm."""
    sink, fates = FaultySink(poison=is_one_of(*poison), retry=SOON), Fates()
    assert await deliver(sink, 500, fates)
    assert sink.messages == [str(n) for n in range(500) if n not in poison]
    assert fates.delivered_messages == sink.messages
    assert fates.dropped_messages == {"rejected": [str(n) for n in poison]}
    assert sink.attempts <= 3 + 2 * 10 * len(poison)


async def test_sink_that_chokes_on_everything_keeps_its_records() -> None:
    """An undeclared failure on every record is the sink's: three attempts, nothing lost."""
    sink, fates = FaultySink(always=RuntimeError("wrong password"), retry=SOON), Fates()
    assert not await deliver(sink, 500, fates)
    assert sink.attempts == 3
    assert (fates.delivered_messages, fates.dropped_messages) == ([], {})
    assert fates.states == ["failing"]


async def test_two_poisonous_records_in_front_are_found_in_the_next_round() -> None:
    """Each round of failures tries a few records more before it blames the sink."""
    sink, fates = FaultySink(poison=is_one_of(0, 1), retry=SOON), Fates()
    delivery = Delivery(sink, fates, hold)
    batch = batch_of(sink, 100)
    assert not await delivery.deliver(batch)
    assert await delivery.deliver(batch)
    assert fates.dropped_messages == {"rejected": ["0", "1"]}
    assert len(sink.messages) == 98


async def test_record_that_fails_alone_is_kept_until_the_sink_is_known_to_work() -> None:
    """A lone record on a sink that never took anything may be good; on one that did, it is given three tries."""
    sink, fates = FaultySink(poison=is_one_of(0), retry=SOON), Fates()
    delivery = Delivery(sink, fates, hold)
    lone, pair = batch_of(sink, 1), batch_of(sink, 2)
    for _ in range(5):
        assert not await delivery.deliver(lone)
    assert await delivery.deliver(pair)
    assert fates.dropped_messages == {"rejected": ["0"]}
    assert [await delivery.deliver(lone) for _ in range(3)] == [False, False, True]


async def test_trouble_of_the_connection_clears_a_suspect() -> None:
    """A record is not rejected for failing just before the connection broke."""
    steps = [ValueError(), ValueError(), OSError("gone")]
    sink, fates = FaultySink(*steps, retry=SOON), Fates()
    delivery = Delivery(sink, fates, hold)
    batch = batch_of(sink, 10)
    assert not await delivery.deliver(batch)
    assert await delivery.deliver(batch)
    assert fates.dropped_messages == {}


async def test_permanent_failure_rejects_the_batch_over_the_same_connection() -> None:
    """These records never; the next batch needs no new connection."""
    sink, fates = FaultySink(PermanentFailure("too large")), Fates()
    delivery = Delivery(sink, fates, hold)
    assert await delivery.deliver(batch_of(sink, 2))
    assert await delivery.deliver(batch_of(sink, 1))
    assert fates.dropped_messages == {"rejected": ["0", "1"]}
    assert sink.opens == 1


async def test_partial_failure_settles_each_record_on_its_own() -> None:
    """Taken, refused, and sent again."""

    def part(batch: Batch) -> None:
        raise PartialFailure("some", retry=batch.records[1:3], rejected=batch.records[3:4], retry_after=7)

    sink, fates = FaultySink(part), Fates()
    assert await deliver(sink, 5, fates)
    assert sink.messages == ["0", "4", "1", "2"]
    assert fates.delivered_messages == ["0", "4", "1", "2"]
    assert fates.dropped_messages == {"rejected": ["3"]}
    assert fates.asked == [7]


async def test_partial_failure_with_nothing_to_send_again() -> None:
    """A batch may end with refusals only."""

    def refuse(batch: Batch) -> None:
        raise PartialFailure("all", rejected=batch.records)

    sink, fates = FaultySink(refuse), Fates()
    assert await deliver(sink, 2, fates)
    assert fates.dropped_messages == {"rejected": ["0", "1"]}


async def test_sink_failure_keeps_the_records_and_tries_again() -> None:
    """Said by the sink itself: no search for poison."""
    sink, fates = FaultySink(SinkFailure("wrong password"), retry=SOON), Fates()
    assert await deliver(sink, 10, fates)
    assert (sink.attempts, fates.states) == (2, ["open", "probing"])


async def test_retry_after_is_passed_on() -> None:
    """What the destination asked for is the least that is waited."""
    sink, fates = FaultySink(TemporaryFailure("busy", retry_after=3.0), retry=SOON), Fates()
    assert await deliver(sink, 1, fates)
    assert fates.asked == [3.0]


async def test_same_batch_for_every_attempt() -> None:
    """Its key does not change, so that a late acceptance can be told from a second message."""
    keys: list[str] = []

    def note(batch: Batch) -> None:
        keys.append(batch.key)
        raise OSError

    sink, fates = FaultySink(note, note, note, retry=SOON), Fates()
    assert await deliver(sink, 3, fates)
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_batch_expires() -> None:
    """After `give_up_after` seconds what is left is counted as expired."""
    sink, fates = FaultySink(always=OSError("away"), retry=Retry(give_up_after=0)), Fates()
    assert await deliver(sink, 2, fates)
    assert fates.dropped_messages == {"expired": ["0", "1"]}


async def test_backoff_grows_with_failures_and_is_reset_by_a_delivery() -> None:
    """Not by a connection that opens."""
    sink = FaultySink(*[OSError("x")] * 4, retry=Retry(initial=1.0, maximum=4.0))
    fates = Fates()
    delivery = Delivery(sink, fates, hold)
    assert await delivery.deliver(batch_of(sink, 1))
    assert len(fates.delays) == 4
    assert all(delay <= bound for delay, bound in zip(fates.delays, (1, 2, 4, 4), strict=True))
    assert delivery.failures == 0


async def test_no_time_left_ends_the_attempts() -> None:
    """The records stay with the lane."""
    sink, fates = FaultySink(always=OSError("away"), retry=SOON), Fates(pauses=2)
    assert not await deliver(sink, 1, fates)
    assert (sink.attempts, fates.dropped_messages) == (3, {})


class OpensBadly(FaultySink):
    """Fails to open as told."""

    def __init__(self, *errors: BaseException, **options: Any) -> None:
        super().__init__(**options)
        self.errors = list(errors)

    async def open(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


async def test_open_that_fails_says_nothing_of_the_records() -> None:
    """Whatever `open` raises, no record is suspected."""
    sink, fates = OpensBadly(OSError("refused"), ValueError("bug"), SinkFailure("no"), retry=SOON), Fates()
    assert await deliver(sink, 1, fates)
    assert (sink.attempts, fates.states) == (1, ["retrying", "failing", "open", "probing"])


async def test_attempt_that_ends_in_its_grace_counts() -> None:
    """A send that notices its cancellation by finishing has delivered."""

    async def finish(batch: Batch) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    sink, fates = FaultySink(finish, send_timeout=0.01), Fates()
    assert await deliver(sink, 1, fates)
    assert (fates.delivered_messages, sink.attempts) == (["0"], 1)


async def test_hung_send_is_cancelled_and_tried_again() -> None:
    """At `send_timeout`."""
    sink, fates = FaultySink(HANG, send_timeout=0.01, retry=SOON), Fates()
    assert await deliver(sink, 1, fates)
    assert (sink.attempts, sink.opens) == (2, 2)


async def test_close_that_fails_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends nothing."""

    class ClosesBadly(FaultySink):
        async def aclose(self) -> None:
            raise OSError("already gone")

    await Delivery(ClosesBadly(), Fates(), hold).close(1)
    diagnostics.flush(5)
    assert "did not close: OSError: already gone" in capsys.readouterr().err


async def test_sink_that_recovers_while_it_is_suspected_loses_nothing() -> None:
    """A record that failed before the sink took anything is tried once more after it did."""
    for failures in range(1, 12):
        sink, fates = FaultySink(*[ValueError("down")] * failures, retry=SOON), Fates()
        delivery = Delivery(sink, fates, hold)
        batch = batch_of(sink, 20)
        while not await delivery.deliver(batch):
            left = [r for r in batch if r.getMessage() not in fates.delivered_messages]
            batch = Batch(left, sink)
        assert sorted(map(int, fates.delivered_messages)) == list(range(20))
        assert fates.dropped_messages == {}


async def test_records_that_come_alone_survive_a_sink_that_breaks_for_good() -> None:
    """One at most is blamed for what the sink does to all."""
    sink, fates = FaultySink(0.0, always=RuntimeError("wrong password"), retry=SOON), Fates()
    delivery = Delivery(sink, fates, hold)
    assert await delivery.deliver(batch_of(sink, 1))
    for _ in range(3):
        await delivery.deliver(batch_of(sink, 1))
    for _ in range(20):
        assert not await delivery.deliver(batch_of(sink, 1))
    assert fates.dropped_messages == {"rejected": ["0"]}


async def test_sink_that_breaks_down_amid_a_search_loses_two_records_at_most() -> None:
    """That it took something a while ago is no proof that it works."""
    sink = FaultySink(0.0, always=RuntimeError("broken for good"), retry=SOON)
    fates = Fates()
    delivery = Delivery(sink, fates, hold)
    batch = batch_of(sink, 200)
    assert await delivery.deliver(batch_of(sink, 1))
    sink.fail(ValueError("once"), 0.0, always=RuntimeError("broken for good"))
    for _ in range(5):
        assert not await delivery.deliver(batch)
        batch = Batch([r for r in batch if r.getMessage() not in fates.delivered_messages], sink)
    assert len(fates.dropped_messages.get("rejected", [])) <= 2


@pytest.mark.parametrize("first", [0, 100])
async def test_long_run_of_poison_is_passed_step_by_step(first: int) -> None:
    """Wherever it stands: each round gets rid of some, and no good record is lost."""
    sink, fates = FaultySink(poison=is_one_of(*range(first, first + 40)), retry=SOON), Fates()
    delivery = Delivery(sink, fates, hold)
    batch = batch_of(sink, 200)
    while not await delivery.deliver(batch):
        gone = {*fates.delivered_messages, *fates.dropped_messages.get("rejected", ())}
        batch = Batch([record for record in batch if record.getMessage() not in gone], sink)
    assert sorted(map(int, fates.dropped_messages["rejected"])) == list(range(first, first + 40))
    assert sorted(map(int, sink.messages)) == [*range(first), *range(first + 40, 200)]
