"""Who gets in when space runs short: one decision for the queue and for every sink's buffer.

Pure: it is told how much is held, and says what becomes of a record that comes. It holds, counts and moves nothing.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from offloop.policies import Buffer

__all__ = ["Refusal", "Room", "evictable"]

Refusal = Literal["overflow", "shed"]

# How far eviction looks for a record that may go: beyond it a call would take too long on the loop.
_LOOK = 128
# 0.29 * 100 is a little less than 29.
_ROUNDING = 1e-9


class Room:
    """The steps of a `Buffer`: how full it may get, by the level of who asks.

    Below `shed_below` a record is refused from `shed_at` on; the `reserve` is for ERROR and above. What is left of a
    share when it is rounded to whole records is for everybody.

    Attributes:
        easy_records: As long as fewer are held, no record is refused for the count.
        easy_bytes: As long as no more are held afterwards, no record is refused for its size.
    """

    __slots__ = (
        "_limits",
        "_open_bytes",
        "_open_records",
        "_shed_bytes",
        "_shed_records",
        "easy_bytes",
        "easy_records",
    )

    def __init__(self, limits: Buffer) -> None:
        """Compute the steps once."""
        self._limits = limits
        self._open_records = limits.max_records - _whole(limits.max_records * limits.reserve)
        self._open_bytes = limits.max_bytes - _whole(limits.max_bytes * limits.reserve)
        self._shed_records = _shed_from(limits.max_records, limits.shed_at)
        self._shed_bytes = _shed_from(limits.max_bytes, limits.shed_at)
        self.easy_records = min(self._open_records, self._shed_records)
        self.easy_bytes = min(self._open_bytes, self._shed_bytes)

    def refusal(self, levelno: int, records: int, size_bytes: int = 0, more_bytes: int = 0) -> Refusal | None:
        """Why a record does not get in, None if it does.

        `shed` is final. With `overflow` it may take the place of others, if there are such as may go for it.

        Args:
            levelno: Its level.
            records: How many are held.
            size_bytes: Their bytes.
            more_bytes: Its own.
        """
        if levelno < self._limits.shed_below and (records >= self._shed_records or size_bytes >= self._shed_bytes):
            return "shed"
        max_records, max_bytes = self.bounds(levelno)
        return None if records < max_records and size_bytes + more_bytes <= max_bytes else "overflow"

    def bounds(self, levelno: int) -> tuple[int, int]:
        """How many records and bytes may be held in all once one of this level is in."""
        if levelno >= logging.ERROR:
            return self._limits.max_records, self._limits.max_bytes
        return self._open_records, self._open_bytes


def evictable(items: Sequence[Any] | deque[Any], level: Callable[[Any], int], levelno: int) -> int | None:
    """Which item goes to make room for a record of `levelno`: the oldest below ERROR; None if the newcomer has to.

    ERROR and above is never evicted for less; where only such records are left, the oldest goes for one of its kind.
    """
    # By position: other threads may append meanwhile, which an iterator does not survive.
    for index in range(min(len(items), _LOOK)):
        if level(items[index]) < logging.ERROR:
            return index
    return 0 if levelno >= logging.ERROR and items else None


def _whole(share: float) -> int:
    return math.floor(share + _ROUNDING)


def _shed_from(bound: int, share: float) -> float:
    """From how many held on records are shed; what sheds at nothing less than the bound never does."""
    step = math.ceil(bound * share - _ROUNDING)
    return step if step < bound else math.inf
