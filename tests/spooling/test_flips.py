"""A byte of a spool that is not what was written, anywhere: what it costs, and that this is counted."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import record_of
from offloop import diagnostics
from offloop.capture import message_of
from offloop.spool import Spool
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn
from spool_files import leave_as_killed

ALL = os.environ.get("OFFLOOP_CRASHES") == "0"
"""Every byte, in a nightly run."""
ROWS = 40
SETTLED = 8
PAGE = 16
"""More rows than a page has."""
SHARES = 8
"""Tests of every byte, each with its share, so that they can run at the same time."""


def left_by_a_killed_process(path: Path, *, checkpoint: bool) -> Path:
    """Rows in the log and, after a checkpoint, most of them in the file."""
    store = SpoolStore(Spool(path), "sink")
    store.open(0)
    for start in range(0, ROWS, 10):
        rows = [(number, record_of("n %d", number, pad="x" * 250)) for number in range(start, start + 10)]
        store.exchange(Turn(rows=rows, handed=15))
        if checkpoint and start == 20:
            store._members[0].file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.exchange(Turn(settled=list(range(SETTLED))))
    if checkpoint:
        store._members[0].file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    leave_as_killed(store)
    return path


@pytest.fixture(scope="module")
def wrecks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """All in the log, and all in the file."""
    yield [left_by_a_killed_process(tmp_path_factory.mktemp("wreck"), checkpoint=part) for part in (False, True)]
    diagnostics.flush(1.0)


def read_with_a_flip(wreck: Path, directory: Path, log: bool, position: int, mask: int) -> int:
    """Read it all with a byte that is another; gives how many records are missing."""
    shutil.copytree(wreck, directory)
    (path,) = directory.glob("*.spool-wal" if log else "*.spool")
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ mask]))
    store = SpoolStore(Spool(directory), "sink")
    out = store.open(0)
    found, lost, numbers = out.found, list(out.lost), list[int]()
    while True:
        assert out.error is None
        settled = [number for number, _ in out.read]
        out = store.exchange(Turn(settled=settled, want=17, want_bytes=10**6))
        found, lost = found + out.found, lost + out.lost
        if not out.read:
            break
        numbers += [int(message_of(record).removeprefix("n ")) for _, record in out.read]
    store.close()
    shutil.rmtree(directory)
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(ROWS))
    missing = ROWS - SETTLED - len([number for number in numbers if number >= SETTLED])
    assert missing <= PAGE
    assert len(lost) >= missing
    assert {reason for reason, _ in lost} <= {"corrupt"}
    assert found == len(numbers) + len(lost)
    return missing


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.sampled_from(["log", "its file", "file"]), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)
def test_flipped_bit_costs_a_page_and_is_counted(
    wrecks: list[Path], tmp_path: Path, which: str, where: float, bit: int
) -> None:
    """Wherever it is: the rest comes in order, nothing is invented, and what is missing is counted as corrupt."""
    wreck = wrecks[which == "file"]
    (path,) = wreck.glob("*.spool-wal" if which == "log" else "*.spool")
    position = int(path.stat().st_size * where)
    read_with_a_flip(wreck, tmp_path / random.randbytes(8).hex(), which == "log", position, 1 << bit)


@pytest.mark.skipif(not ALL, reason="nightly: nox -s nightly")
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("which", ["log", "its file", "file"])
def test_every_byte(wrecks: list[Path], tmp_path: Path, which: str, share: int) -> None:
    """The same for each byte there is, all of its bits turned."""
    wreck = wrecks[which == "file"]
    (path,) = wreck.glob("*.spool-wal" if which == "log" else "*.spool")
    size, costly, most = path.stat().st_size, 0, 0
    wrong: dict[int, str] = {}
    for position in range(share, size, SHARES):
        try:
            missing = read_with_a_flip(wreck, tmp_path / f"flipped-{position}", which == "log", position, 0xFF)
        except Exception as error:
            wrong[position] = f"{type(error).__name__}: {error}"
        else:
            costly, most = costly + bool(missing), max(most, missing)
    turned = len(range(share, size, SHARES))
    print(f"{which}: {turned} of {size} bytes turned one by one; {costly} of them cost records, at most {most}")
    assert not wrong
