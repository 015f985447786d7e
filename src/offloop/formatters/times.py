"""When a record was made, as text."""

from __future__ import annotations

import math
import time

from offloop.capture import text_of

__all__ = ["iso_time"]

# The second rendered last, as one tuple: threads replace it whole.
_last = (0, "1970-01-01T00:00:00.")


def iso_time(created: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with microseconds and `Z`; what is no time as its text.

    Records come many to a second, so the text of a second is kept.
    """
    global _last  # noqa: PLW0603 - a cache
    second, text = _last
    try:
        micros = round((created - second) * 1e6)
        if not 0 <= micros < 1_000_000:  # noqa: PLR2004 - a second
            second = math.floor(created)
            micros = round((created - second) * 1e6)
            if micros == 1_000_000:  # noqa: PLR2004 - rounded up into the next second
                second, micros = second + 1, 0
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            _last = (second, text)
    except (TypeError, ValueError, OverflowError, OSError):
        return text_of(created)
    # Quicker than a format with leading zeros.
    return text + str(1_000_000 + micros)[1:] + "Z"
