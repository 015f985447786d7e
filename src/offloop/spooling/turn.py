"""What a lane asks of its spool in one go, and what it is told: values, no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from offloop.capture import Record

__all__ = ["Numbered", "Outcome", "Turn"]

Numbered = tuple[int, Record]
"""A record and its number: its place in the order of a sink's records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a lane wants of the disk, all in one go.

    Attributes:
        settled: Numbers of handed records that are to be removed, ascending.
        rows: Records to store, ascending.
        handed: Those of them up to this number stay in memory.
        want: How many unread records to read.
        want_bytes: And about how many bytes of them.
        claim: Asked just before the rows are committed; if it says no, they are not.
        memo: Gives what the next process is to know of the sink, in place of what was written down. None: that.
    """

    settled: Sequence[int] = ()
    rows: Sequence[Numbered] = ()
    handed: int = -1
    want: int = 0
    want_bytes: int = 0
    claim: Callable[[], bool] = lambda: True
    memo: Callable[[], bytes] | None = None


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        found: Records that were there already, left by another process.
        busy: Files that others hold.
        kept: The settled ones that could not be removed.
        stored: The rows are on disk, but for those in `refused`.
        refused: Numbers of rows that the bound leaves no room for.
        turned_away: Reason and level of each of these, if the others are on disk: for a lane that could not wait for
            the outcome, and counts all of them as stored.
        read: The next records, in memory from now on.
        lost: Reason and level of each record that was on disk and is no more.
        unread: How many records are on disk and not in memory.
        size_bytes: What all on disk take.
        error: What the disk's trouble is, None if there is none.
        memo: When it is opened: what was written down by whoever was there before. None: nothing.
    """

    found: int = 0
    busy: int = 0
    kept: list[int] = field(default_factory=list[int])
    stored: bool = False
    refused: list[int] = field(default_factory=list[int])
    turned_away: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    read: list[Numbered] = field(default_factory=list[Numbered])
    lost: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    unread: int = 0
    size_bytes: int = 0
    error: str | None = None
    memo: bytes | None = None
