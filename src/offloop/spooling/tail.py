"""The newest records of a spooled lane: in memory, waiting to be written or to move up. On the loop's thread only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from offloop.capture import Record
from offloop.overflow import evictable

__all__ = ["Tail"]


class Tail:
    """A queue of records that knows what they weigh."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @property
    def first(self) -> Record:
        """The oldest."""
        return self._records[0]

    def append(self, record: Record) -> None:
        """Add the newest."""
        self._records.append(record)
        self.size_bytes += record.size_bytes

    def pop(self) -> Record:
        """Let go of the oldest."""
        record = self._records.popleft()
        self.size_bytes -= record.size_bytes
        return record

    def take_back(self, records: Sequence[Record]) -> None:
        """Put records back in front."""
        self._records.extendleft(reversed(records))
        self.size_bytes += sum(record.size_bytes for record in records)

    def evict(self, *, newest: bool) -> Record:
        """Let go of the newest, or of the oldest, but of none of ERROR or above for one of less."""
        index = None if newest else evictable(self._records, _level, self._records[-1].levelno)
        if index is None:
            index = len(self._records) - 1
        record = self._records[index]
        del self._records[index]
        self.size_bytes -= record.size_bytes
        return record

    def replace(self, records: Iterable[Record]) -> None:
        """Hold these alone."""
        self._records = deque(records)
        self.size_bytes = sum(record.size_bytes for record in self._records)


def _level(record: Record) -> int:
    return record.levelno
