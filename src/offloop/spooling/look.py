"""What lies in a spool's directory, seen from outside: nothing is changed, and nobody is held up.

A file is read through SQLite, a few rows at a time, so that a process which writes to it goes on; one that SQLite does
not read is read page by page.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from offloop.capture import Record
from offloop.errors import OffloopError
from offloop.spooling.codec import Unreadable, unpack
from offloop.spooling.file import ROWS_QUERY, STATE_QUERY, Row, State, remove
from offloop.spooling.lock import SpoolLock
from offloop.spooling.salvage import Wreck
from offloop.spooling.store import owner_of

__all__ = ["Found", "SpoolError", "find", "look", "records", "sink_of", "take_away"]

_AT_A_TIME = 500  # rows
_ENDINGS = (".spool", ".spool.damaged")
_NAME = re.compile(r"(?P<sink>.+)-[0-9a-f]{10}\.[0-9a-f]{16}-[0-9]+-[0-9a-f]{8}\.spool(?P<damaged>\.damaged)?")


class SpoolError(OffloopError):
    """A file or directory can't be used; the message says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file of a spool.

    Attributes:
        path: Where it is.
        sink: The sink's name, as far as a file's name can hold it.
        pid: The process that made it.
        state: `"in use"`; `"orphan"`: the next process that starts the sink takes it over; `"set aside"`: damaged, and
            all that was readable was taken out of it.
        records: How many can be read.
        size_bytes: What they take.
        oldest: When the first was logged, in seconds since the epoch. None: there is none.
        newest: The same of the last.
        damage: What is wrong with it, None if nothing is.
    """

    path: Path
    sink: str
    pid: int | None
    state: str
    records: int
    size_bytes: int
    oldest: float | None
    newest: float | None
    damage: str | None


def find(place: Path, sink: str | None = None) -> list[Path]:
    """The spool files at a place, the oldest of each sink first: of a directory all, or the one file.

    Args:
        place: A directory or a file.
        sink: Only files of this sink.

    Raises:
        SpoolError: There is no such place, it can't be read, or the file is none of a spool.
    """
    try:
        if place.is_dir():
            paths = sorted(path for path in place.iterdir() if _NAME.fullmatch(path.name))
        elif place.exists():
            if not _NAME.fullmatch(place.name):
                raise SpoolError(f"{place} is no spool file: its name ends in {' or '.join(_ENDINGS)}")
            paths = [place]
        else:
            raise SpoolError(f"{place} is not there: name a spool's directory, or a .spool file in it")
    except OSError as error:
        raise SpoolError(f"{place} can't be read: {error.strerror}") from error
    return [path for path in paths if sink in {None, sink_of(path)}]


def look(path: Path) -> Found:
    """What a file has. It reads all of it, to see whether it is whole.

    Raises:
        SpoolError: It can't be opened.
    """
    try:
        held = SpoolLock.is_held(lock_of(path))
        state, rows, damage = _read(path)
        try:
            sums = _Sums(rows)
        except sqlite3.Error as error:
            sums, damage = _Sums(_salvaged(path, state)), str(error)
    except OSError as error:
        raise SpoolError(f"{path} can't be read: {error.strerror}") from error
    # The state was read before the rows: of a file in use they may differ by what came and went between.
    missing = sums.broken if held or state is None else max(sums.broken, state.live - sums.count)
    if damage is None and missing:
        damage = f"{missing} record(s) can't be read"
    sink, aside = _parts(path)
    return Found(
        path=path,
        sink=sink,
        pid=owner_of(path.name.partition(".spool")[0]),
        state="set aside" if aside else "in use" if held else "orphan",
        records=sums.count,
        size_bytes=sums.size_bytes,
        oldest=sums.oldest,
        newest=sums.newest,
        damage=damage,
    )


class _Sums:
    """What rows are in all."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self.count = self.size_bytes = self.broken = 0
        self.oldest: float | None = None
        self.newest: float | None = None
        for row in rows:
            if row.intact:
                self.count += 1
                self.size_bytes += len(row.data)
                self.oldest = row.created if self.oldest is None else min(self.oldest, row.created)
                self.newest = row.created if self.newest is None else max(self.newest, row.created)
            else:
                self.broken += 1


def records(path: Path) -> Iterator[Record | None]:
    """The records of a file, oldest first; None for one that can't be read.

    Raises:
        SpoolError: It can't be read any further.
    """
    try:
        for row in _all_rows(path):
            try:
                yield unpack(row.data) if row.intact else None
            except Unreadable:
                yield None
    except OSError as error:
        raise SpoolError(f"{path} can't be read: {error.strerror}") from error


def take_away(path: Path) -> None:
    """Remove a file with all that is in it.

    Raises:
        SpoolError: It is in use, or can't be removed.
    """
    try:
        if _parts(path)[1]:
            remove(path)
            return
        lock = SpoolLock.take(lock_of(path))
        if lock is None:
            raise SpoolError(in_use(path))
        try:
            for entry in (path, *(path.with_name(f"{path.name}.{ending}") for ending in ("found", "new", "mended"))):
                remove(entry)
        except BaseException:
            lock.release(remove=False)
            raise
        lock.release(remove=True)
    except OSError as error:
        raise SpoolError(f"{path} can't be removed: {error.strerror}") from error


def sink_of(path: Path) -> str:
    """The sink's name, as far as a file's name can hold it."""
    return _parts(path)[0]


def lock_of(path: Path) -> Path:
    """The file that says whose it is."""
    return path.with_name(f"{path.name.partition('.spool')[0]}.lock")


def in_use(path: Path) -> str:
    """That a file is in use, and what to do."""
    pid = owner_of(path.name.partition(".spool")[0])
    return f"{path} is in use, by the process {pid} or one that took it over: stop that first; it delivers by itself"


def _parts(path: Path) -> tuple[str, bool]:
    match = _NAME.fullmatch(path.name)
    return (path.name, False) if match is None else (match["sink"], match["damaged"] is not None)


def _read(path: Path) -> tuple[State | None, Iterator[Row], str | None]:
    """What it says of itself, its rows, and what is wrong."""
    trouble: str | None = None
    if not _parts(path)[1]:
        try:
            return _state(path), _rows(path), None
        except sqlite3.Error as error:
            trouble = str(error)
    with Wreck(path) as wreck:
        state = wreck.state()
        return state, _salvaged(path, state), None if wreck.blank else trouble


def _all_rows(path: Path) -> Iterator[Row]:
    """Its rows, page by page from where SQLite reads no further."""
    state, rows, _ = _read(path)
    last = -(2**63)
    try:
        for row in rows:
            last = row.id
            yield row
    except sqlite3.Error:
        yield from (row for row in _salvaged(path, state) if row.id > last)


def _salvaged(path: Path, state: State | None) -> Iterator[Row]:
    first = -(2**63) if state is None else state.first
    with Wreck(path) as wreck:
        found = {row.id: row for row in wreck.rows() if row.id >= first}
    return (found[key] for key in sorted(found))


def _state(path: Path) -> State:
    with closing(_connected(path)) as connection:
        try:
            row = connection.execute(STATE_QUERY).fetchone()
        except UnicodeDecodeError as error:  # of SQLite's message, which quotes the file
            raise sqlite3.DatabaseError("its schema can't be read") from error
        state = State() if row is None else State._make(row)
        if not state.intact:
            raise sqlite3.DatabaseError("what it says of itself can't be read")
        connection.execute("SELECT count(*) FROM records").fetchone()  # of a broken file better now than half-way
    return state


def _rows(path: Path) -> Iterator[Row]:
    after, some = -(2**63), _AT_A_TIME
    while some == _AT_A_TIME:
        with closing(_connected(path)) as connection:  # anew, lest a log that is written to meanwhile can't shrink
            rows = [Row._make(values) for values in connection.execute(ROWS_QUERY, (after, _AT_A_TIME))]
        yield from rows
        some = len(rows)
        after = rows[-1].id if rows else after


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=2.0)
    connection.text_factory = bytes
    return connection
