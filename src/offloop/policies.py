"""How a sink batches, retries, pauses and buffers: frozen values, checked when they are made."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from offloop.errors import ConfigError

__all__ = [
    "Batching",
    "Breaker",
    "Buffer",
    "Overflow",
    "QueueOverflow",
    "Retry",
    "at_least",
    "level_number",
    "one_of",
    "share",
    "whole",
]

Overflow = Literal["drop_new", "drop_old"]
QueueOverflow = Literal["drop_new", "drop_old", "wait"]

_MiB = 1024 * 1024


def at_least(owner: str, name: str, value: float, limit: float, unit: str) -> None:
    """Refuse a number below its limit.

    Raises:
        ConfigError: With the value and the limit.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= limit:
        msg = f"{owner}{name} must be at least {limit:g} {unit}, got {value!r}"
        raise ConfigError(msg)


def whole(owner: str, name: str, value: float, unit: str) -> None:
    """Refuse what is no whole number of at least one.

    Raises:
        ConfigError: With the value.
    """
    at_least(owner, name, value, 1, unit)
    if not isinstance(value, int):
        msg = f"{owner}{name} must be a whole number, got {value!r}"
        raise ConfigError(msg)


def level_number(owner: str, name: str, level: object) -> int:
    """A level, by its name or number, as a number.

    Raises:
        ConfigError: It is neither.
    """
    number: object = logging.getLevelName(level) if isinstance(level, str) else level
    if isinstance(number, bool) or not isinstance(number, int):
        msg = f"{owner}{name} must be a level's name or number, got {level!r}"
        raise ConfigError(msg)
    return number


def share(owner: str, name: str, value: float) -> None:
    """Refuse what is no share of a whole.

    Raises:
        ConfigError: With the value and the limits.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        msg = f"{owner}{name} must be a share from 0 to 1, got {value!r}"
        raise ConfigError(msg)


def one_of(owner: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among the choices.

    Raises:
        ConfigError: With the value and the choices.
    """
    if value not in choices:
        msg = f"{owner}{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class Batching:
    """When a batch is full.

    Attributes:
        max_records: At most so many records.
        max_bytes: At most so many encoded bytes; a single record that is larger goes alone.
        max_wait: Seconds to wait for more before a batch that is not full is sent. 0: at once; what gathers while it is
            being sent is the next batch.
    """

    max_records: int = 500
    max_bytes: int = _MiB
    max_wait: float = 0.0

    def __post_init__(self) -> None:
        whole("Batching.", "max_records", self.max_records, "record")
        whole("Batching.", "max_bytes", self.max_bytes, "byte")
        at_least("Batching.", "max_wait", self.max_wait, 0, "seconds")


@dataclass(frozen=True, slots=True)
class Retry:
    """When a batch that failed is sent again: exponential backoff with full jitter.

    Attributes:
        initial: Upper bound of the first delay in seconds; it doubles with each failure.
        maximum: Seconds the bound never exceeds.
        give_up_after: Seconds after its first attempt at which a batch is counted as dropped (`expired`). None: never;
            the buffer's overflow decides what is kept.
    """

    initial: float = 0.5
    maximum: float = 30.0
    give_up_after: float | None = None

    def __post_init__(self) -> None:
        at_least("Retry.", "initial", self.initial, 0, "seconds")
        at_least("Retry.", "maximum", self.maximum, self.initial, "seconds (initial)")
        if self.give_up_after is not None:
            at_least("Retry.", "give_up_after", self.give_up_after, 0, "seconds")

    def delay(self, failures: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many failures in a row (1 or more).

        Args:
            failures: Attempts that failed since the last delivery.
            draw: Gives a number from 0 up to, but not including, 1.
        """
        # 2.0 ** 1024 overflows; long before it the maximum decides.
        bound = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 60))
        return bound * draw()


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a sink is left alone for a while: the breaker opens, and what comes waits, or goes to the fallback.

    While it is open nothing is tried before the next probe, which is an attempt with what waits or comes next. Only a
    batch that is delivered closes it.

    Attributes:
        failures: After so many failed attempts in a row it opens; after a `SinkFailure` at once.
        probe: Seconds from a failure to the next probe; longer if the destination asks for it (`retry_after`), or if
            the backoff says so. None: the backoff alone decides, and after a `SinkFailure` it is its longest pause
            (`Retry.maximum`). The end of a shutdown may shorten it.
    """

    failures: int = 5
    probe: float | None = None

    def __post_init__(self) -> None:
        whole("Breaker.", "failures", self.failures, "failure")
        if self.probe is not None:
            at_least("Breaker.", "probe", self.probe, 0, "seconds")


@dataclass(frozen=True, slots=True)
class Buffer:
    """How much a sink may hold while its destination is slow or away, and what gives way first as it fills.

    Overflow is graduated. From `shed_at` on, records below `shed_below` are refused (counted as `shed`); the last
    `reserve` is kept for ERROR and above; a record that does not fit within that meets `overflow`. Shares are rounded
    to whole records in favour of who comes: of fewer than 10 records nothing is kept in reserve by default, and fewer
    than 5 shed nothing. Of 10, the ninth place is for WARNING and above and the tenth for ERROR and above.

    Attributes:
        max_records: At most so many records, those being sent included.
        max_bytes: At most so many bytes of records, estimated. A single record of more is refused, and one below ERROR
            that would need the reserve.
        overflow: `"drop_old"` evicts the oldest below ERROR, or for a record of ERROR and above, where there are only
            such, the oldest; `"drop_new"` refuses the newest. Both are counted as dropped (`overflow`).
        shed_below: The level below which records are shed, at most ERROR; 0: none are, and `"drop_old"` keeps the
            newest of them.
        shed_at: From this share on, of the records or of the bytes, whichever is reached first. 1: none are shed.
        reserve: The share, of both, that only ERROR and above may fill.
    """

    max_records: int = 10_000
    max_bytes: int = 64 * _MiB
    overflow: Overflow = "drop_old"
    shed_below: int = logging.WARNING
    shed_at: float = 0.8
    reserve: float = 0.1

    def __post_init__(self) -> None:
        whole("Buffer.", "max_records", self.max_records, "record")
        whole("Buffer.", "max_bytes", self.max_bytes, "byte")
        one_of("Buffer.", "overflow", self.overflow, get_args(Overflow))
        at_least("Buffer.", "shed_below", self.shed_below, 0, "(a level number)")
        if self.shed_below > logging.ERROR:
            msg = f"Buffer.shed_below must be at most ERROR (40), which has the reserve, got {self.shed_below!r}"
            raise ConfigError(msg)
        share("Buffer.", "shed_at", self.shed_at)
        share("Buffer.", "reserve", self.reserve)
