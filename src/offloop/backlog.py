"""What one sink holds: records waiting, records being sent, bounded by count and by bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from offloop.capture import Record
from offloop.intake import evictable
from offloop.policies import Buffer

__all__ = ["Backlog", "Barrier"]


class Backlog:
    """A bounded queue of records of which the oldest may be in flight. Used on the loop's thread only."""

    def __init__(self, limits: Buffer) -> None:
        """Hold nothing yet."""
        self.limits = limits
        self.waiting: deque[Record] = deque()
        self.flying: dict[int, Record] = {}
        """Being sent, by identity, oldest first."""
        self.size_bytes = 0
        self._barriers: list[Barrier] = []

    def __len__(self) -> int:
        return len(self.waiting) + len(self.flying)

    def add(self, record: Record) -> Record | None:
        """Take a record; gives back the one that has to go for it (perhaps the record itself), None if there is room.

        A large record may take the place of several: call again until None, or the record itself, comes back.
        """
        if self.fits(record):
            self.append(record)
            return None
        if self.limits.overflow == "drop_new" or not self.waiting:
            return record
        index = evictable(self.waiting, _level, record.levelno)
        if index is None or record.size_bytes > self.limits.max_bytes:
            return record
        return self._evict(index)

    def fits(self, record: Record) -> bool:
        """Whether there is room for it."""
        limits = self.limits
        return len(self) < limits.max_records and self.size_bytes + record.size_bytes <= limits.max_bytes

    def append(self, record: Record) -> None:
        """Take a record, whether there is room or not."""
        self.waiting.append(record)
        self.size_bytes += record.size_bytes

    def fly(self, count: int) -> None:
        """Move the oldest waiting records into flight."""
        for _ in range(count):
            record = self.waiting.popleft()
            self.flying[id(record)] = record

    def settle(self, records: Iterable[Record]) -> None:
        """Let go of records that were in flight."""
        if self._barriers:
            records = list(records)
            gone = set(map(id, records))
            # Not the oldest first: of a batch that was taken in part, what stays may be older than what went.
            went = [key in gone for key in self.flying]
            for barrier in self._barriers:
                barrier.ahead -= sum(went[: barrier.ahead])
            self._drop_barriers()
        for record in records:
            del self.flying[id(record)]
            self.size_bytes -= record.size_bytes

    def land(self) -> None:
        """What was in flight waits again, in front."""
        self.waiting.extendleft(reversed(self.flying.values()))
        self.flying.clear()

    def clear(self) -> Sequence[Record]:
        """Let go of everything; gives what was held, oldest first."""
        held = [*self.flying.values(), *self.waiting]
        self.flying.clear()
        self.waiting.clear()
        self.size_bytes = 0
        for barrier in self._barriers:
            barrier.ahead = 0
        self._drop_barriers()
        return held

    def barrier(self) -> Barrier:
        """Something that tells when all that is held now is gone."""
        barrier = Barrier(len(self))
        if barrier.ahead:
            self._barriers.append(barrier)
        return barrier

    @property
    def flushing(self) -> bool:
        """Whether somebody waits for a barrier."""
        return bool(self._barriers)

    def forget(self, barrier: Barrier) -> None:
        """Nobody waits for it any longer."""
        if barrier in self._barriers:
            self._barriers.remove(barrier)

    def _evict(self, index: int) -> Record:
        record = self.waiting[index]
        del self.waiting[index]
        self.size_bytes -= record.size_bytes
        position = len(self.flying) + index
        for barrier in self._barriers:
            barrier.ahead -= position < barrier.ahead
        self._drop_barriers()
        return record

    def _drop_barriers(self) -> None:
        if self._barriers:
            self._barriers = [barrier for barrier in self._barriers if barrier.ahead]


class Barrier:
    """How many records are still ahead of a point in a backlog."""

    __slots__ = ("ahead",)

    def __init__(self, ahead: int) -> None:
        """Stand behind so many records."""
        self.ahead = ahead


def _level(record: Record) -> int:
    return record.levelno
