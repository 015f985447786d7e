"""When a record was made, as text."""

from __future__ import annotations

import math
import time

from offloop.capture import text_of

__all__ = ["iso_bytes", "iso_time"]

# The second rendered last, as one tuple: threads replace it whole.
_last = (0, b"1970-01-01T00:00:00.")
_THREE = tuple(b"%03d" % number for number in range(1000))


def iso_time(created: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with microseconds and `Z`; what is no time as its text."""
    try:
        return iso_bytes(created).decode()
    except (TypeError, ValueError, OverflowError, OSError):
        return text_of(created)


def iso_bytes(created: float) -> bytes:
    """As `iso_time`, in ASCII.

    Records come many to a second, so the text of a second is kept.

    Raises:
        TypeError, ValueError, OverflowError, OSError: It is no time, or none that has a date.
    """
    global _last  # noqa: PLW0603 - a cache
    second, text = _last
    micros = int((created - second) * 1e6 + 0.5)
    if not 0 <= micros < 1_000_000:  # noqa: PLR2004 - a second
        second = math.floor(created)
        micros = int((created - second) * 1e6 + 0.5)
        if micros == 1_000_000:  # noqa: PLR2004 - rounded up into the next second
            second, micros = second + 1, 0
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        _last = (second, text)
    # Two looks into a table are quicker than a format with leading zeros.
    return b"".join((text, _THREE[micros // 1000], _THREE[micros % 1000], b"Z"))
