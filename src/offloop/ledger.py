"""The counts that must balance: for the intake and for each sink, at every moment.

`offered + recovered = delivered + diverted + filtered + dropped + dead_lettered + spooled + printed + pending`, where
`pending` is the length of real containers. A `Ledger` is written by one thread (the event loop's) and read by any: the
writer brackets what must be seen together, the reader looks again until nothing moved. No lock, so the loop never waits
for a reader.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["Counts", "Dropped", "Ledger", "Report", "Stats", "steadily", "tabulate"]

_T = TypeVar("_T")
Dropped = Mapping[str, Mapping[str, int]]
_Numbers = tuple[int, int, int, int, int, int, int, int, int]

# A reader that interrupted the writer on its own thread (a signal handler) can't wait for it to finish.
_LOOKS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """One snapshot of a ledger; counts of records, each record in exactly one place.

    Attributes:
        offered: Records that reached this stage, `notices` among them.
        notices: Of the records offered to a sink, how many were offloop's own notices of what it lost (logger
            `offloop.loss`); each is settled as any other. `offered - notices` is what the intake delivered to it.
        recovered: Found in a spool: what an earlier process, or one that died, had left there.
        delivered: The destination took them (for the intake: the listener did).
        diverted: Handed over to the sink's fallback, whose own counts say what became of them.
        filtered: Turned away by a level or a filter of this stage.
        dropped: Lost, by reason (`overflow`, `shed`, `expired`, `rejected`, `shutdown`, `own`, `corrupt`), then level
            name.
        dead_lettered: Refused by the destination and handed over to its dead-letter sink, which counts them as offered.
        spooled: On disk, and not yet delivered.
        printed: Written to stderr as the last resort.
        pending: In memory only, on the way.
        state: What a sink is doing: `idle`, `connected`, `retrying`, `failing`, `open` (its breaker is: nothing is
            tried before the next probe), `probing` or `stopped`; for the intake `idle` or `running`.
        error: The last failure of a sink in words, or `spool: ` and that of its spool; None if all goes well.
    """

    offered: int = 0
    recovered: int = 0
    delivered: int = 0
    diverted: int = 0
    filtered: int = 0
    dropped: Dropped = field(default_factory=dict[str, Mapping[str, int]])
    dead_lettered: int = 0
    spooled: int = 0
    printed: int = 0
    pending: int = 0
    state: str = "idle"
    error: str | None = None
    notices: int = 0

    @property
    def lost(self) -> int:
        """All that was dropped, whatever the reason."""
        return sum(sum(levels.values()) for levels in self.dropped.values())

    @property
    def balanced(self) -> bool:
        """Whether every record offered is accounted for."""
        settled = self.delivered + self.diverted + self.filtered + self.lost
        kept = self.dead_lettered + self.spooled + self.printed + self.pending
        return self.offered + self.recovered == settled + kept


@dataclass(frozen=True, slots=True)
class Stats:
    """A frozen snapshot of a pipeline: the intake's counts and each sink's, by the sink's name."""

    intake: Counts
    sinks: Mapping[str, Counts]

    @property
    def balanced(self) -> bool:
        """Whether the intake and every sink balance."""
        return self.intake.balanced and all(counts.balanced for counts in self.sinks.values())


@dataclass(frozen=True, slots=True)
class Report(Stats):
    """What `flush` and `stop` return: the counts when they ended, and whether they got everything done.

    Attributes:
        complete: Everything offered before the call was settled within the deadline.
        elapsed: Seconds it took.
    """

    complete: bool = True
    elapsed: float = 0.0


def tabulate(drops: Iterable[tuple[tuple[str, int], int]]) -> Dropped:
    """Counts by (reason, level number) as reason -> level name -> count."""
    table: dict[str, dict[str, int]] = {}
    for (reason, levelno), count in drops:
        levels = table.setdefault(reason, {})
        name = logging.getLevelName(levelno)
        levels[name] = levels.get(name, 0) + count
    return table


class Ledger:
    """One sink's counts, written on the event loop's thread only.

    The writer wraps each set of changes that must be seen together in `begin` and `end`, and runs no foreign code
    between them.
    """

    __slots__ = (
        "_before",
        "_drops",
        "_pending",
        "_version",
        "dead_lettered",
        "delivered",
        "diverted",
        "error",
        "filtered",
        "notices",
        "offered",
        "printed",
        "recovered",
        "spooled",
        "state",
    )

    def __init__(self, pending: Callable[[], int]) -> None:
        """Start at zero.

        Args:
            pending: Gives the length of the containers that hold this stage's records.
        """
        self._pending = pending
        self._version = 0
        self._drops: dict[tuple[str, int], int] = {}
        self.offered = 0
        self.notices = 0
        self.recovered = 0
        self.spooled = 0
        self.delivered = 0
        self.diverted = 0
        self.filtered = 0
        self.dead_lettered = 0
        self.printed = 0
        self.state = "idle"
        self.error: str | None = None
        self._before = self._raw()

    def begin(self) -> None:
        """Open a set of changes."""
        self._before = self._raw()
        self._version += 1

    def end(self) -> None:
        """Close the set: the counts balance again."""
        self._version += 1

    def drop(self, reason: str, levelno: int, count: int = 1) -> None:
        """Count records as lost."""
        key = (reason, levelno)
        self._drops[key] = self._drops.get(key, 0) + count

    def counts(self) -> Counts:
        """A snapshot that balances, from any thread."""
        # A signal handler may have interrupted the writer amid a set of changes: it sees what was before them.
        counts, drops, pending = steadily(lambda: self._version, self._raw, lambda: self._before)
        offered, notices, recovered, spooled, delivered, diverted, filtered, dead_lettered, printed = counts
        return Counts(
            offered=offered,
            notices=notices,
            recovered=recovered,
            spooled=spooled,
            delivered=delivered,
            diverted=diverted,
            filtered=filtered,
            dropped=tabulate(drops.items()),
            dead_lettered=dead_lettered,
            printed=printed,
            pending=pending,
            state=self.state,
            error=self.error,
        )

    def _raw(self) -> tuple[_Numbers, dict[tuple[str, int], int], int]:
        counts = (
            self.offered,
            self.notices,
            self.recovered,
            self.spooled,
            self.delivered,
            self.diverted,
            self.filtered,
            self.dead_lettered,
            self.printed,
        )
        return counts, self._drops.copy(), self._pending()


def steadily(version: Callable[[], int], read: Callable[[], _T], otherwise: Callable[[], _T]) -> _T:
    """Read while nothing moves: an even version, and the same one before and after; if it never rests, `otherwise`."""
    for _ in range(_LOOKS):
        before = version()
        if not before & 1:
            counts = read()
            if version() == before:
                return counts
        time.sleep(0)
    return otherwise()
