"""How a sink batches, retries and buffers: frozen values, checked when they are made."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from offloop.errors import ConfigError

__all__ = ["Batching", "Buffer", "Overflow", "Retry", "at_least", "one_of", "whole"]

Overflow = Literal["drop_new", "drop_old"]

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
class Buffer:
    """How much a sink may hold while its destination is slow or away.

    Attributes:
        max_records: At most so many records, those being sent included.
        max_bytes: At most so many bytes of records, estimated.
        overflow: `"drop_old"` evicts the oldest (never ERROR or above for a record of less), `"drop_new"` refuses the
            newest. Both are counted as dropped (`overflow`).
    """

    max_records: int = 10_000
    max_bytes: int = 64 * _MiB
    overflow: Overflow = "drop_old"

    def __post_init__(self) -> None:
        whole("Buffer.", "max_records", self.max_records, "record")
        whole("Buffer.", "max_bytes", self.max_bytes, "byte")
        one_of("Buffer.", "overflow", self.overflow, get_args(Overflow))
