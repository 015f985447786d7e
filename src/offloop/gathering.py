"""What waits for a sink's next digest: which records are of one kind, and how many more there are than are held whole.

Of each kind the first records are held whole, in the lane's backlog; the others as a number alone, a `Fold`, which goes
wherever the first of the kind goes. Nothing here sends, sleeps or counts for the ledger. Used on the loop's thread.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from offloop import diagnostics
from offloop.capture import Record, message_of, restore, text_of
from offloop.digest import Digest, Gathered, Group, Preceding
from offloop.fingerprint import fingerprint, kind_of
from offloop.losses import LOSS_LOGGER
from offloop.preceding import Rings
from offloop.schedule import Schedule
from offloop.sink import Sink

__all__ = ["DIGEST_LOGGER", "Fold", "Gathering", "gathering_of"]

DIGEST_LOGGER = "offloop.digest"

_WHOLE = 20  # records of a kind that are held whole
_PARTS = 24  # of the time in which the rate is counted
_MAX_LEADS = 1_000
_TITLE = 100  # characters of a message
_MAX_KNOWN = 4_096
_LOSSES = kind_of(LOSS_LOGGER)


@dataclass(slots=True)
class Rate:
    """How many there were in each of some equal parts of a time that grows."""

    begin: float = 0.0
    width: float = 1.0
    counts: list[int] = field(default_factory=lambda: [0] * _PARTS)

    def add(self, moment: float) -> None:
        """Count one; the first sets the begin."""
        if not any(self.counts):
            self.begin = moment
        # Records of several threads may be a little out of order, and a clock may be set back.
        index = max(0, int((moment - self.begin) / self.width))
        while index >= _PARTS:
            halves = [a + b for a, b in zip(self.counts[::2], self.counts[1::2], strict=True)]
            self.counts = halves + [0] * (_PARTS - len(halves))
            self.width *= 2
            index = int((moment - self.begin) / self.width)
        self.counts[index] += 1

    def trimmed(self) -> tuple[int, ...]:
        """The counts up to the last part in which there was any."""
        return tuple(self.counts[: max((index + 1 for index, count in enumerate(self.counts) if count), default=0)])


@dataclass(slots=True)
class Fold:
    """Records that are held as a number alone.

    Attributes:
        counts: How many, by level number.
        last: When the last of them was logged, in seconds since the epoch.
        rate: How many were logged when; the records held whole are counted too.
        rows: Their numbers in the spool, if they are there.
    """

    counts: Counter[int] = field(default_factory=Counter[int])
    last: float = 0.0
    rate: Rate = field(default_factory=Rate)
    rows: list[int] = field(default_factory=list[int])

    @property
    def count(self) -> int:
        """How many in all."""
        return sum(self.counts.values())


@dataclass(slots=True)
class _Pile:
    """What waits of one kind: its first record, how many are held whole, and what is folded away behind it."""

    first: int
    is_stored: bool
    whole: int = 1
    fold: Fold = field(default_factory=Fold)


def gathering_of(sink: Sink, clock: Callable[[], float]) -> Gathering | None:
    """A sink's, if it has a digest."""
    return None if sink.digest is None else Gathering(sink.digest, sink.preceding, clock, time.time)


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
        self._wall = wall
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
        self._stopped: set[str] = set()  # the kinds of which the mail under way says that they are over
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
        progress = self.schedule.note(kind, record.created)
        if not progress.title:
            progress.title = f"{record.name}: {message_of(record)[:_TITLE]}"
        pile = self._piles.get(kind)
        if pile is None:
            pile = self._piles[kind] = _Pile(id(record), row is not None)
            self._folds[id(record)] = pile.fold
            lead = self._leads.pop(kind, ())
            if lead:
                self._preceding[id(record)] = lead
        elif folds and pile.whole >= _WHOLE and pile.is_stored is (row is not None):
            fold = pile.fold
            fold.counts[record.levelno] += 1
            fold.last = max(fold.last, record.created)
            fold.rate.add(record.created)
            if row is None:
                self.folded += 1
            else:
                fold.rows.append(row)
            return False
        else:
            pile.whole += 1
        pile.fold.rate.add(record.created)
        self._kinds[id(record)] = kind
        return True

    # -- when it goes ------------------------------------------------------------------------------------------------

    def wait(self) -> float | None:
        """Seconds until the next mail is due, 0 if one is, None if nothing waits to be told."""
        return self.schedule.wait()

    def pause_for_losses(self) -> float:
        """Seconds until the sink may be told of further losses: that is a mail too."""
        return self.schedule.pause(_LOSSES)

    def closings(self) -> list[Record]:
        """Notices of the kinds that are over, and were said to go on; the same ones until they are told."""
        due = self.schedule.closing()
        for kind in self._closings.keys() - set(due):
            del self._closings[kind]
        for kind in due:
            if kind not in self._closings:
                self._closings[kind] = self._closing(kind)
        return list(self._closings.values())

    def gather(self, records: Sequence[Record], waiting: Iterable[Record] = (), *, closing: bool) -> Gathered:
        """What a mail with these records, which are about to fly, is to tell.

        Args:
            records: 1 or more, notices among them.
            waiting: Those that are left.
            closing: The sink is being stopped.
        """
        parts: dict[str, list[Record]] = {}
        closings = {id(record): kind for kind, record in self._closings.items()}
        for record in records:
            kind = self._kinds.get(id(record)) or closings.get(id(record)) or self._kind(record)
            parts.setdefault(kind, []).append(record)
        groups = [self._group(kind, part, closings) for kind, part in parts.items()]
        self._stopped = {group.kind for group in groups if group.over}
        for kind in parts:
            self._piles.pop(kind, None)
            self.schedule.taken(kind)
        self.landed(waiting)
        groups.sort(key=lambda group: (-group.levelno, group.mails > 0, group.first))
        return Gathered(
            groups=tuple(groups),
            cap=None if closing else self.schedule.cap(),
            held_since=self.schedule.held_since,
            closing=closing,
        )

    def landed(self, records: Iterable[Record]) -> None:
        """These were not told, and wait on."""
        for record in records:
            kind = self._kinds.get(id(record))
            if kind is not None:
                self.schedule.again(kind)

    # -- what went ---------------------------------------------------------------------------------------------------

    def told(self, records: Sequence[Record]) -> Mapping[int, Fold]:
        """A mail with these was taken; gives what went with which of them, by its identity."""
        folds = {id(record): self._folds[id(record)] for record in records if id(record) in self._folds}
        counts: Counter[str] = Counter()
        closings = {id(record): kind for kind, record in self._closings.items()}
        for record in records:
            kind = self._kinds.get(id(record))
            if kind is not None:
                fold = folds.get(id(record))
                counts[kind] += 1 + (0 if fold is None else fold.count)
            elif id(record) in closings:
                self.schedule.told(closings[id(record)], 0, over=True)
                del self._closings[closings[id(record)]]
            else:
                counts[self._kind(record)] += 1
        for kind, count in counts.items():
            self.schedule.told(kind, count, over=kind in self._stopped)
        losses = self.schedule.progress(_LOSSES)
        if losses is not None:
            losses.over = True  # they have a closing total of their own
        self.schedule.mailed()
        for record in records:
            self.leave(record)
        return folds

    def leave(self, record: Record) -> Fold | None:
        """It waits no longer, whatever became of it; gives what is held as a number alone behind it."""
        key = id(record)
        kind = self._kinds.pop(key, None)
        self._preceding.pop(key, None)
        fold = self._folds.pop(key, None)
        if kind is not None:
            pile = self._piles.get(kind)
            if pile is not None and pile.first == key:
                del self._piles[kind]
        if fold is not None:
            self.folded -= fold.count - len(fold.rows)
        return fold

    def untold(self, record: Record) -> bool:
        """This one is lost. If it was a notice that a kind is over, nobody is told of that; False if it was none."""
        for kind, notice in self._closings.items():
            if notice is record:
                del self._closings[kind]
                self.schedule.told(kind, 0, over=True)
                return True
        return False

    def clear(self) -> None:
        """Nothing waits any longer; how far it has come with each kind is still known."""
        for held in (self._chunk, self._piles, self._kinds, self._folds, self._preceding):
            held.clear()
        self.folded = 0

    # ----------------------------------------------------------------------------------------------------------------

    def _kind(self, record: Record) -> str:
        if record.name == LOSS_LOGGER:
            return _LOSSES
        try:
            key = (fingerprint if self._fingerprint is None else self._fingerprint)(record)
            kind = self._known.get(key)
        except Exception as error:  # noqa: BLE001 - reported; the record is told of as its logger's
            diagnostics.report("fingerprint", f"a fingerprint failed: {type(error).__name__}: {text_of(error)}")
            return kind_of((record.name, record.levelno))
        if kind is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            kind = self._known[key] = kind_of(key)
        return kind

    def _group(self, kind: str, records: list[Record], closings: Mapping[int, str]) -> Group:
        progress = self.schedule.progress(kind)
        counts = Counter(record.levelno for record in records if id(record) not in closings)
        moments = [record.created for record in records]
        rate = Rate()
        first, last = min(moments), max(moments)
        preceding: tuple[Record, ...] = ()
        for record in records:
            fold = self._folds.get(id(record))
            if fold is not None:
                counts += fold.counts
                last = max(last, fold.last)
                rate = fold.rate
            preceding = preceding or self._preceding.get(id(record), ())
        count = sum(counts.values())
        closes = any(id(record) in closings for record in records)
        return Group(
            kind=kind,
            records=tuple(records),
            counts=dict(counts),
            first=first,
            last=last,
            rate=rate.trimmed(),
            preceding=preceding,
            since=first if progress is None else progress.since,
            total=count + (0 if progress is None else progress.total),
            mails=0 if progress is None else progress.mails,
            over=closes or self.schedule.has_stopped(kind),
        )

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
