"""From lane to lane: what the fallback and the dead letters get, and that each record is counted once."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from endings import ended, printed, told
from helpers import until
from offloop import (
    Breaker,
    Buffer,
    ConfigError,
    Counts,
    JSONFormatter,
    PartialFailure,
    PermanentFailure,
    Pipeline,
    QueueHandler,
    QueueListener,
    Retry,
    Spool,
    Stats,
    diagnostics,
)
from offloop.testing import HANG, FaultySink, MemorySink

NEVER = 3600.0
SOON = Retry(initial=0.0, maximum=0.001)
OPENS = Breaker(failures=2, probe=NEVER)


def away(fallback: Any, *steps: Any, always: Any = OSError, name: str = "first", **options: Any) -> FaultySink:
    """A sink that fails, after these steps, and whose breaker opens at the second failure."""
    options = {"retry": SOON, "breaker": OPENS, "fallback": fallback} | options
    return FaultySink(*steps, always=always, name=name, **options)


def say(log: logging.Logger, start: int, stop: int) -> None:
    for number in range(start, stop):
        log.info("n %d", number)


def said(start: int, stop: int) -> list[str]:
    return [f"n {number}" for number in range(start, stop)]


def counts_of(pipeline: Pipeline, name: str = "first") -> Counts:
    return pipeline.stats().sinks[name]


def assert_agree(stats: Stats, second: str = "second") -> None:
    """All that was diverted or refused was offered to the other, and nothing is left."""
    assert stats.balanced
    other = stats.sinks[second]
    assert other.offered - other.notices == sum(
        counts.diverted + counts.dead_lettered for counts in stats.sinks.values()
    )
    assert [counts.pending for counts in stats.sinks.values()] == [0] * len(stats.sinks)


# -- the fallback -----------------------------------------------------------------------------------------------------


async def test_behind_an_open_breaker_everything_goes_to_the_fallback(log: logging.Logger) -> None:
    """The batch that failed, what waited, and what comes; in order."""
    second = MemorySink(name="second")
    async with Pipeline(away(second), logger=log) as pipeline:
        say(log, 0, 1_200)
        assert (await pipeline.flush(5)).complete
        assert second.messages == said(0, 1_200)
        assert counts_of(pipeline).state == "open"
        say(log, 1_200, 1_300)
        assert (await pipeline.flush(5)).complete
        assert second.messages == said(0, 1_300)
        assert_agree(pipeline.stats())
    counts = counts_of(pipeline)
    assert (counts.offered, counts.diverted, counts.delivered, counts.lost) == (1_300, 1_300, 0, 0)


async def test_a_probe_takes_the_next_records_and_closes_it(log: logging.Logger) -> None:
    """One that fails is diverted too; after one that is delivered all goes to the primary again, in order."""
    second = MemorySink(name="second")
    first = away(second, breaker=Breaker(2, 0.0))
    async with Pipeline(first, logger=log) as pipeline:
        say(log, 0, 10)
        await second.wait_for(10)
        attempts = first.attempts
        say(log, 10, 20)
        await second.wait_for(20)
        assert first.attempts == attempts + 1
        first.heal()
        say(log, 20, 30)
        await first.wait_for(10)
        say(log, 30, 40)
        await first.wait_for(20)
    assert second.messages == said(0, 20)
    assert first.messages == said(20, 40)
    assert_agree(pipeline.stats())


async def test_while_a_probe_hangs_what_comes_is_diverted(log: logging.Logger) -> None:
    """Nothing waits for its outcome but what is in it."""
    second = MemorySink(name="second")
    first = away(second, OSError("away"), always=HANG, breaker=Breaker(1, 0.0), send_timeout=30)
    pipeline = Pipeline(first, logger=log, shutdown_timeout=0.5)
    async with pipeline:
        say(log, 0, 1)
        await second.wait_for(1)
        say(log, 1, 2)
        await until(lambda: counts_of(pipeline).state == "probing" and first.attempts == 2)
        say(log, 2, 5)
        await second.wait_for(4)
        assert counts_of(pipeline).pending == 1
    assert second.messages == ["n 0", "n 2", "n 3", "n 4", "n 1"]
    assert_agree(pipeline.stats())


async def test_the_fallback_has_level_and_filters_of_its_own(log: logging.Logger) -> None:
    """What it turns away is filtered there; another sink's record is left as it is."""
    second = MemorySink(name="second", level=logging.INFO)

    def mark(record: logging.LogRecord) -> bool:
        record.msg = f"marked {record.msg}"
        return "secret" not in record.msg

    second.addFilter(mark)
    third = MemorySink(name="third")
    async with Pipeline(away(second), third, logger=log) as pipeline:
        log.debug("too low")
        log.info("secret")
        log.info("open")
        assert (await pipeline.flush(5)).complete
    assert second.messages == ["marked open"]
    assert third.messages == ["too low", "secret", "open"]
    counts = counts_of(pipeline, "second")
    assert (counts.offered, counts.filtered, counts.delivered) == (3, 2, 1)
    assert_agree(pipeline.stats())


async def test_what_has_no_room_goes_to_the_fallback(log: logging.Logger) -> None:
    """While the primary is merely slow: what would be shed or evicted."""
    second = MemorySink(name="second")
    first = away(second, always=HANG, buffer=Buffer(max_records=10), send_timeout=30)
    pipeline = Pipeline(first, logger=log, shutdown_timeout=0.4)
    async with pipeline:
        say(log, 0, 100)
        await second.wait_for(92)
        assert counts_of(pipeline).pending == 8
        assert pipeline.stats().balanced
    assert sorted(second.messages) == sorted(said(0, 100))
    assert_agree(pipeline.stats())


async def test_what_expires_goes_to_the_fallback(log: logging.Logger) -> None:
    """And is not counted as dropped."""
    second = MemorySink(name="second")
    first = away(second, retry=Retry(0, 0, give_up_after=0), breaker=Breaker(100))
    async with Pipeline(first, logger=log) as pipeline:
        say(log, 0, 3)
        assert (await pipeline.flush(5)).complete
        assert counts_of(pipeline).state == "retrying"
    assert second.messages == said(0, 3)
    assert_agree(pipeline.stats())


async def test_what_the_destination_rejects_does_not(log: logging.Logger) -> None:
    """A record that nobody can use is no better elsewhere: that is for the dead letters."""
    second = MemorySink(name="second")
    async with Pipeline(away(second, always=PermanentFailure("no")), logger=log) as pipeline:
        say(log, 0, 3)
        assert (await pipeline.flush(5)).complete
    assert counts_of(pipeline).dropped["rejected"]["INFO"] == 3
    assert second.messages == []


async def test_two_sinks_share_a_fallback(log: logging.Logger) -> None:
    """It has one lane, and gets each record once for each."""
    second = MemorySink(name="second")
    pipeline = Pipeline(away(second), away(second, name="other"), logger=log)
    async with pipeline:
        say(log, 0, 50)
        assert (await pipeline.flush(5)).complete
    assert sorted(second.messages) == sorted(said(0, 50) * 2)
    assert list(pipeline.stats().sinks) == ["first", "other", "second"]
    assert_agree(pipeline.stats())


async def test_an_ordinary_sink_is_a_fallback_too(log: logging.Logger) -> None:
    """It gets what is logged, and what the other can't deliver: one record twice, by two ways."""
    second = MemorySink(name="second")
    async with Pipeline(away(None), second, logger=log, fallback=second) as pipeline:
        say(log, 0, 50)
        assert (await pipeline.flush(5)).complete
    assert sorted(second.messages) == sorted(said(0, 50) * 2)
    assert (counts_of(pipeline).diverted, counts_of(pipeline, "second").offered) == (50, 100)
    assert pipeline.stats().balanced


async def test_a_fallback_may_fall_back(log: logging.Logger) -> None:
    """A flush waits until the last of them is done."""
    third = FaultySink(always=0.01, name="third")
    second = away(third, name="second")
    async with Pipeline(away(second), logger=log) as pipeline:
        say(log, 0, 1_100)
        assert (await pipeline.flush(5)).complete
        assert third.messages == said(0, 1_100)
    stats = pipeline.stats()
    assert [counts.diverted for counts in stats.sinks.values()] == [1_100, 1_100, 0]
    assert stats.sinks["third"].delivered == 1_100
    assert stats.balanced


async def test_plain_handlers_and_functions_are_fallbacks(log: logging.Logger, tmp_path: Path) -> None:
    """One lane for each, however often it is named."""
    handler = logging.FileHandler(tmp_path / "log")
    taken: list[str] = []

    async def take(records: list[logging.LogRecord]) -> None:
        taken.extend(record.getMessage() for record in records)

    others = [away(take, name="three"), away(partial(take), name="four")]
    pipeline = Pipeline(away(handler), away(handler, name="two"), *others, logger=log)
    async with pipeline:
        say(log, 0, 2)
        assert (await pipeline.flush(5)).complete
    handler.close()
    assert sorted((tmp_path / "log").read_text().split("\n")) == ["", *sorted(said(0, 2) * 2)]
    assert sorted(taken) == sorted(said(0, 2) * 2)
    assert list(pipeline.stats().sinks) == ["first", "two", "three", "four", "FileHandler", "take", "take-2"]


async def test_a_pipeline_s_fallback_is_for_those_that_have_none(log: logging.Logger) -> None:
    """It has none itself, nor have the sinks that it falls back on."""
    last, own = MemorySink(name="last"), MemorySink(name="own")
    general = away(last, name="general")
    async with Pipeline(away(own), away(None, name="two"), last, logger=log, fallback=general) as pipeline:
        log.info("x")
        assert (await pipeline.flush(5)).complete
    assert own.messages == ["x"]
    assert last.messages == ["x", "x"]
    stats = pipeline.stats()
    assert stats.sinks["two"].diverted == stats.sinks["general"].diverted == 1
    assert stats.sinks["last"].diverted == 0


async def test_a_fallback_that_hangs_too_loses_nothing_silently(log: logging.Logger) -> None:
    """The primary hands over what it has; what the other can't deliver is printed for the other, in time."""
    second = FaultySink(always=HANG, name="second")
    pipeline = Pipeline(away(second, always=HANG), logger=log, shutdown_timeout=0.5)
    started = time.monotonic()
    async with pipeline:
        say(log, 0, 20)
    assert time.monotonic() - started < 5
    left = counts_of(pipeline, "second")
    assert counts_of(pipeline).diverted == left.printed + left.lost == 20
    assert_agree(pipeline.stats())


async def test_a_hung_primary_leaves_the_fallback_time_at_a_shutdown(log: logging.Logger) -> None:
    """Half of the deadline: the other delivers within the rest, and all is settled."""
    second = MemorySink(name="second")
    pipeline = Pipeline(away(second, always=HANG), logger=log, shutdown_timeout=1.0)
    pipeline.start()
    say(log, 0, 1_000)
    report = await pipeline.stop()
    assert report.complete
    assert report.elapsed < 1.0
    assert second.messages == said(0, 1_000)
    assert_agree(report)


async def test_each_of_a_chain_gets_its_part_of_the_deadline(log: logging.Logger) -> None:
    """Two that hang, one after the other, leave the third its time."""
    third = MemorySink(name="third")
    second = away(third, always=HANG, name="second")
    pipeline = Pipeline(away(second, always=HANG), logger=log, shutdown_timeout=1.5)
    pipeline.start()
    say(log, 0, 100)
    report = await pipeline.stop()
    assert report.complete
    assert third.messages == said(0, 100)
    assert report.sinks["second"].diverted == 100
    assert report.balanced


async def test_a_stop_behind_an_open_breaker_is_quick(log: logging.Logger) -> None:
    """No probe is waited for."""
    second = MemorySink(name="second")
    first = away(second, *[OSError("away")] * 2, always=HANG, breaker=Breaker(2, 0.0))
    pipeline = Pipeline(first, logger=log, shutdown_timeout=30)
    pipeline.start()
    log.info("x")
    await second.wait_for(1)
    log.info("y")
    report = await pipeline.stop(30)
    assert report.complete
    assert report.elapsed < 10
    assert second.messages == ["x", "y"]


async def test_no_time_at_all_prints_what_is_left(log: logging.Logger) -> None:
    """A deadline that has passed leaves none for the fallback."""
    second = MemorySink(name="second")
    pipeline = Pipeline(away(second, always=HANG), logger=log, shutdown_timeout=0.0)
    async with pipeline:
        say(log, 0, 3)
        await until(lambda: counts_of(pipeline).pending == 3)
    stats = pipeline.stats()
    assert sum(counts.printed + counts.lost for counts in stats.sinks.values()) == 3
    assert stats.balanced


async def test_cancellation_diverts_and_raises(log: logging.Logger) -> None:
    """As any end of the block."""
    second = MemorySink(name="second")
    pipeline = Pipeline(away(second, always=HANG), logger=log, shutdown_timeout=0.6)

    async def work() -> None:
        async with pipeline:
            say(log, 0, 20)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await until(lambda: pipeline.listener.running and counts_of(pipeline).pending)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert second.messages == said(0, 20)
    assert_agree(pipeline.stats())


def test_the_end_of_asyncio_run_diverts(log: logging.Logger) -> None:
    """All tasks are cancelled, those that carry records too."""
    second = MemorySink(name="second")
    pipeline = Pipeline(away(second, always=HANG), logger=log, shutdown_timeout=0.6)

    async def main() -> None:
        pipeline.start()
        say(log, 0, 20)
        await until(lambda: counts_of(pipeline).pending)

    asyncio.run(main())
    assert second.messages == said(0, 20)
    assert_agree(pipeline.stats())
    log.handlers = []


def test_another_loop_begins_anew(log: logging.Logger) -> None:
    """With a closed breaker; and what a loop that was closed without a stop left goes on."""
    second = MemorySink(name="second")
    first = away(second, always=HANG)
    pipeline = Pipeline(first, logger=log, shutdown_timeout=0.4)

    async def log_some(start: int) -> None:
        pipeline.start()
        say(log, start, start + 10)
        await until(lambda: counts_of(pipeline).pending == 10)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(log_some(0))
    loop.close()
    first.heal()

    async def go_on() -> None:
        async with pipeline:
            await first.wait_for(10)
            first.fail(always=OSError("away"))
            say(log, 10, 20)

    asyncio.run(go_on())
    assert first.messages == said(0, 10)
    assert second.messages == said(10, 20)
    assert_agree(pipeline.stats())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupt_in_the_fallback_s_filter_loses_nothing(log: logging.Logger, error: type[BaseException]) -> None:
    """The record stays with the primary until the fallback has it."""
    second = MemorySink(name="second")
    seen: list[logging.LogRecord] = []

    def interrupted(record: logging.LogRecord) -> bool:
        seen.append(record)
        if len(seen) == 5:
            raise error
        return True

    second.addFilter(interrupted)
    pipeline = Pipeline(away(second), logger=log)
    interrupts = 0

    async def start() -> None:
        pipeline.start()
        say(log, 0, 20)

    with asyncio.Runner() as runner:
        runner.run(start())
        while not second.records:
            try:
                runner.get_loop().run_until_complete(second.wait_for(20))
            except KeyboardInterrupt:
                interrupts += 1
                assert pipeline.stats().balanced
        runner.run(pipeline.stop())
    assert second.messages == said(0, 20)
    assert interrupts == (error is KeyboardInterrupt)
    assert_agree(pipeline.stats())


async def test_a_record_without_a_number_for_a_level_is_handed_over(log: logging.Logger) -> None:
    """As a filter may leave it: nothing stops for it."""
    second = MemorySink(name="second", level="INFO")
    first = away(second)

    def spoil(record: logging.LogRecord) -> bool:
        record.levelno = None  # pyright: ignore[reportAttributeAccessIssue]
        return True

    first.addFilter(spoil)
    async with Pipeline(first, logger=log) as pipeline:
        log.info("odd")
        assert (await pipeline.flush(5)).complete
    assert second.messages == ["odd"]


async def test_levels_are_ignored_by_those_who_get_what_is_handed_over_too(log: logging.Logger) -> None:
    """Where the listener is told to ignore them."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    log.handlers = [QueueHandler(queue)]
    second = MemorySink(name="second", level="ERROR")
    async with QueueListener(queue, away(second), respect_handler_level=False) as listener:
        log.info("low")
        assert (await listener.flush(5)).complete
    assert second.messages == ["low"]


async def test_what_a_fault_keeps_from_being_handed_over_stays(
    log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is said, and tried again."""

    class Odd(MemorySink):
        faults = 0

        @property
        def level(self) -> int:
            self.faults -= 1
            if not self.faults:
                raise ValueError("odd")
            return 0

        @level.setter
        def level(self, value: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
            pass

    second = Odd(name="second")
    async with Pipeline(away(second), logger=log) as pipeline:
        second.faults = 1
        say(log, 0, 3)
        await second.wait_for(3)
        assert pipeline.stats().balanced
    diagnostics.flush(5)
    assert "lane first can't hand over: ValueError: odd" in capfd.readouterr().err


async def test_stats_from_another_thread_balance_at_every_moment(log: logging.Logger) -> None:
    """While records go from lane to lane."""
    letters = MemorySink(name="letters")
    second = FaultySink(*[PermanentFailure("no")] * 2, name="second", dead_letters=letters)
    first = away(second, breaker=Breaker(2, 0.001), always=None)
    pipeline = Pipeline(first, logger=log)
    done, off = threading.Event(), list[Stats]()

    def watch() -> None:
        while not done.is_set():
            stats = pipeline.stats()
            if not stats.balanced:
                off.append(stats)

    async with pipeline:
        watcher = threading.Thread(target=watch)
        watcher.start()
        for turn in range(60):
            first.fail(*[OSError("away")] * (turn % 4))
            say(log, turn * 50, turn * 50 + 50)
            await pipeline.flush(0.002)
        assert (await pipeline.flush(5)).complete
        done.set()
        await asyncio.to_thread(watcher.join)
    assert not off
    assert counts_of(pipeline).diverted
    assert len(first.records) + len(second.records) + len(letters.records) == 3_000


# -- spool and fallback -----------------------------------------------------------------------------------------------


async def test_with_a_spool_what_waits_is_on_disk(log: logging.Logger, tmp_path: Path) -> None:
    """The fallback gets nothing that the disk can keep; the next start delivers it."""
    second = MemorySink(name="second")
    pipeline = Pipeline(away(second, spool=Spool(tmp_path)), logger=log, shutdown_timeout=5)
    async with pipeline:
        say(log, 0, 200)
        await until(lambda: counts_of(pipeline).spooled == 200)
    assert (counts_of(pipeline).spooled, second.messages) == (200, [])
    first = MemorySink(name="first", spool=Spool(tmp_path))
    async with Pipeline(first, logger=log):
        await first.wait_for(200)
    assert first.messages == said(0, 200)


async def test_with_a_spool_the_fallback_gets_what_the_disk_can_t_take(log: logging.Logger, tmp_path: Path) -> None:
    """A disk that fails: what waits behind the open breaker in memory alone goes, in order."""
    (tmp_path / "file").write_text("in the way")
    second = MemorySink(name="second")
    first = away(second, spool=Spool(tmp_path / "file" / "spool"))
    async with Pipeline(first, logger=log, shutdown_timeout=5) as pipeline:
        say(log, 0, 200)
        await second.wait_for(200)
        assert (await pipeline.flush(5)).complete
    assert second.messages == said(0, 200)
    assert_agree(pipeline.stats())


async def test_with_a_spool_that_fails_a_shutdown_leaves_the_fallback_time(log: logging.Logger, tmp_path: Path) -> None:
    """A sink that hangs, on a disk that takes nothing."""
    (tmp_path / "file").write_text("in the way")
    second = MemorySink(name="second")
    first = away(second, always=HANG, spool=Spool(tmp_path / "file" / "spool"))
    pipeline = Pipeline(first, logger=log, shutdown_timeout=1.0)
    pipeline.start()
    say(log, 0, 20)
    await until(lambda: (counts_of(pipeline).error or "").startswith("spool"))
    report = await pipeline.stop()
    assert second.messages == said(0, 20)
    assert_agree(report)


async def test_what_the_spool_has_no_room_for_goes_to_the_fallback(log: logging.Logger, tmp_path: Path) -> None:
    """More than the spool's bound at once: the oldest are refused by the disk."""
    second = MemorySink(name="second")
    first = away(second, spool=Spool(tmp_path, max_bytes=5_000), buffer=Buffer(10))
    async with Pipeline(first, logger=log, shutdown_timeout=5) as pipeline:
        say(log, 0, 200)
        await until(lambda: counts_of(pipeline).pending == 0)
        assert (await pipeline.flush(5)).complete
    counts = counts_of(pipeline)
    assert 100 < counts.diverted == len(second.records)
    assert_agree(pipeline.stats())


# -- dead letters -----------------------------------------------------------------------------------------------------


async def test_dead_letters_say_who_refused_them_and_why(log: logging.Logger, tmp_path: Path) -> None:
    """In a file of JSON lines that only its owner reads, made when there is something to write."""
    path = tmp_path / "dead.jsonl"
    first = FaultySink(PermanentFailure("too old"), name="first", dead_letters=path)
    async with Pipeline(first, logger=log) as pipeline:
        await pipeline.flush(1)
        assert not path.exists()
        log.error("refused %d", 1, extra={"order": 4711})
        await until(lambda: counts_of(pipeline).dead_lettered)
        log.info("taken")
        assert (await pipeline.flush(5)).complete
    letter = json.loads(path.read_text())
    assert (letter["message"], letter["order"]) == ("refused 1", 4711)
    assert (letter["dead_letter_sink"], letter["dead_letter_reason"]) == ("first", "too old")
    assert path.stat().st_mode & 0o777 == 0o600
    assert counts_of(pipeline).lost == 0
    assert counts_of(pipeline, "dead-letters").delivered == 1
    assert_agree(pipeline.stats(), "dead-letters")
    # A further run appends.
    first.fail(PermanentFailure("too new"))
    async with pipeline:
        log.info("again")
    assert [json.loads(line)["dead_letter_reason"] for line in path.read_text().splitlines()] == ["too old", "too new"]


async def test_all_that_is_rejected_for_good_is_a_dead_letter(log: logging.Logger) -> None:
    """A whole batch, a part of one, and the record that poisons one; what is to be sent again is not."""

    def partial_failure(batch: Any) -> None:
        raise PartialFailure("in part", retry=batch.records[:1], rejected=batch.records[1:2])

    letters = MemorySink(name="second", formatter=JSONFormatter())
    first = FaultySink(PermanentFailure("whole"), partial_failure, name="first", retry=SOON, dead_letters=letters)
    async with Pipeline(first, logger=log) as pipeline:
        for batch in (("a", "b"), ("c", "d", "e"), ("f", "poison", "g")):
            for message in batch:
                log.info(message)
            assert (await pipeline.flush(5)).complete
            first.fail(*first._steps, poison=lambda record: record.msg == "poison")
    reasons = [(json.loads(line)["message"], json.loads(line)["dead_letter_reason"]) for line in letters.encoded]
    assert reasons == [
        ("a", "whole"),
        ("b", "whole"),
        ("d", "in part"),
        ("poison", "ValueError: the batch is poisoned"),
    ]
    assert sorted(first.messages) == ["c", "e", "f", "g"]
    assert not any(hasattr(record, "dead_letter_sink") for record in first.records)
    assert counts_of(pipeline).dead_lettered == 4
    assert_agree(pipeline.stats())


async def test_what_the_dead_letters_refuse_is_dropped_there(log: logging.Logger) -> None:
    """And nowhere else."""
    letters = FaultySink(always=PermanentFailure("no more"), name="second")
    first = FaultySink(always=PermanentFailure("no"), name="first", dead_letters=letters)
    async with Pipeline(first, logger=log) as pipeline:
        say(log, 0, 3)
        assert (await pipeline.flush(5)).complete
    assert counts_of(pipeline).dead_lettered == 3
    assert counts_of(pipeline, "second").dropped["rejected"]["INFO"] == 3
    assert_agree(pipeline.stats())


async def test_two_sinks_share_a_file(log: logging.Logger, tmp_path: Path) -> None:
    """One lane for one path, however it is written."""
    path = tmp_path / "dead.jsonl"
    sinks = [
        FaultySink(always=PermanentFailure("no"), name=name, dead_letters=given)
        for name, given in (("one", path), ("two", str(path)), ("three", tmp_path / "other"))
    ]
    async with Pipeline(*sinks, logger=log) as pipeline:
        log.info("x")
        assert (await pipeline.flush(5)).complete
    assert {json.loads(line)["dead_letter_sink"] for line in path.read_text().splitlines()} == {"one", "two"}
    assert list(pipeline.stats().sinks) == ["one", "two", "three", "dead-letters", "dead-letters-2"]


# -- who may hand over to whom ----------------------------------------------------------------------------------------


def test_nobody_hands_over_to_himself() -> None:
    """Not by way of others either, and not by dead letters."""
    first, second = MemorySink(name="first"), MemorySink(name="second")
    first.fallback, second.dead_letters = second, first
    with pytest.raises(ConfigError, match="can't hand over to itself, by fallback or dead_letters: <.*first.* -> "):
        Pipeline(first)
    alone = MemorySink()
    alone.fallback = alone
    with pytest.raises(ConfigError, match="hand over to itself"):
        Pipeline(alone)


def test_handlers_of_the_queue_are_no_fallback() -> None:
    """What they are handed would come back."""
    sink = MemorySink()
    pipeline = Pipeline(sink)
    sink.fallback = pipeline.handler
    with pytest.raises(ConfigError, match="puts records on the queue"):
        type(pipeline.listener)(pipeline.handler.queue, sink)


@pytest.mark.parametrize("option", ["fallback", "dead_letters"])
@pytest.mark.parametrize("value", [5, MemorySink, b"bytes"])
def test_others_are_refused_with_a_word(option: str, value: Any) -> None:
    """What it must be, and what it was."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigError, match=f"MemorySink: {option} must be a Sink, .* or None; got"):
        MemorySink(**options)


def test_a_path_is_no_fallback() -> None:
    """Only dead letters have a form of their own."""
    path: Any = "/tmp/x"
    with pytest.raises(ConfigError, match="fallback must be"):
        MemorySink(fallback=path)
    with pytest.raises(ConfigError, match="a sink must be"):
        Pipeline(MemorySink(), fallback=path)


# -- ends and forks ---------------------------------------------------------------------------------------------------

HUNG_WITH_FALLBACK = """
class Kept(Sink):
    async def send(self, batch):
        for record in batch:
            print("kept", record.getMessage(), flush=True)


listener = QueueListener(queue, Hung(name="first", fallback=Kept(name="second")), shutdown_timeout=1.0)
"""


async def test_the_exit_of_a_process_diverts(tmp_path: Path) -> None:
    """What was logged without a loop goes to the fallback on the private loop, in time for it."""
    source = HUNG_WITH_FALLBACK + "log.info('n 0')\nlog.info('n 1')\n"
    running = await ended(tmp_path, source)
    (counts,) = told(running.text)
    assert [line for line in running.text.splitlines() if line.startswith("kept")] == ["kept n 0", "kept n 1"]
    assert (counts["first"]["diverted"], counts["second"]["delivered"]) == (2, 2)
    assert printed(running.trouble, "first") == []


async def test_a_forked_child_diverts_what_is_its_own(tmp_path: Path) -> None:
    """What the parent is about to hand over stays the parent's."""
    source = (
        HUNG_WITH_FALLBACK
        + """
async def main():
    listener.start()
    log.info("n 0")
    while not listener.stats().sinks["first"].pending:
        await asyncio.sleep(0.001)
    if os.fork() == 0:
        log.info("child")
        logging.shutdown()
        import offloop.exits
        os._exit(run_child())
    os.wait()
    await listener.stop()


def run_child():
    thread = threading.Thread(target=asyncio.run, args=(child(),))
    thread.start()
    thread.join()
    tell()
    return 0


async def child():
    async with listener:
        pass


asyncio.run(main())
"""
    )
    running = await ended(tmp_path, source)
    child, parent = told(running.text)
    assert sorted(line for line in running.text.splitlines() if line.startswith("kept")) == ["kept child", "kept n 0"]
    assert child["first"]["diverted"] == parent["first"]["diverted"] == 1
    assert child["pid"] != parent["pid"]
