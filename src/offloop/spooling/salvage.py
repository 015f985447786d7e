"""Rows out of a spool file that SQLite no longer reads, or no longer reads in full.

Every page of the file, and its latest version in the write-ahead log, is looked at by itself: a tree whose inner pages
are broken still has its leaves, and a log with one broken frame still has those after it. A row is taken if its own
checksum holds. Reads one page at a time.

Formats: https://www.sqlite.org/fileformat2.html, sections 1.3 (header), 1.6 (pages), 2.1 (records), 4.1 (the log).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from offloop.spooling.file import PAGE_BYTES, Row, State

__all__ = ["Wreck"]

_WAL_HEADER = 32
_FRAME_HEADER = 24
_VERSIONS = slice(18, 20)
_WAL_VERSIONS = b"\x02\x02"
_LEAF = 0x0D
_MAX_LOCAL = PAGE_BYTES - 35
_MIN_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_BROKEN = (IndexError, ValueError, struct.error)


class Wreck:
    """A database file and its log, read as bytes. Nothing may write to them meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open both; either may be missing.

        Raises:
            OSError: They can't be read.
        """
        self._log: BinaryIO | None = None
        self._file = _opened(path)
        try:
            self._log = _opened(Path(f"{path}-wal"))
            self._size_bytes = sum(file.seek(0, 2) for file in (self._file, self._log) if file is not None)
            self._frames = self._committed() if self._log is not None else {}
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._file, self._log):
            if file is not None:
                file.close()

    @property
    def blank(self) -> bool:
        """Whether nothing was ever committed: there is no more than a header."""
        size = 0 if self._file is None else self._file.seek(0, 2)
        return size <= PAGE_BYTES and not self._frames

    @property
    def writable(self) -> bool:
        """Whether the header says that SQLite of today may write to it: with another number it would read only."""
        return self._page(1)[_VERSIONS] in {b"", _WAL_VERSIONS}

    def rows(self) -> Iterator[Row]:
        """All intact rows, in the order of the pages; one may come twice, and one that was deleted may come back."""
        for cells in self._leaves():
            for id_, values in cells:
                if len(values) == 5:  # noqa: PLR2004 - the columns of `records`
                    _, level, created, crc, data = values
                    row = Row(id_, level, float(created) if isinstance(created, int) else created, crc, data)  # type: ignore[arg-type]
                    if row.intact:  # whatever the types are
                        yield row

    def state(self) -> State | None:
        """What the file last said of itself, in a commit that was completed; None if that can't be read."""
        found: State | None = None
        for cells in self._leaves(everything=False):
            for _, values in cells:
                if len(values) == 7:  # noqa: PLR2004 - the columns of `state`
                    state = State(*values[1:])  # type: ignore[arg-type]
                    if state.intact and (found is None or state.changes > found.changes):
                        found = state
        return found

    # ----------------------------------------------------------------------------------------------------------------

    def _committed(self) -> dict[int, int]:
        """Page number to the position of its latest version in the log, up to the last commit.

        The checksums of frames are left aside: one that is broken hides all that follow it from SQLite.
        """
        latest: dict[int, int] = {}
        waiting: dict[int, int] = {}
        salts: bytes | None = None
        position = _WAL_HEADER
        # A frame without all of its page is that of a process which was killed while it wrote it.
        while len(frame := self._in_log(position, _FRAME_HEADER + PAGE_BYTES)) == _FRAME_HEADER + PAGE_BYTES:
            header = frame[:_FRAME_HEADER]
            number, size_pages = struct.unpack_from(">II", header)
            salts = header[8:16] if salts is None else salts
            # One of the two salts is enough: both differ in a frame of an earlier round of the log.
            if header[8:12] == salts[:4] or header[12:16] == salts[4:]:
                waiting[number] = position + _FRAME_HEADER
                if size_pages:
                    latest.update(waiting)
                    waiting.clear()
            position += _FRAME_HEADER + PAGE_BYTES
        if waiting and not all(map(self._holds, waiting.values())):
            # No commit that was cut short, whose frames would be whole: what is broken may be the mark of the commit.
            latest.update(waiting)
        return latest

    def _holds(self, position: int) -> bool:
        """Whether the checksum of the frame follows from the one before it."""
        before = position - 2 * _FRAME_HEADER - PAGE_BYTES
        start = self._in_log(before + 16, 8) if before >= _WAL_HEADER else self._in_log(_WAL_HEADER - 8, 8)
        frame = self._in_log(position - _FRAME_HEADER, _FRAME_HEADER + PAGE_BYTES)
        if len(frame) < _FRAME_HEADER + PAGE_BYTES:
            return True  # the process was killed while it wrote this
        one, two = struct.unpack(">II", start)
        order = ">" if self._in_log(3, 1) == b"\x83" else "<"
        words = struct.unpack(f"{order}{2 + PAGE_BYTES // 4}I", frame[:8] + frame[_FRAME_HEADER:])
        for word in range(0, len(words), 2):
            one = one + words[word] + two & 0xFFFFFFFF
            two = two + words[word + 1] + one & 0xFFFFFFFF
        return frame[16:24] == struct.pack(">II", one, two)

    def _in_log(self, position: int, count: int) -> bytes:
        if self._log is None:
            return b""
        self._log.seek(position)
        return self._log.read(count)

    def _page(self, number: int) -> bytes:
        position = self._frames.get(number)
        if position is not None:
            return self._in_log(position, PAGE_BYTES)
        if self._file is None or number < 1:
            return b""
        self._file.seek((number - 1) * PAGE_BYTES)
        return self._file.read(PAGE_BYTES)

    def _leaves(self, *, everything: bool = True) -> Iterator[Iterator[tuple[int, list[object]]]]:
        """The cells of each page that is a leaf; or of those alone where the state may be."""
        pages = 0 if self._file is None else -(-self._file.seek(0, 2) // PAGE_BYTES)
        for number in sorted({*range(2, pages + 1), *self._frames}) if everything else (2, 3):
            page = self._page(number)
            if page[:1] == bytes([_LEAF]):
                yield self._cells(page)

    def _cells(self, page: bytes) -> Iterator[tuple[int, list[object]]]:
        with suppress(*_BROKEN):
            (count,) = struct.unpack_from(">H", page, 3)
            for index in range(min(count, PAGE_BYTES // 2)):
                with suppress(*_BROKEN):
                    (pointer,) = struct.unpack_from(">H", page, 8 + 2 * index)
                    yield self._cell(page, pointer)

    def _cell(self, page: bytes, pointer: int) -> tuple[int, list[object]]:
        size, pointer = _varint(page, pointer)
        id_, pointer = _varint(page, pointer)
        if size > self._size_bytes:
            raise ValueError(size)
        local = size
        if size > _MAX_LOCAL:
            local = _MIN_LOCAL + (size - _MIN_LOCAL) % (PAGE_BYTES - 4)
            local = local if local <= _MAX_LOCAL else _MIN_LOCAL
        payload = page[pointer : pointer + local]
        if local < size:
            (following,) = struct.unpack_from(">I", page, pointer + local)
            payload += self._overflow(following, size - local)
        return _signed(id_), _values(payload)

    def _overflow(self, number: int, count: int) -> bytes:
        parts: list[bytes] = []
        while count > 0:
            page = self._page(number)
            (number,) = struct.unpack_from(">I", page)
            parts.append(page[4 : 4 + count])
            count -= PAGE_BYTES - 4
        return b"".join(parts)


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = data[position]
        position += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value, position
    return value << 8 | data[position], position + 1


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _values(payload: bytes) -> list[object]:
    """The columns of a record; those of kinds that we never write make it a broken one."""
    size, position = _varint(payload, 0)
    body = size
    values: list[object] = []
    while position < size:
        kind, position = _varint(payload, position)
        value, body = _value(payload, kind, body)
        values.append(value)
    return values


def _value(payload: bytes, kind: int, at: int) -> tuple[object, int]:
    if kind == 0:
        return None, at
    if kind in _INTEGERS:
        end = at + _INTEGERS[kind]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:  # noqa: PLR2004 - of section 2.1, as the others
        return struct.unpack_from(">d", payload, at)[0], at + 8
    if kind in {8, 9}:
        return kind - 8, at
    if kind >= 12 and not kind % 2:  # noqa: PLR2004
        end = at + (kind - 12) // 2
        return payload[at:end], end
    raise ValueError(kind)
