"""When a record was made, as text."""

from __future__ import annotations

import math
import time

from offloop.capture import text_of

__all__ = ["FIRST", "THREE", "Second", "iso_time", "second_of"]

THREE = tuple(b"%03d" % number for number in range(1000))
"""What these are with leading zeros. Two looks into a table are quicker than a format."""

Second = tuple[int, bytes]
"""A second since the epoch, and its text up to the microseconds."""

FIRST: Second = (0, b"1970-01-01T00:00:00.")

# The one rendered last, as one tuple: threads replace it whole. Records come many to a second.
_last = FIRST


def iso_time(created: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with microseconds and `Z`; what is no time as its text."""
    global _last  # noqa: PLW0603 - a cache
    last = _last
    try:
        micros = round((created - last[0]) * 1e6)
        if not 0 <= micros < 1_000_000:  # noqa: PLR2004 - a second
            last, micros = second_of(created)
            _last = last
        return b"".join((last[1], THREE[micros // 1000], THREE[micros % 1000], b"Z")).decode()
    except (TypeError, ValueError, OverflowError, OSError):
        return text_of(created)


def second_of(created: float) -> tuple[Second, int]:
    """The second in which a time lies, and the microseconds in it, rounded.

    Raises:
        TypeError, ValueError, OverflowError, OSError: It is no time, or none that has a date.
    """
    second = math.floor(created)
    micros = round((created - second) * 1e6)
    if micros == 1_000_000:  # noqa: PLR2004 - rounded up into the next second
        second, micros = second + 1, 0
    return (second, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()), micros
