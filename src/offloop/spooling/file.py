"""One SQLite file of a spool: rows in the order of their ids, each with a checksum, and a count of what is live.

Used by one thread at a time, never the loop's. Errors of SQLite pass through; `is_damage` tells a broken file from a
disk that is full or away.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "PAGE_BYTES",
    "ROWS_QUERY",
    "STATE_QUERY",
    "Abandoned",
    "Damaged",
    "Row",
    "SpoolFile",
    "State",
    "is_damage",
    "is_full",
    "remove",
    "row_of",
]

PAGE_BYTES = 4096
_ROWS = 400  # in one INSERT; SQLite before 3.32 takes no more than 999 values
_WAL_BYTES = 4 * 1024 * 1024
_SPARE_BYTES = 64 * 1024
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_CHECKED = struct.Struct("<qqd")
_STATE = struct.Struct("<5q")

_SCHEMA = """
CREATE TABLE records (id INTEGER PRIMARY KEY, level INTEGER, created REAL, crc INTEGER, data BLOB);
CREATE TABLE state (id INTEGER PRIMARY KEY, changes INTEGER, live INTEGER, bytes INTEGER, first INTEGER, last INTEGER,
    crc INTEGER);
"""

STATE_QUERY = "SELECT changes, live, bytes, first, last, crc FROM state WHERE id=0"
"""Gives the fields of a `State`."""
ROWS_QUERY = "SELECT id, level, created, crc, data FROM records WHERE id > ? ORDER BY id LIMIT ?"
"""Gives the fields of `Row`s: the next ones after an id, at most so many."""

# What a forked child found open: closing it there would run a checkpoint on the parent's file.
_inherited: list[sqlite3.Connection] = []


class Row(NamedTuple):
    """One record as it lies in the file."""

    id: int
    level: int
    created: float
    crc: int
    data: bytes

    @property
    def intact(self) -> bool:
        """Whether it is what was written."""
        try:
            return _checksum(self.id, self.level, self.created, self.data) == self.crc
        except (struct.error, TypeError):
            return False


class State(NamedTuple):
    """What the file says of itself, as of its last commit.

    Attributes:
        changes: How many commits there were.
        live: How many rows there are.
        bytes: How many bytes of records.
        first: No id below it is live.
        last: The largest id that ever was.
        crc: Over the others.
    """

    changes: int = 0
    live: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0
    crc: int = 0

    @property
    def intact(self) -> bool:
        """Whether it is what was written."""
        try:
            return zlib.crc32(_STATE.pack(*self[:5])) == self.crc
        except (struct.error, TypeError):
            return False

    def sealed(self) -> State:
        """With the checksum of what it says now."""
        return self._replace(crc=zlib.crc32(_STATE.pack(*self[:5])))


class Damaged(sqlite3.DatabaseError):
    """The file is readable, and has lost commits."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Abandoned(Exception):
    """Nobody waits for this commit any longer: it was rolled back."""


def row_of(id_: int, level: int, created: float, data: bytes) -> Row:
    """A row with its checksum."""
    return Row(id_, level, created, _checksum(id_, level, created, data), data)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is broken, rather than the disk full, away or slow."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room for it on the disk."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def remove(path: Path) -> None:
    """Remove a database with what SQLite keeps beside it."""
    # The log first: without its database it would be taken for the log of the next one of this name.
    for name in (f"{path}-wal", f"{path}-shm", f"{path}-journal", str(path)):
        Path(name).unlink(missing_ok=True)


class SpoolFile:
    """A file that is open."""

    def __init__(self, path: Path, *, durable: bool, changes: int | None = None) -> None:
        """Open the file, or make it.

        Args:
            path: Where.
            durable: Whether each commit waits for the disk.
            changes: How many commits it must have; None: it is to be made.

        Raises:
            Damaged: It has fewer commits; nothing was written to it.
            sqlite3.Error: It is broken, or can't be opened.
            OSError: It can't be made.
        """
        self.path = path
        self.closed = False
        self._durable = durable
        self._pid = os.getpid()
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        # The thread is the spool's own; at exit, when no thread can be started, it is whoever ends. A statement that is
        # kept for the next time keeps the records it was given last, and there is one for each number of rows.
        self._connection = sqlite3.connect(
            path, timeout=2.0, isolation_level=None, check_same_thread=False, cached_statements=0
        )
        try:
            self._connection.text_factory = bytes
            self.state = self._made() if changes is None else self._read_state(changes)
            self._set_up()
        except UnicodeDecodeError as error:  # of SQLite's message, which quotes the file
            self._connection.close()
            raise Damaged("its schema can't be read") from error
        except BaseException:
            self._connection.close()
            raise

    def change(
        self,
        *,
        delete: Sequence[int] = (),
        insert: Sequence[Row] = (),
        state: State | None = None,
        claim: Callable[[], bool] = lambda: True,
    ) -> None:
        """Remove and add rows in one commit; all or nothing.

        Args:
            delete: Ids of rows, ascending.
            insert: Rows whose ids are not there.
            state: What the file says of itself then; None: as the rows add up.
            claim: Asked just before the commit; if it says no, nothing is changed.

        Raises:
            Abandoned: `claim` said no.
            sqlite3.Error: Nothing was changed.
        """
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            freed = self._delete(delete)
            self._insert(insert)
            after = (self._added_up(delete, insert, freed) if state is None else state).sealed()
            execute("UPDATE state SET changes=?, live=?, bytes=?, first=?, last=?, crc=? WHERE id=0", after)
            if not claim():
                raise Abandoned  # noqa: TRY301 - rolled back as everything else is
            execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors.
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        self.state = after

    def make_room(self, size_bytes: int) -> None:
        """See that after storing so much the disk still has room to remove it.

        What is removed is written to the log first, and the log can only begin anew when what it holds fits into the
        file. A disk that was filled to the last page would never get rid of anything.

        Raises:
            OSError: It has not; nothing was changed.
        """
        if not self._missing(3 * size_bytes + _SPARE_BYTES):
            return
        self.begin_log()
        missing = self._missing(3 * size_bytes + _SPARE_BYTES)
        # Pages of the file that are free are used first: then there is the log alone to grow.
        if missing and (self._free_bytes() < 2 * size_bytes or self._missing(2 * size_bytes)):
            words = f"{os.strerror(errno.ENOSPC)}: {missing} bytes more are needed"
            raise OSError(errno.ENOSPC, words, str(self.path))

    def begin_log(self) -> None:
        """Have what the log holds written to the file, and begin it anew, if there is room for that."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _free_bytes(self) -> int:
        (pages,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        return int(pages) * PAGE_BYTES

    def _missing(self, size_bytes: int) -> int:
        """How much less the disk has than this and, once more, the log."""
        disk = os.statvfs(self.path.parent)
        if not disk.f_blocks:
            return 0  # a file system that does not tell
        try:
            log = Path(f"{self.path}-wal").stat().st_size
        except FileNotFoundError:
            log = 0
        return max(0, log + size_bytes - disk.f_bavail * disk.f_frsize)

    def after(self, id_: int, count: int) -> Iterator[Row]:
        """The next rows after an id, at most so many, damaged ones too."""
        return map(Row._make, self._connection.execute(ROWS_QUERY, (id_, count)))

    def bounds_after(self, id_: int, count: int) -> Sequence[tuple[int, int, float, int]]:
        """Id, level, creation time and bytes of the next rows after an id, without reading them."""
        query = (
            "SELECT id, CAST(level AS INTEGER), CAST(created AS REAL), coalesce(length(data), 0) FROM records"
            " WHERE id > ? ORDER BY id LIMIT ?"
        )
        return self._connection.execute(query, (id_, count)).fetchall()

    def count_after(self, id_: int) -> int:
        """How many rows there are after an id."""
        (count,) = self._connection.execute("SELECT count(*) FROM records WHERE id > ?", (id_,)).fetchone()
        return int(count)

    def close(self) -> None:
        """Let go of the file. What a forked child inherited stays open there, unused."""
        self.closed = True
        if self._pid == os.getpid():
            with suppress(sqlite3.Error):  # what is committed is in the log, and found there by whoever opens it next
                self._connection.close()
        else:
            _inherited.append(self._connection)

    # ----------------------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        self._connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
        self._connection.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")

    def _made(self) -> State:
        execute = self._connection.execute
        execute(f"PRAGMA page_size={PAGE_BYTES}")
        execute("PRAGMA journal_mode=WAL")
        execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            execute(statement)
        state = State().sealed()
        execute("INSERT INTO state VALUES (0, ?, ?, ?, ?, ?, ?)", state)
        execute("COMMIT")
        return state

    def _read_state(self, changes: int) -> State:
        row = self._connection.execute(STATE_QUERY).fetchone()
        state = State() if row is None else State._make(row)
        if not state.intact or state.changes < changes:
            raise Damaged(f"it has {state.changes} commits, and there were {changes}")
        return state

    def _delete(self, ids: Sequence[int]) -> int:
        """Remove the rows; gives the bytes they had."""
        freed = 0
        for low, high in _runs(ids):
            query = "SELECT total(length(data)) FROM records WHERE id BETWEEN ? AND ?"
            freed += int(self._connection.execute(query, (low, high)).fetchone()[0])
            self._connection.execute("DELETE FROM records WHERE id BETWEEN ? AND ?", (low, high))
        return freed

    def _insert(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            values: list[Any] = [value for row in some for value in row]
            self._connection.execute(f"INSERT INTO records VALUES {','.join(['(?,?,?,?,?)'] * len(some))}", values)  # noqa: S608 - marks only

    def _added_up(self, delete: Sequence[int], insert: Sequence[Row], freed: int) -> State:
        before = self.state
        # By what was asked, not by what was found: a row that a fault took is counted by whoever misses it.
        live = max(0, before.live - len(delete)) + len(insert)
        size = max(0, before.bytes - freed) + sum(len(row.data) for row in insert)
        first = before.first
        if delete or insert:
            (lowest,) = self._connection.execute("SELECT min(id) FROM records").fetchone()
            first = before.last + 1 if lowest is None else lowest
        last = max([before.last, *(row.id for row in insert[-1:])])
        return State(before.changes + 1, live, size, first, last)


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending ids as ranges without gaps."""
    start = 0
    for index in range(1, len(ids) + 1):
        if index == len(ids) or ids[index] != ids[index - 1] + 1:
            yield ids[start], ids[index - 1]
            start = index


def _checksum(id_: int, level: int, created: float, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_CHECKED.pack(id_, level, created)))
