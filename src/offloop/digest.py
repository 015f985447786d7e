"""What a digest is: how often one kind of record is told of, and what a mail is told of each kind. Values only.

The clockwork is in `schedule.py`, what waits for a digest in `gathering.py`; a sink is handed a `Gathered` with each
batch and makes of it what people read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from offloop.capture import Record
from offloop.errors import ConfigError
from offloop.policies import at_least, level_number, whole

__all__ = ["DIGEST_LOGGER", "Cap", "Digest", "Gathered", "Group", "Preceding"]

DIGEST_LOGGER = "offloop.digest"
"""Says in a sink's stream that a kind is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """How often one kind of record is told of: the first at once, more of the same together, ever more rarely.

    Attributes:
        gather: Seconds that the first record of a kind waits for others, which then share its mail.
        first: Seconds after the first mail of a kind to the next one, if there is more of it by then. It doubles with
            each mail while more of the kind comes, and falls back to this when it stops.
        longest: Seconds it does not exceed.
        hourly: At most so many mails in any hour, the last of which says so. None: no limit.
        daily: At most so many mails in any 24 hours, the last of which says so. None: no limit.
        fingerprint: Gives what records of one kind have in common, anything hashable; called on the event loop's
            thread for each record, so it has to be quick. None: logger, level, message template (of a message without
            arguments, its text with numbers and quoted values left out), exception type and the innermost frames of
            the application.
    """

    gather: float = 1.0
    first: float = 60.0
    longest: float = 3600.0
    hourly: int | None = 30
    daily: int | None = 200
    fingerprint: Callable[[Record], Hashable] | None = None

    def __post_init__(self) -> None:
        at_least("Digest.", "gather", self.gather, 0, "seconds")
        at_least("Digest.", "first", self.first, 0.001, "seconds")
        at_least("Digest.", "longest", self.longest, self.first, "seconds (first)")
        for name, value in (("hourly", self.hourly), ("daily", self.daily)):
            if value is not None:
                whole("Digest.", name, value, "mail")
        if self.fingerprint is not None and not callable(self.fingerprint):
            msg = f"Digest.fingerprint must be a function that takes a record, or None, got {self.fingerprint!r}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preceding:
    """Which records of lower levels go with the first of a kind, to show what led there.

    They are those before it in the same task or request, where the records tell that (an attribute named in `by`, or
    `taskName`); otherwise those before it of the same tree of loggers. They are no records of the sink's: nothing
    counts them, and what is not needed is forgotten.

    Attributes:
        level: Records from this level on, and below the sink's.
        records: At most so many, the last ones.
        by: Attributes that tell requests apart, the first that a record has: names of context variables that the
            `Pipeline` captures (`context=`), or of `extra`.
    """

    level: int | str = logging.INFO
    records: int = 10
    by: Sequence[str] = ()

    def __post_init__(self) -> None:
        whole("Preceding.", "records", self.records, "record")
        level_number("Preceding.", "level", self.level)
        if isinstance(self.by, str) or not all(isinstance(name, str) for name in self.by):
            msg = f"Preceding.by must be a list of attribute names, got {self.by!r}"
            raise ConfigError(msg)

    @property
    def levelno(self) -> int:
        """The level as a number."""
        return level_number("Preceding.", "level", self.level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a mail tells of one kind.

    Attributes:
        kind: 16 hexadecimal digits, the same for this kind in each mail and each process.
        records: Those that are held whole, oldest first; the first of the kind is among them. For one that is over
            and was told before, a record of offloop's own that says so.
        counts: How many there are since the last mail, by level number, `records` and those held as a number alone.
        first: When the first of these was logged, and
        last: the last, in seconds since the epoch.
        rate: How many were logged in each of at most 24 equal parts of the time from `first` on, to the last in which
            there was one.
        preceding: Records of lower levels from before the first, oldest first.
        since: When the first of the kind was logged since it last was over, in seconds since the epoch.
        total: How many there were since then, those of this mail included.
        mails: How many mails have told of it since then; 0: this is the first.
        over: It has stopped, as far as can be seen.
        shares: What each of `records` adds to `counts`: itself, and those held as a number alone behind it, which go
            wherever it goes; a notice of offloop's own adds nothing. Empty: each adds itself.
    """

    kind: str
    records: tuple[Record, ...]
    counts: Mapping[int, int]
    first: float
    last: float
    rate: tuple[int, ...] = ()
    preceding: tuple[Record, ...] = ()
    since: float
    total: int
    mails: int = 0
    over: bool = False
    shares: tuple[Mapping[int, int], ...] = ()

    @property
    def count(self) -> int:
        """How many there are since the last mail; 0 for one that only is over."""
        return sum(self.counts.values())

    @property
    def levelno(self) -> int:
        """The highest level in it."""
        return max(self.counts, default=self.records[0].levelno if self.records else logging.NOTSET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """This is the last mail for now.

    Attributes:
        mails: So many are allowed,
        per: in any "hour" or "day".
        until: When the next one may go, in seconds since the epoch.
    """

    mails: int
    per: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a mail is to tell; the same in all attempts.

    Attributes:
        groups: 1 or more; the most severe first, new ones before those that go on, each record of the batch in one.
        cap: This is the last mail for now. None: it is not.
        held_since: When the cap began to hold back what this mail tells. None: it did not.
        closing: The sink is being stopped: it is the last mail, whatever the schedule says.
    """

    groups: tuple[Group, ...]
    cap: Cap | None = None
    held_since: float | None = None
    closing: bool = False

    @property
    def count(self) -> int:
        """How many records it tells of."""
        return sum(group.count for group in self.groups)

    def part(self, records: Sequence[Record]) -> Gathered:
        """Some of the records, with what is held as a number alone behind them."""
        kept = set(map(id, records))
        groups = [_part(group, [id(record) in kept for record in group.records]) for group in self.groups]
        return replace(self, groups=tuple(group for group in groups if group.records))


def _part(group: Group, kept: Sequence[bool]) -> Group:
    if all(kept):
        return group
    records = tuple(compress(group.records, kept))
    shares = tuple(compress(group.shares or [{record.levelno: 1} for record in group.records], kept))
    counts: Counter[int] = Counter()
    for share in shares:
        counts.update(share)
    return replace(group, records=records, shares=shares, counts=dict(counts))
