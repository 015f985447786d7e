"""The last records of lower levels, by task or request and by tree of loggers: what led to an error. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque

from offloop.capture import Record, is_immutable
from offloop.digest import Preceding

__all__ = ["Rings"]

_TASKS, _TREES = 256, 64
_MAX_BYTES = 32 * 1024  # of a record that is kept


class Rings:
    """Bounded: the least recently used ring goes first."""

    def __init__(self, policy: Preceding) -> None:
        """Hold nothing.

        Args:
            policy: How many records each ring has, and what tells requests apart.
        """
        self._length = policy.records
        self._by = (*policy.by, "taskName")
        self._tasks: OrderedDict[object, deque[Record]] = OrderedDict()
        self._trees: OrderedDict[object, deque[Record]] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep it for a while."""
        if record.size_bytes > _MAX_BYTES:
            return
        task = self._task(record)
        if task is not None:
            self._ring(self._tasks, task, _TASKS).append(record)
        self._ring(self._trees, _tree(record), _TREES).append(record)

    def before(self, record: Record) -> tuple[Record, ...]:
        """Those of the record's task or request; where there are none, of its tree of loggers; oldest first."""
        task = self._task(record)
        rings = (self._tasks.get(task, ()) if task is not None else (), self._trees.get(_tree(record), ()))
        found = (tuple(one for one in ring if one.created <= record.created) for ring in rings)
        return next((before for before in found if before), ())

    def _task(self, record: Record) -> object:
        for name in self._by:
            value: object = getattr(record, name, None)
            if value is not None and (isinstance(value, (str, int)) or is_immutable(value)):
                return name, value
        return None

    def _ring(self, rings: OrderedDict[object, deque[Record]], key: object, limit: int) -> deque[Record]:
        ring = rings.get(key)
        if ring is None:
            ring = rings[key] = deque(maxlen=self._length)
            if len(rings) > limit:
                rings.popitem(last=False)
        else:
            rings.move_to_end(key)
        return ring


def _tree(record: Record) -> str:
    return str(record.name).partition(".")[0]
