"""What waits for a sink's next digest: which records are of one kind, and how many more there are than are held whole.

Of each kind the first records are held whole, in the lane's backlog; the others as a number alone, a `Fold`, which goes
wherever the first of the kind goes. Nothing here sends, sleeps or counts for the ledger. Used on the loop's thread.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from offloop import diagnostics
from offloop.capture import Record, message_of, restore, text_of
from offloop.digest import DIGEST_LOGGER, Digest, Gathered, Group, Preceding
from offloop.fingerprint import fingerprint, is_library, kind_of
from offloop.folds import Fold, rate_of
from offloop.losses import LOSS_LOGGER
from offloop.preceding import Rings
from offloop.schedule import Schedule
from offloop.sink import FAILURES, Sink
from offloop.staging import level_of

__all__ = ["Gathering", "gathering_of"]

_WHOLE = 20  # records of a kind that are held whole
_MAX_LEADS = 1_000
_TITLE = 100  # characters of a message
_MAX_KNOWN = 4_096
_MAX_CLOSINGS = 100  # in one mail
_LOSSES = kind_of(LOSS_LOGGER)


@dataclass(slots=True)
class _Pile:
    """What waits of one kind: its first record, how many are held whole, and what is folded away behind it."""

    first: int
    is_stored: bool
    whole: int = 1
    fold: Fold | None = None


@dataclass(slots=True)
class _News:
    """What a mail told: the records, which of them the sink left out, and what went with which."""

    records: Sequence[Record]
    filtered: set[int]
    folds: Mapping[int, Fold]


def gathering_of(sink: Sink, clock: Callable[[], float]) -> Gathering | None:
    """A sink's, if it has a digest."""
    if sink.digest is None:
        return None
    is_library("")  # the first time it takes a while, and then it is asked on the loop
    return Gathering(sink.digest, sink.preceding, clock, time.time)


class Gathering:
    """One sink's."""

    def __init__(
        self, digest: Digest, preceding: Preceding | None, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        """Hold nothing.

        Args:
            digest: How often a kind is told of.
            preceding: What goes with its first record.
            clock: Gives the time in seconds, from any beginning, forwards only.
            wall: Gives seconds since the epoch.
        """
        self.schedule = Schedule(digest, clock, wall)
        self._fingerprint = digest.fingerprint
        self._rings = None if preceding is None else Rings(preceding)
        self._known: dict[Hashable, str] = {}
        self._chunk: dict[int, str] = {}
        self._leads: dict[str, tuple[Record, ...]] = {}
        self._piles: dict[str, _Pile] = {}
        # By identity, of the records held whole:
        self._kinds: dict[int, str] = {}
        self._folds: dict[int, Fold] = {}
        self._preceding: dict[int, tuple[Record, ...]] = {}
        self._closings: dict[str, Record] = {}
        self._news: deque[_News] = deque()
        self._settling: Iterator[None] | None = None
        self._flying: dict[str, bool] = {}  # the kinds of the mail under way, and whether it says that they are over
        self._whole: Counter[str] = Counter()  # of each kind, how many are held whole
        self.folded = 0
        """How many records are held as a number alone, and are nowhere else."""

    # -- what comes --------------------------------------------------------------------------------------------------

    def overhear(self, records: Iterable[Record]) -> None:
        """Records of lower levels, in their order among those that are classified."""
        if self._rings is not None:
            for record in records:
                self._rings.add(record)

    def classify(self, record: Record) -> None:
        """Know the kind of a record that is about to enter, and what led to it."""
        kind = self._chunk[id(record)] = self._kind(record)
        if self._rings is not None and kind not in self._piles and kind not in self._leads:
            if len(self._leads) >= _MAX_LEADS:
                del self._leads[next(iter(self._leads))]
            self._leads[kind] = self._rings.before(record)

    def forget_chunk(self) -> None:
        """What was classified has entered, or will not."""
        self._chunk.clear()

    def enter(self, record: Record, row: int | None = None, *, folds: bool = True) -> bool:
        """Take note of a record that is to wait; False if there are enough of its kind: it is held as a number alone.

        Args:
            record: It has not entered yet.
            row: Its number in the spool, if it is there.
            folds: Whether it may be held as a number.
        """
        kind = self._chunk.get(id(record)) or self._kind(record)
        created = _created(record)
        progress = self.schedule.note(kind, created)
        if not progress.title:
            progress.title = f"{record.name}: {message_of(record)[:_TITLE]}"
        pile = self._piles.get(kind)
        if pile is None:
            pile = self._piles[kind] = _Pile(id(record), row is not None)
            # Of one that comes from disk nothing is known: what was noted since led to others of its kind.
            lead = self._leads.pop(kind, ())
            if lead and lead[-1].created <= created:
                self._preceding[id(record)] = lead
        elif folds and pile.whole >= _WHOLE and pile.is_stored is (row is not None):
            fold = pile.fold
            if fold is None:
                fold = pile.fold = self._folds[pile.first] = Fold()
            fold.counts[level_of(record)] += 1
            fold.last = max(fold.last, created)
            fold.rate.add(created)
            if row is None:
                self.folded += 1
            else:
                fold.rows.append(row)
            return False
        else:
            pile.whole += 1
        self._kinds[id(record)] = kind
        self._whole[kind] += 1
        return True

    # -- when it goes ------------------------------------------------------------------------------------------------

    def wait(self) -> float | None:
        """Seconds until the next mail is due, 0 if one is, None if nothing waits to be told."""
        return self.schedule.wait()

    def pause_for_losses(self) -> float:
        """Seconds until the sink may be told of further losses: that is a mail too."""
        return self.schedule.pause(_LOSSES)

    def closings(self, limit: int) -> list[Record]:
        """At most so many notices of the kinds that are over, and were said to go on; the same until they are told."""
        due = dict.fromkeys(self.schedule.closing())
        for kind in [kind for kind in self._closings if kind not in due]:
            del self._closings[kind]
        for kind in due:
            if len(self._closings) >= min(limit, _MAX_CLOSINGS):
                break
            if kind not in self._closings:
                self._closings[kind] = self._closing(kind)
        return list(self._closings.values())[: max(0, limit)]

    def gather(self, records: Sequence[Record], *, closing: bool) -> Gathered:
        """What `gathered` gives, at once."""
        pieces = self.gathered(records, closing=closing)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return cast("Gathered", end.value)

    def gathered(self, records: Sequence[Record], *, closing: bool) -> Generator[None, None, Gathered]:
        """What a mail with these records, which are about to fly, is to tell; in small pieces of work.

        Args:
            records: 1 or more, notices among them.
            closing: The sink is being stopped.
        """
        parts: dict[str, list[Record]] = {}
        closings = {id(record): kind for kind, record in self._closings.items()}
        for record in records:
            kind = self._kinds.get(id(record)) or closings.get(id(record)) or self._kind(record)
            parts.setdefault(kind, []).append(record)
            yield
        # In each, groups are in the order of their first records.
        ranks: dict[tuple[int, bool], list[Group]] = {}
        for kind, part in parts.items():
            group = self._group(kind, part, closings)
            ranks.setdefault((-group.levelno, group.mails > 0), []).append(group)
            self._flying[kind] = group.over
            self._piles.pop(kind, None)
            self.schedule.taken(kind, rest=self._whole[kind] > sum(id(record) in self._kinds for record in part))
            yield
        return Gathered(
            groups=tuple(chain.from_iterable(ranks[rank] for rank in sorted(ranks))),
            cap=None if closing else self.schedule.cap(),
            held_since=self.schedule.held_since,
            closing=closing,
        )

    def landed(self) -> None:
        """The mail was told, or what is left of it waits on."""
        for _ in self.settle():
            pass

    # -- what went ---------------------------------------------------------------------------------------------------

    def told(self, records: Sequence[Record], filtered: Iterable[Record] = ()) -> Mapping[int, Fold]:
        """A mail with these was taken; gives what went with which of them, by its identity.

        What becomes of their kinds is left for `settle`.

        Args:
            records: What it was made of.
            filtered: Those among them that the sink left out.
        """
        folds = {id(record): self._folds.pop(id(record)) for record in records if id(record) in self._folds}
        self.folded -= sum(fold.count - len(fold.rows) for fold in folds.values())
        out = set(map(id, filtered))
        if len(out) < len(records):
            self.schedule.mailed()
        self._news.append(_News(records, out, folds))
        return folds

    def settle(self) -> Iterator[None]:
        """See to the kinds of what was told, and have those of the mail land, in small pieces of work."""
        # One for all callers: what one of them left undone another goes on with, and nothing is done twice.
        if self._settling is None:
            self._settling = self._settle()
        yield from self._settling
        self._settling = None

    @property
    def is_landing(self) -> bool:
        """Whether the kinds of what was told are still to be seen to."""
        return bool(self._news) or self._settling is not None

    def lose(self, record: Record) -> Fold | None:
        """It leaves without being told; gives what is held as a number alone behind it."""
        fold = self._folds.pop(id(record), None)
        if fold is not None:
            self.folded -= fold.count - len(fold.rows)
        self._forget(record, fold, was_told=False)
        return fold

    def untold(self, record: Record) -> bool:
        """This one is lost. If it was a notice that a kind is over, nobody is told of that; False if it was none."""
        for kind, notice in self._closings.items():
            if notice is record:
                self.schedule.told(self._close(kind), 0, over=True)
                return True
        return False

    def clear(self) -> None:
        """Nothing waits any longer; how far it has come with each kind is still known."""
        self.landed()
        for kind in self._whole:
            self.schedule.gone(kind)
        for held in (self._chunk, self._piles, self._kinds, self._folds, self._preceding, self._flying, self._whole):
            held.clear()
        self.folded = 0

    # ----------------------------------------------------------------------------------------------------------------

    def _settle(self) -> Iterator[None]:
        while self._news:
            news = self._news.popleft()
            counts: Counter[str] = Counter()
            yield from self._count(news, counts)
            for kind, count in counts.items():
                self.schedule.told(kind, count, over=self._flying.get(kind, False))
                yield
            losses = self.schedule.progress(_LOSSES)
            if losses is not None:
                losses.over = True  # they have a closing total of their own
            for record in news.records:
                self._forget(record, news.folds.get(id(record)), was_told=id(record) not in news.filtered)
                yield
        while self._flying:
            kind, _ = self._flying.popitem()
            self.schedule.landed(kind, waiting=kind in self._whole)
            yield
        yield from self.schedule.pass_over()

    def _count(self, news: _News, counts: Counter[str]) -> Iterator[None]:
        """How many were told of each kind."""
        closings = {id(record): kind for kind, record in self._closings.items()}
        for record in news.records:
            key = id(record)
            if key in closings:
                counts[self._close(closings[key])] += 0
            elif key not in news.filtered:
                fold = news.folds.get(key)
                counts[self._kinds.get(key) or self._kind(record)] += 1 if fold is None else 1 + fold.count
            yield

    def _forget(self, record: Record, fold: Fold | None, *, was_told: bool) -> None:
        key = id(record)
        kind = self._kinds.pop(key, None)
        self._preceding.pop(key, None)
        if kind is None:
            return
        pile = self._piles.get(kind)
        if pile is not None and pile.first == key:
            del self._piles[kind]
        self._whole[kind] -= 1
        if not self._whole[kind]:
            del self._whole[kind]
            self.schedule.gone(kind)
        if not was_told and kind in self._flying:
            # Another part of the mail says how many there were, these among them.
            self.schedule.passed(kind, 1 if fold is None else 1 + fold.count)

    def _close(self, kind: str) -> str:
        """The notice that this kind is over is done with; gives the kind."""
        del self._closings[kind]
        return kind

    def _kind(self, record: Record) -> str:
        if record.name == LOSS_LOGGER:
            return _LOSSES
        try:
            key = (fingerprint if self._fingerprint is None else self._fingerprint)(record)
            kind = self._known.get(key)
            if kind is None:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                kind = self._known[key] = kind_of(key)
        except FAILURES as error:  # reported; the record is told of as its logger's
            diagnostics.report("fingerprint", f"a fingerprint failed: {type(error).__name__}: {text_of(error)}")
            return kind_of((text_of(record.name), level_of(record)))
        return kind

    def _group(self, kind: str, records: list[Record], closings: Mapping[int, str]) -> Group:
        progress = self.schedule.progress(kind)
        shares: list[Mapping[int, int]] = [{} if id(record) in closings else self._share(record) for record in records]
        counts: Counter[int] = Counter()
        for share in shares:
            counts.update(share)
        closes = all(id(record) in closings for record in records)
        moments = [self.schedule.last_of(kind)] if closes else [_created(record) for record in records]
        folds = [fold for record in records if (fold := self._folds.get(id(record))) is not None]
        count = counts.total()
        return Group(
            kind=kind,
            records=tuple(records),
            counts=dict(counts),
            first=min(moments),
            last=max(*moments, *(fold.last for fold in folds)) if folds else max(moments),
            rate=rate_of([] if not count else moments, folds).trimmed(),
            preceding=next((self._preceding[id(one)] for one in records if id(one) in self._preceding), ()),
            since=min(moments) if progress is None else progress.since,
            total=count + (0 if progress is None else progress.total),
            mails=0 if progress is None else progress.mails,
            over=not count or self.schedule.has_stopped(kind),
            shares=tuple(shares),
        )

    def _share(self, record: Record) -> Mapping[int, int]:
        """For how many records it stands, by their levels."""
        fold, level = self._folds.get(id(record)), level_of(record)
        if fold is None or not fold.counts:
            return {level: 1}
        return {**fold.counts, level: fold.counts[level] + 1}

    def _closing(self, kind: str) -> Record:
        """A notice, as if somebody had logged it."""
        progress = self.schedule.progress(kind)
        said = ("", 0) if progress is None else (progress.title, progress.total)
        record = logging.LogRecord(
            DIGEST_LOGGER, logging.INFO, "offloop", 0, "%s: over, none since the last mail, %d in all", said, None
        )
        notice = restore(record)
        # It takes no place from others: no bound counts it.
        notice.size_bytes = 0
        return notice


def _created(record: Record) -> float:
    """When it was logged; a filter may have left anything there."""
    created: object = record.created
    return created if isinstance(created, float) and math.isfinite(created) else time.time()
