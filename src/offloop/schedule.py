"""When which kind of record is told of: the clockwork of a digest.

Pure: the time comes from clocks that are handed in. A kind is told of at once (after `Digest.gather`, which lets others
share the mail); then, while there is more of it, after `Digest.first` seconds, and after twice as long each time. One
that has stopped is told of as over, and forgotten when it has been quiet for as long again; if it comes back before
that, it goes on with the pause it had.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from offloop.digest import Cap, Digest

__all__ = ["Progress", "Schedule"]

_MAX_KINDS = 10_000
_MAX_SAVED = 500
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
        total: How many were told of.
        mails: In how many mails.
        waiting: There is more to tell.
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
    over: bool = False
    title: str = ""

    @property
    def is_to_close(self) -> bool:
        """Whether it was said that it goes on, and it may not."""
        return self.mails > 1 and not (self.waiting or self.over)


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
        self._kinds: dict[str, Progress] = {}
        self._mails: deque[float] = deque()
        self._next: float | None = None  # the earliest time at which anything is due
        self._stale = False  # unless it is to be looked for
        self._held_since: float | None = None

    def note(self, kind: str, created: float) -> Progress:
        """A record of the kind came, logged at this time."""
        now = self._clock()
        progress = self._kinds.get(kind)
        if progress is None or self._is_forgotten(progress, now):
            progress = self._kinds[kind] = Progress(created, now + self._digest.gather, now)
        elif not progress.waiting:
            progress.waiting = True
            is_due = now >= progress.due
            if progress.over or (is_due and progress.mails == 1):
                progress.since, progress.total, progress.mails, progress.over = created, 0, 0, False
            if is_due:
                progress.due = now + self._digest.gather
        progress.last = now
        self._look_at(progress.due)
        return progress

    def again(self, kind: str) -> None:
        """What was about to be told was not: it is due as it was."""
        progress = self._kinds.get(kind)
        if progress is not None:
            progress.waiting = True
            self._look_at(progress.due)

    def taken(self, kind: str) -> None:
        """What there is of the kind is about to be told."""
        progress = self._kinds.get(kind)
        if progress is not None:
            progress.waiting = False
            self._stale = True

    def told(self, kind: str, count: int, *, over: bool) -> None:
        """A mail that was taken told of so many."""
        now, digest = self._clock(), self._digest
        progress = self._kinds.get(kind)
        if progress is None:
            progress = self._kinds[kind] = Progress(self._wall(), now, now, waiting=False)
        progress.total += count
        progress.mails += 1
        # Even if more came while the mail was on its way: it was not told of that.
        progress.over = over and not progress.waiting
        if not over:
            progress.pause = min(max(digest.first, 2 * progress.pause), digest.longest)
        progress.due = now + max(progress.pause, digest.first)
        self._stale = True

    def mailed(self) -> None:
        """A mail was taken."""
        now = self._clock()
        self._mails.append(now)
        while self._mails and self._mails[0] <= now - _DAY:
            self._mails.popleft()
        self._held_since = None
        self._tidy(now)

    def wait(self) -> float | None:
        """Seconds until the next mail is due, and the cap allows it; 0 if one is, None if there is nothing to tell."""
        now = self._clock()
        if self._stale:
            self._tidy(now)
        if self._next is None:
            return None
        until, _, _ = self._capped(len(self._mails))
        if until > max(now, self._next) and self._next <= now and self._held_since is None:
            self._held_since = self._wall()
        return max(0.0, self._next - now, until - now)

    def pause(self, kind: str) -> float:
        """Seconds until this kind may be told of, whether or not there is anything to tell."""
        now = self._clock()
        progress = self._kinds.get(kind)
        until, _, _ = self._capped(len(self._mails))
        return max(0.0, until - now, progress.due - now if progress is not None else 0.0)

    def closing(self) -> list[str]:
        """The kinds that are to be told of as over, though nothing more came of them."""
        now = self._clock()
        return [kind for kind, progress in self._kinds.items() if progress.is_to_close and progress.due <= now]

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
        until, mails, per = self._capped(len(self._mails) + 1, now)
        return Cap(mails=mails, per=per, until=self._wall() + until - now) if until > now else None

    def saved(self) -> bytes:
        """The latest of this as bytes, for another process."""
        offset = self._wall() - self._clock()
        told = [(kind, progress) for kind, progress in self._kinds.items() if progress.mails]
        kinds = {
            kind: [p.since, p.due + offset, p.last + offset, p.pause, p.total, p.mails, p.over, p.title]
            for kind, p in sorted(told, key=lambda item: item[1].due)[-_MAX_SAVED:]
        }
        return json.dumps({"kinds": kinds, "mails": [mail + offset for mail in self._mails]}).encode()

    def restore(self, saved: bytes) -> None:
        """Know what another process knew; what is known here already stays.

        Raises:
            ValueError: It is not what `saved` gave.
        """
        offset = self._wall() - self._clock()
        try:
            state: Any = json.loads(saved)
            for kind, (since, due, last, pause, total, mails, over, title) in state["kinds"].items():
                known = Progress(since, due - offset, last - offset, pause, total, mails, waiting=False, over=over)
                known.title = title
                self._kinds.setdefault(kind, known)
            self._mails = deque(sorted({*self._mails, *(float(mail) - offset for mail in state["mails"])}))
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"no digest's state: {type(error).__name__}: {error}"
            raise ValueError(msg) from error
        self._tidy(self._clock())

    def _look_at(self, moment: float) -> None:
        self._next = moment if self._next is None else min(self._next, moment)

    def _is_forgotten(self, progress: Progress, now: float) -> bool:
        return not (progress.waiting or progress.is_to_close) and now >= progress.due + progress.pause

    def _tidy(self, now: float) -> None:
        """Forget what is over, and see what is next."""
        forgotten = [kind for kind, progress in self._kinds.items() if self._is_forgotten(progress, now)]
        for kind in forgotten:
            del self._kinds[kind]
        if len(self._kinds) > _MAX_KINDS:
            idle = (kind for kind, progress in self._kinds.items() if not progress.waiting)
            for kind in sorted(idle, key=lambda kind: self._kinds[kind].due)[: len(self._kinds) - _MAX_KINDS]:
                del self._kinds[kind]
        self._stale = False
        moments: Iterable[float] = (p.due for p in self._kinds.values() if p.waiting or p.is_to_close)
        self._next = min(moments, default=None)

    def _capped(self, count: int, this: float | None = None) -> tuple[float, int, str]:
        """Until when no further mail may go if there were so many, the limit that says so, and its period."""
        moments = [*self._mails, *(() if this is None else (this,))]
        found = (float("-inf"), 0, "")
        for limit, period, per in ((self._digest.hourly, _HOUR, "hour"), (self._digest.daily, _DAY, "day")):
            if limit is not None and count >= limit:
                found = max(found, (moments[-limit] + period, limit, per))
        return found
