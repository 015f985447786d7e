"""When which kind of record is told of: the clockwork of a digest.

Pure: the time comes from clocks that are handed in. A kind is told of at once (after `Digest.gather`, which lets others
share the mail); then, while there is more of it, after `Digest.first` seconds, and after twice as long each time. One
that has stopped is told of as over, and forgotten when it has been quiet for as long again; if it comes back before
that, it goes on with the pause it had.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any

from offloop.digest import Cap, Digest

__all__ = ["Progress", "Schedule"]

_MAX_KINDS = 10_000
_MAX_SAVED = 500
_TITLE = 300  # characters
_MAX_SAVED_MAILS = 10_000
_MAX_COUNT = 2**53
_AT_ONCE = 64  # kinds that are forgotten
_MAX_STALE = 4  # times as many entries as kinds, before a heap is made anew
_QUIET = 0.5  # of the pause between two mails: a kind of which nothing came for so long is over
_HOUR, _DAY = 3600.0, 86_400.0


@dataclass(slots=True)
class Progress:
    """How far it has come with one kind. Times are the clock's, but for `since`.

    Attributes:
        since: When its first record was logged, in seconds since the epoch.
        due: When it may be told of next.
        pause: Seconds between its last mail and that; 0 before its first mail.
        last: When its last record came.
        total: How many there were, as mails said.
        mails: In how many mails.
        waiting: There is more to tell.
        flying: A mail that tells of it is on its way.
        in_part: It may go in several parts, and is one mail all the same: one of them was taken.
        over: The last mail said that it has stopped.
        title: What it is called where none of its records is at hand.
    """

    since: float
    due: float
    last: float
    pause: float = 0.0
    total: int = 0
    mails: int = 0
    waiting: bool = True
    flying: bool = False
    in_part: bool = False
    over: bool = False
    title: str = ""

    @property
    def is_to_close(self) -> bool:
        """Whether it was said that it goes on, and it may not."""
        return self.mails > 1 and not (self.waiting or self.flying or self.over)


class Schedule:
    """All kinds that were told of lately, or wait to be. Used by one thread at a time."""

    def __init__(self, digest: Digest, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """Know of no kind.

        Args:
            digest: How often.
            clock: Gives the time in seconds, from any beginning, forwards only.
            wall: Gives seconds since the epoch.
        """
        self._digest = digest
        self._clock = clock
        self._wall = wall
        self._kinds: dict[str, Progress] = {}  # those that were told of last at the end
        self._mails: deque[float] = deque(maxlen=max(digest.hourly or 0, digest.daily or 0))
        self._going: dict[str, None] = {}  # those of which more than one mail told
        # Heaps of what is to happen with which kind; an entry of which that is no longer true is passed over.
        self._due: list[tuple[float, str]] = []
        self._ends: list[tuple[float, str]] = []
        self._held_since: float | None = None

    def note(self, kind: str, created: float) -> Progress:
        """A record of the kind came, logged at this time."""
        now = self._clock()
        progress = self._kinds.get(kind)
        if progress is None or self._is_forgotten(progress, now):
            progress = self._kinds[kind] = Progress(created, now + self._digest.gather, now)
            self._going.pop(kind, None)
            self._place(kind, progress)
        elif not progress.waiting:
            if not progress.flying:
                self._go_on(progress, now, created)
                if not progress.mails:
                    self._going.pop(kind, None)
            progress.waiting = True
            self._place(kind, progress)
        progress.last = now
        return progress

    def taken(self, kind: str, *, rest: bool) -> None:
        """It is about to be told; with `rest`, there is more than that."""
        progress = self._kinds.get(kind)
        if progress is not None:
            progress.flying, progress.waiting, progress.in_part = True, rest, False

    def landed(self, kind: str, *, waiting: bool) -> None:
        """The mail was told, or it was not: what still waits is due as it was."""
        progress = self._kinds.get(kind)
        if progress is not None:
            progress.flying, progress.waiting = False, waiting
            self._place(kind, progress)

    def gone(self, kind: str) -> None:
        """There is nothing to tell any more."""
        progress = self._kinds.get(kind)
        if progress is not None and progress.waiting:
            progress.waiting = False
            self._place(kind, progress)

    def told(self, kind: str, count: int, *, over: bool) -> None:
        """A mail that was taken told of so many."""
        now, digest = self._clock(), self._digest
        progress = self._kinds.pop(kind, None) or Progress(self._wall(), now, now, waiting=False)
        self._kinds[kind] = progress
        progress.total += count
        progress.mails += not progress.in_part
        # Even if more came while the mail was on its way: it was not told of that.
        progress.over = over and not progress.waiting
        if not (over or progress.in_part):
            progress.pause = min(max(digest.first, 2 * progress.pause), digest.longest)
        progress.in_part = progress.flying
        if progress.mails > 1:
            self._going[kind] = None
        progress.due = now + max(progress.pause, digest.first)
        self._place(kind, progress)

    def passed(self, kind: str, count: int) -> None:
        """A mail on its way says that there were so many more, and does not tell of them any more."""
        progress = self._kinds.get(kind)
        if progress is not None:
            progress.total += count

    def mailed(self) -> None:
        """A mail was taken."""
        self._mails.append(self._clock())
        self._held_since = None

    def wait(self) -> float | None:
        """Seconds until the next mail is due, and the cap allows it; 0 if one is, None if there is nothing to tell."""
        now = self._clock()
        self._forget(now)
        for _ in self.pass_over():
            pass
        if not self._due:
            return None
        due, until = self._due[0][0], self._capped(())[0]
        if due <= now < until and self._held_since is None:
            self._held_since = self._wall()
        return max(0.0, due - now, until - now)

    def pause(self, kind: str) -> float:
        """Seconds until this kind may be told of, whether or not there is anything to tell."""
        now = self._clock()
        progress = self._kinds.get(kind)
        until, _, _ = self._capped(())
        return max(0.0, until - now, progress.due - now if progress is not None else 0.0)

    def closing(self) -> list[str]:
        """The kinds that are to be told of as over, though nothing more came of them."""
        now = self._clock()
        return [kind for kind in self._going if (known := self._kinds[kind]).is_to_close and known.due <= now]

    def progress(self, kind: str) -> Progress | None:
        """How far it has come with a kind."""
        return self._kinds.get(kind)

    def has_stopped(self, kind: str) -> bool:
        """Whether a kind that was told of before has been quiet since, for a good part of its pause."""
        progress = self._kinds.get(kind)
        if progress is None or not progress.mails:
            return False
        return self._clock() - progress.last >= progress.pause * _QUIET

    @property
    def held_since(self) -> float | None:
        """Since when the cap has held back what is due, in seconds since the epoch; None if it does not."""
        return self._held_since

    def cap(self) -> Cap | None:
        """What the next mail is to say of the cap: that it is the last for now; None if it is not."""
        now = self._clock()
        until, mails, per = self._capped((now,))
        return Cap(mails=mails, per=per, until=self._wall() + until - now) if until > now else None

    def saved(self) -> Callable[[], bytes]:
        """The latest of this, for another process; what is given makes bytes of it, in any thread."""
        offset = self._wall() - self._clock()
        told = ((kind, progress) for kind, progress in reversed(self._kinds.items()) if progress.mails)
        kinds = {
            kind: [p.since, p.due + offset, p.last + offset, p.pause, p.total, p.mails, p.over, p.title]
            for kind, p in islice(told, _MAX_SAVED)
        }
        mails = [mail + offset for mail in [*self._mails][-_MAX_SAVED_MAILS:]]
        return lambda: json.dumps({"kinds": kinds, "mails": mails}).encode()

    def restore(self, saved: bytes) -> None:
        """Know what another process knew; what is known here already stays.

        Raises:
            ValueError: It is not what `saved` gave; nothing of it is known then.
        """
        now = self._clock()
        offset = self._wall() - now
        try:
            state: Any = json.loads(saved)
            kinds = [(str(kind), _progress(*row)) for kind, row in state["kinds"].items()]
            mails = [_number(mail) - offset for mail in state["mails"]]
        except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            msg = f"no digest's state: {type(error).__name__}: {error}"
            raise ValueError(msg) from error
        # Oldest first, as they are here. Where the clock was set back nothing is to wait for longer than it ever does.
        for kind, progress in reversed(kinds[:_MAX_SAVED]):
            progress.pause = min(progress.pause, self._digest.longest)
            progress.due = min(progress.due - offset, now + self._digest.longest)
            progress.last = min(progress.last - offset, now)
            progress.since = min(max(progress.since, 0.0), now + offset)
            if kind not in self._kinds:
                self._kinds[kind] = progress
                if progress.mails > 1:
                    self._going[kind] = None
                self._place(kind, progress)
        known = sorted([*self._mails, *(min(mail, now) for mail in mails)])
        self._mails.clear()
        self._mails.extend(known)

    def _go_on(self, progress: Progress, now: float, created: float) -> None:
        """More came of a kind of which all was told."""
        is_due = now >= progress.due
        if progress.over or (is_due and progress.mails == 1):
            progress.since, progress.total, progress.mails, progress.over = created, 0, 0, False
        if is_due:
            progress.due = now + self._digest.gather

    def _is_forgotten(self, progress: Progress, now: float) -> bool:
        return not (progress.flying or _is_to_tell(progress)) and now >= progress.due + progress.pause

    def _place(self, kind: str, progress: Progress) -> None:
        """Have it looked at when it is time; one of which a mail is on its way is placed when that has landed."""
        if progress.flying:
            return
        to_tell = _is_to_tell(progress)
        heap, moment = (self._due, progress.due) if to_tell else (self._ends, progress.due + progress.pause)
        heappush(heap, (moment, kind))
        if len(heap) > _MAX_STALE * (len(self._kinds) + 1):
            heap[:] = set(self._valid_ends() if heap is self._ends else self._valid_dues())
            heapify(heap)

    def _valid_dues(self) -> Iterator[tuple[float, str]]:
        return ((p.due, kind) for kind, p in self._kinds.items() if not p.flying and _is_to_tell(p))

    def _valid_ends(self) -> Iterator[tuple[float, str]]:
        return ((p.due + p.pause, kind) for kind, p in self._kinds.items() if not (p.flying or _is_to_tell(p)))

    def pass_over(self) -> Iterator[None]:
        """Find what is due next, past what no longer is, in small pieces of work."""
        due = self._due
        while due and not self._is_due_at(*due[0]):
            heappop(due)
            yield

    def _forget(self, now: float) -> None:
        """Some of what is over, so that it never takes long."""
        ends = self._ends
        for _ in range(_AT_ONCE):
            if not ends or (ends[0][0] > now and len(self._kinds) <= _MAX_KINDS):
                return
            moment, kind = heappop(ends)
            progress = self._kinds.get(kind)
            is_idle = progress is not None and not (progress.flying or _is_to_tell(progress))
            if is_idle and progress is not None and progress.due + progress.pause == moment:
                del self._kinds[kind]
                self._going.pop(kind, None)

    def _is_due_at(self, moment: float, kind: str) -> bool:
        progress = self._kinds.get(kind)
        return progress is not None and not progress.flying and _is_to_tell(progress) and progress.due == moment

    def _capped(self, more: tuple[()] | tuple[float]) -> tuple[float, int, str]:
        """Until when no further mail may go if there were these too, the limit that says so, and its period."""
        found = (float("-inf"), 0, "")
        for limit, period, per in ((self._digest.hourly, _HOUR, "hour"), (self._digest.daily, _DAY, "day")):
            if limit is not None and len(self._mails) + len(more) >= limit:
                last = more[0] if more and limit == 1 else self._mails[len(more) - limit]
                found = max(found, (last + period, limit, per))
        return found


def _is_to_tell(progress: Progress) -> bool:
    return progress.waiting or progress.is_to_close


def _progress(*row: object) -> Progress:
    """What was saved of a kind.

    Raises:
        TypeError: It is not that.
    """
    since, due, last, pause, total, mails, over, title = row
    counts = [_number(value) for value in (total, mails)]
    if not isinstance(over, bool) or not all(0 <= count < _MAX_COUNT and count.is_integer() for count in counts):
        raise TypeError(row)
    return Progress(
        since=_number(since),
        due=_number(due),
        last=_number(last),
        pause=max(0.0, _number(pause)),
        total=int(counts[0]),
        mails=int(counts[1]),
        waiting=False,
        over=over,
        title=str(title)[:_TITLE],
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)
