"""Opening a file that another process left, whatever state it is in: what is broken is set aside, and salvaged."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from offloop import diagnostics
from offloop.salvage import Wreck
from offloop.spool_file import Row, SpoolFile, State, is_damage, remove

__all__ = ["Rescue"]

_AT_A_TIME = 500  # rows
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

    def open(self, path: Path) -> tuple[SpoolFile, int] | None:
        """The file, and how many records it has lost; None if it never had any."""
        with Wreck(path) as wreck:
            last, blank = wreck.state(), wreck.blank
        if blank:
            remove(path)  # its maker was killed at once
            return None
        aside = self._set_aside(path)
        try:
            # An unreadable state makes the file suspect: commits may have been lost with it.
            file = SpoolFile(path, durable=self._durable, changes=_UNKNOWN if last is None else last.changes)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
        else:
            _remove_aside(aside)
            return file, 0
        file = self.salvage(path, None, last)
        return file, max(0, last.live - file.state.live) if last is not None else 0

    def _set_aside(self, path: Path) -> Path:
        """Give the file and its log a second name: SQLite may write to the one, and removes the other, as it closes."""
        aside = path.with_name(f"{path.name}.damaged")
        _remove_aside(aside)
        for ending in ("", "-wal"):
            with suppress(FileNotFoundError):
                os.link(f"{path}{ending}", f"{aside}{ending}")
        return aside

    def salvage(self, path: Path, file: SpoolFile | None, state: State | None) -> SpoolFile:
        """A new file with all rows that are still to be found in the broken one, which is set aside."""
        aside = path.with_name(f"{path.name}.damaged")
        if file is not None:
            self._set_aside(path)
            file.close()
        self._forget_earlier(aside)
        remove(path)
        new = SpoolFile(path, durable=self._durable)
        first = -(2**63) if state is None else state.first
        with Wreck(aside) as wreck:
            seen: set[int] = set()
            some: list[Row] = []
            for row in wreck.rows():
                if row.id >= first and row.id not in seen:
                    seen.add(row.id)
                    some.append(row)
                    if len(some) >= _AT_A_TIME:
                        new.change(insert=sorted(some))
                        some.clear()
            new.change(insert=sorted(some))
        diagnostics.report(
            f"spool-damage:{self._name}",
            f"a spool file of sink {self._name} was damaged: {len(seen)} record(s) were read from it, it is kept as "
            f"{aside}",
        )
        return new

    def _forget_earlier(self, aside: Path) -> None:
        """Of broken files that were set aside, only the last one stays: they would fill the disk."""
        for entry in aside.parent.glob(f"{aside.name.partition('.')[0]}.*.damaged"):
            if entry != aside:
                _remove_aside(entry)


def _remove_aside(aside: Path) -> None:
    for ending in ("", "-wal"):
        Path(f"{aside}{ending}").unlink(missing_ok=True)
