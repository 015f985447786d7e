"""What waits where any thread may put it: in a queue of our own, or beside one that only its loop may touch.

Any thread appends, without a lock. Whoever removes does so alone: between a look at the oldest and its removal nobody
may put another in its place, or an ERROR would go for less, and putting it back would bring it out of order.
"""

from __future__ import annotations

import logging
from collections import deque
from itertools import repeat, starmap
from logging import LogRecord
from typing import cast

from offloop.capture import Snapshot
from offloop.exclusive import Exclusive
from offloop.overflow import evictable
from offloop.records import LEVELNO, Fields

__all__ = ["Item", "Staging", "level_of"]

Item = Snapshot | Fields | LogRecord


class Staging(deque[Item]):
    """Staged records, oldest first."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        super().__init__()
        self._removing = Exclusive()

    def move(self, hand: list[Item], limit: int) -> int:
        """Move the oldest to a list of at most so many; gives how many. None, perhaps, while somebody evicts."""
        if not self or not self._removing.enter():
            return 0
        try:
            # Nobody else removes any, so that many there are; and no signal comes between here and there.
            before = len(hand)
            hand.extend(starmap(self.popleft, repeat((), min(limit - before, len(self)))))
            return len(hand) - before
        finally:
            self._removing.leave()

    def evict(self, levelno: int) -> Item | None:
        """Remove the oldest that may go for a record of this level; None if none may, or somebody is at it."""
        if not self._removing.enter():
            return None
        try:
            index = evictable(self, level_of, levelno)
            if index is None:
                return None
            victim = self[index]
            del self[index]
            return victim
        finally:
            self._removing.leave()

    def after_fork(self) -> None:
        """In a child: what waits is the parent's, and so is who removes it."""
        self._removing = Exclusive()
        self.clear()


def level_of(item: Item) -> int:
    """The level number of what waits in the queue."""
    if isinstance(item, dict):
        levelno: object = item.get("levelno")
    elif isinstance(item, tuple):
        levelno = item[LEVELNO] if len(item) > LEVELNO else None
    else:
        levelno = getattr(item, "levelno", None)
    # Anyone may put anything on a queue of their own.
    return cast("int", levelno) if isinstance(levelno, (int, float)) else logging.NOTSET
