"""Records that are held as a number alone, and how many came when. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Fold", "Rate", "rate_of"]

_PARTS = 24  # of the time in which the rate is counted


@dataclass(slots=True)
class Rate:
    """How many there were in each of some equal parts of a time that grows."""

    begin: float = 0.0
    width: float = 1.0
    counts: list[int] = field(default_factory=lambda: [0] * _PARTS)

    def add(self, moment: float, count: int = 1) -> None:
        """Count some; the first sets the begin."""
        if not any(self.counts):
            self.begin = moment
        # Records of several threads may be a little out of order, and a clock may be set back.
        index = max(0, int((moment - self.begin) / self.width))
        while index >= _PARTS:
            halves = [a + b for a, b in zip(self.counts[::2], self.counts[1::2], strict=True)]
            self.counts = halves + [0] * (_PARTS - len(halves))
            self.width *= 2
            index = int((moment - self.begin) / self.width)
        self.counts[index] += count

    def join(self, other: Rate) -> None:
        """Count what another does, as well as its parts can tell; it began no earlier."""
        for index, count in enumerate(other.counts):
            if count:
                self.add(other.begin + index * other.width, count)

    def trimmed(self) -> tuple[int, ...]:
        """The counts up to the last part in which there was any."""
        return tuple(self.counts[: max((index + 1 for index, count in enumerate(self.counts) if count), default=0)])


@dataclass(slots=True)
class Fold:
    """Records that are held as a number alone.

    Attributes:
        counts: How many, by level number.
        last: When the last of them was logged, in seconds since the epoch.
        rate: How many were logged when.
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


def rate_of(moments: Iterable[float], folds: Iterable[Fold]) -> Rate:
    """How many there were when, of these and of what is folded away."""
    rate = Rate()
    for moment in sorted(moments):
        rate.add(moment)
    for fold in sorted(folds, key=lambda fold: fold.rate.begin):
        rate.join(fold.rate)
    return rate
