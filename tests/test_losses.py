"""Notices of what was lost, in the stream of the sink that lost it."""
# pyright: reportAttributeAccessIssue=false
# What a notice says it has as attributes, as a record has what was given as `extra`.

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import collecting, logged, told, until
from mailservers import aiosmtpd, parsed
from offloop import (
    Batch,
    Batching,
    Buffer,
    PermanentFailure,
    Pipeline,
    QueueListener,
    Retry,
    SMTPSink,
    Spool,
    TCPSink,
    TemporaryFailure,
)
from offloop.capture import Record
from offloop.lane import Lane
from offloop.losses import Losses
from offloop.testing import HANG, FaultySink, MemorySink

SOON = Retry(initial=0.001, maximum=0.01)
SMALL = Buffer(max_records=4)


class Clock:
    """The time, which stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def losses(clock: Clock) -> Losses:
    """Of a sink "tcp"; the epoch was at 100 on the clock."""
    return Losses("tcp", clock, lambda: clock.now - 100)


def lose(losses: Losses, count: int, reason: str = "overflow", level: int = logging.INFO) -> None:
    for _ in range(count):
        losses.note(reason, level)


def tell(losses: Losses, **how: bool) -> Record:
    """The one notice that is due, told."""
    (notice,) = losses.notices(10, **how)
    losses.told([notice])
    return notice


def total(tables: dict[str, dict[str, int]]) -> int:
    return sum(sum(levels.values()) for levels in tables.values())


def unheard(losses: Losses) -> int:
    """What no notice has told that arrived."""
    episodes = losses._episodes.values()
    return sum(one.lost.total() + (one.out.lost.total() if one.out is not None else 0) for one in episodes)


# -- what is due, and when -------------------------------------------------------------------------------------------


def test_nothing_lost_is_nothing_to_tell(losses: Losses) -> None:
    """No notice, and no time at which there might be one."""
    assert not losses
    assert losses.wait() is None
    assert losses.notices(10) == []


def test_first_notice_comes_within_a_second(losses: Losses, clock: Clock) -> None:
    """Half a second after the first loss, so that a burst is one notice."""
    lose(losses, 3)
    clock.now += 0.25
    lose(losses, 2)
    assert losses.wait() == 0.25
    assert losses.notices(10) == []
    clock.now += 0.25
    assert losses.wait() == 0
    assert tell(losses).lost == {"overflow": {"INFO": 5}}


def test_while_losses_go_on_totals_come_after_ten_seconds_and_then_each_minute(losses: Losses, clock: Clock) -> None:
    """Each tells what was lost since the one before it, and the total of the episode."""
    when, lost, totals = list[float](), list[int](), list[int]()
    for _ in range(150 * 4):
        lose(losses, 1)
        for notice in losses.notices(10):
            losses.told([notice])
            when.append(clock.now - 100)
            lost.append(notice.lost["overflow"]["INFO"])
            totals.append(notice.total["overflow"]["INFO"])
            assert not notice.closes
        clock.now += 0.25
    assert when == [0.5, 10.5, 70.5, 130.5]
    assert lost == [3, 40, 240, 240]
    assert totals == [3, 43, 283, 523]


def test_total_closes_the_episode(losses: Losses, clock: Clock) -> None:
    """Ten seconds after the last loss, if the sink works; what is lost afterwards begins another."""
    lose(losses, 2)
    clock.now += 1
    tell(losses)
    lose(losses, 1, "rejected", logging.ERROR)
    clock.now += 10
    assert losses.notices(10, works=False)[0].closes is False
    closing = tell(losses)
    assert closing.closes
    assert closing.lost == {"rejected": {"ERROR": 1}}
    assert closing.total == {"overflow": {"INFO": 2}, "rejected": {"ERROR": 1}}
    assert not losses
    lose(losses, 1)
    assert losses.wait() == 0.5


def test_closing_total_may_have_nothing_new(losses: Losses, clock: Clock) -> None:
    """It says what the notices before it said in all."""
    lose(losses, 2)
    clock.now += 1
    tell(losses)
    assert losses.wait() == 9
    clock.now += 9
    closing = tell(losses)
    assert (closing.lost, closing.total) == ({}, {"overflow": {"INFO": 2}})
    assert losses.wait() is None


def test_what_is_lost_while_the_closing_total_is_on_its_way_begins_anew(losses: Losses, clock: Clock) -> None:
    """Nothing is told twice, and nothing is left out."""
    lose(losses, 2)
    clock.now += 20
    (closing,) = losses.notices(10)
    lose(losses, 3)
    losses.told([closing])
    clock.now += 20
    following = tell(losses)
    assert (closing.lost, following.lost, following.total) == (
        {"overflow": {"INFO": 2}},
        {"overflow": {"INFO": 3}},
        {"overflow": {"INFO": 3}},
    )


def test_notice_that_is_lost_causes_none_and_is_told_by_the_next(losses: Losses, clock: Clock) -> None:
    """Only another loss, or a sink that works again, lets it be tried once more."""
    lose(losses, 2)
    clock.now += 0.5
    (notice,) = losses.notices(10)
    assert losses.untold(notice)
    clock.now += 1_000
    losses.works(again=False)
    assert losses.wait() is None
    lose(losses, 1)
    assert tell(losses).lost == {"overflow": {"INFO": 3}}


@pytest.mark.parametrize("how", [lambda losses: losses.works(again=True), Losses.last_chance])
def test_notice_that_is_lost_is_tried_again_when_the_sink_is_back(
    losses: Losses, clock: Clock, how: Callable[[Losses], None]
) -> None:
    """Within a second of the first delivery, or as a shutdown begins."""
    lose(losses, 2)
    clock.now += 0.5
    losses.untold(losses.notices(10)[0])
    how(losses)
    wait = losses.wait()
    assert wait is not None
    assert wait <= 1
    clock.now += wait
    assert tell(losses).lost == {"overflow": {"INFO": 2}}


def test_notice_that_was_not_sent_is_made_anew(losses: Losses, clock: Clock) -> None:
    """It then says all that was lost until then."""
    lose(losses, 2)
    clock.now += 0.5
    (first,) = losses.notices(10)
    lose(losses, 1)
    second = tell(losses)
    assert first.lost == {"overflow": {"INFO": 2}}
    assert second.lost == {"overflow": {"INFO": 3}}
    assert not losses.untold(first)


def test_queue_tells_for_itself(losses: Losses, clock: Clock) -> None:
    """What was lost before it got to the sink is a notice of its own, of what the sink's level would have let in."""
    losses.note_queue({("shed", logging.INFO): 7, ("overflow", logging.ERROR): 1}, logging.WARNING)
    losses.note_queue({("shed", logging.INFO): 7}, logging.WARNING)
    lose(losses, 1)
    clock.now += 0.5
    assert len(losses.notices(1)) == 1
    own, queue = sorted(losses.notices(10), key=lambda notice: notice.sink == "queue")
    assert (own.sink, queue.sink) == ("tcp", "queue")
    assert queue.lost == {"overflow": {"ERROR": 1}}
    assert queue.getMessage() == "1 record was lost in the queue at 00:00:00 UTC: overflow 1 ERROR"


def test_words(losses: Losses, clock: Clock) -> None:
    """A notice says in plain words what its fields say for machines."""
    clock.now += 10
    lose(losses, 1_200)
    clock.now += 100
    lose(losses, 34, "overflow", logging.WARNING)
    lose(losses, 1, "corrupt", logging.NOTSET)
    notice = tell(losses)
    assert notice.getMessage() == (
        "1,235 records were lost between 00:00:10 and 00:01:50 UTC: corrupt 1 NOTSET; overflow 1,200 INFO, 34 WARNING"
    )
    assert (notice.since, notice.until) == ("1970-01-01T00:00:10.000000Z", "1970-01-01T00:01:50.000000Z")
    assert (notice.name, notice.levelname, notice.sink) == ("offloop.loss", "WARNING", "tcp")
    clock.now += 86_400
    lose(losses, 1)
    clock.now += 10
    assert tell(losses).getMessage() == (
        "1,236 records were lost between 1970-01-01 00:00:10 and 1970-01-02 00:01:50 UTC, and none since: "
        "corrupt 1 NOTSET; overflow 1,201 INFO, 34 WARNING"
    )


STEP = st.one_of(
    st.tuples(st.just("lose"), st.integers(1, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.5, 1.0, 10.0, 60.0])),
    st.tuples(st.sampled_from(["make", "arrive", "lose it", "works", "back", "end"]), st.booleans()),
)


@given(st.lists(STEP, max_size=60))
def test_notices_tell_exactly_what_was_lost(steps: list[tuple[str, Any]]) -> None:
    """Whatever becomes of them: those that arrive, and the last one, tell each loss once."""
    clock = Clock()
    losses = Losses("sink", clock, clock)
    lost, heard, under_way = 0, Counter[str](), list[Record]()
    for step, argument in [*steps, ("back", True), ("end", True), ("arrive", True)]:
        match step:
            case "lose":
                lose(losses, argument)
                lost += argument
            case "wait":
                clock.now += argument
            case "make" | "end":
                under_way = losses.notices(2, works=argument, ending=step == "end")
            case "works" | "back":
                losses.works(again=step == "back")
            case "arrive" | _:
                for notice in under_way:
                    if step == "arrive":
                        losses.told([notice])
                        heard.update(notice.lost.get("overflow", {}))
                    else:
                        losses.untold(notice)
                under_way = []
        assert heard.total() + unheard(losses) == lost
    assert heard.total() == lost


# -- in a pipeline ---------------------------------------------------------------------------------------------------


def lane_of(listener: QueueListener, clock: Clock) -> Lane:
    """The first lane, which goes by this clock."""
    lane = listener._lanes[0]
    lane.losses = Losses(lane.name, clock)
    return lane


def say(log: logging.Logger, start: int, stop: int, level: int = logging.INFO) -> None:
    for number in range(start, stop):
        log.log(level, "%d", number)


async def test_idle_lane_tells_within_a_second(log: logging.Logger) -> None:
    """Nothing else is logged, and the notice comes; past the sink's level and its filters."""
    sink = FaultySink(PermanentFailure("no"), level="ERROR")
    sink.addFilter(lambda record: record.name == log.name)
    async with Pipeline(sink, logger=log):
        log.error("refused")
        (notice,) = await sink.wait_for(1, timeout=5.0)
        assert (notice.sink, notice.lost, notice.closes) == ("FaultySink", {"rejected": {"ERROR": 1}}, False)


async def test_after_an_outage_the_notice_goes_first(log: logging.Logger, clock: Clock) -> None:
    """In front of what was kept, it tells all that was lost until then; a closing total follows."""
    sink = FaultySink(always=TemporaryFailure("away"), retry=SOON, buffer=SMALL)
    pipeline = Pipeline(sink, logger=log)
    lane = lane_of(pipeline.listener, clock)
    async with pipeline:
        log.info("in flight")
        await until(lambda: sink.attempts)
        for number in range(30):
            log.info("%d", number)
            await until(lambda: not pipeline.stats().intake.pending)
        clock.now += 100
        sink.heal()
        await sink.wait_for(5)
        assert [record.name == "offloop.loss" for record in sink.records] == [False, True, False, False, False]
        assert (pipeline.stats().sinks["FaultySink"].lost, sink.records[1].closes) == (27, True)
        assert told(sink.records) == pipeline.stats().sinks["FaultySink"].dropped
        assert lane._silence is None
    assert len(sink.records) == 5


async def test_periodic_and_closing_totals_reach_an_idle_sink(log: logging.Logger, clock: Clock) -> None:
    """The lane wakes for them by itself."""
    sink = FaultySink(PermanentFailure("no"))
    pipeline = Pipeline(sink, logger=log)
    lane = lane_of(pipeline.listener, clock)
    async with pipeline:
        for wait, closes in ((0.5, False), (10.0, False), (60.0, True)):
            if closes is False:
                sink.fail(PermanentFailure("no"))
                rejected = pipeline.stats().sinks["FaultySink"].lost
                log.warning("refused")
                await until(lambda before=rejected: pipeline.stats().sinks["FaultySink"].lost > before)
            clock.now += wait
            lane.wake()
            count = len(sink.records)
            await sink.wait_for(count + 1)
            assert sink.records[-1].closes is (closes or wait == 10.0)
            if sink.records[-1].closes:
                break
    assert told(sink.records) == {"rejected": {"WARNING": 2}}


async def test_due_notice_does_not_wait_for_a_full_batch(log: logging.Logger) -> None:
    """`max_wait` holds up records, not the news that some are lost."""
    sink = MemorySink(buffer=SMALL, batching=Batching(max_wait=60.0))
    async with Pipeline(sink, logger=log):
        say(log, 0, 10)
        records = await sink.wait_for(3)  # half of what the buffer holds, and the notice in front
        assert [record.name == "offloop.loss" for record in records] == [True, False, False]


async def test_notices_take_no_place_from_others(log: logging.Logger) -> None:
    """A buffer of one record holds one beside a notice, and batches keep to their size."""
    sink = FaultySink(always=TemporaryFailure("away"), retry=SOON, buffer=Buffer(1), batching=Batching(1))
    async with Pipeline(sink, logger=log, queue_size=8) as pipeline:
        say(log, 0, 5)
        await until(lambda: pipeline.stats().sinks["FaultySink"].lost)
        say(log, 5, 105)
        await until(lambda: not pipeline.stats().intake.pending)
        counts = pipeline.stats().sinks["FaultySink"]
        assert (counts.pending - counts.notices, counts.offered - counts.notices) == (1, counts.lost + 1)
        sink.heal()
    assert set(sink.batches) == {1}
    assert len(logged(sink.records)) <= 2
    assert told(sink.records) == pipeline.stats().sinks["FaultySink"].dropped
    assert told(sink.records, queue=True) == pipeline.stats().intake.dropped


async def test_sink_that_rejects_everything_is_not_fed_notices(log: logging.Logger) -> None:
    """A notice that is rejected is counted, and causes no other."""
    sink = FaultySink(always=PermanentFailure("no"))
    async with Pipeline(sink, logger=log) as pipeline:
        log.info("refused")
        await until(lambda: pipeline.stats().sinks["FaultySink"].notices)
        await until(lambda: not pipeline.stats().sinks["FaultySink"].pending)
        attempts = sink.attempts
        await pipeline.flush()
        assert sink.attempts == attempts
    counts = pipeline.stats().sinks["FaultySink"]
    assert counts.balanced
    # The first, one at the begin of the shutdown, and what that said is printed.
    assert (counts.notices, counts.printed) == (3, 1)
    assert counts.dropped == {"rejected": {"INFO": 1, "WARNING": 2}}


async def test_losses_in_the_queue_are_told_to_each_sink(log: logging.Logger) -> None:
    """From threads into a full queue: each sink's stream tells what it would have taken."""
    every, some = MemorySink(name="every"), MemorySink(name="some", level="WARNING")
    pipeline = Pipeline(every, some, logger=log, queue_size=10)
    async with pipeline:
        for level in (logging.INFO, logging.WARNING):
            threads = [threading.Thread(target=say, args=(log, 0, 50, level)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        await every.wait_for_message("in the queue")
        await some.wait_for_message("in the queue")
        lost = pipeline.stats().intake.dropped
    assert told(every.records, queue=True) == lost
    assert told(some.records, queue=True) == {"overflow": {"WARNING": lost["overflow"]["WARNING"]}}
    assert not told(every.records)


async def test_last_loss_of_a_burst_wakes_the_listener(log: logging.Logger) -> None:
    """A record that is lost when the queue is empty again is told of too: nothing else need come."""
    sink = MemorySink()
    async with Pipeline(sink, logger=log, queue_size=1) as pipeline:
        await pipeline.flush()
        thread = threading.Thread(target=pipeline.handler.intake.lose, args=("overflow", logging.INFO))
        thread.start()
        assert (await sink.wait_for_message("1 record was lost in the queue")).sink == "queue"
        thread.join()


async def test_losses_before_the_start_are_told(log: logging.Logger) -> None:
    """What a queue could not hold while nobody listened; at the end of a short run too."""
    sink = MemorySink()
    pipeline = Pipeline(sink, logger=log, queue_size=10)
    log.handlers = [pipeline.handler]
    say(log, 0, 10_000)
    async with pipeline:
        pass
    assert told(sink.records, queue=True) == {"shed": {"INFO": 10_000 - 8}}
    assert pipeline.stats().sinks["MemorySink"].offered == 8 + 1


async def test_what_is_lost_in_a_shutdown_is_told_in_the_last_batch(log: logging.Logger) -> None:
    """Records that the drain rejects are told of before the sink is closed."""

    def refuse(batch: Batch) -> None:
        raise PermanentFailure("no")

    sink = FaultySink(refuse)
    pipeline = Pipeline(sink, logger=log)
    async with pipeline:
        say(log, 0, 3)
    assert [record.lost for record in sink.records if record.name == "offloop.loss"] == [{"rejected": {"INFO": 3}}]
    assert sink.records[-1].closes


async def test_at_a_deadline_notices_are_printed(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """As any other record; what a shutdown drops is told when the sink runs again."""
    sink = FaultySink(always=HANG, buffer=SMALL)
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=0.1)
    async with pipeline:
        say(log, 0, 10)
        await until(lambda: not pipeline.stats().intake.pending)
    counts = pipeline.stats().sinks["FaultySink"]
    assert (counts.notices, counts.dropped["overflow"]) == (1, {"INFO": 6})
    # A busy machine may have no time to print.
    assert counts.printed + counts.lost == 11
    assert ("WARNING offloop.loss: 6 records were lost" in capsys.readouterr().err) is (counts.printed > 0)
    sink.heal()
    async with pipeline:
        say(log, 10, 12)
    assert logged(sink.records) == ["10", "11"]
    assert not told(sink.records)


async def test_records_that_a_deadline_drops_are_told_at_the_next_start(log: logging.Logger) -> None:
    """And in another event loop."""
    sink = FaultySink(always=HANG)
    pipeline = Pipeline(sink, logger=log)

    async def run() -> None:
        async with pipeline:
            log.info("to be lost, and larger than what is printed: %s", "x" * 2_000_000)
            await until(lambda: sink.attempts)
            await pipeline.listener.stop(timeout=0.0)

    await asyncio.to_thread(lambda: asyncio.run(run()))
    assert pipeline.stats().sinks["FaultySink"].dropped == {"shutdown": {"INFO": 1}}
    sink.heal()
    async with pipeline:
        log.info("after")
    assert told(sink.records) == {"shutdown": {"INFO": 1}}
    assert logged(sink.records) == ["after"]


async def test_child_of_a_fork_tells_of_its_own_losses_alone(log: logging.Logger) -> None:
    """What the parent lost, in its queue or at a sink, is the parent's to tell."""
    sink = FaultySink(PermanentFailure("no"))
    pipeline = Pipeline(sink, logger=log, queue_size=10)
    log.handlers = [pipeline.handler]
    say(log, 0, 100)
    pipeline.listener._lanes[0].losses.note("rejected", logging.INFO)
    pipeline.handler.intake.after_fork()
    pipeline.listener.after_fork()
    async with pipeline:
        say(log, 0, 1)
    assert told(sink.records) == pipeline.stats().sinks["FaultySink"].dropped == {"rejected": {"INFO": 1}}
    assert not told(sink.records, queue=True)


@pytest.mark.parametrize("when", ["outage", "always"])
async def test_what_a_spool_loses_is_told(log: logging.Logger, tmp_path: Path, when: Any) -> None:
    """Records too old when they are read back, and those that the disk had no room for."""
    spool = Spool(tmp_path, max_bytes=20_000, when=when)
    sink = FaultySink(always=TemporaryFailure("away"), retry=SOON, buffer=Buffer(10), spool=spool)
    async with Pipeline(sink, logger=log) as pipeline:
        say(log, 0, 2_000)
        await until(lambda: pipeline.stats().sinks["FaultySink"].lost)
        await until(lambda: pipeline.stats().sinks["FaultySink"].pending <= 10)
        sink.heal()
        await until(lambda: pipeline.stats().sinks["FaultySink"].spooled == 0)
    counts = pipeline.stats().sinks["FaultySink"]
    assert counts.balanced
    assert told(sink.records) == counts.dropped
    assert counts.offered - counts.notices == 2_000 == len(logged(sink.records)) + counts.lost


async def test_notice_that_could_not_be_told_is_spooled(log: logging.Logger, tmp_path: Path) -> None:
    """At the end of an outage's process it is on disk with the rest, and the next one delivers it."""
    spool = Spool(tmp_path, max_bytes=20_000)
    away = FaultySink(always=TemporaryFailure("away"), retry=SOON, buffer=Buffer(10), spool=spool, name="sink")
    async with Pipeline(away, logger=log) as pipeline:
        say(log, 0, 1_000)
        await until(lambda: pipeline.stats().sinks["sink"].lost)
    counts = pipeline.stats().sinks["sink"]
    assert (counts.pending, counts.printed, counts.balanced) == (0, 0, True)
    assert counts.notices == 1
    sink = MemorySink(spool=spool, name="sink")
    async with Pipeline(sink, logger=log) as pipeline:
        await sink.wait_for(counts.spooled)
    assert sink.records[-1].name == "offloop.loss"
    assert total(told(sink.records)) <= counts.lost
    assert pipeline.stats().sinks["sink"].notices == 0


async def test_collector_and_mailbox_receive_notices(log: logging.Logger) -> None:
    """As JSON with its fields over TCP, and as a line of a mail."""
    with aiosmtpd() as desk:
        async with collecting() as collector:
            tcp = TCPSink("127.0.0.1", collector.port, buffer=SMALL)
            mail = SMTPSink("127.0.0.1", desk.port, sender="a@example.org", to="b@example.org", buffer=SMALL)
            async with Pipeline(tcp, mail, logger=log):
                say(log, 0, 10)
                await collector.wait_for(lambda: len(collector.lines) == 5)
            (notice,) = [fields for fields in map(json.loads, collector.lines) if fields["logger"] == "offloop.loss"]
    assert notice["lost"] == notice["total"] == {"overflow": {"INFO": 6}}
    assert (notice["level"], notice["sink"]) == ("WARNING", "TCPSink")
    assert any("6 records were lost" in str(parsed(raw).get_body()) for raw in desk.mails)


async def test_plain_handler_emits_notices(log: logging.Logger) -> None:
    """Whatever its level and filters say."""

    class Keeping(logging.Handler):
        def __init__(self) -> None:
            super().__init__("ERROR")
            self.addFilter(logging.Filter(log.name))
            self.kept: list[logging.LogRecord] = []

        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "bad":
                raise ValueError(record)
            self.kept.append(record)

    handler = Keeping()
    async with Pipeline(handler, logger=log):
        log.error("bad")
    assert told(handler.kept) == {"rejected": {"ERROR": 1}}
