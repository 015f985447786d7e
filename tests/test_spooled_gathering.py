"""Digests that are held back on disk: what a crash, a restart, a broken disk and other processes make of them."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from helpers import until
from offloop import Batch, Digest, Pipeline, Retry, Sink, Spool, TemporaryFailure
from offloop.cli.app import app
from offloop.digest import Gathered
from offloop.lane import Lane
from offloop.spooling.store import stem_of

HOUR = Digest(gather=3600.0, first=3600.0, hourly=None, daily=None)
MEMO = f"{stem_of('mail')}.memo"


class Mailbox(Sink):
    """Keeps what each mail tells."""

    encodes = False

    def __init__(self, directory: Path, digest: Digest = HOUR, **options: Any) -> None:
        super().__init__(name="mail", spool=Spool(directory), retry=Retry(initial=0.01, maximum=0.1), **options)
        self.digest = digest
        self.mails: list[Gathered] = []
        self.away = False

    async def send(self, batch: Batch) -> None:
        if self.away:
            raise TemporaryFailure("away")
        assert batch.gathered is not None
        self.mails.append(batch.gathered)

    @property
    def count(self) -> int:
        return sum(mail.count for mail in self.mails)


def say(log: logging.Logger, count: int) -> None:
    for number in range(count):
        log.error("no stock of %d", number)


PROGRAM = """
    import asyncio, logging, sys
    from offloop import Digest, Pipeline, Sink, Spool

    async def main():
        sink = Sink(name="mail", spool=Spool(sys.argv[1]))
        sink.digest = Digest(gather=3600.0, first=3600.0)
        log = logging.getLogger("shop")
        async with Pipeline(sink, logger=log) as pipeline:
            for number in range(300):
                log.error("no stock of %d", number)
            while pipeline.stats().sinks["mail"].spooled < int(sys.argv[2]):
                await asyncio.sleep(0.001)
            print("stored", flush=True)
            await asyncio.sleep(60)

    asyncio.run(main())
"""


async def test_what_killed_processes_held_back_is_told_by_the_next_one(log: logging.Logger, tmp_path: Path) -> None:
    """Records of two processes that were killed are in one digest, those that are held as a number alone too."""
    for count in (300, 600):
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), str(count)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"stored\n"
        process.kill()
        await process.wait()
    sink = Mailbox(tmp_path)
    async with Pipeline(sink, logger=log) as pipeline:
        await until(lambda: pipeline.stats().sinks["mail"].recovered == 600)
        report = await pipeline.flush(10)
    assert report.complete
    counts = pipeline.stats().sinks["mail"]
    assert (counts.recovered, counts.delivered, counts.spooled, counts.lost) == (600, 600, 0, 0)
    assert sink.count == 600
    assert sum(len(group.records) for mail in sink.mails for group in mail.groups) < 600


async def test_counts_go_on_in_the_next_process(log: logging.Logger, tmp_path: Path) -> None:
    """How far it has come with a kind is known after a restart: from then on, in how many mails, how many in all."""
    for times in range(3):
        sink = Mailbox(tmp_path)
        async with Pipeline(sink, logger=log) as pipeline:
            say(log, 50)
            assert (await pipeline.flush(10)).complete
        groups = [group for mail in sink.mails for group in mail.groups]
        assert [group.total for group in groups][-1] == 50 * (times + 1)
        assert groups[0].mails == times
    assert (tmp_path / MEMO).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [MEMO]


async def test_what_is_written_down_counts_the_last_mail(
    log: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it takes the loop a while to see to the kinds that were told, and the disk could have been quicker."""
    settle = Lane._settle_kinds

    async def late(lane: Lane, *arguments: Any) -> None:
        await asyncio.sleep(0.02)
        await settle(lane, *arguments)

    monkeypatch.setattr(Lane, "_settle_kinds", late)
    sink = Mailbox(tmp_path)
    async with Pipeline(sink, logger=log) as pipeline:
        for times in range(1, 3):
            say(log, 50)
            assert (await pipeline.flush(10)).complete
            await until(lambda told=50 * times: total_of(tmp_path) == told)
        say(log, 50)
        assert (await pipeline.flush(10)).complete
    assert total_of(tmp_path) == 150
    assert [path.name for path in tmp_path.iterdir()] == [MEMO]


async def test_writing_down_lands_no_mail_that_is_on_its_way(log: logging.Logger, tmp_path: Path) -> None:
    """Where nothing is to be removed from the disk, the next mail may leave before the last one is written down."""
    (tmp_path / "file").touch()
    flying: list[int] = []

    class Slow(Mailbox):
        async def send(self, batch: Batch) -> None:
            await super().send(batch)
            if len(self.mails) > 1:
                await until(lambda: not lane._is_told)
                flying.append(len(lane.gathering._flying))

    sink = Slow(tmp_path / "file")
    async with Pipeline(sink, logger=log) as pipeline:
        lane: Any = pipeline.listener._lanes[0]
        for _ in range(2):
            say(log, 5)
            assert (await pipeline.flush(10)).complete
    assert flying == [1]


def total_of(directory: Path) -> int:
    """Give how many are written down as told; 0 if nothing is."""
    path = directory / MEMO
    kinds = json.loads(path.read_bytes())["kinds"] if path.exists() else {}
    return sum(row[4] for row in kinds.values())


async def test_mails_count_once_where_a_pipeline_is_entered_again(log: logging.Logger, tmp_path: Path) -> None:
    """What a lane itself has written down is no news to it."""
    sink = Mailbox(tmp_path, Digest(hourly=4, first=3600.0))
    pipeline = Pipeline(sink, logger=log)
    for _ in range(3):
        async with pipeline:
            say(log, 5)
    assert [mail.cap for mail in sink.mails] == [None] * 3
    schedule: Any = pipeline.listener._lanes[0].gathering
    assert len(schedule.schedule._mails) == 3


def saved() -> bytes:
    kinds = {"00112233445566": [1.0, 2.0, 3.0, 4.0, 5, 6, False]}
    return json.dumps({"kinds": kinds, "mails": [1.0]}).encode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda memo: b"",
        lambda memo: memo[: len(memo) // 2],
        lambda memo: b"[" * 100_000,
        lambda memo: memo.replace(b"4.0", b"NaN"),
        lambda memo: memo.replace(b"5, 6", b'"5", 6'),
        lambda memo: memo.replace(b"[1.0]", b"[1e999]"),
        lambda memo: memo.replace(b"[1.0]", b"[1e300]").replace(b"2.0", b"9e299"),
        lambda memo: b"\xff" * 10,
        lambda memo: memo + b" " * 2_000_000 + b"x",
    ],
)
async def test_memo_that_is_spoilt_costs_no_record(
    log: logging.Logger, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    """The digest begins anew, and a sound one is written in its place."""
    (tmp_path / MEMO).write_bytes(spoil(saved()))
    sink = Mailbox(tmp_path)
    async with Pipeline(sink, logger=log):
        say(log, 30)
    assert sink.count == 30
    json.loads((tmp_path / MEMO).read_bytes())


async def test_memo_that_cant_be_written_is_a_state(log: logging.Logger, tmp_path: Path) -> None:
    """The spool says what its trouble is; every record is delivered all the same."""
    (tmp_path / MEMO).mkdir()
    sink = Mailbox(tmp_path)
    async with Pipeline(sink, logger=log) as pipeline:
        say(log, 30)
        assert (await pipeline.flush(10)).complete
        await until(lambda: "spool: " in (pipeline.stats().sinks["mail"].error or ""))
        say(log, 30)
    assert sink.count == 60
    assert pipeline.stats().balanced
    assert [path.name for path in tmp_path.glob("*.memo*")] == [MEMO]


async def test_stop_with_the_server_away_leaves_all_on_disk(log: logging.Logger, tmp_path: Path) -> None:
    """What a digest holds back is spooled and counted, and its files are no puzzle to `offloop spool`."""
    sink = Mailbox(tmp_path)
    sink.away = True
    async with Pipeline(sink, logger=log, shutdown_timeout=1.0) as pipeline:
        say(log, 200)
    counts = pipeline.stats().sinks["mail"]
    assert (counts.offered, counts.spooled, counts.pending, counts.lost) == (200, 200, 0, 0)
    (tmp_path / MEMO).write_bytes(saved())
    listed = CliRunner().invoke(app, ["spool", "ls", str(tmp_path), "--json"])
    assert [found["records"] for found in map(json.loads, listed.output.splitlines())] == [200]
    dropped = CliRunner().invoke(app, ["spool", "drop", str(tmp_path), "--yes"])
    assert dropped.exit_code == 0, dropped.output
    assert [path.name for path in tmp_path.iterdir()] == [MEMO]


async def test_two_processes_share_a_directory(log: logging.Logger, tmp_path: Path) -> None:
    """Two that write down how far they have come disturb neither each other nor what they deliver."""
    other = logging.getLogger(f"{log.name}.other")
    other.propagate = False
    first, second = Mailbox(tmp_path), Mailbox(tmp_path)
    async with Pipeline(first, logger=log) as one, Pipeline(second, logger=other, level="DEBUG") as two:
        for _ in range(5):
            say(log, 10)
            say(other, 10)
            reports = await asyncio.gather(one.flush(10), two.flush(10))
            assert all(report.complete for report in reports)
    assert first.count + second.count == 100
    json.loads((tmp_path / MEMO).read_bytes())
