"""What was lost on the way to a sink and has not been said in its stream yet, and the records that say so.

Pure: whoever drops records notes it here, whoever is about to send asks for notices. Nothing here sends, sleeps or
counts for the ledger, and the time comes from clocks that are handed in. Nothing that was noted is forgotten before a
notice with it has arrived: what a notice told that was lost itself is told by the next one.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from offloop.capture import Held, Record, restore
from offloop.formatters.times import iso_time
from offloop.ledger import Dropped, tabulate

__all__ = ["LOSS_LOGGER", "QUEUE", "Losses", "Lost"]

LOSS_LOGGER = "offloop.loss"
QUEUE = "queue"
"""Stands for the sink where records were lost before they got to any."""

Lost = Counter[tuple[str, int]]
"""How many records, by reason and level number."""

_FIRST = 0.5  # seconds after the first loss: a burst is one notice
_EVERY = (10.0, 60.0)  # seconds after the first notice, after each later one
_QUIET = 10.0  # seconds without a loss after which the total is told
_AGAIN = 1.0  # seconds after a notice that was lost, once the sink works


class Losses:
    """All that one sink's stream is to be told of, by place: the sink's own losses, and the queue's.

    Used on the loop's thread only. An episode begins with a loss and ends with the notice that closes it.
    """

    def __init__(
        self, name: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        """Nothing was lost.

        Args:
            name: The sink's.
            clock: Gives the time in seconds, from any beginning, forwards only.
            wall: Gives seconds since the epoch, to tell when it was.
        """
        self._name = name
        self._clock = clock
        self._wall = wall
        self._episodes: dict[bool, _Episode] = {}  # in the queue, or not
        self._out: dict[int, _Episode] = {}

    def __bool__(self) -> bool:
        """Whether there is an episode: something is to be told, now or later."""
        return bool(self._episodes)

    def note(self, reason: str, levelno: int, count: int = 1) -> None:
        """The sink lost records."""
        self._episode(in_queue=False).note(self._clock(), {(reason, levelno): count})

    def note_queue(self, lost: Mapping[tuple[str, int], int], floor: int) -> None:
        """Records were lost before they got here; those from this level on would have been for this sink."""
        mine = {key: count for key, count in lost.items() if key[1] >= floor}
        if mine:
            self._episode(in_queue=True).note(self._clock(), mine)

    def wait(self, *, works: bool = True, ending: bool = False) -> float | None:
        """Seconds until a notice is due, 0 if one is, None if there is nothing to tell.

        Args:
            works: The sink takes records, as far as is known: an episode may be closed.
            ending: It is the last chance for now: whatever is untold is due.
        """
        moments = [episode.due(works=works, ending=ending) for episode in self._episodes.values()]
        moment = min((moment for moment in moments if moment is not None), default=None)
        return None if moment is None else max(0.0, moment - self._clock())

    def notices(self, limit: int, *, works: bool = True, ending: bool = False) -> list[Record]:
        """The notices that are due, one for each place; in them all that is untold there.

        One that was made before and neither arrived nor was lost is made anew, and counts no second time.

        Args:
            limit: At most so many, but for those that were made before.
            works: As for `wait`.
            ending: As for `wait`.
        """
        now = self._clock()
        made: list[Record] = []
        for episode in sorted(self._episodes.values(), key=lambda episode: episode.out is None):
            moment = episode.due(works=works, ending=ending)
            is_due = moment is not None and moment <= now and len(made) < limit
            if is_due or episode.out is not None:
                if episode.out is not None:
                    del self._out[id(episode.out.record)]
                record = episode.make(now, self._wall() - now, works=works, ending=ending)
                self._out[id(record)] = episode
                made.append(record)
        return made

    @property
    def underway(self) -> bool:
        """Whether a notice was made and neither arrived nor was lost yet."""
        return bool(self._out)

    def is_underway(self, record: Held) -> bool:
        """Whether it is a notice that neither arrived nor was lost yet."""
        return id(record) in self._out

    def told(self, records: Iterable[Held]) -> None:
        """These arrived: what the notices among them say is told."""
        if self._out:
            for record in records:
                episode = self._out.pop(id(record), None)
                if episode is not None and not episode.told():
                    del self._episodes[episode.in_queue]

    def untold(self, record: Held) -> bool:
        """This one is lost. If it was a notice, it is no loss to tell of, but what it said is; False if it was none."""
        episode = self._out.pop(id(record), None)
        if episode is not None:
            episode.untold()
        return episode is not None

    def works(self, *, again: bool) -> None:
        """The sink took something; with `again`, for the first time since it failed."""
        for episode in self._episodes.values():
            episode.works(again=again)

    def last_chance(self) -> None:
        """A shutdown begins: what could not be told before is tried once more, whatever became of it last time."""
        self.works(again=True)

    def _episode(self, *, in_queue: bool) -> _Episode:
        episode = self._episodes.get(in_queue)
        if episode is None:
            where = QUEUE if in_queue else self._name
            episode = self._episodes[in_queue] = _Episode(where, in_queue=in_queue)
        return episode


@dataclass(slots=True)
class _Notice:
    """One that is on its way: what only it says."""

    record: Record
    lost: Lost
    first: float
    closes: bool


@dataclass(slots=True)
class _Episode:
    """From the first loss in a place to the notice that closes it. Times are the clock's.

    Attributes:
        where: The sink's name, or `QUEUE`,
        in_queue: and that it is the latter: a sink may be called so.
        lost: What no notice says.
        total: What was lost since it began.
        began: When the first record was lost,
        first: the first that no notice says,
        last: and the last one.
        said: When the last notice was made.
        count: How many arrived.
        out: The one that is on its way.
        failed: The last one was lost.
        stale: And nothing has changed since: it would only be lost again.
        retry: The sink took something since.
    """

    where: str
    in_queue: bool
    lost: Lost = field(default_factory=Counter[tuple[str, int]])
    total: Lost = field(default_factory=Counter[tuple[str, int]])
    began: float = 0.0
    first: float = 0.0
    last: float = 0.0
    said: float = 0.0
    count: int = 0
    out: _Notice | None = None
    failed: bool = False
    stale: bool = False
    retry: bool = False

    def note(self, now: float, lost: Mapping[tuple[str, int], int]) -> None:
        if not self.total:
            self.began = now
        if not self.lost:
            self.first = now
        self.lost.update(lost)
        self.total.update(lost)
        self.last = now
        self.stale = False

    def due(self, *, works: bool, ending: bool) -> float | None:
        """When the next notice is; None if nothing is to be told."""
        if self.out is not None or self.stale:
            return None
        if ending:
            return self.first if self.lost else None
        moments: list[float] = []
        if self.lost:
            moments.append(self._next())
        if works:
            moments.append(self.last + _QUIET)
        return min(moments, default=None)

    def _next(self) -> float:
        if not (self.count or self.failed):
            return self.first + _FIRST
        if self.failed and self.retry:
            return self.said + _AGAIN
        return self.said + _EVERY[self.count > 1]

    def make(self, now: float, offset: float, *, works: bool, ending: bool) -> Record:
        """A notice of all that is untold, in place of the one that is on its way."""
        lost, first = self.lost, self.first
        if self.out is not None:
            lost, first = self.out.lost + lost, self.out.first
        closes = ending or (works and now >= self.last + _QUIET)
        since = self.began if closes else first
        record = _record(self, lost, since + offset, self.last + offset, closes=closes)
        self.out = _Notice(record, lost, first, closes)
        self.lost = Counter()
        self.said = now
        self.retry = False
        return record

    def told(self) -> bool:
        """The notice arrived; False if the episode is over."""
        if self.out is not None and self.out.closes:
            # What was lost while it was on its way begins another.
            self.total, self.began, self.count = self.lost.copy(), self.first, 0
        else:
            self.count += 1
        self.out = None
        self.failed = self.stale = False
        return bool(self.total)

    def untold(self) -> None:
        """The notice was lost: what it said is to be said by the next one."""
        if self.out is not None:
            self.stale = not self.lost
            if self.out.lost:
                self.lost, self.first = self.out.lost + self.lost, self.out.first
            self.out = None
        self.failed = True

    def works(self, *, again: bool) -> None:
        self.retry = True
        if again:
            self.stale = False


def _record(episode: _Episode, lost: Lost, since: float, until: float, *, closes: bool) -> Record:
    """A notice, as if somebody had logged it."""
    told, total = _table(lost), _table(episode.total)
    counted = episode.total if closes else lost
    place = " in the queue" if episode.in_queue else ""
    number = counted.total()
    message = (
        f"{number:,} {'record was' if number == 1 else 'records were'} lost{place} {_span(since, until)}"
        f"{', and none since' if closes else ''}: {_words(total if closes else told)}"
    )
    record = logging.LogRecord(LOSS_LOGGER, logging.WARNING, "offloop", 0, message, (), None)
    record.__dict__.update(
        sink=episode.where, since=iso_time(since), until=iso_time(until), lost=told, total=total, closes=closes
    )
    notice = restore(record)
    # It takes no place from others: no bound counts it.
    notice.size_bytes = 0
    return notice


def _table(lost: Lost) -> Dropped:
    return tabulate(sorted(lost.items()))


def _words(table: Dropped) -> str:
    return "; ".join(
        f"{reason} {', '.join(f'{count:,} {level}' for level, count in levels.items())}"
        for reason, levels in table.items()
    )


def _span(since: float, until: float) -> str:
    """When it was, to the second; with the day where it took longer than one."""
    first, last = time.gmtime(since), time.gmtime(until)
    form = "%H:%M:%S" if first[:3] == last[:3] else "%Y-%m-%d %H:%M:%S"
    if first[:6] == last[:6]:
        return f"at {time.strftime(form, first)} UTC"
    return f"between {time.strftime(form, first)} and {time.strftime(form, last)} UTC"
