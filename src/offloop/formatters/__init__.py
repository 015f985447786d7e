"""Records as text and bytes. Pure: no I/O, no event loop, and no record is changed.

Any `logging.Formatter` works in a sink; these two also give bytes at once (`encode`), and two of them with the same
configuration are equal, so that sinks share one encoding of a record.
"""

from __future__ import annotations

from offloop.formatters.json import JSONFormatter
from offloop.formatters.text import TextFormatter

__all__ = ["JSONFormatter", "TextFormatter"]
