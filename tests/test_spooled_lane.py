"""A pipeline whose sink has a spool, end to end."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import logged, told, until
from offloop import (
    Batch,
    Batching,
    Breaker,
    Buffer,
    ConfigError,
    Counts,
    PartialFailure,
    Pipeline,
    Retry,
    Spool,
    TemporaryFailure,
    diagnostics,
)
from offloop.testing import HANG, FaultySink, MemorySink

SOON = Retry(initial=0.001, maximum=0.01)
SMALL = Buffer(max_records=10)


def away(directory: Path, when: Any = "outage", **options: Any) -> FaultySink:
    """A sink whose destination is away."""
    options = {
        "retry": SOON,
        "breaker": Breaker(probe=0.01),
        "buffer": SMALL,
        "name": "sink",
        "batching": Batching(max_records=5),
    } | options
    return FaultySink(always=TemporaryFailure("away"), spool=Spool(directory, when=when), **options)


def said(start: int, stop: int) -> list[str]:
    return [f"n {number}" for number in range(start, stop)]


def say(log: logging.Logger, start: int, stop: int) -> None:
    for number in range(start, stop):
        log.info("n %d", number)


@pytest.mark.parametrize("when", ["outage", "always"])
async def test_an_outage_loses_nothing_and_keeps_the_order(log: logging.Logger, tmp_path: Path, when: str) -> None:
    """What does not fit into the buffer goes to disk; once the sink is back, all comes in order."""
    sink = away(tmp_path, when)
    async with Pipeline(sink, logger=log) as pipeline:
        say(log, 0, 3_000)
        await until(lambda: pipeline.stats().sinks["sink"].spooled >= 2_990)
        assert pipeline.stats().balanced
        say(log, 3_000, 3_100)
        sink.heal()
        say(log, 3_100, 3_200)
        await sink.wait_for(3_200)
        assert sink.messages == said(0, 3_200)
        await until(lambda: pipeline.stats().sinks["sink"].spooled == 0)
        say(log, 3_200, 3_300)
        report = await pipeline.flush(5)
        assert report.complete
    assert sink.messages == said(0, 3_300)
    counts = pipeline.stats().sinks["sink"]
    assert (counts.delivered, counts.spooled, counts.lost, counts.recovered) == (3_300, 0, 0, 0)
    assert counts.balanced
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["outage", "always"])
async def test_what_a_shutdown_leaves_comes_first_at_the_next_start(
    log: logging.Logger, tmp_path: Path, when: Any
) -> None:
    """Records left in memory and on disk are on disk after a stop, and delivered first by the next pipeline."""
    async with Pipeline(away(tmp_path, when), logger=log, shutdown_timeout=30.0) as pipeline:
        say(log, 0, 200)
    counts = pipeline.stats().sinks["sink"]
    assert (counts.offered, counts.spooled, counts.pending, counts.lost) == (200, 200, 0, 0)
    sink = MemorySink(name="sink", spool=Spool(tmp_path, when=when))
    async with Pipeline(sink, logger=log) as pipeline:
        say(log, 200, 300)
        await sink.wait_for(300)
        assert sink.messages == said(0, 300)
    counts = pipeline.stats().sinks["sink"]
    assert (counts.offered, counts.recovered, counts.delivered, counts.spooled) == (100, 200, 300, 0)
    assert list(tmp_path.iterdir()) == []


async def test_pipeline_that_is_entered_again_goes_on(log: logging.Logger, tmp_path: Path) -> None:
    """The same pipeline finds what it left, and counts it once."""
    sink = away(tmp_path)
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=30.0)
    async with pipeline:
        say(log, 0, 50)
    assert pipeline.stats().sinks["sink"].spooled == 50
    sink.heal()
    async with pipeline:
        say(log, 50, 60)
        await sink.wait_for(60)
    assert sink.messages == said(0, 60)
    counts = pipeline.stats().sinks["sink"]
    assert (counts.offered, counts.recovered, counts.delivered, counts.spooled) == (60, 0, 60, 0)


async def test_stop_without_time_stores_what_is_left(log: logging.Logger, tmp_path: Path) -> None:
    """Even with a deadline that has passed, records are stored within a moment, or printed, while a send hangs."""
    sink = FaultySink(always=HANG, name="sink", spool=Spool(tmp_path))
    pipeline = Pipeline(sink, logger=log)
    async with pipeline:
        say(log, 0, 300)
        await until(lambda: sink.attempts)
        started = time.monotonic()
        pipeline_report = await pipeline.listener.stop(timeout=0.0)
        assert time.monotonic() - started < 1
    counts = pipeline_report.sinks["sink"]
    # A machine that is busy has no time for the disk in that moment, and prints.
    assert (counts.spooled + counts.printed, counts.lost, counts.pending) == (300, 0, 0)


async def test_stop_with_a_sink_away_does_not_wait_for_the_deadline(log: logging.Logger, tmp_path: Path) -> None:
    """What is on disk is settled: a stop ends as soon as all is."""
    pipeline = Pipeline(away(tmp_path), logger=log, shutdown_timeout=30)
    async with pipeline:
        say(log, 0, 200)
        await until(lambda: pipeline.stats().sinks["sink"].state == "retrying")
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert pipeline.stats().sinks["sink"].spooled == 200


async def test_flush_takes_what_is_on_disk_for_settled(log: logging.Logger, tmp_path: Path) -> None:
    """In an outage a flush waits for what is in the buffer alone."""
    sink = away(tmp_path, retry=Retry(initial=60, maximum=60))
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=30.0)
    async with pipeline:
        say(log, 0, 100)
        report = await pipeline.flush(0.2)
        assert not report.complete
        assert report.sinks["sink"].spooled == 90
        assert report.balanced


async def test_a_healthy_sink_needs_no_disk(log: logging.Logger, tmp_path: Path) -> None:
    """As long as all fits, an outage's spool writes nothing."""
    sink = MemorySink(name="sink", spool=Spool(tmp_path / "spool"))
    async with Pipeline(sink, logger=log):
        say(log, 0, 1_000)
        await sink.wait_for(1_000)
        assert list((tmp_path / "spool").iterdir()) == []


async def test_always_stores_before_it_sends(log: logging.Logger, tmp_path: Path) -> None:
    """When a record comes to the sink, it is on disk; when the next batch comes, it is not."""
    seen: list[tuple[list[str], int]] = []

    def look(batch: Any) -> None:
        rows = 0
        for file in tmp_path.glob("*.spool"):
            connection = sqlite3.connect(file)
            rows += connection.execute("SELECT count(*) FROM records").fetchone()[0]
            connection.close()
        seen.append(([record.getMessage() for record in batch], rows))

    sink = FaultySink(always=look, name="sink", spool=Spool(tmp_path, when="always"))
    async with Pipeline(sink, logger=log):
        for number in range(5):
            log.info("n %d", number)
            await sink.wait_for(number + 1)
    assert seen == [([f"n {number}"], 1) for number in range(5)]


async def test_disk_in_trouble_is_a_state(
    log: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a spool that can't be written records are delivered from memory, by the buffer's rule; the state tells."""
    (tmp_path / "file").write_text("in the way")
    newest = Buffer(max_records=10, shed_below=0, reserve=0)
    sink = away(tmp_path / "file", "always", name="troubled", buffer=newest)
    async with Pipeline(sink, logger=log, shutdown_timeout=30.0) as pipeline:
        say(log, 0, 100)
        await until(lambda: pipeline.stats().sinks["troubled"].lost == 90)
        sink.heal()
        await sink.wait_for(10)
        await until(lambda: pipeline.stats().sinks["troubled"].delivered == 10)
        assert "spool: " in (pipeline.stats().sinks["troubled"].error or "")
        (tmp_path / "file").unlink()
        say(log, 100, 105)
        await sink.wait_for(15)
        await until(lambda: pipeline.stats().sinks["troubled"].error is None)
        assert pipeline.stats().balanced
    assert logged(sink.records)[-7:] == [*said(98, 105)]
    assert told(sink.records) == pipeline.stats().sinks["troubled"].dropped
    diagnostics.flush(1.0)
    assert "the spool of sink troubled fails" in capsys.readouterr().err


async def test_rejected_and_expired_records_leave_the_disk(log: logging.Logger, tmp_path: Path) -> None:
    """What the sink refuses is dropped once, and is not there at the next start."""
    sink = away(tmp_path)
    async with Pipeline(sink, logger=log) as pipeline:
        say(log, 0, 50)
        await until(lambda: pipeline.stats().sinks["sink"].spooled >= 40)
        sink.fail(poison=lambda record: record.getMessage() == "n 30")
        await sink.wait_for(49)
    counts = pipeline.stats().sinks["sink"]
    assert (counts.delivered, counts.dropped, counts.spooled) == (49 + counts.notices, {"rejected": {"INFO": 1}}, 0)
    assert counts.dropped == told(sink.records)
    assert list(tmp_path.iterdir()) == []


async def test_two_pipelines_share_a_directory(log: logging.Logger, tmp_path: Path) -> None:
    """Two sinks of one name each keep their own; neither delivers the other's."""
    one, two = away(tmp_path), away(tmp_path)
    other = logging.getLogger(f"{log.name}.other")
    other.propagate = False
    async with Pipeline(one, logger=log) as first, Pipeline(two, logger=other) as second:
        say(log, 0, 100)
        say(other, 100, 200)
        await until(lambda: first.stats().sinks["sink"].spooled and second.stats().sinks["sink"].spooled)
        one.heal()
        two.heal()
        await one.wait_for(100)
        await two.wait_for(100)
    assert (one.messages, two.messages) == (said(0, 100), said(100, 200))
    other.handlers = []


def test_end_of_asyncio_run_stores_what_is_left(log: logging.Logger, tmp_path: Path) -> None:
    """A loop that ends with the pipeline running cancels all its tasks, and nothing is lost by it."""
    pipeline = Pipeline(away(tmp_path), logger=log, shutdown_timeout=30.0)

    async def main() -> None:
        pipeline.listener.start()
        log.addHandler(pipeline.handler)
        say(log, 0, 100)
        await asyncio.sleep(0)

    asyncio.run(main())
    counts = pipeline.stats().sinks["sink"]
    assert counts.spooled + counts.pending + pipeline.stats().intake.pending == 100
    assert counts.spooled == 100


def test_spool_of_a_wrong_kind_is_refused() -> None:
    """A path alone says too little."""
    with pytest.raises(ConfigError, match="spool must be"):
        MemorySink(spool="/tmp")


async def test_exceptions_come_back_from_disk(log: logging.Logger, tmp_path: Path) -> None:
    """Traceback text and structure outlive the process that logged them."""
    async with Pipeline(away(tmp_path), logger=log, shutdown_timeout=30.0):
        try:
            (tmp_path / "missing").stat()
        except OSError:
            log.exception("failed")
    sink = MemorySink(name="sink", spool=Spool(tmp_path))
    async with Pipeline(sink, logger=log):
        (record,) = await sink.wait_for(1)
    assert "FileNotFoundError" in (record.exc_text or "")
    assert record.exception is not None
    assert record.exception.frames[0].name == "test_exceptions_come_back_from_disk"


STEP = st.one_of(
    st.tuples(st.just("log"), st.integers(1, 60)),
    st.tuples(st.just("turn"), st.integers(1, 20)),
    st.tuples(st.sampled_from(["away", "heal", "half", "flush", "restart", "break", "mend"]), st.just(0)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(STEP, min_size=3, max_size=25),
    when=st.sampled_from(["outage", "always"]),
    size=st.sampled_from([1, 7, 50]),
)
def test_ledger_balances_and_order_is_kept_whatever_happens(
    log: logging.Logger, tmp_path: Path, steps: list[tuple[str, int]], when: str, size: int
) -> None:
    """Over outages, partial failures, flushes, restarts and a disk that goes away: exact, in order, nothing twice."""
    # Not by `random`, which hypothesis gives the same seed each time.
    directory = Path(tempfile.mkdtemp(dir=tmp_path)) / "spool"
    asyncio.run(live(log, directory, steps, when, Buffer(max_records=size)))


async def live(  # noqa: C901, PLR0912, PLR0915 - a table of steps
    log: logging.Logger, directory: Path, steps: list[tuple[str, int]], when: str, buffer: Buffer
) -> None:
    """Take the steps, then let all be delivered."""
    sink = away(directory, when, buffer=buffer)
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=2.0)
    number, restarted = 0, 0
    # Two links to change at once, whatever the disk's thread is doing.
    disk, other = directory.with_suffix(".disk"), directory.with_suffix(".file")
    disk.mkdir()
    other.touch()
    directory.symlink_to(disk)

    def check() -> None:
        stats = pipeline.stats()
        assert stats.balanced, stats

    def lead_to(target: Path) -> None:
        link = directory.with_suffix(".link")
        link.symlink_to(target)
        link.replace(directory)

    for step, argument in [*steps, ("mend", 0), ("heal", 0)]:
        if not pipeline.listener.running:
            await pipeline.__aenter__()
        match step:
            case "log":
                say(log, number, number + argument)
                number += argument
            case "turn":
                for _ in range(argument):
                    await asyncio.sleep(0.0005)
                    check()
            case "away":
                sink.fail(always=TemporaryFailure("away"))
            case "half":
                sink.fail(half_of, TemporaryFailure("away"))
            case "heal":
                sink.heal()
            case "flush":
                await pipeline.flush(0.02)
            case "break" if directory.is_dir() and not list(directory.iterdir()):
                lead_to(other)
            case "mend":
                lead_to(disk)
            case "restart":
                await pipeline.__aexit__(None, None, None)
                restarted += 1
            case _:
                pass  # no file to be taken away yet
        check()
    await until(lambda: settled(pipeline.stats().sinks["sink"], number))
    await pipeline.__aexit__(None, None, None)
    check()
    sink_counts = pipeline.stats().sinks["sink"]
    assert (sink_counts.offered - sink_counts.notices, sink_counts.delivered) == (number, len(sink.records))
    numbers = [int(message.split()[1]) for message in logged(sink.records)]
    assert sink_counts.printed or sum(map(sum, map(dict.values, told(sink.records).values()))) == number - len(numbers)
    assert len(set(numbers)) == len(numbers)
    assert [step for step, _ in steps if step == "half"] or numbers == sorted(numbers)
    assert [step for step, _ in steps if step == "break"] or not sink_counts.lost


def settled(counts: Counts, offered: int) -> bool:
    return counts.offered - counts.notices == offered and not counts.spooled and not counts.pending


def half_of(batch: Batch) -> None:
    """Every second record is to be sent again."""
    raise PartialFailure("half", retry=batch.records[::2])


async def test_relieved_lane_makes_no_attempts_while_a_shutdown_waits_for_others(
    log: logging.Logger, tmp_path: Path
) -> None:
    """All that it holds is on disk and the sink is away: the loop is left to those that still deliver."""
    sink = away(tmp_path, retry=Retry(initial=0.0, maximum=0.0), breaker=Breaker(1_000_000))
    slow = FaultySink(HANG, name="slow", send_timeout=30)
    pipeline = Pipeline(sink, slow, logger=log)
    pipeline.start()
    log.info("stored")
    await until(lambda: pipeline.stats().sinks["sink"].error)
    stopping = asyncio.ensure_future(pipeline.stop(1.0))
    await until(lambda: pipeline.stats().sinks["sink"].spooled)
    before = sink.attempts
    for _ in range(500):
        await asyncio.sleep(0)
    assert sink.attempts - before <= 2
    assert (await stopping).sinks["sink"].spooled == 1
