"""Opening a file that another process left, whatever state it is in: what is broken is set aside, and salvaged."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from offloop import diagnostics
from offloop.spooling.file import Row, SpoolFile, State, is_damage, remove
from offloop.spooling.salvage import Wreck

__all__ = ["Rescue"]

_AT_A_TIME = 500  # rows
_ENDINGS = ("-wal", "")  # the log first: where the file is there, all of it is
_UNKNOWN = 2**62  # more commits than any file has


class Rescue:
    """How the files of one sink are opened and mended."""

    def __init__(self, name: str, *, durable: bool) -> None:
        """Touch nothing.

        Args:
            name: The sink's, for diagnostics.
            durable: Whether each commit waits for the disk.
        """
        self._name = name
        self._durable = durable

    def left(self, path: Path) -> bool:
        """Whether there is something of this file, be it that an earlier rescue was cut short."""
        return path.exists() or _found(path).exists() or _mended(path).exists()

    def open(self, path: Path) -> tuple[SpoolFile, int] | None:
        """The file, and how many records it has lost; None if it never had any.

        Raises:
            OSError: The disk is full or away; all is left as it was, or to be gone on with.
            sqlite3.Error: The same.
        """
        self._resume(path)
        with Wreck(path) as wreck:
            last, blank, suspect = wreck.state(), wreck.blank, not wreck.writable
        if blank:
            remove(path)  # its maker was killed at once
            return None
        _set_aside(path)
        try:
            # An unreadable state makes the file suspect: commits may have been lost with it.
            changes = _UNKNOWN if suspect or last is None else last.changes
            file = SpoolFile(path, durable=self._durable, changes=changes)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
        else:
            _forget(_found(path))
            return file, 0
        file = self.salvage(path, None, last)
        return file, max(0, last.live - file.state.live) if last is not None else 0

    def salvage(self, path: Path, file: SpoolFile | None, state: State | None) -> SpoolFile:
        """A new file with all rows that are still to be found in the broken one, which is set aside.

        Args:
            path: Where.
            file: The broken one, if it is open; closed here, and stays so if this fails.
            state: What it last said of itself.

        Raises:
            OSError: The disk is full or away. The next `salvage` or `open` begins anew.
            sqlite3.Error: The same.
        """
        found, new = _found(path), path.with_name(f"{path.name}.new")
        if file is not None and file.closed:  # an earlier attempt failed
            again = self.open(path)
            return SpoolFile(path, durable=self._durable) if again is None else again[0]
        if file is not None:
            _set_aside(path)
            file.close()
        # Space first: there may be none, and only the last broken file is worth it.
        for entry in path.parent.glob(f"{path.name.partition('.')[0]}.*.damaged"):
            _forget(entry)
        remove(new)
        count = self._fill(new, found, -(2**63) if state is None else state.first)
        new.replace(_mended(path))
        self._finish(path)
        diagnostics.report(
            f"spool-damage:{self._name}",
            f"a spool file of sink {self._name} was damaged: {count} record(s) were read from it, it is kept as "
            f"{_damaged(path)}",
        )
        return SpoolFile(path, durable=self._durable, changes=0)

    # What is killed here at any moment is gone on with: `.found` is the file as it was found, complete if it is there,
    # and stands for it; `.mended` is what is to replace it, complete if it is there.

    def _resume(self, path: Path) -> None:
        found = _found(path)
        if _mended(path).exists():
            self._finish(path)
        elif found.exists():
            remove(path)
            for ending in _ENDINGS:
                with suppress(FileNotFoundError):
                    _twin(Path(f"{found}{ending}"), Path(f"{path}{ending}"))
        _forget(found)
        remove(path.with_name(f"{path.name}.new"))

    def _finish(self, path: Path) -> None:
        remove(path)
        _mended(path).replace(path)
        for ending in reversed(_ENDINGS):
            with suppress(FileNotFoundError):
                Path(f"{_found(path)}{ending}").replace(f"{_damaged(path)}{ending}")

    def _fill(self, new: Path, found: Path, first: int) -> int:
        """Write the rows of the wreck, and gives their number."""
        file = SpoolFile(new, durable=self._durable)
        try:
            with Wreck(found) as wreck:
                seen: set[int] = set()
                some: list[Row] = []
                for row in wreck.rows():
                    if row.id >= first and row.id not in seen:
                        seen.add(row.id)
                        some.append(row)
                        if len(some) >= _AT_A_TIME:
                            file.change(insert=sorted(some))
                            some.clear()
                file.change(insert=sorted(some))
        finally:
            file.close()
        if Path(f"{new}-wal").exists():  # the last one to close it could not write all of it into the file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(new))
        return len(seen)


def _found(path: Path) -> Path:
    return path.with_name(f"{path.name}.found")


def _mended(path: Path) -> Path:
    return path.with_name(f"{path.name}.mended")


def _damaged(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _set_aside(path: Path) -> None:
    """Give the file and its log a second name: SQLite may write to the one, and removes the other, as it closes."""
    found = _found(path)
    _forget(found)
    for ending in _ENDINGS:
        with suppress(FileNotFoundError):
            _twin(Path(f"{path}{ending}"), Path(f"{found}{ending}"))


def _twin(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        halfway = target.with_name(f"{target.name}.copy")
        shutil.copyfile(source, halfway)
        halfway.replace(target)


def _forget(aside: Path) -> None:
    for ending in reversed(_ENDINGS):
        Path(f"{aside}{ending}").unlink(missing_ok=True)
