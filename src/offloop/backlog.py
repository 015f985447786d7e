"""What one sink holds: records waiting, records being sent, bounded by count and by bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress, repeat, starmap

from offloop.capture import Held, Record, made
from offloop.overflow import Refusal, Room, evictable
from offloop.policies import Buffer
from offloop.staging import level_of

__all__ = ["Backlog", "Barrier"]


class Backlog:
    """A bounded queue of records of which the oldest may be in flight. Used on the loop's thread only."""

    def __init__(self, limits: Buffer) -> None:
        """Hold nothing yet."""
        self.limits = limits
        self._room = Room(limits)
        self.waiting: deque[Held] = deque()
        self.sizes: deque[int] = deque()
        """In bytes, of those that wait."""
        self.flying: list[Held] = []
        """Being sent, oldest first."""
        self._flying_sizes: list[int] = []
        self.notices: dict[int, Record] = {}
        """Records of our own, by identity, before all others: no bound counts them, and none is evicted."""
        self.size_bytes = 0
        self._barriers: list[Barrier] = []

    def __len__(self) -> int:
        return len(self.waiting) + len(self.flying) + len(self.notices)

    def __iter__(self) -> Iterator[Held]:
        """All that is held, in the order in which it is to be sent."""
        return chain(self.notices.values(), self.flying, self.waiting)

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

    def add(self, held: Held, size_bytes: int | None = None) -> Sequence[tuple[Held, Refusal]]:
        """Take one; gives what is lost by it, and why: older ones whose place it takes, or itself."""
        size = _size(held) if size_bytes is None else size_bytes
        refusal = self.refusal(held, size)
        if refusal == "overflow" and self.limits.overflow == "drop_old":
            return self._replace(held, size)
        if refusal is not None:
            return ((held, refusal),)
        self.append(held, size)
        return ()

    def extend(self, held: Sequence[Held], sizes: Sequence[int]) -> bool:
        """Take those among which none is refused and by which none is lost; False if one might be: none is taken."""
        room = self._room
        size_bytes = self.size_bytes + sum(sizes)
        if self.bounded + len(held) > room.easy_records or size_bytes > room.easy_bytes:
            return False
        self.waiting.extend(held)
        self.sizes.extend(sizes)
        self.size_bytes = size_bytes
        return True

    def refusal(self, held: Held, size_bytes: int | None = None) -> Refusal | None:
        """Why there is no room for it, None if there is."""
        room, count = self._room, self.bounded
        size = _size(held) if size_bytes is None else size_bytes
        if count < room.easy_records and self.size_bytes + size <= room.easy_bytes:
            return None
        return room.refusal(level_of(held), count, self.size_bytes, size)

    def append(self, held: Held, size_bytes: int | None = None) -> None:
        """Take one, whether there is room or not."""
        size = _size(held) if size_bytes is None else size_bytes
        self.waiting.append(held)
        self.sizes.append(size)
        self.size_bytes += size

    def record(self, index: int) -> Record:
        """The record that waits at this position, from now on as such."""
        record = self.waiting[index] = made(self.waiting[index], self.sizes[index])
        return record

    def fly(self, count: int) -> None:
        """Move the oldest that wait into flight."""
        if count == len(self.waiting):  # nearly always
            self.flying.extend(self.waiting)
            self._flying_sizes.extend(self.sizes)
            self.waiting.clear()
            self.sizes.clear()
            return
        self.flying.extend(starmap(self.waiting.popleft, repeat((), count)))
        self._flying_sizes.extend(starmap(self.sizes.popleft, repeat((), count)))

    def settle(self, held: Sequence[Held]) -> None:
        """Let go of those that were in flight."""
        flying, notices = self.flying, self.notices
        if not notices and len(held) == len(flying):  # the whole batch, as nearly always
            for barrier in self._barriers:
                barrier.ahead -= min(barrier.ahead, len(held))
            self._drop_barriers()
            self.size_bytes -= sum(self._flying_sizes)
            flying.clear()
            self._flying_sizes.clear()
            return
        gone = set(map(id, held))
        if self._barriers:
            # Not the oldest first: of a batch that was taken in part, what stays may be older than what went.
            went = [key in gone for key in chain(notices, map(id, flying))]
            for barrier in self._barriers:
                barrier.ahead -= sum(went[: barrier.ahead])
            self._drop_barriers()
        for key in gone & notices.keys():
            del notices[key]
        stay = [id(one) not in gone for one in flying]
        sizes = list(compress(self._flying_sizes, stay))
        self.size_bytes += sum(sizes) - sum(self._flying_sizes)
        self.flying, self._flying_sizes = list(compress(flying, stay)), sizes

    def land(self) -> None:
        """What was in flight waits again, in front."""
        self.waiting.extendleft(reversed(self.flying))
        self.sizes.extendleft(reversed(self._flying_sizes))
        self.flying.clear()
        self._flying_sizes.clear()

    def clear(self) -> Sequence[Held]:
        """Let go of everything; gives what was held, oldest first."""
        held = list(self)
        self.notices.clear()
        self.flying.clear()
        self._flying_sizes.clear()
        self.waiting.clear()
        self.sizes.clear()
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

    def _replace(self, held: Held, size: int) -> list[tuple[Held, Refusal]]:
        """Let it take the place of the oldest that may go for it."""
        levelno = level_of(held)
        max_records, max_bytes = self._room.bounds(levelno)
        lost: list[tuple[Held, Refusal]] = []
        if size <= max_bytes:
            # Where the reserve is in use already, a record below ERROR takes no more of it than what goes for it had.
            max_records, max_bytes = max(max_records, self.bounded), max(max_bytes, self.size_bytes)
            while self.bounded >= max_records or self.size_bytes + size > max_bytes:
                index = evictable(self.waiting, level_of, levelno)
                if index is None:
                    break
                lost.append((self.evict(index), "overflow"))
            else:
                self.append(held, size)
                return lost
        lost.append((held, "overflow"))
        return lost

    @property
    def bounded(self) -> int:
        """How many records the bounds count."""
        return len(self.waiting) + len(self.flying)

    def evict(self, index: int) -> Held:
        """Let go of one that waits, by its position."""
        held = self.waiting[index]
        del self.waiting[index]
        self.size_bytes -= self.sizes[index]
        del self.sizes[index]
        position = len(self.notices) + len(self.flying) + index
        for barrier in self._barriers:
            barrier.ahead -= position < barrier.ahead
        self._drop_barriers()
        return held

    def _drop_barriers(self) -> None:
        if self._barriers:
            self._barriers = [barrier for barrier in self._barriers if barrier.ahead]


class Barrier:
    """How many records are still ahead of a point in a backlog."""

    __slots__ = ("ahead",)

    def __init__(self, ahead: int) -> None:
        """Stand behind so many records."""
        self.ahead = ahead


def _size(held: Held) -> int:
    return made(held).size_bytes
