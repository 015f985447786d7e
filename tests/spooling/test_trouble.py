"""A pipeline whose spool meets with what directories, disks and operators do to files."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import until
from offloop import Batching, Buffer, Pipeline, Retry, Spool, TemporaryFailure, diagnostics
from offloop.spooling.store import stem_of
from offloop.testing import FaultySink, MemorySink
from programs import python

SOON = Retry(initial=0.001, maximum=0.01)
MESSAGES = [f"n {number}" for number in range(50)]


def away(name: str = "sink") -> FaultySink:
    return FaultySink(always=TemporaryFailure("away"), name=name, retry=SOON, batching=Batching(max_records=5))


def say(log: logging.Logger, count: int = 50) -> None:
    for message in MESSAGES[:count]:
        log.info(message)


@pytest.fixture(autouse=True)
def flushed() -> Iterator[None]:
    """What is said of one test's disk is not in the next one's output."""
    yield
    diagnostics.flush(1.0)


async def test_spool_of_a_pipeline_is_for_sinks_without_one(log: logging.Logger, tmp_path: Path) -> None:
    """Each has files of its own; a sink's own spool comes before; the sinks stay as they were."""
    plain, own = away("plain"), away("own")
    own.spool = Spool(tmp_path / "own")
    function: list[logging.LogRecord] = []
    pipeline = Pipeline(
        plain, own, function.extend, logger=log, spool=Spool(tmp_path / "all", when="always"), shutdown_timeout=0.2
    )
    async with pipeline:
        say(log)
        # Stored, and delivered where somebody takes them, before there is a deadline.
        await until(lambda: [counts.spooled for counts in pipeline.stats().sinks.values()] == [50, 50, 0])
        await until(lambda: len(function) == 50)
    stats = pipeline.stats()
    assert [counts.spooled for counts in stats.sinks.values()] == [50, 50, 0]
    assert len(function) == 50
    assert [len(list((tmp_path / name).glob("*.spool"))) for name in ("all", "own")] == [1, 1]
    assert plain.spool is None
    other = MemorySink(name="plain")
    async with Pipeline(other, logger=log, spool=Spool(tmp_path / "all")):
        await other.wait_for(50)
    assert other.messages == MESSAGES


async def test_what_is_logged_while_files_are_taken_over_comes_after(log: logging.Logger, tmp_path: Path) -> None:
    """A process that logs from its first moment on delivers what it found, and then its own, losing none of either."""
    for life in range(3):
        sink = away()
        pipeline = Pipeline(sink, logger=log, spool=Spool(tmp_path, when="always"), shutdown_timeout=5)
        async with pipeline:
            for number in range(700):
                log.info("n %d", life * 700 + number)
                if not number % 100:
                    await asyncio.sleep(0)
            await until(lambda: pipeline.stats().sinks["sink"].spooled == 700 * (life + 1))  # noqa: B023 - at once
        assert pipeline.stats().balanced
    sink = MemorySink(name="sink")
    async with Pipeline(sink, logger=log, spool=Spool(tmp_path)):
        await sink.wait_for(2_100)
    assert sink.messages == [f"n {number}" for number in range(2_100)]


@pytest.mark.parametrize("when", ["outage", "always"])
async def test_disk_that_hangs_holds_up_nobody(log: logging.Logger, tmp_path: Path, when: str) -> None:
    """A directory in which opening never ends: a stop delivers from memory, in its time."""
    fifo = tmp_path / f"{stem_of('sink')}.{1:016x}-1-00000000.spool"
    os.mkfifo(fifo)  # whoever opens it to read waits for a writer
    sink = MemorySink(name="sink")
    pipeline = Pipeline(sink, logger=log, spool=Spool(tmp_path, when=when), shutdown_timeout=1)  # type: ignore[arg-type]
    async with pipeline:
        say(log)
        await until(lambda: not pipeline.stats().intake.pending)
        assert pipeline.stats().balanced
    os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
    threading.Thread(target=lambda: fifo.open("wb").close(), daemon=True).start()
    counts = pipeline.stats().sinks["sink"]
    assert (counts.delivered, counts.lost, counts.pending) == (50, 0, 0)
    assert sink.messages == MESSAGES


async def test_directory_that_is_removed_is_made_again(log: logging.Logger, tmp_path: Path) -> None:
    """What was in the files that are gone is in a new one, at the next commit or at the end."""
    directory = tmp_path / "spool"
    pipeline = Pipeline(away(), logger=log, spool=Spool(directory, when="always"), shutdown_timeout=0.3)
    async with pipeline:
        say(log, 20)
        await until(lambda: pipeline.stats().sinks["sink"].spooled == 20)
        shutil.rmtree(directory)
        for message in MESSAGES[20:]:
            log.info(message)
        await until(lambda: pipeline.stats().sinks["sink"].spooled == 50)
        shutil.rmtree(directory)
    assert pipeline.stats().sinks["sink"].spooled == 50
    sink = MemorySink(name="sink")
    async with Pipeline(sink, logger=log, spool=Spool(directory)):
        await sink.wait_for(50)
    assert sink.messages == MESSAGES


async def test_odd_entries_of_a_directory_are_passed_over(log: logging.Logger, tmp_path: Path) -> None:
    """Empty files, a directory in the place of a file, other names: what is good is taken over all the same."""
    async with Pipeline(away(), logger=log, spool=Spool(tmp_path), shutdown_timeout=0.3):
        say(log)
    stem = stem_of("sink")
    (tmp_path / f"{stem}.{1:016x}-1-00000000.spool").touch()
    (tmp_path / f"{stem}.{2:016x}-1-00000000.spool").mkdir()
    (tmp_path / f"{stem}.{3:016x}-1-00000000.lock").touch()
    (tmp_path / "README").touch()
    sink = MemorySink(name="sink")
    async with Pipeline(sink, logger=log, spool=Spool(tmp_path)) as pipeline:
        await sink.wait_for(50)
        await until(lambda: not pipeline.stats().sinks["sink"].spooled)
    assert sink.messages == MESSAGES
    assert sorted(path.name[-21:] for path in tmp_path.iterdir() if path.suffix != ".lock") == [
        "0002-1-00000000.spool",
        "README",
    ]


async def test_sink_of_another_name_leaves_the_files(log: logging.Logger, tmp_path: Path) -> None:
    """Files go by the sink's name: renamed, it finds nothing; by its old name it finds all."""
    async with Pipeline(away("old"), logger=log, spool=Spool(tmp_path), shutdown_timeout=0.3):
        say(log)
    new, old = MemorySink(name="new"), MemorySink(name="old")
    async with Pipeline(new, logger=log, spool=Spool(tmp_path)) as pipeline:
        log.info("mine")
        await new.wait_for(1)
    assert pipeline.stats().sinks["new"].recovered == 0
    async with Pipeline(old, logger=log, spool=Spool(tmp_path)):
        await old.wait_for(50)
    assert (new.messages, old.messages) == (["mine"], MESSAGES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it may not")
async def test_directory_that_is_read_only_is_a_state(log: logging.Logger, tmp_path: Path) -> None:
    """Records are delivered from memory, and the state says why."""
    tmp_path.chmod(0o500)
    sink = MemorySink(name="sink")
    async with Pipeline(sink, logger=log, spool=Spool(tmp_path, when="always")) as pipeline:
        say(log)
        await sink.wait_for(50)
        assert "PermissionError" in (pipeline.stats().sinks["sink"].error or "")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("shed_at", [0.0, 0.5])
async def test_nothing_is_shed_where_there_is_a_disk(log: logging.Logger, tmp_path: Path, shed_at: float) -> None:
    """A buffer's steps are for when the disk is of no use."""
    sink = MemorySink(name="sink", buffer=Buffer(max_records=10, shed_at=shed_at), spool=Spool(tmp_path))
    async with Pipeline(sink, logger=log) as pipeline:
        say(log)
        await sink.wait_for(50)
    assert sink.messages == MESSAGES
    assert pipeline.stats().sinks["sink"].lost == 0


FULL = """
import asyncio, json, logging, os, resource, sys
from offloop import Buffer, Pipeline, Retry, Spool, TemporaryFailure
from offloop.testing import FaultySink

async def main():
    log = logging.getLogger("app")
    sink = FaultySink(always=TemporaryFailure("away"), name="sink", retry=Retry(initial=0.001, maximum=0.01),
                      buffer=Buffer(max_records=20))
    pipeline = Pipeline(sink, logger=log, level="INFO", spool=Spool(sys.argv[1], when=sys.argv[2]))
    counts = lambda: pipeline.stats().sinks["sink"]
    async with pipeline:
        if not sys.argv[3:]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        while "spool: " not in (counts().error or "") and not counts().lost:
            log.info("n %s", "x" * 1_000)
            await asyncio.sleep(0.0005)  # no faster than a disk takes it: it is to be the disk that is full
            assert pipeline.stats().balanced
        for _ in range(100):
            log.info("n %s", "x" * 1_000)
        while not counts().lost:
            await asyncio.sleep(0.001)
        if sys.argv[3:]:
            os.unlink(sys.argv[3])
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        sink.heal()
        while counts().spooled or counts().pending:
            await asyncio.sleep(0.01)
    stats = pipeline.stats()
    assert stats.balanced and counts().delivered == len(sink.messages) == counts().offered - counts().lost
    print(json.dumps(counts().dropped))

asyncio.run(main())
"""


async def fill(folder: Path, *arguments: str | Path) -> None:
    program = folder / "program.py"
    program.write_text(FULL)
    async with python(program, *arguments) as running:
        assert await running.end() == 0
    assert set(eval(running.text)) <= {"shed", "overflow"}
    assert "Traceback" not in running.trouble
    assert "the spool of sink sink fails" in running.trouble


@pytest.mark.parametrize("when", ["outage", "always"])
async def test_file_that_may_not_grow_is_no_exception(tmp_path: Path, when: str) -> None:
    """What no longer fits is counted, what was stored is delivered, and the application notices nothing."""
    await fill(tmp_path, tmp_path / "spool", when)
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    told = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False)
    if told.returncode:
        pytest.skip(f"no small file system: {told.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.once
@pytest.mark.parametrize("room", [0, 300_000, 1_048_576])
@pytest.mark.parametrize("when", ["outage", "always"])
async def test_full_disk_is_no_exception(tmp_path: Path, small_disk: Path, when: str, room: int) -> None:
    """The same on a disk that is full, soon or from the start, until another file is removed; or by what is stored."""
    other = small_disk / "other"
    other.write_bytes(bytes(1024 * 1024 - room))
    await fill(tmp_path, small_disk / "spool", when, other)
    assert list((small_disk / "spool").iterdir()) == []
