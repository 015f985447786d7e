"""What one sink holds: records waiting, records being sent, bounded by count and by bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from offloop.capture import Record
from offloop.overflow import Refusal, Room, evictable
from offloop.policies import Buffer

__all__ = ["Backlog", "Barrier"]


class Backlog:
    """A bounded queue of records of which the oldest may be in flight. Used on the loop's thread only."""

    def __init__(self, limits: Buffer) -> None:
        """Hold nothing yet."""
        self.limits = limits
        self._room = Room(limits)
        self.waiting: deque[Record] = deque()
        self.flying: dict[int, Record] = {}
        """Being sent, by identity, oldest first."""
        self.notices: dict[int, Record] = {}
        """Records of our own, by identity, before all others: no bound counts them, and none is evicted."""
        self.size_bytes = 0
        self._barriers: list[Barrier] = []

    def __len__(self) -> int:
        return len(self.waiting) + len(self.flying) + len(self.notices)

    def __iter__(self) -> Iterator[Record]:
        """All that is held, in the order in which it is to be sent."""
        return chain(self.notices.values(), self.flying.values(), self.waiting)

    def announce(self, notices: Iterable[Record]) -> int:
        """Have these go before all others, in place of those that did so far; tells how many more they are."""
        before = len(self.notices)
        self.notices = {id(record): record for record in notices}
        more = len(self.notices) - before
        for barrier in self._barriers:
            barrier.ahead += more
        return more

    def withdraw(self) -> Sequence[Record]:
        """Let go of these."""
        notices = list(self.notices.values())
        self.announce(())
        return notices

    def add(self, record: Record) -> Sequence[tuple[Record, Refusal]]:
        """Take a record; gives what is lost by it, and why: older ones whose place it takes, or the record itself."""
        refusal = self.refusal(record)
        if refusal == "overflow" and self.limits.overflow == "drop_old":
            return self._replace(record)
        if refusal is not None:
            return ((record, refusal),)
        self.append(record)
        return ()

    def extend(self, records: Sequence[Record]) -> bool:
        """Take records among which none is refused and by which none is lost; False if one might be: none is taken."""
        room = self._room
        size_bytes = self.size_bytes + sum([record.size_bytes for record in records])
        if self.bounded + len(records) > room.easy_records or size_bytes > room.easy_bytes:
            return False
        self.waiting.extend(records)
        self.size_bytes = size_bytes
        return True

    def refusal(self, record: Record) -> Refusal | None:
        """Why there is no room for it, None if there is."""
        room, held = self._room, len(self.waiting) + len(self.flying)
        if held < room.easy_records and self.size_bytes + record.size_bytes <= room.easy_bytes:
            return None
        return room.refusal(record.levelno, held, self.size_bytes, record.size_bytes)

    def append(self, record: Record) -> None:
        """Take a record, whether there is room or not."""
        self.waiting.append(record)
        self.size_bytes += record.size_bytes

    def fly(self, count: int) -> None:
        """Move the oldest waiting records into flight."""
        take = self.waiting.popleft
        records = [take() for _ in range(count)]
        self.flying.update(zip(map(id, records), records, strict=True))

    def settle(self, records: Sequence[Record]) -> None:
        """Let go of records that were in flight."""
        if self._barriers:
            gone = set(map(id, records))
            # Not the oldest first: of a batch that was taken in part, what stays may be older than what went.
            went = [key in gone for key in (*self.notices, *self.flying)]
            for barrier in self._barriers:
                barrier.ahead -= sum(went[: barrier.ahead])
            self._drop_barriers()
        flying, notices = self.flying, self.notices
        if not notices and len(records) == len(flying):  # the whole batch, as nearly always
            self.size_bytes -= sum([record.size_bytes for record in records])
            flying.clear()
            return
        for record in records:
            if notices and notices.pop(id(record), None) is not None:
                continue
            del flying[id(record)]
            self.size_bytes -= record.size_bytes

    def land(self) -> None:
        """What was in flight waits again, in front."""
        self.waiting.extendleft(reversed(self.flying.values()))
        self.flying.clear()

    def clear(self) -> Sequence[Record]:
        """Let go of everything; gives what was held, oldest first."""
        held = list(self)
        self.notices.clear()
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

    def _replace(self, record: Record) -> list[tuple[Record, Refusal]]:
        """Let it take the place of the oldest that may go for it."""
        max_records, max_bytes = self._room.bounds(record.levelno)
        lost: list[tuple[Record, Refusal]] = []
        if record.size_bytes <= max_bytes:
            # Where the reserve is in use already, a record below ERROR takes no more of it than what goes for it had.
            max_records, max_bytes = max(max_records, self.bounded), max(max_bytes, self.size_bytes)
            while self.bounded >= max_records or self.size_bytes + record.size_bytes > max_bytes:
                index = evictable(self.waiting, _level, record.levelno)
                if index is None:
                    break
                lost.append((self.evict(index), "overflow"))
            else:
                self.append(record)
                return lost
        lost.append((record, "overflow"))
        return lost

    @property
    def bounded(self) -> int:
        """How many records the bounds count."""
        return len(self.waiting) + len(self.flying)

    def evict(self, index: int) -> Record:
        """Let go of a record that waits, by its position."""
        record = self.waiting[index]
        del self.waiting[index]
        self.size_bytes -= record.size_bytes
        position = len(self.notices) + len(self.flying) + index
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
