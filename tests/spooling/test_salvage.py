"""Rows out of a broken spool file."""

from __future__ import annotations

import random
from pathlib import Path

from offloop.spooling.file import Row, SpoolFile, row_of
from offloop.spooling.salvage import Wreck


def rows(start: int, stop: int, size: int = 300) -> list[Row]:
    """Rows of about this size, some much larger, some empty."""
    draw = random.Random(start)
    sizes = [size, size, size, 0, 5_000, 20_000]
    return [row_of(i, 20, i / 3 if i % 2 else float(i), draw.randbytes(draw.choice(sizes))) for i in range(start, stop)]


def made(path: Path, *, checkpoint: bool) -> list[Row]:
    """A file with rows of which some were removed; gives those that are there."""
    file = SpoolFile(path, durable=False)
    for start in range(0, 300, 50):
        file.change(insert=rows(start, start + 50))
    file.change(delete=list(range(100)))
    left = list(file.after(-1, 1_000))
    if checkpoint:
        file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    wal = Path(f"{path}-wal").read_bytes()
    data = path.read_bytes()
    file.close()
    path.write_bytes(data)  # closing runs a checkpoint: as a killed process would have left it
    if wal:
        Path(f"{path}-wal").write_bytes(wal)
    return left


def live(path: Path) -> tuple[dict[int, Row], int]:
    """What a wreck has, as the store takes it."""
    with Wreck(path) as wreck:
        state = wreck.state()
        assert state is not None
        return {row.id: row for row in wreck.rows() if row.id >= state.first}, state.live


def test_all_rows_of_a_whole_file_are_found(tmp_path: Path) -> None:
    """Large and small, from the file and from the log, as SQLite reads them."""
    for checkpoint in (False, True):
        path = tmp_path / f"{checkpoint}.spool"
        left = made(path, checkpoint=checkpoint)
        found, expected = live(path)
        assert [found[key] for key in sorted(found)] == left
        assert expected == len(left) == 200


def test_a_broken_page_costs_its_rows_alone(tmp_path: Path) -> None:
    """Whatever page is overwritten, first and inner ones too, the rows of the others are found."""
    path = tmp_path / "a.spool"
    left = made(path, checkpoint=True)
    data = path.read_bytes()
    for page in range(len(data) // 4096):
        broken = bytearray(data)
        broken[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
        path.write_bytes(broken)
        with Wreck(path) as wreck:
            found = {row.id: row for row in wreck.rows()}
        missing = [row for row in left if found.get(row.id) != row]
        assert len(missing) <= 16, page


def test_a_broken_frame_hides_no_later_one(tmp_path: Path) -> None:
    """Of a log with a broken byte every row is found but those of one page."""
    path = tmp_path / "a.spool"
    left = made(path, checkpoint=False)
    log = Path(f"{path}-wal")
    data = log.read_bytes()
    for position in random.Random(1).sample(range(len(data)), 40):
        broken = bytearray(data)
        broken[position] ^= 0x10
        log.write_bytes(broken)
        with Wreck(path) as wreck:
            found = {row.id: row for row in wreck.rows()}
        missing = [row for row in left if found.get(row.id) != row]
        assert len(missing) <= 16, position


def test_nothing_at_all_has_no_rows(tmp_path: Path) -> None:
    """A file that is missing, empty or noise has nothing, and says so quietly."""
    path = tmp_path / "a.spool"
    for content in (None, b"", b"\x0d" * 5_000, random.Random(2).randbytes(9_000)):
        if content is not None:
            path.write_bytes(content)
            Path(f"{path}-wal").write_bytes(content)
        with Wreck(path) as wreck:
            assert list(wreck.rows()) == []
            assert wreck.state() is None
